"""What a training begins with: base, adapter, tokenizer, arguments of TRL's trainers, and the numbers that learn."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from medllm.errors import DataError, ModelError
from medllm.recipe.settings import Cpt, Grpo, Lora, Rpo, Sft
from medllm.training.devices import is_sharded, split_batch
from medllm.training.updates import evaluation_arguments
from medllm.weights.adapter import TRANSPOSED, Adapter, is_adapter
from medllm.weights.chat_template import ChatTemplate, begun_template, template_of
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import check_vocabulary, load_adapters, load_base, load_tokenizer
from medllm.weights.loadable import has_tokenizer

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others in an exchange; loading a large model takes unlike long."""
SAME_NAME = {
    "gradient_checkpointing",
    "learning_rate",
    "logging_steps",
    "lr_scheduler_type",
    "max_grad_norm",
    "save_steps",
    "seed",
    "weight_decay",
}
"""Keys that a recipe and transformers' TrainingArguments share, with the same values."""


def processes() -> PartialState:
    """Find the processes that train together; on a CPU they find each other only when the state is asked for a CPU.

    Asked without that, accelerate takes each CPU process for a lone one, and every update took twice the rows.
    """
    return PartialState(cpu=not torch.cuda.is_available(), timeout=PATIENCE)


def trainer_arguments(settings: Cpt | Sft | Rpo | Grpo, work: Path, model: Any = None, rows: int = 0) -> dict[str, Any]:  # noqa: ANN401
    """What SFTConfig and DPOConfig share, for a model as it was loaded and so many rows."""
    per_device, accumulation = split_batch(
        settings.total_batch_size, settings.per_device_train_batch_size, processes().num_processes
    )
    cuda = torch.cuda.is_available()
    length: dict[str, Any] = {"num_train_epochs": settings.num_train_epochs or 1}
    if settings.max_steps:
        length = {"max_steps": settings.max_steps}
    return {
        **length,
        **settings.model_dump(include=SAME_NAME),
        "output_dir": str(work / "checkpoints"),
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
        "warmup_steps": settings.warmup_ratio,  # transformers reads a number below 1 as a share of the updates
        "optim": _optimizer(settings, cuda=cuda),
        "bf16": (cuda or is_sharded() or _is_mixed(settings, model)) and settings.dtype == "bfloat16",
        "fp16": cuda and settings.dtype == "float16",
        "use_cpu": not cuda,
        "save_total_limit": 2,
        "logging_nan_inf_filter": False,
        "report_to": [name for name in settings.report_to if name != "tensorboard"] or "none",
        "project": "medllm",
        "remove_unused_columns": False,
        "max_length": None,
        "dataloader_pin_memory": cuda,
        "ddp_find_unused_parameters": False,
        **evaluation_arguments(settings, rows),
    }


def _optimizer(settings: Cpt | Sft | Rpo | Grpo, *, cuda: bool) -> str:
    if settings.optim == "muon":
        return "adamw_torch"  # transformers has no name for it: `set_up_optimizer` puts it in this one's place
    return "adamw_torch_fused" if cuda and settings.optim == "adamw_torch" else settings.optim


