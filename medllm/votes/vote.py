"""Votes on two explanations: what one holds, how far raters agree, and the preference rows for training."""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date
from itertools import combinations
from typing import Any, Literal, Self, get_args

from medllm.errors import DataError
from medllm.exam.benchmarks import CATALOGUE
from medllm.exam.prompts import Prompt
from medllm.exam.question import Question
from medllm.exam.record import Record

Choice = Literal["a", "b", "tie", "bad"]
Reason = Literal["fact", "omission", "harmful", "outdated", "unsupported", "lucky"]
Use = Literal["training", "evaluation-only"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
REASONS: tuple[Reason, ...] = get_args(Reason)
LONGEST_NOTE = 1000


@dataclass(frozen=True, kw_only=True)
class Vote:
    """A stored judgement; the two texts are identified by their hashes and found in the results."""

    vote_id: str
    """One rater's vote on one pair: sending it twice is the same vote."""
    time: str
    benchmark: str
    question_id: str
    model_a: str
    model_b: str
    completion_a: str
    """SHA-256 of the explanation shown on side A."""
    completion_b: str
    length_a: int
    """Characters of explanation A, to separate a preference for length from one for quality."""
    length_b: int
    choice: Choice
    """Which is better: a, b, tie, or bad (both unfit)."""
    reasons_a: tuple[Reason, ...] = ()
    """What is wrong with A: fact, omission, harmful, outdated, unsupported step, lucky (right for wrong reasons)."""
    reasons_b: tuple[Reason, ...] = ()
    faulty_a: tuple[str, ...] = ()
    """The sentences of A that were marked as faulty."""
    faulty_b: tuple[str, ...] = ()
    note: str = ""
    role: str = ""
    """The rater's profession as the rater states it; not verified."""
    rater: str
    """A hash of a number drawn in the rater's browser: it links the votes of one rater without an identity."""
    language: str
    seconds: float
    results: str
    """The results that were shown, as name@revision."""
    use: Use
    """`evaluation-only` for votes on test items: they never become training pairs."""

    def line(self) -> str:
        """Return the vote as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """A vote from its JSON."""
        names = {field.name for field in fields(cls)}
        try:
            columns: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in row.items() if name in names
            }
            return cls(**columns)
        except TypeError as fault:
            raise DataError(
                "preferences.incomplete-vote", f"the vote is incomplete ({fault}). Give every field."
            ) from fault


def digest(text: str) -> str:
    """Return the SHA-256 of a text, which identifies a completion."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Agreement:
    """Agreement figures, with the numbers of votes, raters and pairs behind them."""

    votes: int
    raters: int
    pairs: int
    """Judgements by two different raters of the same two texts."""
    equal: float
    """The share of those with the same choice; nan when there are none."""
    kappa: float
    """The same beyond chance; nan when there are none, or when chance alone explains everything."""
    low: float
    high: float
    """The 95 % interval of kappa (large-sample)."""


def agreement(votes: Sequence[Vote]) -> Agreement:
    """Agreement over all pairs of raters who saw the same two explanations, on either side."""
    seen: dict[tuple[str, ...], list[tuple[str, str]]] = defaultdict(list)
    for vote in votes:
        key = (vote.benchmark, vote.question_id, *sorted((vote.completion_a, vote.completion_b)))
        seen[key].append((vote.rater, _faced(vote)))
    couples = [
        (first[1], second[1])
        for judged in seen.values()
        for first, second in combinations(judged, 2)
        if first[0] != second[0]
    ]
    equal, kappa, half = kappa_of(couples)
    raters = len({vote.rater for vote in votes})
    return Agreement(len(votes), raters, len(couples), equal, kappa, kappa - half, kappa + half)


def kappa_of(couples: Sequence[tuple[str, str]]) -> tuple[float, float, float]:
    """Share of equal choices, kappa, and half its 95 % interval; raters are interchangeable, so margins are pooled.

    >>> couples = [("a", "a")] * 20 + [("a", "b")] * 5 + [("b", "a")] * 10 + [("b", "b")] * 15
    >>> [round(value, 3) for value in kappa_of(couples)]
    [0.7, 0.394, 0.257]
    """
    size = len(couples)
    if not size:
        return math.nan, math.nan, math.nan
    equal = sum(first == second for first, second in couples) / size
    margin = Counter(choice for couple in couples for choice in couple)
    chance = sum((count / (2 * size)) ** 2 for count in margin.values())
    if chance == 1:
        return equal, math.nan, math.nan
    kappa = (equal - chance) / (1 - chance)
    half = 1.96 * math.sqrt(equal * (1 - equal) / size) / (1 - chance)
    return equal, kappa, half


def _faced(vote: Vote) -> str:
    """Express the choice by text instead of by side, since sides are drawn separately for each rater."""
    if vote.choice not in CHOICES[:2]:
        return vote.choice
    first_is_a = vote.completion_a <= vote.completion_b
    return "first" if (vote.choice == "a") == first_is_a else "second"


Find = Callable[[Vote, str], Record | None]
"""Finds the explanation that a side showed, by the vote and the model."""


def use_of(question: Question, cutoff: date | None) -> Use:
    """Return whether votes on a question may train: only where its exam was sat by the cutoff and is not test-only.

    Unknown means not allowed: without a cutoff or an exam date, or for a test-only set, votes may not train.
    """
    known = CATALOGUE.get(question.benchmark)
    if known is not None and known.test_only:
        return "evaluation-only"
    if cutoff is None or question.exam_date is None or question.exam_date > cutoff:
        return "evaluation-only"
    return "training"


def preference_rows(
    votes: Iterable[Vote], find: Find, prompts: Callable[[Vote], tuple[Prompt, Prompt]]
) -> list[dict[str, Any]]:
    """Return the votes that may train, as prompt, chosen and rejected; ties and votes on changed texts are left out.

    `prompts` gives the prompt of the shown replies, with its worked examples and without them; both answers continue
    it as sampled preference pairs do.
    """
    rows = []
    for vote in votes:
        if vote.use != "training" or vote.choice not in ("a", "b"):
            continue
        a, b = find(vote, vote.model_a), find(vote, vote.model_b)
        if a is None or b is None or (_digest(a), _digest(b)) != (vote.completion_a, vote.completion_b):
            continue
        chosen, rejected = (a, b) if vote.choice == "a" else (b, a)
        prompt, bare = prompts(vote)
        rows.append(
            {
                "prompt": prompt.text,
                "prompt_without_shots": bare.text,
                "chosen": prompt.completion(chosen.completion),
                "rejected": prompt.completion(rejected.completion),
                "pair": "expert",
                "origin": "expert",
                "question_id": vote.question_id,
                "benchmark": vote.benchmark,
                "model": chosen.model,
                "rejected_model": rejected.model,
                "prompt_hash": prompt.hash,
                "vote_id": vote.vote_id,
            }
        )
    return rows


def _digest(record: Record) -> str:
    return hashlib.sha256(record.completion.encode()).hexdigest()
