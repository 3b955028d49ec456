"""Paired comparisons on the same questions: plain with explained, and model with model under Holm's correction."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import Literal, get_args

import numpy as np

from medllm.exam.extract.answer import read_completion
from medllm.exam.extract.choice_list import agrees, verdicts
from medllm.exam.question import read_answer
from medllm.exam.record import CUT_OFF, PROMPTS, PromptStyle, Record
from medllm.exam.stability.condition import ExamReplies, scored
from medllm.exam.statistics import Estimate, Interval, QuestionSample, Ratio, holm, mcnemar

Pair = tuple[PromptStyle, PromptStyle]
"""Two prompts that a model was asked: a change is the second minus the first."""
EXPLAINING: Pair = ("plain", "explain")
PAIRS: tuple[Pair, ...] = (EXPLAINING, ("plain", "think"), ("explain", "think"))
Transition = Literal["right_right", "right_wrong", "wrong_right", "wrong_same", "wrong_other"]
Loss = Literal[
    "unparsed", "truncated", "thinking", "too_long", "refused", "run_on", "loop", "wrong_count", "other_answer"
]
TRANSITIONS: tuple[Transition, ...] = ("right_right", "right_wrong", "wrong_right", "wrong_same", "wrong_other")
LOSSES: tuple[Loss, ...] = get_args(Loss)
_HARNESS = frozenset(LOSSES) - {"wrong_count", "other_answer"}


@dataclass(frozen=True, slots=True)
class PairedChange:
    """The effect of another prompt on a model, over the questions asked both ways."""

    before: PromptStyle
    after: PromptStyle
    questions: int
    unpaired: int
    """Questions asked only one way; no number here includes them."""
    delta: Estimate
    """Score under `after` minus score under `before`, with the paired, point-weighted, vignette-clustered interval."""
    lost: int
    lost_unread: int
    """Of the lost ones, those whose later reply holds no answer: they did not become wrong."""
    lost_cut: int
    """Of `lost_unread`, those whose reply was cut off."""
    lost_prohibited: int
    """Of the lost ones, those whose later answer holds a prohibited choice."""
    gained: int
    p: float
    """Exact McNemar, two-sided, on lost against gained."""
    transitions: dict[Transition, int]
    by_chance: float | None
    """Answers that two guesses are expected to lose, and as many to gain; None where choices are not recorded."""
    lost_beyond_chance: Estimate | None
    """Lost answers less those by chance, in questions; the interval is that of the lost ones' share, with the answers
    expected by chance taken as known."""
    gained_beyond_chance: Estimate | None
    """The same of the gained answers."""
    retention: Estimate
    """The share of questions right under `before` that are right under `after` too."""
    churn: Estimate
    """The share of questions that changed between right and wrong, in either direction."""
    losses: dict[Loss, int]
    """Kinds of the lost answers' replies under `after`."""
    readable: int
    delta_readable: Estimate
    """Delta over the questions with two readable replies: without the losses of answer extraction."""
    judged: int
    """Replies under `after` whose own words give verdicts on the choices."""
    agreeing: int
    """Those of the `judged` replies whose answer is the one their own words set apart."""


@dataclass(frozen=True, slots=True)
class MarginClaims:
    """The claims about a paired change that its interval proves, each one-sided test at 2.5 %."""

    margin: float
    """As a share of the points: 0.02 is two points of 100."""
    not_worse: bool
    """Non-inferiority: the loss is smaller than the margin, since the interval ends above it."""
    equivalent: bool
    """Equivalence by two one-sided tests: the whole interval is within the margin."""


def margin_claims(change: Estimate, margin: float | None) -> MarginClaims | None:
    """Return what the 95 % interval of a change proves for a margin; None without a margin or an interval.

    >>> from medllm.exam.statistics import Interval
    >>> margin_claims(Estimate(0.0, Interval(-0.01, 0.03)), 0.02)
    MarginClaims(margin=0.02, not_worse=True, equivalent=False)
    """
    if margin is None or change.interval is None:
        return None
    not_worse = change.interval.low > -margin
    return MarginClaims(margin, not_worse, not_worse and change.interval.high < margin)