class MuonAndAdamW(torch.optim.Optimizer):  # type: ignore[misc]
    """Muon for the matrices that are not tables of words, AdamW for all else, as one optimizer with one state.

    The steps of Muon have the size of AdamW's (`match_rms_adamw`), so that one learning rate serves both.
    """

    def __init__(self, model: Any, decayed: list[str], lr: float, weight_decay: float) -> None:  # noqa: ANN401
        learnt = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        ends = {
            id(table.weight)
            for table in (model.get_input_embeddings(), model.get_output_embeddings())
            if table is not None
        }
        matrices = [weight for weight in learnt.values() if weight.ndim == 2 and id(weight) not in ends]
        other: dict[bool, list[Any]] = {True: [], False: []}
        for name, weight in learnt.items():
            if weight.ndim != 2 or id(weight) in ends:
                other[name in decayed].append(weight)
        decay = {"lr": lr, "weight_decay": weight_decay}
        groups = [
            {"params": weights, "lr": lr, "weight_decay": weight_decay * by} for by, weights in other.items() if weights
        ]
        self.muon = torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw", **decay) if matrices else None
        self.adamw = torch.optim.AdamW(groups, **decay) if groups else None
        self.parts = [part for part in (self.muon, self.adamw) if part is not None]
        super().__init__([group for part in self.parts for group in part.param_groups], {})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: Any = None) -> Any:  # noqa: ANN401  as torch has it
        """Let each part take its step on its groups, as they are now: a scheduler or a checkpoint may have set them."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        at = 0
        for part in self.parts:
            part.param_groups = self.param_groups[at : at + len(part.param_groups)]
            at += len(part.param_groups)
            part.state = self.state
            part.step()
        return loss


def set_up_optimizer(trainer: Any, settings: Cpt | Sft | Rpo | Grpo) -> None:  # noqa: ANN401  one of TRL's trainers
    """Choose an optimizer that transformers has no name for."""
    if settings.optim == "muon":

        def make(model: Any) -> MuonAndAdamW:  # noqa: ANN401
            decayed = trainer.get_decay_parameter_names(model)
            return MuonAndAdamW(model, decayed, trainer.args.learning_rate, trainer.args.weight_decay)

        trainer.optimizer_cls_and_kwargs = (lambda: make, {})


def _is_mixed(settings: Cpt | Sft | Rpo | Grpo, model: Any) -> bool:  # noqa: ANN401
    """Whether what learns are whole modules, or all of them, in float32: then autocast computes in fewer bits."""
    given = [settings.lora] if settings.lora else []
    configs = getattr(model, "peft_config", {}).values()
    return not (given or configs) or any(config.modules_to_save for config in (*given, *configs))


def learning(model: Any) -> dict[str, torch.Tensor]:  # noqa: ANN401  a PeftModel, or a model without an adapter
    """Copy what is to learn, before TRL touches it."""
    if not hasattr(model, "peft_config"):
        return {}
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def set_up_adapters(trainer: Any, start: dict[str, torch.Tensor]) -> None:  # noqa: ANN401  one of TRL's trainers
    """Let adapters learn in float32, from the numbers they had before TRL touched them.

    On a 4-bit base TRL makes them bfloat16, whose steps are so wide that most updates at the rates of preference
    training (1e-6 on weights around 1e-2) round to nothing.
    """
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            parameter.data = start.get(name, parameter.data).to(parameter.device, torch.float32, copy=True)


def keep_lora_dropout_only(model: Any) -> None:  # noqa: ANN401  a PeftModel
    """Switch off the dropout of the base, as TRL does for preferences, but leave the adapter's, which a recipe sets."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Dropout) and "lora_dropout" not in name:
            module.p = 0.0


def has_dropout(model: Any) -> bool:  # noqa: ANN401  a model, bare or wrapped
    """Whether two passes over the same batch differ while the model learns."""
    return any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())


@dataclass(frozen=True)
class TrainingStart:
    """What a training begins with."""

    model: Any
    """A PeftModel whose adapter `default` learns on, or a full model that is to get a fresh adapter."""
    tokenizer: PreTrainedTokenizerBase
    base: Checkpoint
    below: Adapter | None = None
    """The adapter that was folded into the model in memory, because the fresh one is trained above it."""


def tokenizer_folder(settings: Cpt | Sft | Rpo | Grpo, sources: dict[str, Path]) -> Path:
    """Find the tokenizer of what `model` names: beside it, or else beside the base."""
    folder = sources[settings.model]
    return folder if has_tokenizer(folder) else sources["base"]


def chat_template_for(
    settings: Cpt | Sft | Rpo | Grpo,
    sources: dict[str, Path],
    tokenizer: PreTrainedTokenizerBase,
    *,
    talks: bool = False,
) -> ChatTemplate | None:
    """Load the chat template by which a model is trained: its own, or its base's; None for texts that go on.

    `talks`: the data are pairs of conversations, which need one.
    """
    if settings.format == "completion" and isinstance(settings, Sft):
        return None
    if settings.format == "completion" and talks:
        raise DataError(
            "training.conversations-as-text",
            f"{settings.data}: the pairs are conversations, and `rpo.format: completion` trains on texts. "
            "Write `auto` or `chat`, or make the pairs with `preferences.format: completion`.",
        )
    tries = settings.format == "auto" and isinstance(settings, Cpt)
    if not (talks or tries or settings.format == "chat"):
        return None
    folder = sources[settings.model]
    text = template_of(folder, sources.get("base"))
    if text is None and settings.chat_template:
        text = begun_template(tokenizer, settings.chat_template, settings.model)
    if text is None and tries:
        return None
    if text is None:
        raise ModelError(
            "training.no-chat-template",
            f"{folder}: has no chat template, by which it is to be trained. Give one (`chat_template: "
            "./FILE.jinja`), or write `format: completion` (of pairs: in `preferences`).",
        )
    return ChatTemplate(tokenizer, text, settings.model)


