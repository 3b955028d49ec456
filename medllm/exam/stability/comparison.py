"""Compare models on the same questions under the same prompt: paired difference, exact test, Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from medllm.exam.record import PROMPTS, PromptStyle
from medllm.exam.stability.align import ExamReplies, Replies
from medllm.exam.statistics import Estimate, QuestionSample, holm, mcnemar


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


def compare_models(exam: ExamReplies, sample: QuestionSample) -> list[Comparison]:
    """Compare every two models under each prompt, over the questions that both answered."""
    found = []
    for prompt in PROMPTS:
        asked = [replies for (_, its), replies in exam.replies.items() if its == prompt]
        pairs = [_compare(exam, first, second, sample) for first, second in combinations(asked, 2)]
        found += _corrected([pair for pair in pairs if pair.questions])
    return found


def _compare(exam: ExamReplies, first: Replies, second: Replies, sample: QuestionSample) -> Comparison:
    """Compute a pair's difference and its exact test, not yet corrected."""
    (_, there), (_, there_too) = (exam.column(replies, lambda record: 1.0) for replies in (first, second))
    both = there * there_too
    shared = [name for name in first.scored if name in second.scored]
    rights = [(first.scored[name].correct, second.scored[name].correct) for name in shared]
    only_first = sum(right and not right_too for right, right_too in rights)
    only_second = sum(right_too and not right for right, right_too in rights)
    p = mcnemar(only_first, only_second)
    return Comparison(
        benchmark=exam.benchmark,
        prompt=first.prompt,
        first=first.model,
        second=second.model,
        questions=len(shared),
        difference=sample.score(exam.points(second, both), minus=exam.points(first, both)),
        only_first=only_first,
        only_second=only_second,
        p=p,
        p_holm=p,
    )


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons of one prompt with p values corrected for their number."""
    values = holm([one.p for one in comparisons])
    return [replace(one, p_holm=p) for one, p in zip(comparisons, values, strict=True)]
