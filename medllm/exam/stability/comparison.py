"""Compare models on the same questions under the same prompt: paired difference, exact test, Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from medllm.exam.estimates import Estimate, Ratios
from medllm.exam.record import PROMPTS, PromptStyle
from medllm.exam.significance import holm, mcnemar
from medllm.exam.stability.align import ExamReplies, Replies


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the same questions under the same prompt."""

    benchmark: str
    prompt: PromptStyle
    first: str
    second: str
    questions: int
    difference: Estimate
    """Score of the second minus score of the first."""
    only_first: int
    only_second: int
    p: float
    p_holm: float
    """Corrected for the number of comparisons under this prompt."""


@dataclass(frozen=True, slots=True)
class ModelPair:
    """Two models' replies and the index numbers of their ratios."""

    first: Replies
    second: Replies
    score_first: int
    score_second: int


def register_pairs(sitting: ExamReplies, ratios: Ratios) -> list[ModelPair]:
    """Register the ratios of every two models under each prompt, over the questions that both answered."""
    pairs = []
    for prompt in PROMPTS:
        asked = [replies for (_, its), replies in sitting.replies.items() if its == prompt]
        for first, second in combinations(asked, 2):
            _, there = sitting.column(first, lambda record: 1.0)
            _, there_too = sitting.column(second, lambda record: 1.0)
            both = there * there_too
            if both.any():
                scores = [ratios.add(*sitting.points(replies, both)) for replies in (first, second)]
                pairs.append(ModelPair(first, second, *scores))
    return pairs


def compare(sitting: ExamReplies, pair: ModelPair, ratios: Ratios) -> Comparison:
    """Compute a pair's difference and its exact test, not yet corrected."""
    shared = [name for name in pair.first.scored if name in pair.second.scored]
    rights = [(pair.first.scored[name].correct, pair.second.scored[name].correct) for name in shared]
    only_first = sum(first and not second for first, second in rights)
    only_second = sum(second and not first for first, second in rights)
    p = mcnemar(only_first, only_second)
    return Comparison(
        benchmark=sitting.benchmark,
        prompt=pair.first.prompt,
        first=pair.first.model,
        second=pair.second.model,
        questions=len(shared),
        difference=ratios.score(pair.score_second, minus=pair.score_first),
        only_first=only_first,
        only_second=only_second,
        p=p,
        p_holm=p,
    )


def corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons with p values corrected over all of an exam under each prompt."""
    found: list[Comparison] = []
    for prompt in PROMPTS:
        of_prompt = [one for one in comparisons if one.prompt == prompt]
        values = holm([one.p for one in of_prompt])
        found += [replace(one, p_holm=p) for one, p in zip(of_prompt, values, strict=True)]
    return found
