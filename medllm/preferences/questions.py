"""Which past questions are asked: dated, before the cutoff, explained, and not held out by the leakage audit."""

import hashlib
import json
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.corpus.decontaminate.audit import AuditReport, AuditRequest, Finding, Stage, audit, write_page
from medllm.corpus.decontaminate.exam_items import ExamItem, as_item, held_out_questions, translated_items
from medllm.errors import DataError
from medllm.exam.benchmarks import CATALOGUE, exemplars, load, name_of_past_exam
from medllm.exam.prompts import exemplars_before
from medllm.exam.question import Question, of_years
from medllm.preferences.pairs import PreferencePair
from medllm.recipe.settings import DataSource, Grpo, Preferences, Teach
from medllm.wording import describe_counts

AUDIT_COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in ("document", "stage", "item", "part", "verdict")),
        ("containment", pa.float64()),
        ("reviewed", pa.bool_()),
    ]
)
"""The columns of the audit's table, which may have no row."""

Key = tuple[str, str]
"""The name of a question: benchmark and question id."""


def key_of(question: Question) -> Key:
    """Return the unique key of a question: benchmark and question id."""
    return question.benchmark, question.question_id


def seed_of(settings: Preferences | Teach, key: Key, sample: int) -> int:
    """Derive a separate seed for every draw, the same in every run."""
    text = f"{settings.seed} {key[0]} {key[1]} {sample}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


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
        result = audit(texts, AuditRequest(self.items, stage))
        self.report.items, self.report.unsearchable = result.items, result.unsearchable
        self.report.add(result)
        worst: dict[str, Finding] = {}
        for finding in sorted(result.findings, key=lambda finding: finding.containment):
            if finding.verdict == "drop" and finding.document not in self.reviewed:
                worst[finding.document] = finding
        self.dropped[stage] += len(worst)
        return worst

    def refuse(self, stage: Stage, what: str, texts: Iterable[tuple[str, str]]) -> None:
        """Raise at the first text with a held-out question: a person chose these texts and must choose others."""
        for finding in self.match(stage, texts).values():
            raise DataError(
                "corpus.holds-held-out-question",
                f"{what}: {finding.document} holds {finding.containment:.0%} of {finding.item}, a question of a "
                "held-out exam. Remove it, and everything else of that exam.",
            )

    def rows(self) -> list[dict[str, Any]]:
        """Return every match as a row of the audit's table."""
        return [{**row, "reviewed": row["document"] in self.reviewed} for row in self.report.as_dict()["documents"]]

    def facts(self) -> dict[str, Any]:
        """Summarise the audit in numbers; `unreviewed` counts the matches in kept texts that no person has reviewed."""
        waiting = sum(
            finding.verdict == "review" and finding.document not in self.reviewed for finding in self.report.findings
        )
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


@dataclass(frozen=True)
class QuestionSelection:
    """The questions to ask, the worked examples before each, and what was left out for which reason."""

    questions: list[Question]
    exemplars: Sequence[Question]
    counts: dict[str, int]
    refused: frozenset[tuple[str, str]]
    """The held-out questions, by benchmark and id: no vote on them may train."""
    watch: AuditTrail
    """The leakage audit; it has seen the questions and the examples."""
    origins: Mapping[tuple[str, str], DataSource] = field(default_factory=dict)
    """Where each question comes from, by benchmark and id."""
    taught: Mapping[tuple[str, str], "Taught"] = field(default_factory=dict)
    """The questions whose explanation is a teacher's, by benchmark and id."""


@dataclass(frozen=True)
class Taught:
    """A teacher's explanation of a question, and what is stated of the teacher."""

    explanation: str
    answer: str
    teacher: str
    cutoff: str
    """The last day of what the teacher was trained on, as 2024-06-30, or `unknown`."""


Asking = Preferences | Teach | Grpo
"""A block that asks past questions."""


def stage_of(settings: Asking) -> Literal["teach", "preferences", "grpo"]:
    """Return the key of the recipe under which a block that asks past questions is written."""
    if isinstance(settings, Grpo):
        return "grpo"
    return "teach" if isinstance(settings, Teach) else "preferences"


