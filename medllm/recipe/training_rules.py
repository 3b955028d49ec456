"""Rules about trainings: their end, their evaluations, their loss, and how they are divided over devices."""

import re
from collections.abc import Iterator
from pathlib import Path

from medllm.recipe.dependencies import is_full, trainings_of
from medllm.recipe.errors import RecipeFault
from medllm.recipe.hardware import machine
from medllm.recipe.settings import Grpo, Recipe
from medllm.recipe.training import EVALUATION, NAMED, Lora, Rpo


def training_has_an_end(recipe: Recipe) -> Iterator[RecipeFault]:
    """Each training has either num_train_epochs or max_steps, and an update after its warm-up."""
    for stage, settings in trainings_of(recipe):
        if (settings.num_train_epochs is None) == (settings.max_steps is None):
            yield RecipeFault("recipe.training-end", stage, "give exactly one of `num_train_epochs` and `max_steps`.")
        if settings.max_steps == 1 and settings.warmup_ratio:
            text = "the only update would be the first of the warm-up, whose learning rate is 0. Set `warmup_ratio: 0`."
            yield RecipeFault("recipe.only-warm-up", f"{stage}.max_steps", text)


def evaluation_is_complete(recipe: Recipe) -> Iterator[RecipeFault]:
    """An evaluation during a training has its interval, and no key of it is given without one."""
    for stage, settings in trainings_of(recipe):
        if settings.eval_strategy == "steps" and settings.eval_steps is None:
            text = "`eval_strategy: steps` needs the number of updates between two evaluations. Set `eval_steps`."
            yield RecipeFault("recipe.evaluation-without-interval", f"{stage}.eval_strategy", text)
        if settings.eval_strategy == "epoch" and settings.eval_steps is not None:
            text = (
                "`eval_strategy: epoch` evaluates after each epoch. Remove this key, or write `eval_strategy: steps`."
            )
            yield RecipeFault("recipe.no-evaluation", f"{stage}.eval_steps", text)
        given = [key for key, absent in EVALUATION.items() if getattr(settings, key, absent) != absent]
        for key in given if settings.eval_strategy == "no" else ():
            text = "has no effect without an evaluation. Write `eval_strategy: steps` (or `epoch`), or remove it."
            yield RecipeFault("recipe.no-evaluation", f"{stage}.{key}", text)


def smoothing_fits_the_loss(recipe: Recipe) -> Iterator[RecipeFault]:
    """`label_smoothing` is given with the losses that use it, and `exo_pair` needs it."""
    for stage, rpo in trainings_of(recipe):
        kind = isinstance(rpo, Rpo) and rpo.loss_type in ("robust", "exo_pair")
        if isinstance(rpo, Rpo) and bool(rpo.label_smoothing) != kind:
            uses_it = (
                "needs a value above 0, as 0.1 for `robust` or 0.001 for `exo_pair`." if kind else "has no effect."
            )
            text = f"{uses_it} `loss_type` is `{rpo.loss_type}`; `robust` and `exo_pair` use this key."
            yield RecipeFault("recipe.label-smoothing", f"{stage}.label_smoothing", text)


def conversations_have_rows(recipe: Recipe) -> Iterator[RecipeFault]:
    """The share of conversations in an update leaves room for both: at least one of them and one pair."""
    for stage, rpo in trainings_of(recipe):
        if isinstance(rpo, Rpo) and rpo.mix and not 0 < rpo.mixed_rows < rpo.total_batch_size:
            text = (
                f"{rpo.mix.share:g} of {rpo.total_batch_size} rows are {rpo.mixed_rows} conversations; an update needs "
            )
            text += "at least one, and one pair. Change `share`, or raise `total_batch_size`."
            yield RecipeFault("recipe.mix-without-rows", f"{stage}.mix.share", text)


def trainings_can_be_divided(recipe: Recipe) -> Iterator[RecipeFault]:
    """FSDP2 can divide the training, and every layer can take an adapter; checked before the base is loaded."""
    for stage, settings in trainings_of(recipe):
        divided = _is_divided(recipe, settings.accelerate)
        if is_full(recipe, stage) and settings.quantization == "nf4":
            text = "4-bit weights cannot be trained. Give `lora: {r: 64, lora_alpha: 128}`, or `quantization: none`."
            yield RecipeFault("recipe.full-on-4-bit", f"{stage}.quantization", text)
        if divided and settings.optim != "adamw_torch":
            text = f"`{settings.optim}` cannot be divided by FSDP2. Set `optim: adamw_torch`, or `accelerate: ddp`."
            yield RecipeFault("recipe.optimizer-not-divisible", f"{stage}.optim", text)
        if divided and settings.quantization == "nf4" and settings.dtype != "bfloat16":
            text = f"FSDP2 would cast the 4-bit base, stored as {settings.dtype}, to bfloat16. Set `dtype: bfloat16`."
            yield RecipeFault("recipe.nf4-not-bfloat16", f"{stage}.dtype", text)
        yield from _adapter_faults(stage, settings.lora, divided=divided)
        for key in ("target_modules", "modules_to_save"):
            if any(name.rsplit(".", 1)[-1] == "lm_head" for name in getattr(settings.lora, key, ())):
                text = "`lm_head` takes no adapter here: the loss is computed in tiles. Remove it."
                yield RecipeFault("recipe.adapter-on-lm-head", f"{stage}.lora.{key}", text)


