"""Stability under explanation: the change of each answer when the model must explain itself."""

from collections.abc import Iterable
from dataclasses import dataclass

from medllm.exam.record import PROMPTS, PromptStyle, Record
from medllm.exam.stability.align import ExamReplies, align_replies
from medllm.exam.stability.comparison import Comparison, compare_models
from medllm.exam.stability.condition import Condition, condition
from medllm.exam.stability.paired import PairedChange, paired_change
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
        replies = exam.replies.get((model, prompt))
        if replies is not None:
            correct, there = exam.column(replies, lambda record: float(record.correct))
            score, accuracy = sample.score(exam.points(replies, there)), sample.share(Ratio(correct, there))
            conditions[prompt] = condition(replies, score, accuracy)
    return Stability(exam.benchmark, model, conditions, paired_change(exam, model, sample))
