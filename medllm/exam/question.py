"""One exam question, the common form of every benchmark: text, choices, key, points, date and vignette."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any, Literal

from medllm.errors import DataError
from medllm.files import atomic_write

LETTERS = "abcdefgh"
"""The letters of the choices, in order; no supported exam has more than eight."""

Language = Literal["ja", "en"]

PUBLISHED = {"vignette_id": "group", "vignette_text": "lost_context", "any_answer_correct": "anything_right"}
"""Columns of published question tables whose names differ from the fields'; see docs/glossary.md."""

OWN = "own"
"""The benchmark of a question that a person writes down to ask it now; it has no key."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A question's text and choices in another language, as published; for the leakage audit alone."""

    question_id: str
    language: str
    text: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question with its key; a fact that a benchmark does not publish is None, never an empty string or a zero."""

    question_id: str
    """The publisher's id, unique within the benchmark ("116A1", "120B-41")."""
    benchmark: str
    text: str
    choices: tuple[str, ...]
    """The texts of choices a, b, c ... in order; empty for a numeric question."""
    gold: tuple[frozenset[str], ...]
    """The accepted answers, each of which is right: a set of letters, or one number as a string."""
    key: tuple[str, ...]
    """The key as published, for rules that compare byte for byte ("a or d", "04")."""
    exam_date: date | None = None
    """The day the exam was first sat (or the set first published): training texts must not be younger."""
    year: int | None = None
    section: str | None = None
    numeric: bool = False
    points: int = 1
    required: bool = False
    """Whether the question counts towards the compulsory part (sections B and E of the medical exam)."""
    image: bool = False
    """Whether answering needs a picture that is not part of the text."""
    any_answer_correct: bool = False
    """Whether the publisher scores every answer as right."""
    category: str | None = None
    human_accuracy: float | None = None
    """The share of human examinees with the right answer, between 0 and 1."""
    breakdown: tuple[float, ...] = ()
    """The share of human examinees per choice, between 0 and 1, where it is published."""
    prohibited: frozenset[str] = frozenset()
    """Letters that would harm the patient (禁忌肢); reports count such choices separately from the score."""
    explanation: str | None = None
    vignette_id: str | None = None
    """The vignette shared with neighbouring questions: the cluster for intervals."""
    context: str | None = None
    """A passage published with the question, to be read before it."""
    vignette_text: str | None = None
    """The case text that the publisher prints only in an earlier question; shown only if contexts are `linked`."""
    language: Language = "ja"

    def __post_init__(self) -> None:
        """Refuse a question that can never be asked or scored."""
        where = f"{self.benchmark} question {self.question_id or '(no id)'}"
        if not self.question_id or not self.text.strip():
            raise DataError(
                "exam.no-id-or-text", f"{where}: has no {'id' if not self.question_id else 'text'}. Give it one."
            )
        if not self.gold or not all(self.gold):
            raise DataError("exam.no-key", f"{where}: has no key. Give the right letters, or leave the question out.")
        if not self.numeric:
            unknown = {letter for answer in self.gold for letter in answer} - set(self.letters)
            if unknown:
                raise DataError(
                    "exam.key-outside-choices",
                    f"{where}: the key names {', '.join(sorted(unknown))} but there are {len(self.choices)} choices."
                    " Correct the key or the choices.",
                )

    def to_row(self) -> dict[str, Any]:
        """Return the question as a row of the questions table: answers as "b,d", tuples as lists."""
        row = asdict(self)
        row["gold"] = [write_answer(answer) for answer in self.gold]
        row["prohibited"] = sorted(self.prohibited)
        return {
            PUBLISHED.get(name, name): list(value) if isinstance(value, tuple) else value for name, value in row.items()
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Question":
        """Build a question from what `to_row` returns, or from its JSON: lists as text, dates as ISO text.

        Raises:
            KeyError: A needed column is absent; its argument is the column.
            DataError: The question could never be asked or scored.
        """
        for name in ("question_id", "benchmark", "text", "gold"):
            if name not in row:
                raise KeyError(name)
        columns = {field.name: PUBLISHED.get(field.name, field.name) for field in fields(cls)}
        known = {name: row[column] for name, column in columns.items() if row.get(column) is not None}
        known["gold"] = tuple(_letters(answer) for answer in _listed(known["gold"]))
        known["prohibited"] = _letters(known.get("prohibited") or ())
        for name in ("choices", "key", "breakdown"):
            known[name] = tuple(_listed(known.get(name) or ()))
        day = known.get("exam_date")
        if isinstance(day, str):
            known["exam_date"] = date.fromisoformat(day[:10])
        return cls(**known)

    @property
    def held_by(self) -> date | None:
        """The day by which the exam was held: its date, or the last day of its year; None where neither is known."""
        return self.exam_date or (date(self.year, 12, 31) if self.year else None)

    @property
    def letters(self) -> str:
        """The letters that can be chosen here, "abcde" for five choices."""
        return LETTERS[: len(self.choices)]

    @property
    def answers_wanted(self) -> int:
        """How many letters the key asks for; 1 for a number."""
        return 1 if self.numeric else len(self.gold[0])

    @property
    def has_key(self) -> bool:
        """Whether a reply can be graded; False for a question that a person writes down to ask it now."""
        return any(self.key)

    @property
    def open_ended(self) -> bool:
        """Whether it asks for free text: it has neither choices nor a key that would be a number."""
        return not self.choices and not self.has_key

    @property
    def full_text(self) -> str:
        """Passage, question and choices in one string, as a leak of this question would contain them."""
        return "\n".join(part for part in (self.context, self.text, *self.choices) if part)

    @property
    def gold_answer(self) -> str:
        """The first accepted answer as it is written: "b,d" or "2.1"."""
        return write_answer(self.gold[0])


def own_question(text: str, choices: tuple[str, ...] = ()) -> Question:
    """Return a question without a key, to be asked and not scored.

    >>> own_question("かぜの治療は？").open_ended
    True
    """
    return Question(
        question_id=OWN,
        benchmark=OWN,
        text=text,
        choices=choices,
        gold=(frozenset("a" if choices else "?"),),
        key=("",),
        numeric=not choices,
    )


def write_answer(answer: frozenset[str]) -> str:
    """Return an answer in its one written form: letters in order, joined by commas.

    >>> write_answer(frozenset({"d", "b"}))
    'b,d'
    """
    return ",".join(sorted(answer))


def read_answer(written: str | None) -> frozenset[str] | None:
    """Return the set of a written answer; None stays None.

    >>> sorted(read_answer("b,d"))
    ['b', 'd']
    """
    return None if written is None else frozenset(written.split(","))


def _listed(value: Any) -> list[Any]:  # noqa: ANN401  (a cell of a parquet list column, or its JSON)
    if isinstance(value, str):
        return list(json.loads(value)) if value.startswith("[") else [value]
    return list(value)


def _letters(value: Any) -> frozenset[str]:  # noqa: ANN401  (a list of letters, or "b,d")
    return frozenset(value.split(",") if isinstance(value, str) else value)


def of_years(questions: Sequence[Question], years: Collection[int] | None) -> list[Question]:
    """Return the questions of these years; an exam none of whose questions states a year is taken whole.

    In an exam with years a question that states none is left out, since it may be of another year.
    """
    if years is None or all(question.year is None for question in questions):
        return list(questions)
    return [question for question in questions if question.year in years]


def index(questions: list[Question]) -> dict[str, Question]:
    """Return questions by id; an id that occurs twice is refused, since its answers would be indistinguishable."""
    by_id: dict[str, Question] = {}
    for question in questions:
        if question.question_id in by_id:
            raise DataError(
                "exam.duplicate-id",
                f"{question.benchmark}: the id {question.question_id} occurs twice. Give every question its own id.",
            )
        by_id[question.question_id] = question
    return by_id


def write_questions(questions: Iterable[Question], path: Path) -> None:
    """Write questions as parquet in the columns of `Question.to_row`, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_write(path) as part:
        pq.write_table(pa.Table.from_pylist([question.to_row() for question in questions]), part, compression="zstd")
