"""Start the page: read the results, build it, serve it; an error becomes a panel, so the address always answers."""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr

from medllm.errors import MedllmError
from medllm.page.live import Live, open_live

MOST_SESSIONS = 1_000
"""Number of latest readers whose lists Gradio remembers."""


@dataclass(frozen=True)
class PageSettings:
    """Settings of the page's server."""

    results: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    open_browser: bool = False
    live: str | Live | None = None
    """The live models: opened already, or as JSON or a file of it; None leaves them to MEDLLM_LIVE."""
    votes: Path | None = None
    """The folder of the votes' journal; None leaves it to the environment."""
    sign_in: bool = field(default_factory=lambda: os.environ.get("MEDLLM_SIGN_IN", "") in ("1", "true", "yes"))
    """Whether raters sign in with a Hugging Face account; off unless MEDLLM_SIGN_IN is 1."""
    hosts: tuple[str, ...] = ()
    """Further names that the page answers to, besides loopback and the host; MEDLLM_HOSTS adds names."""


def free_port() -> int:
    """Return an unused port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def check_port(host: str, port: int | None) -> None:
    """Refuse the port if another program listens on the port; None, a free choice, is always fine."""
    if port is None:
        return
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does: a port just left is free
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as fault:
            reason = getattr(fault, "strerror", None) or str(fault)
            raise MedllmError(
                "page.port-taken",
                f"{host}:{port}: the page cannot be served there ({reason}). Stop what listens there, or give "
                "another port: --port 0 takes a free one.",
            ) from fault


def check_sign_in() -> None:
    """Refuse sign-in where it cannot work: on a Space without its keys, elsewhere without an account to try it."""
    from gradio import oauth

    missing = [name for name in ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET") if not os.environ.get(name)]
    if "SPACE_ID" in os.environ and missing:
        cause = f"this Space has no {' and no '.join(missing)}. Write `hf_oauth: true` into its card"
    elif "SPACE_ID" not in os.environ and oauth.get_token() is None:
        cause = "here no Hugging Face account is signed in to try it with. Run `hf auth login`"
    else:
        return
    raise MedllmError("page.no-account", f"MEDLLM_SIGN_IN: {cause}, or leave the variable out.")


def serve(settings: PageSettings, *, block: bool = True) -> tuple[str, Callable[[], None]]:
    """Serve the page; return its address and a function to close it (at once if not blocking)."""
    check_port(settings.host, settings.port)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from starlette.middleware import Middleware

    from medllm.page.components import I18N
    from medllm.page.middleware import Frame, hosts_of
    from medllm.page.request_filter import RequestFilter

    if settings.sign_in:
        check_sign_in()
    stack = ExitStack()
    demo, routes = _build(settings, stack)
    hosts = hosts_of(settings.host, settings.hosts)
    demo.queue(default_concurrency_limit=8, max_size=256)
    sys.stderr.write(f"medllm: opening the page at http://{settings.host}:{settings.port or 7860}\n")
    _, address, _ = demo.launch(
        server_name=settings.host,
        server_port=settings.port,
        inbrowser=settings.open_browser,
        prevent_thread_lock=not block,
        theme=theme(),
        css=_css(),
        i18n=I18N,
        footer_links=["gradio"],
        ssr_mode=False,
        quiet=True,
        max_threads=200,
        run_history=False,
        show_error=False,
        share=False,
        state_session_capacity=MOST_SESSIONS,
        max_file_size=0,
        app_kwargs={
            "middleware": [Middleware(RequestFilter, hosts, lambda: demo, sign_in=settings.sign_in), Middleware(Frame)],
            "routes": routes,
        },
    )
    stack.callback(close, demo)
    return address, stack.close


def close(demo: Any) -> None:  # noqa: ANN401  a gr.Blocks that was launched
    """End a page's server.

    Gradio sets an event that streams in the server's own thread wait for, and fails when one of them goes meanwhile.
    """
    with suppress(RuntimeError):
        demo.close()
        return
    demo.server.close()


def _build(settings: PageSettings, stack: ExitStack) -> tuple[Any, list[Any]]:
    from medllm.page.context import PageContext, Shelf
    from medllm.page.layout import page_of, page_of_fault
    from medllm.page.loading import load
    from medllm.page.review_form import review_routes
    from medllm.page.routes import routes
    from medllm.page.vote_box import open_vote_box

    try:
        results = load(settings.results)
        live = settings.live if isinstance(settings.live, Live) else open_live(settings.live)
        live = live and live.asking_like(results)
        ballot = open_vote_box(results, settings.votes, stack)
    except MedllmError as fault:
        sys.stderr.write(f"medllm: {fault} The page shows this too.\n")
        return page_of_fault(fault), []
    page = PageContext(results, Shelf(results), live, ballot, settings.sign_in and ballot is not None)
    return page_of(page), [*routes(page), *(review_routes(page, page.ballot) if page.ballot else [])]


def _css() -> str:
    from importlib import resources

    return resources.files("medllm.page").joinpath("style.css").read_text(encoding="utf-8")


FONT = ("system-ui", "Hiragino Sans", "Yu Gothic UI", "Meiryo", "Noto Sans CJK JP", "sans-serif")
"""Fonts of the reader's own machine: a web font for Japanese would weigh megabytes."""


def theme() -> gr.themes.Base:
    """Return the base theme with its failing contrasts corrected; Japanese in tables and code keeps its own font."""
    return gr.themes.Base(
        primary_hue="teal",
        neutral_hue="slate",
        font=list(FONT),
        font_mono=["ui-monospace", "Menlo", "Consolas", *FONT],
    ).set(
        button_primary_background_fill="*primary_800",
        button_primary_background_fill_hover="*primary_900",
        button_primary_background_fill_dark="*primary_800",
        button_primary_text_color="white",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
    )
