"""One model under one prompt, aligned on a common order of questions: replies' ends, language, confidence and score."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log2
from statistics import mean, median

import numpy as np

from medllm.errors import DataError
from medllm.exam.grading import Verdict, verdicts
from medllm.exam.record import STATUSES, PromptStyle, Record, Status
from medllm.exam.statistics import Estimate, Floats, QuestionSample, Ratio

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

    def is_trial(self, *models: str) -> bool:
        """Return whether some reply of these models is of a trial."""
        own = (samples for (model, _), samples in self.replies.items() if model in models)
        return any(record.trial for samples in own for records in samples.values() for record in records)

    @property
    def sample(self) -> QuestionSample:
        """The questions as a sample: clustered by vignette, stratified by year."""
        clusters = [question.group or question.question_id for question in self.questions]
        return QuestionSample(clusters, [question.year for question in self.questions])

    def column(self, samples: Samples, values: Values) -> tuple[Floats, Floats]:
        """Return a value per question, and 1 where the question was answered at all."""
        answers = scored(samples)
        ordered = [answers.get(question.question_id) for question in self.questions]
        numbers = np.array([0.0 if record is None else values(record) for record in ordered])
        return numbers, np.array([record is not None for record in ordered], dtype=float)

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
    for (model, prompt), group in groups.items():
        samples: Samples = {}
        for (question_id, _), record in sorted(group.items(), key=lambda item: item[0][1]):
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
    for what, first, other in (
        ("points", known.points_total, record.points_total),
        ("year", known.year, record.year),
        ("vignette", known.group, record.group),
    ):
        if first != other:
            raise DataError(
                "exam.different-exams",
                f"question {record.question_id} of {record.benchmark}: {what} {other} for {record.model}, but {first}"
                f" for {known.model}. The records are of different versions of the exam; give records of one version.",
            )


_JAPANESE = re.compile(r"[ぁ-ゖァ-ヺー一-鿿々]+")
_LATIN = re.compile(r"[A-Za-z]+")
_ENOUGH_LETTERS = 20
_BINS = 10


@dataclass(frozen=True, slots=True)
class Consistency:
    """Agreement of several samples of the same prompt."""

    questions: int
    samples: int
    """The smallest number of samples among the questions."""
    agreement: float
    """The mean share of a question's samples that give its commonest answer."""
    unanimous: float
    entropy: float
    """The mean entropy of a question's answers, in bits; 0 means always the same answer."""
    majority_accuracy: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """How well a confidence predicts whether an answer is right."""

    source: str
    """`probability`: the model's own; or `samples`: the share of samples that agree."""
    questions: int
    brier: float
    ece: float
    """Expected calibration error over ten equal bins."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A model's result under one prompt."""

    score: Estimate
    accuracy: Estimate
    questions: int
    points: float
    points_total: float
    statuses: dict[Status, int]
    run_on: int
    truncated: int
    loop: int
    prohibited: int
    japanese: int
    """Replies that are mostly Japanese, of `worded` replies that have enough letters to decide."""
    worded: int
    characters: float
    """The median length of a reply, without its thinking."""
    thought: int
    """Replies before which the model thought."""
    reasoning_tokens: float | None
    """The median number of tokens of the thinking, over the replies of `thought`; None where they were not counted."""
    consistency: Consistency | None
    calibration: Calibration | None
    verdicts: list[Verdict]


def condition(samples: Samples, score: Estimate, accuracy: Estimate) -> Condition:
    """Compute every figure of one prompt that needs no pairing."""
    records = list(scored(samples).values())
    counted = Counter(record.status for record in records)
    languages = [
        written_in_japanese
        for record in records
        if (written_in_japanese := _is_japanese(record.completion)) is not None
    ]
    return Condition(
        score=score,
        accuracy=accuracy,
        questions=len(records),
        points=sum(record.points for record in records),
        points_total=sum(record.points_total for record in records),
        statuses={status: counted[status] for status in STATUSES},
        run_on=sum(record.run_on for record in records),
        truncated=sum(record.truncated for record in records),
        loop=sum(record.loop for record in records),
        prohibited=sum(record.prohibited is not None for record in records),
        japanese=sum(languages),
        worded=len(languages),
        characters=median(len(record.completion) for record in records),
        thought=sum(bool(record.reasoning) for record in records),
        reasoning_tokens=_median_thinking(records),
        consistency=_consistency(samples),
        calibration=_calibration(samples),
        verdicts=verdicts(records),
    )


def _median_thinking(records: Sequence[Record]) -> float | None:
    counted = [record.reasoning_tokens for record in records if record.reasoning and record.reasoning_tokens]
    return float(median(counted)) if counted else None


def _is_japanese(text: str) -> bool | None:
    """Return whether most letters are Japanese; None for a reply too short to decide, such as "b"."""
    japanese, latin = (sum(map(len, kind.findall(text))) for kind in (_JAPANESE, _LATIN))
    return japanese > latin if japanese + latin >= _ENOUGH_LETTERS else None


def _commonest(samples: Sequence[Record]) -> tuple[str | None, int]:
    """Return the commonest answer and its count; unreadable replies count as one more answer."""
    return Counter(record.answer for record in samples).most_common(1)[0]


def _consistency(of_questions: Samples) -> Consistency | None:
    """Compute the agreement over the questions that were sampled more than once."""
    sampled = [samples for samples in of_questions.values() if len(samples) > 1]
    if not sampled:
        return None
    tops = [_commonest(samples) for samples in sampled]
    return Consistency(
        questions=len(sampled),
        samples=min(map(len, sampled)),
        agreement=mean(count / len(samples) for (_, count), samples in zip(tops, sampled, strict=True)),
        unanimous=mean(float(count == len(samples)) for (_, count), samples in zip(tops, sampled, strict=True)),
        entropy=mean(_entropy(samples) for samples in sampled),
        majority_accuracy=mean(float(_right(samples, top)) for (top, _), samples in zip(tops, sampled, strict=True)),
    )


def _entropy(samples: Sequence[Record]) -> float:
    shares = [count / len(samples) for count in Counter(record.answer for record in samples).values()]
    return -sum(share * log2(share) for share in shares) + 0.0


def _right(samples: Sequence[Record], answer: str | None) -> bool:
    return any(record.correct for record in samples if record.answer == answer)


def _calibration(of_questions: Samples) -> Calibration | None:
    """Compute calibration from the model's own probabilities if measured, else from the samples' agreement."""
    measured = [(record.probability, record.correct) for record in scored(of_questions).values()]
    pairs = [(probability, float(right)) for probability, right in measured if probability is not None]
    if pairs:
        return _calibrated("probability", pairs)
    sampled = [samples for samples in of_questions.values() if len(samples) > 2]
    agreed = []
    for samples in sampled:
        top, count = _commonest(samples)
        agreed.append((count / len(samples), float(_right(samples, top))))
    return _calibrated("samples", agreed) if agreed else None


def _calibrated(source: str, pairs: Sequence[tuple[float, float]]) -> Calibration:
    bins: dict[int, list[tuple[float, float]]] = {}
    for sure, right in pairs:
        bins.setdefault(min(int(sure * _BINS), _BINS - 1), []).append((sure, right))
    gaps = (
        len(part) * abs(mean(sure for sure, _ in part) - mean(right for _, right in part)) for part in bins.values()
    )
    brier = mean((sure - right) ** 2 for sure, right in pairs)
    return Calibration(source, len(pairs), brier, sum(gaps) / len(pairs))
