"""What the library's functions return: tables that print, show themselves in a notebook, and become dataframes."""

import html
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medllm.errors import MissingExtraError
from medllm.exam.record import COLUMNS, Record, write_records

if TYPE_CHECKING:
    import pandas as pd

    from medllm.corpus.decontaminate.audit import AuditReport
    from medllm.exam.scoring import Score
    from medllm.exam.stability.report import StabilityReport


class Table:
    """A result with rows: text for people, HTML in a notebook, a dataframe for all else."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows, each a dictionary of plain values."""
        raise NotImplementedError

    def to_pandas(self) -> "pd.DataFrame":
        """Return the rows as a pandas dataframe.

        Raises:
            MissingExtraError: pandas is not installed; the extra `notebook` has it.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as fault:
            raise MissingExtraError("notebook", "to_pandas") from fault
        return pd.DataFrame(self.rows())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


@dataclass(frozen=True, repr=False)
class Results(Table):
    """Graded replies of any number of models to any number of exams: a row each."""

    records: list[Record]
    folder: Path | None = None
    """Where they are, which `medllm app FOLDER` shows; None for replies that were graded just now."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the columns of the records schema (docs/evaluation.md) for each reply."""
        return [{name: getattr(record, name) for name in COLUMNS} for record in self.records]

    def stability(self, *, margin: float | None = None) -> "Stability":
        """Report what explaining does to each model; `margin` is a loss in points of 100 that would not matter."""
        from medllm.exam.stability.report import stability_report

        return Stability(stability_report(self.records), margin)

    def compare(self) -> "Comparisons":
        """Compare every two models on the questions that both answered."""
        return Comparisons(self.stability().report)

    def save(self, path: str | Path) -> None:
        """Write the records as parquet, or as JSON lines where the name ends in `.jsonl`."""
        write_records(self.records, Path(path))

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        models = ", ".join(dict.fromkeys(record.model for record in self.records))
        exams = ", ".join(dict.fromkeys(record.benchmark for record in self.records))
        return f"{len(self):,} replies of {models} to {exams}"


@dataclass(frozen=True, repr=False)
class Scores(Table):
    """The scores of systems on an exam, each compared with the first, or with the one that was named."""

    scores: "list[Score]"

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each system: its score, and its paired difference (`minus_`) with McNemar's p and Holm's."""
        return [_score_row(score) for score in self.scores]

    def __str__(self) -> str:
        from medllm.exam.score_report import table_lines

        return "\n".join(table_lines(self.scores))


def _score_row(score: "Score") -> dict[str, Any]:
    ends, difference = score.score.interval, score.difference
    minus = difference.estimate.interval if difference else None
    return {
        "model": score.model,
        "prompt": score.prompt,
        "exam": score.benchmark,
        "score": score.score.value,
        "low": ends.low if ends else None,
        "high": ends.high if ends else None,
        "points": score.whole.points,
        "points_total": score.whole.total,
        "correct": score.whole.correct,
        "questions": score.whole.count,
        "unparsed": score.whole.unparsed,
        "scope": score.scope,
        "trial": score.trial,
        "minus": difference.estimate.value if difference else None,
        "minus_low": minus.low if minus else None,
        "minus_high": minus.high if minus else None,
        "minus_model": difference.against if difference else None,
        "p": difference.p if difference else None,
        "p_holm": difference.p_holm if difference else None,
    }


@dataclass(frozen=True, repr=False)
class Stability(Table):
    """What explaining does to each model on each exam."""

    report: "StabilityReport"
    margin: float | None = None
    """A loss in points of 100 that would not matter; the text then states what the intervals show about it."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each model and exam: both scores, `delta` with its paired interval, `lost` and `gained`."""
        from medllm.exam.stability.report import score_table

        rows = []
        for row in score_table(self.report):
            change = row.change
            counts = {"lost": change.lost, "gained": change.gained} if change else {"lost": None, "gained": None}
            rows.append({**row.as_facts(), **counts, "retention": change.retention if change else None})
        return rows

    @cached_property
    def comparisons(self) -> "Comparisons":
        """Every two models on the questions that both answered."""
        return Comparisons(self.report)

    def figure(self, *, language: Literal["en", "ja"] = "en") -> "Figure":
        """Draw one line per model from plain to explained; a notebook shows it."""
        return Figure(self.report, language)

    def __str__(self) -> str:
        from medllm.exam.stability.text import report_lines

        return "\n".join(report_lines(self.report, None if self.margin is None else self.margin / 100))


@dataclass(frozen=True, repr=False)
class Comparisons(Table):
    """Every two models of one exam under one prompt, on the questions that both answered."""

    report: "StabilityReport"

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each pair: `difference` is the second minus the first, with its paired interval."""
        rows = []
        for comparison in self.report.comparisons:
            row = asdict(comparison)
            ends = comparison.difference.interval
            row |= {"difference": comparison.difference.value}
            rows.append({**row, "low": ends.low if ends else None, "high": ends.high if ends else None})
        return rows

    def __str__(self) -> str:
        from medllm.exam.stability.text import comparison_lines

        return "\n".join(comparison_lines(self.report)) or "there is one model only"


@dataclass(frozen=True)
class Figure:
    """The figure of a stability report; the last value of a notebook's cell is shown."""

    report: "StabilityReport"
    language: Literal["en", "ja"] = "en"

    def save(self, path: str | Path) -> None:
        """Write it to a `.svg`, `.png` or `.pdf` file."""
        from medllm.exam.stability.plot import draw_stability

        draw_stability(self.report, Path(path), language=self.language)

    def _repr_png_(self) -> bytes:
        from medllm.exam.stability.plot import render_stability

        return render_stability(self.report, "png", language=self.language)


@dataclass(frozen=True, repr=False)
class Audit(Table):
    """Which exam questions occur in texts."""

    report: "AuditReport"

    @property
    def leaked(self) -> bool:
        """Whether some text holds an exam question; what a person has to review has not leaked yet."""
        return self.report.leaked

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each match: text, question, the share of it that the text holds, and the verdict."""
        return [asdict(finding) for finding in self.report.findings]

    def save_page(self, path: str | Path) -> None:
        """Write a page with the matches marked in their text."""
        from medllm.corpus.decontaminate.audit import write_page

        write_page(self.report, "audit", Path(path))

    def __str__(self) -> str:
        totals = self.report.totals()
        return (
            f"{totals['documents']:,} texts against {totals['items']:,} questions: {totals['items_leaked']:,} leaked, "
            f"{totals['items_to_review']:,} to review"
        )
