"""The whole recipe: one file is the whole pipeline, and what you read is what runs."""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PrivateAttr

from medllm.recipe.base import Settings, settings_for_digest
from medllm.recipe.data import Corpus, Data, DataList, DataSource, Preferences, Replay, Share, expand_name
from medllm.recipe.places import JobsPlace, SlurmPlace
from medllm.recipe.reference import KINDS, STAGES, Kind, Reference, Stage, parse_reference
from medllm.recipe.training import Cpt, Lora, Positive, Rpo, Training

__all__ = [
    "KINDS",
    "STAGES",
    "Corpus",
    "Cpt",
    "Data",
    "DataList",
    "DataSource",
    "Evaluate",
    "Exam",
    "Gate",
    "JobsPlace",
    "Kind",
    "Lora",
    "MaxNewTokens",
    "Merge",
    "Positive",
    "Preferences",
    "Publish",
    "Recipe",
    "Reference",
    "Replay",
    "Rpo",
    "Settings",
    "Share",
    "SlurmPlace",
    "Space",
    "Stage",
    "Training",
    "parse_reference",
    "settings_for_digest",
]


class Merge(Settings):
    """Fold the adapter into the base, shard by shard, with a certificate of parity."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset({"run_on"})

    model: str
    """The adapter, or adapters, that become one model with the base."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Numbers of the merged weights."""
    parity_questions: int = Field(default=32, ge=0)
    """Questions on which adapter and merged model are compared; 0 writes no certificate."""
    run_on: str | None = None
    """The machine; left out of the digest."""


class MaxNewTokens(Settings):
    """How many tokens a model may write."""

    plain: int = Field(default=32, ge=1)
    """When asked for the answer alone."""
    explain: int = Field(default=1024, ge=1)
    """When asked to explain first."""


class Evaluate(Settings):
    """Ask every model every exam, plainly and explained, and keep each answer."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset(
        {"run_on", "batch_size", "prices", "num_processes", "num_concurrent"}
    )
    addresses: ClassVar[frozenset[str]] = frozenset({"engine"})

    models: dict[str, str]
    """Who is asked: a name for the tables, and `base`, a stage, a repo, a folder, or `openai:MODEL`."""
    benchmarks: tuple[str, ...]
    """The exams; each must be held out above."""
    prompts: tuple[Literal["plain", "explain"], ...] = ("plain", "explain")
    """Asked for the answer alone, and asked to explain first."""
    shots: int | dict[str, int] = 3
    """Worked examples, for all exams or by exam (the paper: 3 for IgakuQA, 0 for the others)."""
    template: Literal["igakuqa", "paper"] = "igakuqa"
    """The wording of the prompt."""
    context: Literal["original", "linked"] = "original"
    """Follow-up questions as published, or with the case text they have lost put back."""
    years: tuple[int, ...] | None = None
    """Only these years' exams; all when left out."""
    limit: int | None = Field(default=None, ge=1)
    """At most so many questions of each exam, for a trial; the results say so."""
    quantization: Literal["none", "nf4"] = "none"
    """How the base is held while it answers."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Numbers to compute in."""
    max_new_tokens: MaxNewTokens = MaxNewTokens()
    """Room for the answer, by prompt."""
    samples: int = Field(default=1, ge=1)
    """Answers to each question; more than one needs a temperature."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    seed: int = 0
    """Decides sampled answers."""
    engine: str = "local"
    """`local`, or the address of an OpenAI-compatible server that holds base and adapters."""
    prices: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """US dollars per million tokens asked and answered, by the server's model name: what the run cost is told."""
    batch_size: int = Field(default=8, ge=1)
    """Prompts at once; the answers do not depend on it."""
    num_processes: int | None = Field(default=None, ge=1)
    """How many processes answer here, each with a model of its own; one for each GPU when left out."""
    num_concurrent: int = Field(default=16, ge=1)
    """How many requests a server gets at a time; vLLM is quickest with 128 to 256."""
    run_on: str | None = None
    """The machine; left out of the digest."""


class Space(Settings):
    """Lay the answers side by side in a Gradio Space."""

    results: str = "evaluate"
    """What is shown."""
    live: Literal["none", "adapters", "endpoint", "inference", "zerogpu"] = "none"
    """Whether and how new questions are answered."""
    title: str | None = None
    """Heading of the page and its card; the page's own question when left out."""
    hardware: str = "cpu-basic"
    """The Hub's name for the machine of the Space."""
    votes: str | None = None
    """Dataset repository for experts' votes; `NAME-votes` when left out."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Variables of the Space, readable by anybody."""
    secrets: tuple[str, ...] = ()
    """Names of variables here whose values become the Space's secrets."""


class Exam(Settings):
    """Where one exam's data lies, when it is not the catalogue's own place."""

    source: str
    """`ORG/NAME@REVISION` or `./folder`."""
    first: date | None = None
    """The earliest exam day in it; the catalogue knows this for its own."""


class Gate(Settings):
    """What must hold before anything is pushed for all to see."""

    audit: bool = True
    """No finding of the leakage audit without a person's answer."""
    personal_data: bool = True
    """No document that seems to name a patient."""
    max_drop: Share | None = None
    """How much an exam's score may fall when the final model explains, by the far end of the interval."""


class Publish(Settings):
    """Who may see and use what is pushed."""

    private: bool = True
    """Only the namespace sees it."""
    gated: Literal["no", "auto", "manual"] = "no"
    """Whether readers must ask."""
    license: str | None = None
    """Licence of what is made; taken from base and data when left out."""
    collection: str | None = None
    """Title of a Hub collection that gathers all of it."""


class Recipe(Settings):
    """A pipeline from texts to a published model; stages that are left out are not made."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Names every repository: NAMESPACE/NAME for the merged model, NAME-STAGE for the rest."""
    base: str
    """The model it starts from."""
    namespace: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Your user or organization on the Hub."""
    cutoff: date
    """Nothing younger is learnt, and no exam asked is older."""
    exams: dict[str, Annotated[Exam, BeforeValidator(expand_name, json_schema_input_type=str | Exam)]] = Field(
        default_factory=dict
    )
    """Where exams lie that the catalogue does not know, or that lie elsewhere."""
    prepared_by: str | None = None
    """The command that writes the `./folder` sources of this recipe: until it has run, `medllm check` names the missing
    ones instead of refusing the recipe."""
    publish: Publish = Publish()
    """Who may see what is pushed."""
    gate: Gate = Gate()
    """What must hold before a public push."""
    slurm: SlurmPlace = SlurmPlace()
    """What a run on a Slurm cluster asks for."""
    jobs: JobsPlace = JobsPlace()
    """How a run on Jobs of the Hub asks."""
    corpus: Corpus | None = None
    """Texts to corpus."""
    cpt: Cpt | None = None
    """Corpus to adapter."""
    preferences: Preferences | None = None
    """Past exams to pairs."""
    rpo: Rpo | None = None
    """Pairs to adapter."""
    merge: Merge | None = None
    """Adapter to model."""
    evaluate: Evaluate | None = None
    """Models to results."""
    space: Space | None = None
    """Results to page."""
    ablations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Rows of the ablation table, as overrides like `{rpo.rpo_alpha: 0}`; what they share is made once."""

    _path: Path = PrivateAttr(default_factory=lambda: Path("recipe"))
    _tree: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where the recipe lies: `./folder` sources are relative to it."""
        return self._path.parent

    @property
    def path(self) -> Path:
        """The file it was read from, for the words of a fault."""
        return self._path

    @property
    def tree(self) -> dict[str, Any]:
        """The recipe as written (with overrides), from which an ablation is built."""
        return self._tree
