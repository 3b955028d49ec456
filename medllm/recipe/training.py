"""The recipe's blocks about training: continued pretraining and reasoning preference optimization, both by (Q)LoRA."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from medllm.recipe.base import Settings
from medllm.recipe.data import Instructions, Share, as_list
from medllm.recipe.servers import Asking

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a block, spelt out: PEFT's `all-linear` would wrap the head inside a trained embedding."""

NAMED = ("ddp", "fsdp2")
"""Values of `accelerate:` that are not a file."""

ALL_LINEAR = "all-linear"
"""PEFT's name for every linear layer; here those of the language model, without the head."""

Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "paged_adamw_8bit",
    "lion_32bit",
    "lion_8bit",
    "adafactor",
    "muon",
]
"""Optimizers by transformers' names: of torch, of bitsandbytes, its own, and torch's Muon, which it has no name for."""

PreferenceLoss = Literal[
    "sigmoid",
    "sigmoid_norm",
    "robust",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "discopop",
]
"""The losses of a preference pair, by TRL's names."""

Positive = Annotated[float, Field(gt=0)]

HeldOut = Annotated[float, Field(gt=0, lt=1)] | Annotated[int, Field(ge=1)]

EVALUATION: Mapping[str, Any] = {
    **{"eval_strategy": "no", "eval_steps": None, "eval_size": 0.05, "metric_for_best_model": "loss"},
    **{"load_best_model_at_end": False, "early_stopping_patience": None},
}
"""The keys of an evaluation during the training, each with its value for none."""

_Tracker = Literal["tensorboard", "trackio", "wandb", "mlflow"]
_Trackers = Literal["tensorboard", "trackio", "wandb", "mlflow", "none"] | tuple[_Tracker, ...]


def _trackers(value: Any) -> Any:  # noqa: ANN401  any YAML value
    return [] if value == "none" else as_list(value)


class Lora(Settings):
    """The LoRA adapter, with PEFT's parameter names."""

    keys_since: ClassVar[Mapping[str, Any]] = {
        **{"use_dora": False, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": []},
    }

    r: int = Field(ge=1, le=1024)
    """Rank."""
    lora_alpha: int = Field(ge=1)
    """Scale; the adapter acts with lora_alpha / r."""
    lora_dropout: Share = 0.0
    """Dropout before the adapter."""
    target_modules: Annotated[
        tuple[str, ...], BeforeValidator(as_list, json_schema_input_type=str | tuple[str, ...])
    ] = LINEAR
    """The layers with an adapter; `all-linear` is every linear layer of the language model, without the head."""
    use_dora: bool = False
    """DoRA: each layer also learns the length of its rows. Slower; only a merged model can be served by vLLM."""
    use_rslora: bool = False
    """rsLoRA: the adapter acts with lora_alpha / sqrt(r), which suits high ranks."""
    rank_pattern: dict[str, Annotated[int, Field(ge=1, le=1024)]] = Field(default_factory=dict)
    """Other ranks of some layers, by the end of their name or a regular expression, as `{v_proj: 32}`."""
    alpha_pattern: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """Other scales of some layers, written as in `rank_pattern`."""
    modules_to_save: Annotated[
        tuple[str, ...], BeforeValidator(as_list, json_schema_input_type=str | tuple[str, ...])
    ] = ()
    """Modules that are trained whole beside the adapter, as `embed_tokens` or `norm`; only a merged model can be served
    by vLLM."""


class Training(Settings):
    """Settings that both trainings share, with the names of TRL and transformers."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset(
        {
            "run_on",
            "per_device_train_batch_size",
            "gradient_checkpointing",
            "save_steps",
            "save_minutes",
            "logging_steps",
            "accelerate",
            "report_to",
        }
    )

    keys_since: ClassVar[Mapping[str, Any]] = EVALUATION

    quantization: Literal["none", "nf4"] = "none"
    """The frozen base in 4-bit NormalFloat (QLoRA), or as it is."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Number format of the computation."""
    num_train_epochs: Positive | None = None
    """Passes over the data; give this or `max_steps`."""
    max_steps: int | None = Field(default=None, ge=1)
    """Updates; give this or `num_train_epochs`."""
    total_batch_size: int = Field(default=16, ge=1)
    """Rows of one update, over all devices together."""
    per_device_train_batch_size: int = Field(default=1, ge=1)
    """Rows on a device at once; gradient accumulation makes up the rest. Left out of the digest."""
    max_length: int = Field(default=2048, ge=16)
    """Tokens of a row."""
    learning_rate: Positive = 1e-4
    """Highest learning rate of the schedule."""
    optim: Optimizer = "adamw_torch"
    """AdamW (in its fused form on a GPU), its 8-bit forms where memory is short, another of transformers' names, or
    `muon`: torch's Muon for matrices, AdamW for all else."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls."""
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)] = 0.03
    """Share of the updates in which the learning rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of AdamW."""
    max_grad_norm: float = Field(default=1.0, ge=0)
    """Clipping; 0 is off."""
    gradient_checkpointing: bool = True
    """Compute activations twice instead of keeping them."""
    attn_implementation: Literal["auto", "sdpa", "flash_attention_2", "eager"] = "auto"
    """The attention kernel."""
    seed: int = 0
    """Seed of the initial adapter and of the order."""
    eval_strategy: Literal["no", "steps", "epoch"] = "no"
    """When rows that are held out are evaluated: never, after each `eval_steps` updates and at the end, or after each
    epoch."""
    eval_steps: int | None = Field(default=None, ge=1)
    """Updates between two evaluations with `eval_strategy: steps`."""
    eval_size: HeldOut = 0.05
    """Documents or pairs that are held out, as a share or a number; never a part of a document or of a question."""
    load_best_model_at_end: bool = False
    """Keep the weights of the best evaluation instead of the last ones."""
    early_stopping_patience: int | None = Field(default=None, ge=1)
    """Evaluations in a row without a better one, after which the training ends."""
    save_steps: int = Field(default=200, ge=1)
    """Updates between two checkpoints."""
    save_minutes: Positive = 30.0
    """Minutes after which a checkpoint is written in any case, at the end of an update."""
    logging_steps: int = Field(default=10, ge=1)
    """Updates between two lines of the log."""
    accelerate: str | None = None
    """How several GPUs train: `ddp` (a whole model on each), `fsdp2` (one model divided over them), or a config file of
    accelerate beside the recipe; `ddp` when left out."""
    report_to: Annotated[tuple[_Tracker, ...], BeforeValidator(_trackers, json_schema_input_type=_Trackers)] = (
        "tensorboard",
    )
    """Where the curves go besides the adapter's own log: a name, a list or `none`; `wandb` sends them to its server
    unless the Hub is offline ([the curves](training.md#curves)). Left out of the digest."""
    run_on: str | None = None
    """The machine, as `a100x4`; left out of the digest."""


