"""The program itself, which the commands register on."""

import logging
import os

import typer
import typer.core

ORDER = (
    "quickstart",
    "check",
    "run",
    "ablate",
    "status",
    "trace",
    "ask",
    "score",
    "stability",
    "audit",
    "merge",
    "hub",
    "app",
)
"""The commands as a reader meets them: before a run, the run, its results, then single tools."""


class InOrder(typer.core.TyperGroup):
    """Lists the commands in that order, not in the order of the alphabet of their files."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Name the commands; one that the order does not know comes last, and a test says so."""
        return sorted(super().list_commands(ctx), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    cls=InOrder,
    name="medllm",
    help="Continued pretraining and reasoning preference optimization for medical LLMs, on the Hugging Face Hub.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def medllm() -> None:
    """Make a medical language model, keep it stable when it explains itself, and measure both."""
    # No library tells anybody what is done here; who wants that says so.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # bitsandbytes tells whoever imports PEFT that it lacks a kernel for 4-bit products on CPUs, which we switch off.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # Libraries read these once, when they are imported; their bars would fight with our line, and fill a log.
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
