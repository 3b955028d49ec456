"""An error as a panel with its remedy, in both languages; never a traceback, never a blank page."""

from medllm.errors import DataError
from medllm.page.html import both, safe, word


class SourceFault(DataError):
    """Results that cannot be shown; `kind` selects the sentences, the values fill them."""

    def __init__(self, kind: str, **values: object) -> None:
        self.kind, self.values = kind, values
        super().__init__(f"{word(f'fault_{kind}', 'en', **values)} {word(f'fault_{kind}_mend', 'en', **values)}")


def fault_panel(fault: Exception) -> str:
    """Return the panel that explains an error and its remedy."""
    if isinstance(fault, SourceFault):
        what, mend = both(f"fault_{fault.kind}", **fault.values), both(f"fault_{fault.kind}_mend", **fault.values)
        body = f"<p>{what}</p><p><b>{both('fault_mend')}</b>: {mend}</p>"
    else:
        body = f'<p lang="en">{safe(fault)}</p>'
    return f'<section class="card panel" role="alert"><h2>{both("fault_title")}</h2>{body}</section>'


def notice(key: str, **values: object) -> str:
    """Return a short remark for the top of the page's content."""
    return f'<p class="card panel" role="status">{both(key, **values)}</p>'