class Cpt(Training, Asking):
    """Continued pretraining of the base on the corpus."""

    keys_since: ClassVar[Mapping[str, Any]] = {**EVALUATION, **Asking.keys_since}

    model: str = "base"
    """The model to train."""
    data: str = "corpus"
    """The corpus to train on."""
    lora: Lora | None = None
    """The adapter; left out, all weights of the model are trained (full fine-tuning)."""
    metric_for_best_model: Literal["loss"] = "loss"
    """What makes an evaluation the best: the mean negative log-likelihood of a held-out token."""
    packing: bool = True
    """Fill rows with several documents that do not attend to each other; no text is lost either way. With `format:
    chat` the exam items among them are conversations by the model's chat template; other texts stay texts."""


class Sft(Training, Instructions):
    """Supervised fine-tuning on conversations: the model learns the assistant's turns."""

    model: str = "base"
    """The model to train: `base`, or the adapter of `cpt` or `rpo`."""
    lora: Lora | None = None
    """A new adapter; when left out, the adapter of `model` is trained further, or all weights of a full model."""
    chat_template: str | None = None
    """The chat template of a model that has none; the recipe's `chat_template` when left out."""
    packing: bool = True
    """Fill rows with several conversations that do not attend to each other; none is cut either way."""
    metric_for_best_model: Literal["loss"] = "loss"
    """What makes an evaluation the best: the mean negative log-likelihood of a held-out token that would be learnt."""


class Mix(Instructions):
    """Conversations that join the pairs of RPO, by the negative log-likelihood of the assistant's turns."""

    share: Annotated[float, Field(gt=0, lt=1)]
    """Their part of the rows of each update, rounded to whole rows."""
    weight: Positive = 1.0
    """Weight of a conversation's mean negative log-likelihood beside a pair's loss."""


class Rpo(Training):
    """Reasoning preference optimization: DPO plus rpo_alpha times the negative log-likelihood of the chosen answer."""

    keys_since: ClassVar[Mapping[str, Any]] = {
        **{**EVALUATION, "format": "auto", "chat_template": None, "loss_type": "sigmoid", "label_smoothing": 0.0},
        "reference": None,
        "mix": None,
    }

    model: str
    """The model to train, and the reference unless `reference` names another."""
    reference: str | None = None
    """Another model of the same base as the reference; asked once for every pair before the training."""
    data: str = "preferences"
    """The pairs."""
    format: Literal["auto", "completion", "chat"] = "auto"
    """`auto` trains the pairs as they are: texts that go on, or conversations by the model's chat template; `chat`
    takes the prompt of a text for what the user writes."""
    chat_template: str | None = None
    """The chat template of a model that has none; the recipe's `chat_template` when left out."""
    lora: Lora | None = None
    """A new adapter; when left out, the adapter of `model` is trained further, or all weights of a full model."""
    rpo_alpha: float = Field(ge=0)
    """Weight of the chosen answer's negative log-likelihood; 0 is plain DPO, the paper uses 10."""
    beta: Positive = 0.1
    """Strength of the pull towards the reference, as in DPO."""
    loss_type: PreferenceLoss = "sigmoid"
    """The loss of a pair by TRL's names: `sigmoid` is DPO's and the paper's, `sigmoid_norm` divides by the answers'
    lengths; [all of them](training.md#other-losses)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of pairs whose sides may be the wrong way round, for `robust` and `exo_pair`."""
    mix: Mix | None = None
    """Conversations that join the pairs, as `{data: ./talks, share: 0.25}`."""
    keep_exemplars: bool = True
    """Train on the pairs with their worked examples before the question, or without."""
    order: Literal["pairs", "questions"] = "pairs"
    """Learn the pairs in any order, or those of a question together: then a micro-batch computes its question, and each
    answer that pairs have in common, once. Give `per_device_train_batch_size` as many pairs as a question has."""
    metric_for_best_model: Literal["loss", "loss/dpo", "loss/nll", "rewards/accuracies", "rewards/margins"] = "loss"
    """What makes an evaluation the best: the lowest loss, or the highest reward accuracy or margin."""
    on_falling_chosen: Literal["warn", "stop"] = "warn"
    """Action when the chosen answers become less likely than under the reference."""

    @property
    def mixed_rows(self) -> int:
        """How many rows of an update are conversations."""
        return round(self.mix.share * self.total_batch_size) if self.mix else 0