def _adapter_faults(stage: str, lora: Lora | None, *, divided: bool) -> Iterator[RecipeFault]:
    """Yield kinds of adapters that contradict each other or the way of training."""
    if lora is None:
        return
    ends = {name.rsplit(".", 1)[-1]: name for name in (*lora.target_modules, *lora.rank_pattern, *lora.alpha_pattern)}
    if lora.use_dora and "embed_tokens" in ends:
        text = "DoRA on `embed_tokens` cannot be merged here. Remove it, or set `use_dora: false`."
        yield RecipeFault("recipe.adapter-mix", f"{stage}.lora.target_modules", text)
    both = sorted({name.rsplit(".", 1)[-1] for name in lora.modules_to_save} & set(ends))
    if both:
        text = f"`{both[0]}` is trained whole and has an adapter as well. Remove it from one of the two."
        yield RecipeFault("recipe.adapter-mix", f"{stage}.lora.modules_to_save", text)
    for key in ("use_dora", "modules_to_save"):
        if divided and getattr(lora, key):
            text = f"FSDP2 divides plain LoRA only. Remove `{key}`, or set `accelerate: ddp`."
            yield RecipeFault("recipe.adapter-not-divisible", f"{stage}.lora.{key}", text)


def _is_divided(recipe: Recipe, accelerate: str | None) -> bool:
    """Return whether FSDP divides the model, as `accelerate` or its config file sets."""
    if accelerate is None or accelerate in NAMED:
        return accelerate == "fsdp2"
    for file in (recipe.folder / accelerate, Path(accelerate)):
        if file.is_file():
            return re.search(r"^distributed_type:\s*['\"]?FSDP", file.read_text("utf-8"), re.MULTILINE) is not None
    return False


def rewards_can_be_compared(recipe: Recipe) -> Iterator[RecipeFault]:
    """Each question of a GRPO update has all of its completions there, room for them, and something to be rewarded."""
    grpo = recipe.grpo
    if grpo is None:
        return
    if grpo.total_batch_size % grpo.num_generations:
        text = f"{grpo.total_batch_size} completions are not {grpo.num_generations} of each question. Use a multiple "
        yield RecipeFault("recipe.grpo-batch", "grpo.total_batch_size", text + "of `num_generations`.")
    if not grpo.rewards.weights():
        text = "all weights are 0, so every completion has the same reward. Give one, as `{answer: 1}`."
        yield RecipeFault("recipe.grpo-no-reward", "grpo.rewards", text)
    if grpo.max_completion_length >= grpo.max_length:
        text = f"a completion of {grpo.max_completion_length} tokens leaves no room for a prompt in {grpo.max_length}. "
        yield RecipeFault("recipe.grpo-no-room", "grpo.max_length", text + "Raise it.")
    if grpo.soft_length > grpo.max_completion_length:
        text = f"is more than `max_completion_length` ({grpo.max_completion_length}). Lower it."
        yield RecipeFault("recipe.grpo-no-room", "grpo.soft_punish_cache", text)


def grpo_trains_an_adapter(recipe: Recipe) -> Iterator[RecipeFault]:
    """GRPO trains an adapter that each device holds whole, and is measured by `evaluate`, not as it trains."""
    grpo = recipe.grpo
    if grpo is None:
        return
    if is_full(recipe, "grpo"):
        text = "GRPO trains an adapter, and `model` is a full model. Give `lora: {r: 16, lora_alpha: 32}`."
        yield RecipeFault("recipe.grpo-without-adapter", "grpo.lora", text)
    if _is_divided(recipe, grpo.accelerate):
        text = "a model that FSDP2 divides cannot write its completions here. Set `accelerate: ddp`."
        yield RecipeFault("recipe.grpo-not-divisible", "grpo.accelerate", text)
    if grpo.eval_strategy != "no":
        text = "GRPO logs the rewards of each update; questions that are held out are asked by `evaluate`. Remove it."
        yield RecipeFault("recipe.grpo-evaluation", "grpo.eval_strategy", text)


def vllm_has_a_place(recipe: Recipe) -> Iterator[RecipeFault]:
    """VLLM of a GRPO training runs on a GPU, at an address where it is a server, and no key of it is given without."""
    grpo: Grpo | None = recipe.grpo
    if grpo is None:
        return
    on = machine(grpo.run_on) if grpo.run_on else None
    if grpo.use_vllm and on is not None and on.gpu is None:
        text = f"vLLM needs a GPU, and {on.name} has none. Remove it: transformers writes the completions."
        yield RecipeFault("recipe.vllm-needs-gpu", "grpo.use_vllm", text)
    server = grpo.use_vllm and grpo.vllm_mode == "server"
    if server and grpo.vllm_server_base_url is None:
        text = "needs the address of `trl vllm-serve`. Set `vllm_server_base_url: http://HOST:8000`."
        yield RecipeFault("recipe.vllm-without-address", "grpo.vllm_mode", text)
    if grpo.vllm_server_base_url is not None and not server:
        text = "has no effect. Write `use_vllm: true` and `vllm_mode: server`, or remove it."
        yield RecipeFault("recipe.vllm-without-address", "grpo.vllm_server_base_url", text)


TRAINING_RULES = (
    *(training_has_an_end, evaluation_is_complete, smoothing_fits_the_loss, conversations_have_rows),
    trainings_can_be_divided,
    *(rewards_can_be_compared, grpo_trains_an_adapter, vllm_has_a_place),
)