def select_questions(settings: Asking, sources: dict[str, Path]) -> QuestionSelection:
    """Read the exam sets and keep the questions that are allowed for training and useful for it."""
    stage = stage_of(settings)
    held = _held_out(settings, sources)
    texts = {essence(question) for question in held}
    counts: Counter[str] = Counter()
    fit: list[Question] = []
    origins: dict[tuple[str, str], DataSource] = {}
    taught: dict[tuple[str, str], Taught] = {}
    known = _explanations(settings, sources)
    forgotten = _forgotten(sources)
    for source in settings.data:
        late = printed_late(source, settings.cutoff)
        for asked in past_questions(source, sources, stage):
            question, lesson = _explained(asked, known)
            withdrawn = "forgotten" if question.question_id in forgotten else None
            reason = withdrawn or _drop_reason(question, settings, texts) or late
            counts[reason or "kept"] += 1
            if reason is None:
                fit.append(question)
                origins.setdefault((question.benchmark, question.question_id), source)
                if lesson is not None:
                    taught[question.benchmark, question.question_id] = lesson
    translated = [item for name in settings.held_out or () for item in translated_items(name, sources[name], held)]
    watch = AuditTrail.over(held, settings.leaks_reviewed, translated)
    leaks = watch.match("grpo" if stage == "grpo" else "preferences", question_texts(fit))
    fit = [question for question in fit if f"{question.benchmark}/{question.question_id}" not in leaks]
    if leaks:
        counts.update({"kept": -len(leaks), "leak": len(leaks)})
    if settings.exemplars is None and len(fit) < settings.shots:
        left_out = ", ".join(
            f"{count} {reason}" for reason, count in counts.most_common() if reason != "kept" and count
        )
        raise DataError(
            "preferences.too-few-questions",
            f"{stage}.data: {len(fit)} of {counts.total()} questions can be used, and {settings.shots} shots take "
            f"{settings.shots} of them as worked examples. Left out: {left_out or 'none'}. Lower shots, or add past "
            "questions.",
        )
    examples = _examples(settings, sources, fit)
    watch.refuse("few-shot", f"{stage}.exemplars", question_texts(examples))
    shown = {essence(question) for question in examples}
    questions = [question for question in fit if essence(question) not in shown]
    if settings.questions is not None and settings.questions < len(questions):
        chosen = set(random.Random(settings.seed).sample(range(len(questions)), settings.questions))
        questions = [question for number, question in enumerate(questions) if number in chosen]
    if not questions:
        raise DataError(
            "preferences.no-question-left",
            f"{stage}.data: no question is left to ask ({describe_counts(counts)}). They need an exam date (or a "
            "year) that ends on or before the cutoff, and a verified explanation that was published by then (a "
            "teacher needs none, unless it is to see it, nor does `grpo`); state `exam_date` and `published` for a "
            "source if you know.",
        )
    refused = frozenset((question.benchmark, question.question_id) for question in held)
    return QuestionSelection(questions, examples, dict(counts), refused, watch, origins, taught)


def _explanations(settings: Asking, sources: dict[str, Path]) -> dict[str, list[Taught]]:
    """Read a teacher's explanations by the hash of their question, in the order in which they were kept."""
    if not isinstance(settings, Preferences) or settings.explanations is None:
        return {}
    folder = sources[settings.explanations]
    columns = ["question_hash", "explanation", "answer", "teacher", "teacher_cutoff"]
    files = sorted((folder / "data").glob("*.parquet"))
    if not files or any(set(columns) - set(pq.read_schema(path).names) for path in files):
        raise DataError(
            "preferences.no-explanations",
            f"preferences.explanations: {folder} holds no explanations of the stage `teach` (data/*.parquet with "
            f"{', '.join(columns)}). Name `teach`, or what that stage made.",
        )
    known: dict[str, list[Taught]] = {}
    for row in (row for path in files for row in pq.read_table(path, columns=columns).to_pylist()):
        lesson = Taught(row["explanation"], row["answer"], row["teacher"], row["teacher_cutoff"])
        known.setdefault(row["question_hash"], []).append(lesson)
    return known


