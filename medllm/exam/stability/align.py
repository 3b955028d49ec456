"""Group records by exam, model and prompt, and align them on one common order of questions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from medllm.errors import DataError
from medllm.exam.record import PromptStyle, Record
from medllm.exam.statistics import Floats, QuestionSample, Ratio

Values = Callable[[Record], float]


Samples = dict[str, list[Record]]
"""By question, the records of one model under one prompt: all samples, in the order of their numbers."""


@dataclass(frozen=True, slots=True)
class ExamReplies:
    """All replies to one exam, over the questions that at least one model answered."""

    benchmark: str
    questions: list[Record]
    """One record of each question, for its year, vignette and points."""
    replies: dict[tuple[str, PromptStyle], Samples]

    @property
    def models(self) -> list[str]:
        """Return the models, in order of first appearance."""
        return list(dict.fromkeys(model for model, _ in self.replies))

    @property
    def sample(self) -> QuestionSample:
        """The questions as a sample: clustered by vignette, stratified by year."""
        clusters = [question.group or question.question_id for question in self.questions]
        return QuestionSample(clusters, [question.year for question in self.questions])

    def column(self, samples: Samples, values: Values) -> tuple[Floats, Floats]:
        """Return a value per question, and 1 where the question was answered at all."""
        answers = scored(samples)
        found = [answers.get(question.question_id) for question in self.questions]
        numbers = np.array([0.0 if record is None else values(record) for record in found])
        return numbers, np.array([record is not None for record in found], dtype=float)

    def points(self, samples: Samples, members: Floats) -> Ratio:
        """Return the ratio of points over the questions that are members."""
        earned, _ = self.column(samples, lambda record: record.points)
        total, _ = self.column(samples, lambda record: record.points_total)
        return Ratio(earned * members, total * members)


def scored(samples: Samples) -> dict[str, Record]:
    """Return sample 0 of every question that has it, which is the one scored."""
    return {question_id: records[0] for question_id, records in samples.items() if records[0].sample == 0}


def align_replies(records: Iterable[Record]) -> list[ExamReplies]:
    """Group records by exam; two replies of the same exam, model, prompt, question and sample raise DataError."""
    by_exam: dict[str, dict[tuple[str, PromptStyle], dict[tuple[str, int], Record]]] = {}
    for record in records:
        replies = by_exam.setdefault(record.benchmark, {}).setdefault((record.model, record.prompt), {})
        key = (record.question_id, record.sample)
        if key in replies:
            raise DataError(
                "exam.answered-twice",
                f"the question {record.question_id} of {record.benchmark} is answered twice by {record.model}"
                f" ({record.prompt}, sample {record.sample}). Give one file per model, or name the models apart.",
            )
        replies[key] = record
    return [_sitting(benchmark, groups) for benchmark, groups in by_exam.items()]


def _sitting(benchmark: str, groups: dict[tuple[str, PromptStyle], dict[tuple[str, int], Record]]) -> ExamReplies:
    questions: dict[str, Record] = {}
    replies = {}
    for (model, prompt), found in groups.items():
        samples: Samples = {}
        for (question_id, _), record in sorted(found.items(), key=lambda item: item[0][1]):
            samples.setdefault(question_id, []).append(record)
            _same_question(questions.setdefault(question_id, record), record)
        if not scored(samples):
            raise DataError(
                "exam.no-sample-0",
                f"{model} ({prompt}) on {benchmark}: sample 0, which is the scored one, is missing. Number samples"
                " from 0.",
            )
        replies[model, prompt] = samples
    return ExamReplies(benchmark, _in_order(questions.values()), replies)


def _in_order(questions: Iterable[Record]) -> list[Record]:
    """Sort questions by year and id, so that the order of the records changes no interval."""
    return sorted(questions, key=lambda record: (record.year or 0, record.question_id))


def _same_question(known: Record, record: Record) -> None:
    for what, one, other in (
        ("points", known.points_total, record.points_total),
        ("year", known.year, record.year),
        ("vignette", known.group, record.group),
    ):
        if one != other:
            raise DataError(
                "exam.different-exams",
                f"question {record.question_id} of {record.benchmark}: {what} {other} for {record.model}, but {one} for"
                f" {known.model}. The records are of different versions of the exam; give records of one version.",
            )
