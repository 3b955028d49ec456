"""One vote: which of two explanations is better, why, and on what; never whose name, never any text of a patient."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

from medllm.errors import DataError

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