def _explained(question: Question, known: Mapping[str, Sequence[Taught]]) -> tuple[Question, Taught | None]:
    """Return a question that lacks an explanation with the first one of a teacher that gives its key."""
    if question.explanation or not known:
        return question, None
    of = known.get(question_hash(question), ())
    lesson = next((lesson for lesson in of if lesson.answer == question.gold_answer), None)
    return (question, None) if lesson is None else (replace(question, explanation=lesson.explanation), lesson)


def _forgotten(sources: dict[str, Path]) -> set[str]:
    """Read the ids of the questions that were withdrawn, from the list that the pipeline gives."""
    if "forgotten" not in sources:
        return set()
    lines = (sources["forgotten"] / "forgotten.jsonl").read_text("utf-8").splitlines()
    return {name for line in lines for name in json.loads(line)["questions"]}


def printed_late(source: DataSource, cutoff: date | None) -> str | None:
    """Why a set's explanations may be too young although its exams are not: the corpus' rule, for the same texts.

    The day the recipe states comes first; a set of the catalogue has its own; of another the exams' days must do.
    """
    known = CATALOGUE.get(source.exam or "")
    published = source.published or (known.published if known else None)
    return "published after the cutoff" if cutoff and published and published > cutoff else None


def _drop_reason(question: Question, settings: Asking, held_out: set[str]) -> str | None:
    """Why a question is not asked, or None when it is; `teach` and `grpo` need no explanation."""
    if question.exam_date is None:
        return "no exam date"
    if settings.cutoff is not None and question.exam_date > settings.cutoff:
        return "after the cutoff"
    if question.image:
        return "needs a picture"
    teach = settings if isinstance(settings, Teach) else None
    needs_one = teach.view_explanation if teach else not isinstance(settings, Grpo)
    if needs_one and not question.explanation:
        return "no explanation"
    if question.explanation and teach and teach.only_unexplained:
        return "explained already"
    if question.any_answer_correct:
        return "any answer is right"
    if essence(question) in held_out:
        return "held out"
    return None


def essence(question: Question) -> str:
    """A question's text and choices without what printing changes: widths, spaces, punctuation."""
    text = unicodedata.normalize("NFKC", "".join((question.text, *question.choices))).casefold()
    return "".join(character for character in text if character.isalnum())


def question_hash(question: Question) -> str:
    """Return the hash of a question's text and choices, whatever its print, set and id."""
    return hashlib.sha256(essence(question).encode()).hexdigest()


def past_questions(source: DataSource, sources: dict[str, Path], stage: str = "preferences") -> list[Question]:
    """Read the questions of a past exam, each with its day; raise DataError for an exam that is for tests only."""
    known = CATALOGUE.get(source.exam or "")
    if known is not None and known.test_only:
        raise DataError(
            "preferences.test-only-exam",
            f"{stage}.data: {known.name} is for tests only, never for training. Use another exam.",
        )
    folder = sources[source.source]
    name = name_of_past_exam(source.exam, source.source, folder)
    questions = of_years(load(name, folder), source.years)
    return [
        replace(question, exam_date=question.exam_date or source.exam_date or question.held_by)
        for question in questions
    ]


def _examples(settings: Asking, sources: dict[str, Path], fit: list[Question]) -> Sequence[Question]:
    if not settings.shots:
        return ()
    if settings.exemplars is None:
        return exemplars_before(fit, settings.cutoff or date.max, settings.shots, settings.prompt)
    given = exemplars(settings.data[0].exam or "own", sources[settings.exemplars])
    return exemplars_before(given, settings.cutoff or date.max, settings.shots, settings.prompt)


def _held_out(settings: Asking, sources: dict[str, Path]) -> list[Question]:
    for name in settings.held_out or ():
        if name not in sources or not sources[name].exists():
            raise DataError(
                "preferences.no-held-out-exam",
                f"{stage_of(settings)}.held_out: `{name}` is missing, so decontamination cannot run. Give its files.",
            )
    years = settings.exam_years
    return [
        held_out_question
        for name in settings.held_out or ()
        for held_out_question in held_out_questions(name, sources[name], years)
    ]
