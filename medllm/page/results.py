"""A recorded evaluation, indexed so that any cell is read at once: questions, graded replies, and their origin."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from medllm.errors import MedllmError
from medllm.exam.prompts import Prompt, Template, render
from medllm.exam.question import LETTERS, Question, read_answer
from medllm.exam.record import CUT_OFF, PROMPTS, PromptStyle, Record, to_record
from medllm.page.html import ResultsError

NO_TEXT = "—"
"""Placeholder for the text of a question if the records came without their questions."""


def read_questions(folder: Path) -> list[Question]:
    """Read every question of a parquet file, or of a folder's parquet files."""
    questions: list[Question] = []
    for file in sorted(folder.glob("*.parquet")) if folder.is_dir() else [folder]:
        try:
            rows = pq.read_table(file).to_pylist()
            questions.extend(Question.from_row(row) for row in rows)
        except KeyError as fault:
            raise ResultsError("page.missing-columns", name=f"questions/{file.name}", columns=fault.args[0]) from fault
        except (pa.ArrowInvalid, OSError, MedllmError, TypeError, ValueError) as fault:
            raise ResultsError("page.unreadable", name=f"questions/{file.name}", detail=str(fault)[:160]) from fault
    return questions


def placeholders(table: pa.Table) -> list[Question]:
    """Build questions from their records alone: id, key and metadata, no text."""
    by_key: dict[tuple[str, str], Question] = {}
    names = [
        "benchmark",
        "question_id",
        "gold",
        "year",
        "section",
        "category",
        "points_total",
        "image",
        "required",
        "group",
    ]
    for row in table.select(names).to_pylist():
        name = (row["benchmark"], row["question_id"])
        if name not in by_key:
            by_key[name] = _placeholder(row)
    return list(by_key.values())


def _placeholder(row: Mapping[str, Any]) -> Question:
    gold = read_answer(row["gold"] or "?") or frozenset()
    lettered = all(letter in LETTERS for letter in gold)
    count = max((LETTERS.index(letter) + 1 for letter in gold), default=0) if lettered else 0
    return Question(
        question_id=row["question_id"],
        benchmark=row["benchmark"],
        text=NO_TEXT,
        choices=(NO_TEXT,) * count,
        gold=(gold,),
        key=(",".join(sorted(gold)),),
        numeric=not lettered,
        year=row["year"],
        section=row["section"],
        category=row["category"],
        points=int(row["points_total"] or 0),
        image=bool(row["image"]),
        required=bool(row["required"]),
        vignette_id=row["group"],
    )


T = TypeVar("T")

Column = tuple[str, PromptStyle]
"""A model under one prompt: one cell of the grid."""

Marking = Literal["recorded", "simulated", "miniature"]


@dataclass(frozen=True)
class Origin:
    """The source of the results, as the chip on every screen shows it."""

    name: str
    revision: str | None = None
    marking: Marking = "recorded"
    title: str | None = None
    """The page's heading from the recipe."""
    dated: str | None = None
    """The day on which the results were made, as the pipeline noted it, or else that of the newest file; ISO 8601."""


