"""What explaining does to a model's answers, question by question: kept, lost, gained, and what the lost ones were."""

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
    """What explaining did to a model, question by question, over the questions asked both ways."""

    questions: int
    unpaired: int
    """Questions asked only one way: in no number here."""
    delta: Estimate
    """Score explained minus score plain, with the paired, point-weighted, vignette-clustered interval."""
    lost: int
    gained: int
    p: float
    """Exact McNemar, two-sided, on lost against gained."""
    transitions: dict[Transition, int]
    retention: Estimate
    """Of what was right plainly, the share still right when explained."""
    churn: Estimate
    """The share of questions whose rightness changed, either way."""
    losses: dict[Loss, int]
    """What the lost ones were when explained."""
    readable: int
    delta_readable: Estimate
    """Delta over the questions where both replies could be read: without what the harness lost."""
    judged: int
    """Explained replies whose own words judge the choices."""
    agreeing: int
    """Those whose answer is the one their own words set apart."""


@dataclass(frozen=True, slots=True)
class ChangeRatios:
    """A model's pairs of replies and the numbers of its ratios."""

    pairs: list[tuple[Record, Record]]
    unpaired: int
    plain: int
    explained: int
    retention: int
    churn: int
    readable_plain: int
    readable_explained: int


def plan_change(sitting: ExamReplies, model: str, ratios: Ratios) -> ChangeRatios | None:
    """Add the ratios of a model that was asked both ways; None for one that was not."""
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
    """The change of a model, from its ratios."""
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
    """What became of one question; two unreadable replies are not "the same answer"."""
    if plain.correct:
        return "right_right" if explained.correct else "right_wrong"
    if explained.correct:
        return "wrong_right"
    return "wrong_same" if plain.answer is not None and plain.answer == explained.answer else "wrong_other"


def loss(explained: Record) -> Loss:
    """What a lost answer was: something the harness could not read, or really another answer."""
    return "other_answer" if explained.status == "answered" else explained.status


def _right(record: Record) -> float:
    return float(record.correct)


def _was_read(record: Record) -> float:
    return float(record.status not in _HARNESS)


def _agreement(explained: Record) -> bool | None:
    """Whether an explained reply's answer is the one its own words set apart; None when they do not say."""
    return agrees(explained.answer, verdicts(explained.completion)) if explained.answer is not None else None
