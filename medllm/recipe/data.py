"""The recipe's blocks about text: data sources, the training corpus and the preference pairs."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from medllm.recipe.base import Settings
from medllm.recipe.servers import Asking, Engine, VllmOptions


def expand_name(value: Any) -> Any:  # noqa: ANN401  any YAML value
    """Write a bare source name as the block it is short for."""
    return {"source": value} if isinstance(value, str) else value


def as_list(value: Any) -> Any:  # noqa: ANN401  any YAML value
    """Write a single name or block as the list it is short for."""
    return [value] if isinstance(value, str | dict) else value


Share = Annotated[float, Field(ge=0, le=1)]


ExamYears = dict[str, tuple[int, ...]]


class DataSource(Settings):
    """One source of text or questions; its bare name is enough when no other key is needed."""

    keys_since: ClassVar[Mapping[str, Any]] = {"years": None}
    excluded_from_digest: ClassVar[frozenset[str]] = frozenset({"tokens"})

    source: str
    """A stage, `ORG/NAME@REVISION`, or `./folder`."""
    exam: str | None = None
    """Read it as an exam set with this benchmark's reader (`own` for our JSONL columns), not as running text."""
    years: tuple[int, ...] | None = None
    """Only the questions of these years, of an exam set: one file may be past and held out, by different years."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Which column holds what, as `{text: body, published: issued_on}`."""
    license: str | None = None
    """The licence of the whole source, stated by you where its rows have none; printed on the card."""
    published: date | None = None
    """When the whole source was published, stated by you where its rows have no date; printed on the card."""
    exam_date: date | None = None
    """The day of the exam, for a source that is one exam."""
    kind: str | None = None
    """The kind of text (`textbook`, `case report`, `exam`), for the counts on the card."""
    tokens: int | None = Field(default=None, gt=0)
    """How many tokens it holds, if you know: only the estimate of `medllm check` uses it."""


Data = Annotated[DataSource, BeforeValidator(expand_name, json_schema_input_type=str | DataSource)]
DataList = Annotated[
    tuple[Data, ...],
    BeforeValidator(as_list, json_schema_input_type=Data | tuple[Data, ...]),
    Field(min_length=1),
]


class Replay(DataSource):
    """General text mixed in so that what the base knows is not forgotten."""

    share: Annotated[float, Field(gt=0, lt=1)]
    """Its part of the finished corpus, by characters."""


class Executor(Settings):
    """What runs the passes of the curation."""

    kind: Literal["local", "slurm", "ray"] = "local"
    """This machine, or a cluster whose nodes share the work folder."""
    options: dict[str, str | int | float | bool | dict[str, str]] = Field(default_factory=dict)
    """Options of datatrove's executor of that kind, as `{partition: cpu, time: "4:00:00"}` for Slurm."""


def _named(value: Any) -> Any:  # noqa: ANN401  any YAML value
    return {"kind": value} if isinstance(value, str) else value


class Corpus(Settings):
    """Make a dated, licensed, deduplicated corpus that is free of the held-out exams."""

    keys_since: ClassVar[Mapping[str, Any]] = {"exam_years": {}}
    excluded_from_digest: ClassVar[frozenset[str]] = frozenset({"run_on", "workers", "executor"})

    data: DataList
    """The texts."""
    held_out: tuple[str, ...]
    """Held-out exams: every document is audited against them."""
    exam_years: ExamYears = Field(default_factory=dict)
    """The years that are held out, by exam; those under `exams` when left out, else all."""
    cutoff: date | None = None
    """Latest day of publication and of an exam; the recipe's own `cutoff` when left out."""
    allowed_licenses: tuple[str, ...] | None = None
    """The licences that are allowed; every stated one when left out. An unknown licence is never allowed."""
    replay: Replay | None = None
    """General text against forgetting."""
    min_chars: int = Field(default=50, ge=0)
    """Documents of fewer characters are dropped."""
    min_japanese_share: Share = 0.0
    """Documents with a smaller share of Japanese letters are dropped; 0 keeps every language."""
    max_repetition: Share = 0.3
    """Documents in which repeated lines or n-grams make up more than this share are dropped."""
    near_duplicate: Share | None = 0.8
    """MinHash similarity from which the younger of two documents is dropped; none switches it off."""
    contamination_drop: Share = 0.5
    """Containment of an exam item from which a document is dropped."""
    contamination_review: Share = 0.3
    """Containment of an exam item from which a person must review the document."""
    leaks_reviewed: tuple[str, ...] = ()
    """Ids of documents, or names of sources, that a person has reviewed and found free of the exams."""
    personal_data: Literal["drop", "keep", "stop"] = "drop"
    """What to do with documents that may name a patient; a public push is refused while any are kept."""
    pii_reviewed: tuple[str, ...] = ()
    """Ids of findings of personal data that a person has reviewed and that identify no patient."""
    formats: tuple[Literal["plain", "explain"], ...] = ("plain", "explain")
    """The prompts in which each exam item with an explanation is written out, as in the paper."""
    template: Literal["paper", "igakuqa"] = "paper"
    """The wording of those prompts."""
    tokenizer: str | None = None
    """The tokenizer that counts tokens for the card: `base`, `ORG/NAME@REVISION` or a folder; optional."""
    workers: int = Field(default=1, ge=1)
    """Number of worker processes of the curation."""
    executor: Annotated[Executor, BeforeValidator(_named, json_schema_input_type=str | Executor)] = Executor()
    """Where the workers run: `local`, or one line for a cluster; the output is the same to the byte."""
    run_on: str | None = None
    """The machine; left out of the digest."""


