"""Compare models on the same questions under the same prompt: paired difference, exact test, Holm's correction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from medllm.exam.record import PROMPTS, PromptStyle
from medllm.exam.stability.align import ExamReplies, scored
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
        models = [model for model, its in exam.replies if its == prompt]
        pairs = [_compare(exam, prompt, first, second, sample) for first, second in combinations(models, 2)]
        found += _corrected([pair for pair in pairs if pair.questions])
    return found


def _compare(exam: ExamReplies, prompt: PromptStyle, first: str, second: str, sample: QuestionSample) -> Comparison:
    """Compute a pair's difference and its exact test, not yet corrected."""
    earlier, later = exam.replies[first, prompt], exam.replies[second, prompt]
    (_, there), (_, there_too) = (exam.column(samples, lambda record: 1.0) for samples in (earlier, later))
    both = there * there_too
    answers, answers_too = scored(earlier), scored(later)
    shared = [name for name in answers if name in answers_too]
    rights = [(answers[name].correct, answers_too[name].correct) for name in shared]
    only_first = sum(right and not right_too for right, right_too in rights)
    only_second = sum(right_too and not right for right, right_too in rights)
    p = mcnemar(only_first, only_second)
    return Comparison(
        benchmark=exam.benchmark,
        prompt=prompt,
        first=first,
        second=second,
        questions=len(shared),
        difference=sample.score(exam.points(later, both), minus=exam.points(earlier, both)),
        only_first=only_first,
        only_second=only_second,
        p=p,
        p_holm=p,
    )


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons of one prompt with p values corrected for their number."""
    values = holm([one.p for one in comparisons])
    return [replace(one, p_holm=p) for one, p in zip(comparisons, values, strict=True)]
