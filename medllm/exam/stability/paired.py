"""The effect of explaining on a model's answers, question by question: kept, lost, gained, and how each was lost."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medllm.exam.estimates import Estimate, Ratios
from medllm.exam.extract.option_verdicts import agrees, verdicts
from medllm.exam.record import Record
from medllm.exam.significance import mcnemar
from medllm.exam.stability.align import ExamReplies

Transition = Literal["right_right", "right_wrong", "wrong_right", "wrong_same", "wrong_other"]
Loss = Literal["unparsed", "truncated", "run_on", "loop", "wrong_count", "other_answer"]
TRANSITIONS: tuple[Transition, ...] = ("right_right", "right_wrong", "wrong_right", "wrong_same", "wrong_other")
LOSSES: tuple[Loss, ...] = ("unparsed", "truncated", "run_on", "loop", "wrong_count", "other_answer")
_HARNESS = frozenset({"unparsed", "truncated", "run_on", "loop"})


@dataclass(frozen=True, slots=True)
class PairedChange:
    """The effect of explaining on a model, over the questions asked both ways."""

    questions: int
    unpaired: int
    """Questions asked only one way; no number here includes them."""
    delta: Estimate
    """Score explained minus score plain, with the paired, point-weighted, vignette-clustered interval."""
    lost: int
    gained: int
    p: float
    """Exact McNemar, two-sided, on lost against gained."""
    transitions: dict[Transition, int]
    retention: Estimate
    """The share of plainly right questions that are still right when explained."""
    churn: Estimate
    """The share of questions that changed between right and wrong, in either direction."""
    losses: dict[Loss, int]
    """Kinds of the lost answers' explained replies."""
    readable: int
    delta_readable: Estimate
    """Delta over the questions with two readable replies: without the losses of answer extraction."""
    judged: int
    """Explained replies whose own words give verdicts on the choices."""
    agreeing: int
    """Those of the `judged` replies whose answer is the one their own words set apart."""


@dataclass(frozen=True, slots=True)
class ChangeRatios:
    """A model's pairs of replies and the index numbers of its ratios."""

    pairs: list[tuple[Record, Record]]
    unpaired: int
    plain: int
    explained: int
    retention: int
    churn: int
    readable_plain: int
    readable_explained: int


def plan_change(sitting: ExamReplies, model: str, ratios: Ratios) -> ChangeRatios | None:
    """Register the ratios of a model that was asked both ways; return None for any other model."""
    plain, explained = sitting.replies.get((model, "plain")), sitting.replies.get((model, "explain"))
    if plain is None or explained is None:
        return None
    right, there = sitting.column(plain, _right)
    right_too, there_too = sitting.column(explained, _right)
    both = there * there_too
    fine, fine_too = (sitting.column(replies, _was_read)[0] for replies in (plain, explained))
    names = [question.question_id for question in sitting.questions]
    return ChangeRatios(
        pairs=[(plain.scored[name], explained.scored[name]) for name, one in zip(names, both, strict=True) if one],
        unpaired=int((there + there_too - 2 * both).sum()),
        plain=ratios.add(*sitting.points(plain, both)),
        explained=ratios.add(*sitting.points(explained, both)),
        retention=ratios.add(both * right * right_too, both * right),
        churn=ratios.add(both * np.abs(right - right_too), both),
        readable_plain=ratios.add(*sitting.points(plain, both * fine * fine_too)),
        readable_explained=ratios.add(*sitting.points(explained, both * fine * fine_too)),
    )


def read_change(found: ChangeRatios | None, ratios: Ratios) -> PairedChange | None:
    """Compute the change of a model from its ratios."""
    if found is None or not found.pairs:
        return None
    transitions = Counter(transition(plain, explained) for plain, explained in found.pairs)
    losses = Counter(loss(explained) for plain, explained in found.pairs if plain.correct and not explained.correct)
    said = [agreed for _, explained in found.pairs if (agreed := _agreement(explained)) is not None]
    return PairedChange(
        questions=len(found.pairs),
        unpaired=found.unpaired,
        delta=ratios.score(found.explained, minus=found.plain),
        lost=transitions["right_wrong"],
        gained=transitions["wrong_right"],
        p=mcnemar(transitions["right_wrong"], transitions["wrong_right"]),
        transitions={name: transitions[name] for name in TRANSITIONS},
        retention=ratios.share(found.retention),
        churn=ratios.share(found.churn),
        losses={name: losses[name] for name in LOSSES},
        readable=sum(bool(_was_read(plain) and _was_read(explained)) for plain, explained in found.pairs),
        delta_readable=ratios.score(found.readable_explained, minus=found.readable_plain),
        judged=len(said),
        agreeing=sum(said),
    )


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
    return agrees(explained.answer, verdicts(explained.completion)) if explained.answer is not None else None