class Instructions(Settings):
    """Conversations to learn from, admitted like the texts of a corpus."""

    data: DataList
    """The conversations: JSONL or Parquet with `messages`, or with `prompt` and `completion`; with `exam` past exam
    items, as conversations."""
    held_out: tuple[str, ...] | None = None
    """Held-out exams: every conversation is audited against them; the list of `corpus` when left out."""
    exam_years: ExamYears = Field(default_factory=dict)
    """The years that are held out, by exam; those under `exams` when left out, else all."""
    cutoff: date | None = None
    """Latest day of publication; the recipe's own `cutoff` when left out. A conversation without a day is too young."""
    allowed_licenses: tuple[str, ...] | None = None
    """The licences that are allowed; every stated one when left out. An unknown licence is never allowed."""
    formats: tuple[Literal["plain", "explain"], ...] = ("plain", "explain")
    """The prompts in which each past exam item with an explanation becomes a conversation."""
    template: Literal["paper", "igakuqa"] = "paper"
    """The wording of those prompts."""
    personal_data: Literal["drop", "keep", "stop"] = "drop"
    """What to do with conversations that may name a patient; a public push is refused while any are kept."""
    pii_reviewed: tuple[str, ...] = ()
    """Ids of findings of personal data that a person has reviewed and that identify no patient."""
    leaks_reviewed: tuple[str, ...] = ()
    """Ids of conversations, or names of sources, that a person has reviewed and found free of the exams."""
    format: Literal["auto", "completion", "chat"] = "auto"
    """`auto` trains rows as they are: conversations by the model's chat template, texts as texts that go on; `chat`
    takes the prompt of a text for what the user writes."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Values for the chat template, as `{reasoning_effort: low}`; those of a row's own column of this name win."""
    system_prompt: str | None = None
    """The system message of conversations that have none."""
    assistant_only_loss: bool = True
    """Learn the assistant's turns alone, with their thinking and end marks; of `prompt` and `completion` the latter.
    `false` learns every token."""
    on_too_long: Literal["stop", "drop"] = "stop"
    """Action when a conversation is longer than `max_length`: stop before the training, or leave it out whole."""


class Preferences(Asking):
    """Sample answers to past exams and rank them: ground truth above right answers above wrong ones."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset(
        {"run_on", "batch_size", "num_processes", "num_concurrent", "vllm"}
    )
    addresses: ClassVar[frozenset[str]] = frozenset({"engine"})
    keys_since: ClassVar[Mapping[str, Any]] = {
        **Asking.keys_since,
        "exam_years": {},
        "filters": [],
        "explanations": None,
    }

    model: str
    """The model that answers."""
    data: DataList
    """Exam sets with verified explanations, none younger than the cutoff."""
    explanations: str | None = None
    """A teacher's explanations, the ground truth of questions that have none of their own: `teach`, or a repository or
    folder that this stage made. Pairs with one have the origin `teacher`."""
    held_out: tuple[str, ...] | None = None
    """Held-out exams, never sampled here; the list of `corpus` when left out."""
    exam_years: ExamYears = Field(default_factory=dict)
    """The years that are held out, by exam; those under `exams` when left out, else all."""
    cutoff: date | None = None
    """Latest day of an exam that is sampled; the recipe's own `cutoff` when left out."""
    prompt: Literal["plain", "explain", "think"] = "explain"
    """The prompt: answer alone, explanation first, or answer after thinking: by chat, with `pairs: [chosen>rejected]`,
    for the verified answers have no thinking."""
    shots: int = Field(default=3, ge=0, le=10)
    """Worked examples before each question."""
    exemplars: str | None = None
    """Where the worked examples come from; the first suitable items of `data` when left out."""
    template: Literal["paper", "igakuqa"] = "paper"
    """The wording of the prompt."""
    samples: int = Field(default=8, ge=1)
    """Answers drawn for each question."""
    temperature: float = Field(default=1.0, ge=0)
    """Spread of the draw; 0 is greedy."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus of the draw."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Maximum number of tokens in a reply, explanation and thinking included: a sample that is cut as it thinks makes
    no pair."""
    questions: int | None = Field(default=None, ge=1)
    """Maximum number of questions to ask, chosen by `seed`; all when left out."""
    pairs: tuple[Literal["gt>chosen", "gt>rejected", "chosen>rejected"], ...] = (
        "gt>chosen",
        "gt>rejected",
        "chosen>rejected",
    )
    """Which steps of the ranking become pairs; the paper uses all three."""
    pairs_per_question: int = Field(default=3, ge=1)
    """Maximum number of pairs of each step for one question, so that no question outweighs the rest."""
    max_similarity: Share = 0.95
    """Similarity above which two samples of one question count once."""
    filters: tuple[Literal["contradiction", "foreign_disease"], ...] = ()
    """Right answers that make no pair: whose explanation gives another answer before, or names a disease that neither
    the question nor its verified explanation does. Without it they are counted on the card."""
    leaks_reviewed: tuple[str, ...] = ()
    """Questions (`own/100A1`), samples (`own/100A1#2`) or votes that a person has reviewed and found free of leaks."""
    votes: tuple[Data, ...] = ()
    """Experts' votes from the Space or Label Studio; they enter as pairs of origin `expert`."""
    seed: int = 0
    """Decides the draw."""
    engine: Engine = "local"
    """`local`, `transformers`, `vllm` (or `vllm==VERSION`), `auto`, or the address of an OpenAI-compatible server that
    holds the model ([the engines](training.md#engines))."""
    vllm: VllmOptions = VllmOptions()
    """How `engine: vllm` starts its server."""
    quantization: Literal["none", "nf4"] = "none"
    """The base in 4-bit NormalFloat, or as it is."""
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
