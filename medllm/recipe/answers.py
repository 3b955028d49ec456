"""The recipe's block about questions that are asked: which models answer which exams, and how."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from medllm.exam.record import PromptStyle
from medllm.recipe.base import Settings
from medllm.recipe.data import ExamYears
from medllm.recipe.servers import ApiModel, Asking, Engine, VllmOptions


class MaxNewTokens(Settings):
    """Maximum number of tokens in a reply, by prompt."""

    keys_since: ClassVar[Mapping[str, Any]] = {"think": 8192}

    plain: int = Field(default=32, ge=1)
    """For the answer alone."""
    explain: int = Field(default=1024, ge=1)
    """For an explanation and the answer."""
    think: int = Field(default=8192, ge=1)
    """For thinking and the answer together; a reply whose thinking is cut off is never answered."""


class Evaluate(Asking):
    """Ask every model every exam, plainly, with an explanation or after thinking, and record each answer."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset(
        {"run_on", "batch_size", "prices", "num_processes", "num_concurrent", "vllm"}
    )
    addresses: ClassVar[frozenset[str]] = frozenset({"engine"})
    keys_since: ClassVar[Mapping[str, Any]] = {**Asking.keys_since, "exam_years": {}}

    models: dict[str, str | ApiModel]
    """The models: a name for the tables, and `base`, a stage, a repository, a folder, `openai:MODEL` (asked by chat at
    `engine`, or at OpenAI's address), or `{api: URL, model: NAME}` for one with an address of its own."""
    benchmarks: tuple[str, ...]
    """The exams; each must be under `held_out` of the corpus."""
    prompts: tuple[PromptStyle, ...] = ("plain", "explain")
    """Ask for the answer alone (`plain`), for an explanation first (`explain`), or for the answer alone after thinking
    in a channel of its own (`think`, by chat)."""
    shots: int | dict[str, int] = 3
    """Worked examples, for all exams or by exam (the paper: 3 for IgakuQA, 0 for the others)."""
    template: Literal["igakuqa", "paper"] = "igakuqa"
    """The wording of the prompt."""
    context: Literal["original", "linked"] = "original"
    """Follow-up questions as published, or with the case text they have lost put back."""
    years: tuple[int, ...] | None = None
    """The years of the exams; all when left out. Exams without years (MedQA) are asked whole."""
    exam_years: ExamYears = Field(default_factory=dict)
    """The years of single exams; those under `exams` when left out."""
    limit: int | None = Field(default=None, ge=1)
    """Maximum number of questions of each exam, for a trial; the results state it."""
    quantization: Literal["none", "nf4"] = "none"
    """The base in 4-bit NormalFloat, or as it is."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Number format of the computation."""
    max_new_tokens: MaxNewTokens = MaxNewTokens()
    """Maximum number of tokens in a reply, by prompt."""
    samples: int = Field(default=1, ge=1)
    """Answers to each question; more than one needs a temperature."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    seed: int = 0
    """Decides sampled answers."""
    engine: Engine = "local"
    """`local`, `transformers`, `vllm` (or `vllm==VERSION`), `auto`, or the address of an OpenAI-compatible server that
    holds base and adapters ([the engines](training.md#engines))."""
    vllm: VllmOptions = VllmOptions()
    """How `engine: vllm` starts its server."""
    prices: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """US dollars per million input and output tokens, by the server's model name; the run reports its cost."""
    batch_size: int = Field(default=8, ge=1)
    """Prompts at once; the answers do not depend on it."""
    num_processes: int | None = Field(default=None, ge=1)
    """Processes that answer on this machine, each with its own copy of the model; one for each GPU when left out."""
    num_concurrent: int | None = Field(default=None, ge=1)
    """Requests sent to a server at once; 16 to an address and 256 to `engine: vllm` when left out."""
    run_on: str | None = None
    """The machine; left out of the digest."""

    @property
    def references(self) -> dict[str, str]:
        """The models without an address of their own, by name."""
        return {name: model for name, model in self.models.items() if isinstance(model, str)}
