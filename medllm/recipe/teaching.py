"""The recipe's block about a teacher, and what a teacher's data cutoff means for the exams that are asked."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from medllm.recipe.base import parse_reference
from medllm.recipe.data import DataList, ExamYears, Share
from medllm.recipe.servers import OPENAI_PREFIX, ApiModel, Asking, Engine, VllmOptions, is_address

UNKNOWN = "unknown"
"""The cutoff of a teacher whose makers state none."""


def _day_or_unknown(value: Any) -> Any:  # noqa: ANN401  any YAML value
    """Refuse what is neither, once and not as two types that it is not."""
    try:
        if value == UNKNOWN or type(value) is date or date.fromisoformat(value):
            return value
    except (TypeError, ValueError):
        pass
    raise ValueError("write the last day of the teacher's training data, as 2024-06-30, or `unknown`")


class Teach(Asking):
    """Have a teacher explain past questions, and keep the explanations whose answer is the key."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset(
        {"run_on", "batch_size", "num_processes", "num_concurrent", "vllm", "prices"}
    )
    addresses: ClassVar[frozenset[str]] = frozenset({"engine"})
    keys_since: ClassVar[Mapping[str, Any]] = {}

    format: Literal["completion", "chat", "auto"] = "auto"
    """`chat` asks by a conversation, `completion` gives the prompt as a text that goes on; `auto` is `chat` where the
    teacher has a chat template, or its server takes conversations."""
    model: str | ApiModel
    """The teacher: `base`, a stage above, a repository or a folder; with an address as `engine` the server's name for
    it; `openai:MODEL`, or `{api: URL, model: NAME}` for a server of its own."""
    teacher_cutoff: Annotated[date | Literal["unknown"], BeforeValidator(_day_or_unknown)] = "unknown"
    """The last day of what the teacher was trained on, as its makers state it; `unknown` where they state none. Every
    card that descends from it states this beside the exams that are asked, and `gate.teacher_cutoff` can refuse it."""
    data: DataList
    """Past exams, none younger than the cutoff; the teacher needs no explanations of them."""
    held_out: tuple[str, ...] | None = None
    """Held-out exams, never asked here; the list of `corpus` when left out."""
    exam_years: ExamYears = Field(default_factory=dict)
    """The years that are held out, by exam; those under `exams` when left out, else all."""
    cutoff: date | None = None
    """Latest day of an exam that is asked; the recipe's own `cutoff` when left out."""
    only_unexplained: bool = False
    """Ask only the questions that have no explanation of their own."""
    view_explanation: bool = False
    """Show the teacher the question's own explanation and its key, for it to explain in its own words; the rows that
    are written do not show them. With `model: base` or a stage this is self-distillation."""
    shots: int = Field(default=0, ge=0, le=10)
    """Worked examples before each question."""
    exemplars: str | None = None
    """Where the worked examples come from; the first suitable items of `data` when left out."""
    template: Literal["igakuqa", "paper"] = "igakuqa"
    """The wording of the prompt, and of the rows that are written."""
    samples: int = Field(default=4, ge=1)
    """Explanations drawn for each question."""
    kept_per_question: int = Field(default=2, ge=1)
    """Maximum number of explanations that are kept of one question, the first that pass, so that none outweighs the
    rest."""
    temperature: float = Field(default=0.7, ge=0)
    """Spread of the draw; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus of the draw."""
    max_new_tokens: int = Field(default=1024, ge=1)
    """Maximum number of tokens in a reply; one that is cut off is not kept."""
    questions: int | None = Field(default=None, ge=1)
    """Maximum number of questions to ask, chosen by `seed`; all when left out."""
    min_chars: int = Field(default=20, ge=0)
    """Explanations of fewer characters, the answer aside, are not kept."""
    max_similarity: Share = 0.95
    """Similarity above which the later of two explanations of one question is not kept, nor one that repeats what
    `view_explanation` shows."""
    filters: tuple[Literal["contradiction", "foreign_disease"], ...] = ("contradiction",)
    """Explanations that are not kept although their answer is right: that give another answer before, or name a disease
    that the question does not."""
    leaks_reviewed: tuple[str, ...] = ()
    """Questions (`own/100A1`) or explanations (`own/100A1#2`) that a person has reviewed and found free of leaks."""
    seed: int = 0
    """Decides the draw."""
    engine: Engine = "local"
    """`local`, `transformers`, `vllm` (or `vllm==VERSION`), `auto`, or the address of an OpenAI-compatible server that
    holds the teacher ([the engines](training.md#engines))."""
    vllm: VllmOptions = VllmOptions()
    """How `engine: vllm` starts its server."""
    prices: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """US dollars per million input and output tokens, by the server's model name; the run reports its cost."""
    quantization: Literal["none", "nf4"] = "none"
    """The teacher in 4-bit NormalFloat, or as it is."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Number format of the computation."""
    batch_size: int = Field(default=8, ge=1)
    """Prompts at once; the answers do not depend on it."""
    num_processes: int | None = Field(default=None, ge=1)
    """Processes that answer on this machine, each with its own copy of the model; one for each GPU when left out."""
    num_concurrent: int | None = Field(default=None, ge=1)
    """Requests sent to a server at once; 16 to an address and 256 to `engine: vllm` when left out."""
    run_on: str | None = None
    """The machine; left out of the digest."""

    @property
    def prompt(self) -> Literal["explain"]:
        """What the teacher is asked for: to explain first, then to answer."""
        return "explain"

    @property
    def reference(self) -> str | None:
        """The teacher as a source of the stage; None where only its server has its files."""
        if isinstance(self.model, ApiModel) or self.model.startswith(OPENAI_PREFIX):
            return None
        if is_address(self.engine) and parse_reference(self.model).where not in ("base", "stage"):
            return None
        return self.model

    @property
    def name(self) -> str:
        """The teacher's name in rows and cards, as the recipe or its server has it."""
        return self.model.model if isinstance(self.model, ApiModel) else self.model.removeprefix(OPENAI_PREFIX)

    @property
    def is_itself(self) -> bool:
        """Whether the teacher is this recipe's own model: it knows what the student's base knows, and no more."""
        return self.reference is not None and parse_reference(self.reference).where in ("base", "stage")


def exams_it_may_know(cutoff: str, first_days: Mapping[str, date | None]) -> dict[str, date | None]:
    """Return the exams that a teacher may have been trained on, each with its first day (None where that is unknown).

    `cutoff` is a day as 2024-06-30, or `unknown`. An exam of a later first day is none of them.

    >>> exams_it_may_know("2019-12-31", {"old": date(2018, 2, 10), "new": date(2026, 2, 7), "own": None})
    {'old': datetime.date(2018, 2, 10), 'own': None}
    """
    last = None if cutoff == UNKNOWN else date.fromisoformat(cutoff)
    return {name: first for name, first in first_days.items() if last is None or first is None or first <= last}
