"""About: method, revisions, intervals, limits, citation and API, in sentences for every reader."""

from medllm.page.context import PageContext
from medllm.page.html import both, safe

POINTS = ("method", "prompts_used", "intervals_used", "states_used", "limits", "privacy_used", "citation")


def about(page: PageContext) -> str:
    """Return the whole tab as HTML."""
    parts = "".join(f"<h2>{both(f'about_{name}')}</h2><p>{both(f'about_{name}_text')}</p>" for name in POINTS)
    return (
        f'<section class="card about">{parts}<h2>{both("about_revisions")}</h2>{_revisions(page)}'
        f"<h2>API</h2><p>{both('about_api')}</p>{_example()}</section>"
    )


def _revisions(page: PageContext) -> str:
    origin = page.results.origin
    told = [
        f"{both('source')}: <code>{safe(origin.name)}{safe(f'@{origin.revision}') if origin.revision else ''}</code>"
    ]
    told += [
        f"{both('model')} <b>{safe(model)}</b>: <code>{safe(note)}</code>"
        for model, note in page.notes().items()
        if note
    ]
    if page.live is not None:
        told.append(f"{both('live')}: <code>{safe(page.live.name)}</code>")
    return "<ul>" + "".join(f"<li>{line}</li>" for line in told) + "</ul>"


def _example() -> str:
    code = 'from gradio_client import Client\nprint(Client("ADDRESS").predict(api_name="/scores"))'
    return f'<pre tabindex="0"><code lang="en">{safe(code)}</code></pre>'
