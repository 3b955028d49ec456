"""The recipe's block `grpo`: past exam questions, rewards for the model's own answers to them, and TRL's GRPO."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field

from medllm.recipe.base import Settings
from medllm.recipe.data import DataList, ExamYears
from medllm.recipe.servers import Asking
from medllm.recipe.training import EVALUATION, Lora, Positive, Training

Part = Literal["answer", "form", "length", "loop", "language"]
PARTS: tuple[Part, ...] = get_args(Part)
"""The parts of a reward, in the order in which they are logged."""
Weight = Annotated[float, Field(ge=0, le=100)]


class Rewards(Settings):
    """The weights of a reward's parts; 0 leaves a part out."""

    answer: Weight = 1.0
    """1 for the right answer, as an evaluation reads it, else 0; thinking that is cut off holds no answer."""
    form: Weight = 0.2
    """1 for the form that was asked for, else 0: with `explain` an explanation before a single marked answer, with
    `plain` and `think` the answer alone."""
    length: Weight = 0.2
    """0 down to -1 over the last `soft_punish_cache` tokens before `max_completion_length`."""
    loop: Weight = 0.5
    """-1 for a completion that ends in a loop, else 0."""
    language: Weight = 0.2
    """-1 for a reply that is not mostly in the language of its question, else 0."""

    def weights(self) -> dict[Part, float]:
        """Return the parts that count, each with its weight."""
        return {part: weight for part in PARTS if (weight := getattr(self, part)) > 0}


class Grpo(Training, Asking):
    """Group relative policy optimization: the model's own answers to past exam questions, rewarded by rules."""

    excluded_from_digest: ClassVar[frozenset[str]] = Training.excluded_from_digest | {
        *("vllm_server_base_url", "vllm_gpu_memory_utilization", "vllm_tensor_parallel_size"),
    }
    keys_since: ClassVar[Mapping[str, Any]] = {**EVALUATION, **Asking.keys_since}

    model: str
    """The model to train: `rpo`, `rounds`, `sft`, `cpt` or `base`."""
    data: DataList
    """Exam sets, none younger than the cutoff; they need no explanations."""
    held_out: tuple[str, ...] | None = None
    """Held-out exams, never asked here; the list of `corpus` when left out."""
    exam_years: ExamYears = Field(default_factory=dict)
    """The years that are held out, by exam; those under `exams` when left out, else all."""
    cutoff: date | None = None
    """Latest day of an exam that is asked; the recipe's own `cutoff` when left out."""
    lora: Lora | None = None
    """A new adapter; when left out, the adapter of `model` is trained further."""
    learning_rate: Positive = 1e-5
    """Highest learning rate of the schedule."""
    total_batch_size: int = Field(default=32, ge=2)
    """Completions of one update, over all devices together: `num_generations` of each of its questions."""
    max_length: int = Field(default=4096, ge=16)
    """Tokens of a row, prompt and completion: a question whose prompt leaves no room is not asked."""
    prompt: Literal["plain", "explain", "think"] = "explain"
    """The prompt: answer alone, explanation first, or answer after thinking."""
    shots: int = Field(default=3, ge=0, le=10)
    """Worked examples before each question."""
    exemplars: str | None = None
    """Where the worked examples come from; the first suitable items of `data` when left out."""
    template: Literal["paper", "igakuqa"] = "paper"
    """The wording of the prompt."""
    questions: int | None = Field(default=None, ge=1)
    """Maximum number of questions to ask, chosen by `seed`; all when left out."""
    leaks_reviewed: tuple[str, ...] = ()
    """Questions (`own/100A1`) that a person has reviewed and found free of leaks."""
    rewards: Rewards = Rewards()
    """What a completion is rewarded for, as `{answer: 1, form: 0.2}`."""
    soft_punish_cache: int | None = Field(default=None, ge=1)
    """Tokens before `max_completion_length` over which `rewards.length` falls; a fifth of it when left out."""
    num_generations: int = Field(default=8, ge=2)
    """Completions of each question, whose rewards are compared with each other."""
    max_completion_length: int = Field(default=512, ge=1)
    """Maximum number of tokens in a completion, thinking included."""
    mask_truncated_completions: bool = True
    """Learn nothing from completions that are cut off."""
    temperature: Positive = 1.0
    """Spread of the draw."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Nucleus of the draw."""
    num_iterations: int = Field(default=1, ge=1)
    """Updates on the same completions."""
    beta: float = Field(default=0.0, ge=0)
    """Weight of the divergence from the model at the start; 0 leaves it out."""
    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Clipping of the ratio to the model that wrote the completions; acts where `num_iterations` is above 1."""
    epsilon_high: Positive | None = None
    """Upper clipping; `epsilon` when left out."""
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo"] = "dapo"
    """How the losses of tokens are brought together, by TRL's names."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What rewards are divided by: the deviation within their question, that of the update, or nothing."""
    constant_reward_steps: int = Field(default=5, ge=1)
    """Updates from the start after which the training stops if no question had completions of different rewards."""
    use_vllm: bool = False
    """Write the completions with vLLM in the place of transformers; needs a GPU and the package `vllm`."""
    vllm_mode: Literal["colocate", "server"] = "colocate"
    """vLLM in the process that trains, or `trl vllm-serve` at `vllm_server_base_url`."""
    vllm_server_base_url: str | None = None
    """Address of `trl vllm-serve`, as `http://HOST:8000`; left out of the digest."""
    vllm_gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the GPU's memory that vLLM takes with `colocate`; left out of the digest."""
    vllm_tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share one copy of vLLM's model with `colocate`; left out of the digest."""

    @property
    def soft_length(self) -> int:
        """Tokens over which the length reward falls."""
        return self.soft_punish_cache or max(1, self.max_completion_length // 5)