def load_start(settings: Cpt | Sft | Rpo | Grpo, sources: dict[str, Path]) -> TrainingStart:
    """Load what `model` names.

    An adapter is trained on as it is. With `lora` given, all but CPT fold it into the base in memory and put a fresh
    adapter above; the reference of RPO then is the model with that fresh adapter switched off. That cannot be done in
    4 bits, where folding would quantise the weights once more.
    """
    folder = sources[settings.model]
    adapted = is_adapter(folder)
    base = Checkpoint(sources["base"] if adapted else folder)
    _refuse_untrainable(base)
    tokenizer = load_tokenizer(tokenizer_folder(settings, sources))
    fresh_above = adapted and isinstance(settings, Sft | Rpo | Grpo) and settings.lora is not None
    if fresh_above and settings.quantization == "nf4":
        raise ModelError(
            "training.adapter-on-4-bit",
            f"{folder}: with `lora`, this adapter is merged into the base and a new one trained, which 4-bit weights "
            "do not allow. Remove `lora` to continue training this adapter, or set `quantization: none`, or give the "
            "merged model.",
        )
    if adapted:
        Adapter(folder).fits(base)
    if fresh_above:
        _refuse_above(folder, settings.lora)
    if fresh_above and base.tied and Adapter(folder).acts_on_both_ends:
        raise ModelError(
            "training.adapter-on-tied-ends",
            f"{folder}: with `lora`, this adapter is merged into the base and a new one trained, and PEFT would change "
            "the tied embedding and head twice. Merge it first (`medllm merge`) and give the merged model.",
        )
    full = not adapted and settings.lora is None
    if full and settings.quantization == "nf4":
        raise ModelError(
            "training.full-on-4-bit",
            f"{folder}: without `lora` all weights are trained, and 4-bit weights cannot be. Give `lora: {{r: ..., "
            "lora_alpha: ...}`, or set `quantization: none`.",
        )
    model: Any = load_base(
        base.folder,
        dtype="float32" if full else settings.dtype,  # most steps of a full model round to nothing in 16 bits
        quantization=settings.quantization,
        attn_implementation=settings.attn_implementation,
        device=processes().device,
    )
    check_vocabulary(tokenizer, model, folder)
    if full:
        learn_whole(model)
    if fresh_above:
        if base.tied:
            untie_head(model)
        model = load_adapters(model, {"below": folder}, base.folder).merge_and_unload()
        return TrainingStart(model, tokenizer, base, Adapter(folder))
    if adapted:
        model = load_adapters(model, {"default": folder}, base.folder, trainable="default")
    return TrainingStart(model, tokenizer, base)


def _refuse_above(folder: Path, lora: Lora | None) -> None:
    """Refuse DoRA below or above another adapter, before the base is loaded: they could not be written as one."""
    if (lora and lora.use_dora) or not Adapter(folder).is_sum:
        raise ModelError(
            "training.dora-above",
            f"{folder}: with `lora`, a new adapter is trained above this one and written as one with it, which DoRA "
            "does not allow. Remove `lora` to train this adapter further, or give the merged model.",
        )


def _refuse_untrainable(base: Checkpoint) -> None:
    """Refuse a base whose adapters no later stage could lay on it again, before it is loaded."""
    base.refuse_quantized()
    if base.config.get("model_type") in TRANSPOSED:
        raise ModelError(
            "training.transposed-base",
            f"{base.folder}: a {base.config['model_type']} model stores the weights of its layers transposed (Conv1D), "
            "and an adapter on them cannot be merged here. Use another base.",
        )


def learn_whole(model: Any) -> None:  # noqa: ANN401  a PreTrainedModel
    """Let all weights learn that work on text; a vision tower, which learns nothing from text, stays as it is."""
    model.requires_grad_(False)
    model.get_decoder().requires_grad_(True)
    model.get_output_embeddings().requires_grad_(True)


def untie_head(model: Any) -> None:  # noqa: ANN401  a model whose head is its embedding
    """Give the head weights of its own, since folding an adapter into the embedding would change the head with it."""
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
