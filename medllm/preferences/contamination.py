"""The leakage audit of what trains and prompts beside the corpus: past questions, exemplars, answers and votes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medllm.corpus.decontaminate.audit import AuditRequest, audit
from medllm.corpus.decontaminate.exam_items import ExamItem, as_item
from medllm.corpus.decontaminate.report import AuditReport, Finding, Stage, write_page
from medllm.errors import DataError
from medllm.exam.question import Question
from medllm.preferences.pairs import PreferencePair


@dataclass
class AuditTrail:
    """Checks texts for held-out questions and records every match; without held-out exams there are no matches."""

    items: tuple[ExamItem, ...]
    reviewed: frozenset[str] = frozenset()
    """Names of texts that a person has reviewed and found free of the exams."""
    report: AuditReport = field(default_factory=lambda: AuditReport(0, []))
    dropped: Counter[str] = field(default_factory=Counter)
    """Numbers of dropped texts, by stage."""

    @classmethod
    def over(
        cls, held_out: Iterable[Question], reviewed: Iterable[str] = (), translated: Iterable[ExamItem] = ()
    ) -> "AuditTrail":
        """Build the audit of these questions and their translations; two exams from one folder count once."""
        return cls(tuple(dict.fromkeys((*map(as_item, held_out), *translated))), frozenset(reviewed))

    def match(self, stage: Stage, texts: Iterable[tuple[str, str]]) -> dict[str, Finding]:
        """Find the named texts that contain a held-out question and must be dropped, each with its worst match."""
        if not self.items:
            return {}
        found = audit(texts, AuditRequest(self.items, stage))
        self.report.items, self.report.unsearchable = found.items, found.unsearchable
        self.report.add(found)
        worst: dict[str, Finding] = {}
        for one in sorted(found.found, key=lambda one: one.containment):
            if one.verdict == "drop" and one.document not in self.reviewed:
                worst[one.document] = one
        self.dropped[stage] += len(worst)
        return worst

    def refuse(self, stage: Stage, what: str, texts: Iterable[tuple[str, str]]) -> None:
        """Raise at the first text with a held-out question: a person chose these texts and must choose others."""
        for found in self.match(stage, texts).values():
            raise DataError(
                "corpus.holds-held-out-question",
                f"{what}: {found.document} holds {found.containment:.0%} of {found.item}, a question of a held-out "
                "exam. Remove it, and everything else of that exam.",
            )

    def rows(self) -> list[dict[str, Any]]:
        """Return every match as a row of the audit's table."""
        return [{**one, "reviewed": one["document"] in self.reviewed} for one in self.report.as_dict()["documents"]]

    def facts(self) -> dict[str, Any]:
        """Summarise the audit in numbers; `unreviewed` counts the matches in kept texts that no person has reviewed."""
        waiting = sum(one.verdict == "review" and one.document not in self.reviewed for one in self.report.found)
        return {**self.report.totals(), "dropped": dict(sorted(self.dropped.items())), "unreviewed": waiting}

    def write(self, title: str, page: Path) -> None:
        """Write the audit as an HTML page, with the matches marked in their texts."""
        write_page(self.report, title, page)


def question_texts(questions: Sequence[Question]) -> list[tuple[str, str]]:
    """Questions as the audit reads them: all that a prompt or an answer may show of them."""
    return [
        (
            f"{question.benchmark}/{question.question_id}",
            "\n".join((question.context or "", question.text, *question.choices, question.explanation or "")),
        )
        for question in questions
    ]


def vote_texts(pairs: Sequence[PreferencePair]) -> list[tuple[str, str]]:
    """Return experts' pairs as the audit reads them, with the worked examples of their prompts."""
    return [
        (f"vote {number} on {pair.benchmark}/{pair.question_id}", f"{pair.prompt}\n{pair.chosen}\n{pair.rejected}")
        for number, pair in enumerate(pairs, 1)
    ]