def paired_change(
    exam: ExamReplies, model: str, sample: QuestionSample, pair: Pair = EXPLAINING
) -> PairedChange | None:
    """Compute the change of a model over the questions asked under both prompts; None if there are none."""
    plain, explained = (exam.replies.get((model, prompt)) for prompt in pair)
    if plain is None or explained is None:
        return None
    (right, there), (right_too, there_too) = exam.column(plain, _right), exam.column(explained, _right)
    both = there * there_too
    names = [question.question_id for question in exam.questions]
    answers, answers_too = scored(plain), scored(explained)
    pairs = [(answers[name], answers_too[name]) for name, in_both in zip(names, both, strict=True) if in_both]
    if not pairs:
        return None
    read = both * exam.column(plain, _was_read)[0] * exam.column(explained, _was_read)[0]
    transitions = Counter(transition(*pair) for pair in pairs)
    lost = [later for earlier, later in pairs if earlier.correct and not later.correct]
    losses = Counter(map(loss, lost))
    agreements = [agreed for _, later in pairs if (agreed := _agreement(later)) is not None]
    by_chance = expected_by_chance(pairs)
    return PairedChange(
        before=pair[0],
        after=pair[1],
        questions=len(pairs),
        unpaired=int((there + there_too - 2 * both).sum()),
        delta=sample.score(exam.points(explained, both), minus=exam.points(plain, both)),
        lost=transitions["right_wrong"],
        lost_unread=sum(later.answer is None for later in lost),
        lost_cut=sum(later.answer is None and later.status in CUT_OFF for later in lost),
        lost_prohibited=sum(bool(later.prohibited) for later in lost),
        gained=transitions["wrong_right"],
        p=mcnemar(transitions["right_wrong"], transitions["wrong_right"]),
        transitions={name: transitions[name] for name in TRANSITIONS},
        by_chance=by_chance,
        lost_beyond_chance=_beyond(sample.share(Ratio(both * right * (1 - right_too), both)), len(pairs), by_chance),
        gained_beyond_chance=_beyond(sample.share(Ratio(both * right_too * (1 - right), both)), len(pairs), by_chance),
        retention=sample.share(Ratio(both * right * right_too, both * right)),
        churn=sample.share(Ratio(both * np.abs(right - right_too), both)),
        losses={name: losses[name] for name in LOSSES},
        readable=int(read.sum()),
        delta_readable=sample.score(exam.points(explained, read), minus=exam.points(plain, read)),
        judged=len(agreements),
        agreeing=sum(agreements),
    )


def expected_by_chance(pairs: Sequence[tuple[Record, Record]]) -> float | None:
    """Return how many answers a model that guesses what it does not know loses by chance, and gains by chance.

    A question with n choices of which k are asked is guessed with probability g = 1 / C(n, k); a number is never. A
    model that knows a share of the questions and guesses on the others is right on known + (1 - known) * mean(g), so
    its score gives the share it guesses. As many questions as the smaller of the two shares are guessed both times,
    and each of these is right and then wrong with probability g * (1 - g). arXiv:2510.17776 corrects transitions for
    chance; this is our form of it, with the choices of each question. None where a record has no `choices`.

    >>> wrong = Record(question_id="q", benchmark="b", model="m", prompt="plain", status="answered", correct=False,
    ...     points=0, points_total=1, answer="b", gold="a", choices=5)
    >>> round(expected_by_chance([(wrong, wrong)] * 100), 6)
    16.0
    """
    if any(plain.choices is None for plain, _ in pairs):
        return None
    luck = np.array([_luck(plain) for plain, _ in pairs])
    right = [float(np.mean([record.correct for record in side])) for side in zip(*pairs, strict=True)]
    guessed = min(min(1.0, (1 - share) / (1 - float(luck.mean()))) for share in right)
    return guessed * float((luck * (1 - luck)).sum())


def _beyond(share: Estimate, questions: int, by_chance: float | None) -> Estimate | None:
    """Return a share of the questions as their number less those by chance, with its interval."""
    if by_chance is None or share.value is None or share.interval is None:
        return None
    low, high = (end * questions - by_chance for end in (share.interval.low, share.interval.high))
    return Estimate(share.value * questions - by_chance, Interval(low, high))


