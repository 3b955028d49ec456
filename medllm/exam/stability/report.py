"""Stability under explanation: the change of each answer when the model must explain itself."""

from collections.abc import Iterable
from dataclasses import dataclass

from medllm.exam.estimates import Ratios
from medllm.exam.record import PROMPTS, PromptStyle, Record
from medllm.exam.stability import paired
from medllm.exam.stability.align import ExamReplies, Replies, align_replies, clusters
from medllm.exam.stability.comparison import Comparison, compare, corrected, register_pairs
from medllm.exam.stability.condition import Condition, condition
from medllm.exam.stability.paired import PairedChange


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
    for sitting in align_replies(records):
        of_models, of_pairs = _report(sitting)
        models += of_models
        comparisons += of_pairs
    return StabilityReport(models, comparisons)


def _report(sitting: ExamReplies) -> tuple[list[Stability], list[Comparison]]:
    """Register every ratio and compute the estimates."""
    ratios = Ratios(clusters(sitting.questions), [question.year for question in sitting.questions])
    of_conditions = {key: _condition_ratios(sitting, replies, ratios) for key, replies in sitting.replies.items()}
    of_changes = {model: paired.plan_change(sitting, model, ratios) for model in sitting.models}
    of_pairs = register_pairs(sitting, ratios)
    found = {
        key: condition(replies, ratios.score(of_conditions[key][0]), ratios.share(of_conditions[key][1]))
        for key, replies in sitting.replies.items()
    }
    models = [
        Stability(
            sitting.benchmark,
            model,
            {prompt: found[model, prompt] for prompt in PROMPTS if (model, prompt) in found},
            paired.read_change(of_changes[model], ratios),
        )
        for model in sitting.models
    ]
    return models, corrected([compare(sitting, pair, ratios) for pair in of_pairs])


def _condition_ratios(sitting: ExamReplies, replies: Replies, ratios: Ratios) -> tuple[int, int]:
    """Return the index numbers of the score's and the accuracy's ratios."""
    correct, there = sitting.column(replies, lambda record: float(record.correct))
    return ratios.add(*sitting.points(replies, there)), ratios.add(correct, there)
