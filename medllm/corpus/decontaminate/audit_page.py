"""The audit as one HTML page without scripts: totals, verdicts, and every shown match marked in its text."""

from pathlib import Path

import jinja2

from medllm.corpus.decontaminate.report import SHOWN, AuditReport
from medllm.files import write_text


def write_page(report: AuditReport, title: str, path: Path) -> None:
    """Write the page to a temporary file and move it into place, so that no reader sees half a page."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    items = report.as_dict()["items"][:SHOWN]
    page = environment.from_string(Path(__file__).with_suffix(".html").read_text("utf-8")).render(
        title=title, report=report, totals=report.totals(), items=items, shown=SHOWN
    )
    write_text(path, page, "replace")
