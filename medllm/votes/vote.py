"""Votes on two explanations: what one holds, and the preference rows for training."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from operator import attrgetter
from typing import Any, Literal, Self, cast, get_args, get_origin, get_type_hints

from medllm.errors import DataError
from medllm.exam.benchmarks import CATALOGUE
from medllm.exam.prompts import Prompt
from medllm.exam.question import Question
from medllm.exam.record import Record

Choice = Literal["a", "b", "tie", "bad", "skip"]
Reason = Literal["fact", "omission", "harmful", "outdated", "unsupported", "lucky"]
Use = Literal["training", "evaluation-only"]
CHOICES: tuple[Choice, ...] = get_args(Choice)[:4]
"""The judgements; a skip is stored, so that the pair is not shown again, and counts in no figure."""
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
    """Which is better: a, b, tie, or bad (both unfit); skip where the rater did not judge."""
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
    supersedes: str = ""
    """The `vote_id` of the same rater's earlier vote that this one corrects; of one pair only the last vote counts."""

    def line(self) -> str:
        """Return the vote as one line of JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """Return a vote from its JSON; DataError where a field is missing, of another type or of no known value."""
        kinds = get_type_hints(cls)
        try:
            columns: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value for name, value in row.items() if name in kinds
            }
            vote = cls(**columns)
        except (TypeError, AttributeError) as fault:
            raise DataError(
                "preferences.incomplete-vote", f"the vote is incomplete ({fault}). Give every field."
            ) from fault
        wrong = [name for name, kind in kinds.items() if not _fits(getattr(vote, name), kind)]
        if wrong:
            raise DataError(
                "preferences.invalid-vote",
                f"the vote's {', '.join(wrong)} cannot be what a rater gave. Correct the fields, or remove the vote.",
            )
        return vote


def _fits(value: object, kind: Any) -> bool:  # noqa: ANN401  (a type)
    """Return whether a value is of a field's type: text, a number of 0 or more, one of some words, or a list."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_fits(entry, get_args(kind)[0]) for entry in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf
    return type(value) is kind and (kind is not int or cast(int, value) >= 0)


def digest(text: str) -> str:
    """Return the SHA-256 of a text, which identifies a completion."""
    return hashlib.sha256(text.encode()).hexdigest()


def pair_of(vote: Vote) -> tuple[Any, ...]:
    """Return what identifies the two replies of a vote, whichever side each was on."""
    sides = sorted(((vote.model_a, vote.completion_a), (vote.model_b, vote.completion_b)))
    return vote.benchmark, vote.question_id, *sides


def counted(votes: Sequence[Vote]) -> list[Vote]:
    """Return the votes that count: of one rater's votes on one pair of replies, the last."""
    last: dict[tuple[Any, ...], Vote] = {}
    for vote in sorted(votes, key=attrgetter("time")):  # stable: within a second, the order of the journal
        last[vote.rater, *pair_of(vote)] = vote
    return list(last.values())


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