def _luck(record: Record) -> float:
    """Return the probability that a guess among the choices is right."""
    asked = len(read_answer(record.gold) or ())
    return 1 / comb(record.choices, asked) if record.choices and 0 < asked <= record.choices else 0.0


def transition(plain: Record, explained: Record) -> Transition:
    """Classify the change of one question; two unreadable replies are not "the same answer"."""
    if plain.correct:
        return "right_right" if explained.correct else "right_wrong"
    if explained.correct:
        return "wrong_right"
    return "wrong_same" if plain.answer is not None and plain.answer == explained.answer else "wrong_other"


def loss(explained: Record) -> Loss:
    """Classify a lost answer: a reply that could not be read, or a really different answer."""
    return "other_answer" if explained.status == "answered" else explained.status


def _right(record: Record) -> float:
    return float(record.correct)


def _was_read(record: Record) -> float:
    return float(record.status not in _HARNESS)


def _agreement(explained: Record) -> bool | None:
    """Return whether an explained reply's answer is the one its own words set apart; None if they set none apart."""
    if explained.answer is None:
        return None
    return agrees(explained.answer, verdicts(read_completion(explained.completion).text))


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
    """Answers lost: right of the first, not of the second."""
    only_first_unread: int
    """Of these, those where the second's reply holds no answer: they did not become wrong."""
    only_second: int
    """Answers gained."""
    by_chance: float | None
    """Answers that two guesses are expected to lose, and as many to gain; None where choices are not recorded."""
    lost_beyond_chance: Estimate | None
    """Lost answers less those by chance, in questions, as in `PairedChange`."""
    gained_beyond_chance: Estimate | None
    p: float
    p_holm: float
    """Corrected for the number of comparisons under this prompt."""
    trial: bool = False
    """Whether one of the two was asked only a part of the exam."""


def compare_models(exam: ExamReplies, sample: QuestionSample) -> list[Comparison]:
    """Compare every two models under each prompt, over the questions that both answered."""
    comparisons = []
    for prompt in PROMPTS:
        models = [model for model, its in exam.replies if its == prompt]
        pairs = [_compare(exam, prompt, first, second, sample) for first, second in combinations(models, 2)]
        comparisons += _corrected([pair for pair in pairs if pair.questions])
    return comparisons


def _compare(exam: ExamReplies, prompt: PromptStyle, first: str, second: str, sample: QuestionSample) -> Comparison:
    """Compute a pair's difference and its exact test, not yet corrected."""
    earlier, later = exam.replies[first, prompt], exam.replies[second, prompt]
    (right, there), (right_too, there_too) = exam.column(earlier, _right), exam.column(later, _right)
    both = there * there_too
    answers, answers_too = scored(earlier), scored(later)
    pairs = [(answers[name], answers_too[name]) for name in answers if name in answers_too]
    lost = [record for before, record in pairs if before.correct and not record.correct]
    gained = sum(record.correct and not before.correct for before, record in pairs)
    by_chance, p = expected_by_chance(pairs) if pairs else None, mcnemar(len(lost), gained)
    return Comparison(
        benchmark=exam.benchmark,
        prompt=prompt,
        first=first,
        second=second,
        questions=len(pairs),
        difference=sample.score(exam.points(later, both), minus=exam.points(earlier, both)),
        only_first=len(lost),
        only_first_unread=sum(record.answer is None for record in lost),
        only_second=gained,
        by_chance=by_chance,
        lost_beyond_chance=_beyond(sample.share(Ratio(both * right * (1 - right_too), both)), len(pairs), by_chance),
        gained_beyond_chance=_beyond(sample.share(Ratio(both * right_too * (1 - right), both)), len(pairs), by_chance),
        p=p,
        p_holm=p,
        trial=exam.is_trial(first, second),
    )


def _corrected(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Return the comparisons of one prompt with p values corrected for their number."""
    values = holm([comparison.p for comparison in comparisons])
    return [replace(result, p_holm=p) for result, p in zip(comparisons, values, strict=True)]
