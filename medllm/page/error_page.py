"""An error as a panel with its remedy, in both languages; never a traceback, never a blank page."""

from medllm.errors import DataError
from medllm.page.html import both, safe, word


class ResultsError(DataError):
    """Results that cannot be shown; the code selects the sentences of words.yaml, the values fill them."""

    def __init__(self, code: str, **values: object) -> None:
        self.values = values
        cause, remedy = sentence_keys(code)
        super().__init__(code, f"{word(cause, 'en', **values)} {word(remedy, 'en', **values)}")


def sentence_keys(code: str) -> tuple[str, str]:
    """Return the keys in words.yaml of the cause and the remedy: `page.not-found` has `fault_not_found`."""
    key = "fault_" + code.removeprefix("page.").replace("-", "_")
    return key, f"{key}_mend"


def fault_panel(fault: Exception) -> str:
    """Return the panel that explains an error and its remedy."""
    if isinstance(fault, ResultsError):
        cause, remedy = (both(key, **fault.values) for key in sentence_keys(fault.code))
        body = f"<p>{cause}</p><p><b>{both('fault_mend')}</b>: {remedy}</p>"
    else:
        body = f'<p lang="en">{safe(fault)}</p>'
    return f'<section class="card panel" role="alert"><h2>{both("fault_title")}</h2>{body}</section>'


def notice(key: str, **values: object) -> str:
    """Return a short remark for the top of the page's content."""
    return f'<p class="card panel" role="status">{both(key, **values)}</p>'
