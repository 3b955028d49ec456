"""Stability under explanation: the change of each answer when the model must explain itself, and its table."""

from collections.abc import Iterable
from dataclasses import dataclass

from medllm.exam.record import PROMPTS, PromptStyle, Record
from medllm.exam.stability.align import ExamReplies, align_replies
from medllm.exam.stability.comparison import Comparison, compare_models
from medllm.exam.stability.condition import Condition, condition
from medllm.exam.stability.paired import PairedChange, paired_change
from medllm.exam.stability.table import ScoreChange, ScoreRow, Share
from medllm.exam.statistics import QuestionSample, Ratio


@dataclass(frozen=True, slots=True)
class Stability:
    """One model on one exam."""

    benchmark: str
    model: str
    conditions: dict[PromptStyle, Condition]
    change: PairedChange | None
    """None if the model was asked only one way."""


@dataclass(frozen=True, slots=True)
class StabilityReport:
    """All models and all comparisons."""

    models: list[Stability]
    comparisons: list[Comparison]


def stability_report(records: Iterable[Record]) -> StabilityReport:
    """Build the stability report of any number of exams and models."""
    models: list[Stability] = []
    comparisons: list[Comparison] = []
    for exam in align_replies(records):
        sample = exam.sample
        models += [_stability(exam, model, sample) for model in exam.models]
        comparisons += compare_models(exam, sample)
    return StabilityReport(models, comparisons)


def _stability(exam: ExamReplies, model: str, sample: QuestionSample) -> Stability:
    conditions: dict[PromptStyle, Condition] = {}
    for prompt in PROMPTS:
        samples = exam.replies.get((model, prompt))
        if samples is not None:
            correct, there = exam.column(samples, lambda record: float(record.correct))
            score, accuracy = sample.score(exam.points(samples, there)), sample.share(Ratio(correct, there))
            conditions[prompt] = condition(samples, score, accuracy)
    return Stability(exam.benchmark, model, conditions, paired_change(exam, model, sample))


def score_table(report: StabilityReport) -> list[ScoreRow]:
    """Return a row for every model and exam of a report, in its order."""
    return [_score_row(one) for one in report.models]


def _score_row(one: Stability) -> ScoreRow:
    """Return the row of one model on one exam."""
    plain, explain = (_share(one.conditions.get(prompt)) for prompt in PROMPTS)
    return ScoreRow(one.model, one.benchmark, plain, explain, _change(one.change))


def _share(condition: Condition | None) -> Share | None:
    if condition is None:
        return None
    right = round((condition.accuracy.value or 0) * condition.questions)
    return Share.of(condition.score, right, condition.questions)


def _change(change: PairedChange | None) -> ScoreChange | None:
    if change is None:
        return None
    never = change.transitions["wrong_same"] + change.transitions["wrong_other"]
    return ScoreChange.of(
        change.delta, lost=change.lost, gained=change.gained, kept=change.transitions["right_right"], never=never
    )
