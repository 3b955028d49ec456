"""One graded reply to one question under one condition: the row that evaluate writes and all reports read."""

from dataclasses import dataclass, fields
from typing import Literal

PromptStyle = Literal["plain", "explain"]
Status = Literal["answered", "unparsed", "truncated", "run_on", "loop", "wrong_count"]
STATUSES: tuple[Status, ...] = ("answered", "unparsed", "truncated", "run_on", "loop", "wrong_count")
PROMPTS: tuple[PromptStyle, ...] = ("plain", "explain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A graded reply; the fields are the columns of the records schema, in order, each with its meaning."""

    question_id: str
    """The question's id within its benchmark."""
    benchmark: str
    """The benchmark's name in the catalogue."""
    model: str
    """The model's displayed name ("base", "cpt", "final", "gpt-4o")."""
    prompt: PromptStyle
    """`plain` asks for the answer alone, `explain` for the explanation first."""
    status: Status
    """`answered`, or why there is no countable answer: unparsed, truncated, run_on, loop, wrong_count."""
    correct: bool
    """Whether the answer is among the accepted ones."""
    points: float
    """Points earned: all of the question's points, or none."""
    points_total: float
    """Points the question carries."""
    answer: str | None = None
    """The answer read from the reply, "b,d" or "2.1"; null if none was found."""
    gold: str | None = None
    """The (first) accepted answer, written the same way."""
    how: str | None = None
    """The rule that found the answer."""
    completion: str = ""
    """The reply as generated, without the prompt."""
    finish_reason: str | None = None
    """Why generation ended: "stop", "length", or null when unknown."""
    truncated: bool = False
    """Whether the reply was cut off by its token budget."""
    run_on: bool = False
    """Whether the reply continued into an invented next question or turn."""
    loop: bool = False
    """Whether the reply ends in a repetition loop."""
    prohibited: str | None = None
    """The prohibited choices (禁忌肢) that were picked; null when none."""
    year: int | None = None
    """The exam's year, where there is one."""
    section: str | None = None
    """The exam's section ("A" to "F"), where there is one."""
    category: str | None = None
    """The question's subject."""
    group: str | None = None
    """The vignette shared with other questions: the cluster for intervals."""
    required: bool = False
    """Whether the question counts towards the compulsory part."""
    image: bool = False
    """Whether the question needs a picture that the model was not shown."""
    model_revision: str | None = None
    """The commit of the model that replied."""
    template: str | None = None
    """The prompt's wording, "igakuqa" or "paper"."""
    shots: int = 0
    """Number of worked examples before the question."""
    context: str = "original"
    """"original", or "linked" where lost case texts were put back."""
    sample: int = 0
    """0 for the reply that is scored; 1, 2 ... for further samples of the same prompt."""
    seed: int | None = None
    """The seed of sampling; null for greedy decoding."""
    probability: float | None = None
    """The model's own probability of its answer, between 0 and 1, where it was measured."""
    tokens: int | None = None
    """Tokens generated."""
    prompt_hash: str | None = None
    """SHA-256 of the prompt's text."""


REQUIRED = ("question_id", "benchmark", "model", "prompt", "status", "correct", "points", "points_total")
"""Columns that a records file must have; an absent other column takes its default."""

COLUMNS = tuple(field.name for field in fields(Record))
"""Every column of the schema, in order."""