@dataclass(frozen=True)
class RecordedResults:
    """Records as an Arrow table (text stays packed) with an index of each model's answers."""

    questions: tuple[Question, ...]
    table: pa.Table
    origin: Origin
    runs: tuple[dict[str, object], ...] = ()
    facts: dict[str, object] = field(default_factory=dict)
    exemplars: dict[str, tuple[Question, ...]] = field(default_factory=dict)
    """The worked examples before the questions of each exam, where the evaluation kept them."""
    changed: Callable[[], bool] = field(default=lambda: False, repr=False, compare=False)
    """Whether the files have changed since they were read: these results stay as they were then."""
    _memory: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def remembered(self, name: str, make: Callable[[], T]) -> T:
        """Return a value that is computed once over all questions; results never change while the page runs."""
        if name not in self._memory:
            self._memory[name] = make()
        value: T = self._memory[name]
        return value

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys of the questions, in order: ids repeat between exams, keys do not."""
        return tuple(key_of(question.benchmark, question.question_id) for question in self.questions)

    @cached_property
    def place(self) -> dict[str, int]:
        """The position of each key."""
        return {key: place for place, key in enumerate(self.keys)}

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models: base, cpt, final, then the others in order of appearance."""
        seen = [str(name) for name in self.table.column("model").unique().to_pylist()]
        first = [name for name in ("base", "cpt", "final") if name in seen]
        return (*first, *(name for name in seen if name not in first))

    @cached_property
    def trials(self) -> frozenset[str]:
        """The models of which only a part of an exam was asked."""
        if "trial" not in self.table.column_names:
            return frozenset()
        marked = self.table.filter(self.table.column("trial"))
        return frozenset(str(name) for name in marked.column("model").unique().to_pylist())

    @cached_property
    def template(self) -> Template:
        """The prompts' template (from the first record; an evaluation has one)."""
        values = self.table.column("template").drop_null()[:1].to_pylist()
        return "igakuqa" if values == ["igakuqa"] else "paper"

    def prompt_of(self, record: Record, *, shots: int | None = None) -> Prompt:
        """Render the prompt of a recorded reply: its template, context and exemplars, or the first `shots` of them."""
        template: Template = next((name for name in get_args(Template) if name == record.template), self.template)
        exemplars = self.exemplars.get(record.benchmark, ())
        return render(
            self.question(key_of(record.benchmark, record.question_id)),
            prompt=record.prompt,
            template=template,
            exemplars=exemplars,
            shots=min(record.shots if shots is None else shots, len(exemplars)),
            context="linked" if record.context == "linked" else "original",
            system=self.run_of(record).get("system_prompt"),
        )

    def run_of(self, record: Record) -> Mapping[str, Any]:
        """Return how a recorded reply was asked for, as the evaluation noted it; empty where it did not."""
        names = ("model", "benchmark", "prompt")
        wanted = [getattr(record, name) for name in names]
        return next((run for run in self.runs if [run.get(name) for name in names] == wanted), {})

    @cached_property
    def prompts(self) -> tuple[PromptStyle, ...]:
        """The prompts that were used, plain first."""
        seen = set(self.table.column("prompt").unique().to_pylist())
        return tuple(prompt for prompt in PROMPTS if prompt in seen)

    @cached_property
    def shown(self) -> tuple[PromptStyle, ...]:
        """The prompts that every view shows: those under which these results hold replies."""
        return self.prompts

    @cached_property
    def rows(self) -> dict[Column, npt.NDArray[np.int64]]:
        """For each column, the row that answers each question (the first sample), or -1."""
        numbers = {
            (model, prompt): np.full(len(self.keys), -1, dtype=np.int64) for model in self.models for prompt in PROMPTS
        }
        first: dict[tuple[Column, int], int] = {}
        samples = [sample or 0 for sample in self._list("sample")]
        values = (self._list(name) for name in ("benchmark", "question_id", "model", "prompt"))
        names: Iterable[tuple[Any, ...]] = zip(*values, strict=True)
        for row, (benchmark, question, model, prompt) in enumerate(names):
            place = self.place.get(key_of(benchmark, question))
            if place is None:
                continue
            column = (model, prompt)
            if (column, place) not in first or samples[row] < samples[first[column, place]]:
                first[column, place] = row
                numbers[column][place] = row
        return numbers

    @cached_property
    def right(self) -> dict[Column, npt.NDArray[np.bool_]]:
        """For each column, whether each question was answered rightly; absent counts as not right: see `there`."""
        correct = np.asarray(self._list("correct"), dtype=np.bool_)
        return {column: (rows >= 0) & correct[rows] for column, rows in self.rows.items()}

    @cached_property
    def there(self) -> dict[Column, npt.NDArray[np.bool_]]:
        """For each column, whether each question was asked at all."""
        return {column: rows >= 0 for column, rows in self.rows.items()}

    @cached_property
    def unanswered(self) -> dict[Column, npt.NDArray[np.bool_]]:
        """For each column, whether there is a reply from which no answer could be read."""
        lost = np.asarray([answer is None for answer in self._list("answer")], dtype=np.bool_)
        return {column: (rows >= 0) & lost[rows] for column, rows in self.rows.items()}

    @cached_property
    def cut(self) -> dict[Column, npt.NDArray[np.bool_]]:
        """For each column, whether there is a reply that was cut off before an answer."""
        statuses = zip(self._list("status"), self._list("answer"), strict=True)
        cut = np.asarray([answer is None and status in CUT_OFF for status, answer in statuses], dtype=np.bool_)
        return {column: (rows >= 0) & cut[rows] for column, rows in self.rows.items()}

    @cached_property
    def texts(self) -> dict[Column, npt.NDArray[np.int64]]:
        """For each column, a number of each reply's text: replies that are equal but for blanks share one; else -1."""
        numbers: dict[str, int] = {}
        each = [numbers.setdefault("".join(text.split()), len(numbers)) for text in self._list("completion")]
        place = np.asarray([*each, -1], dtype=np.int64)
        return {column: place[rows] for column, rows in self.rows.items()}

    @cached_property
    def harmful(self) -> dict[Column, npt.NDArray[np.bool_]]:
        """For each column, whether the answer holds a prohibited choice."""
        chosen = np.asarray([bool(letters) for letters in self._list("prohibited")], dtype=np.bool_)
        return {column: (rows >= 0) & chosen[rows] for column, rows in self.rows.items()}

    def question(self, key: str) -> Question:
        """Return the question of a key; KeyError if there is none."""
        return self.questions[self.place[key]]

    def record(self, key: str, model: str, prompt: PromptStyle) -> Record | None:
        """Return the graded reply of one cell, or None if the question was not asked."""
        rows = self.rows.get((model, prompt))
        row = -1 if rows is None or key not in self.place else int(rows[self.place[key]])
        return None if row < 0 else to_record(self.table.slice(row, 1).to_pylist()[0], f"record {row + 1}")

    def replies(self, key: str) -> dict[Column, Record]:
        """Return all cells of one question that have a reply."""
        replies = {column: self.record(key, *column) for column in self.rows}
        return {column: record for column, record in replies.items() if record is not None}

    @cached_property
    def flipped(self) -> tuple[str, ...]:
        """The keys of questions that at least one model flips, in order."""
        turned = np.zeros(len(self.keys), dtype=np.bool_)
        for model in self.models:
            both = self.there[model, "plain"] & self.there[model, "explain"]
            turned |= both & (self.right[model, "plain"] != self.right[model, "explain"])
        return tuple(self.keys[place] for place in np.flatnonzero(turned))

    def find(self, wanted: str | None) -> str | None:
        """Return the key that a link names: a key, or a bare question id."""
        if not wanted:
            return None
        if wanted in self.place:
            return wanted
        return next(
            (key for key, question in zip(self.keys, self.questions, strict=True) if question.question_id == wanted),
            None,
        )

    def _list(self, name: str) -> list[Any]:
        values: list[Any] = self.table.column(name).to_pylist()
        return values


def key_of(benchmark: object, question_id: object) -> str:
    """Return the name of a question in links and lists.

    >>> key_of("igakuqa", "116A1")
    'igakuqa/116A1'
    """
    return f"{benchmark}/{question_id}"
