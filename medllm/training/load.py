"""Where a training starts: the base, the adapter it goes on with if any, and the tokenizer that belongs to them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from medllm.errors import DataError, ModelError
from medllm.recipe.settings import Cpt, Lora, Rpo
from medllm.training.arguments import processes
from medllm.weights.adapter import TRANSPOSED, Adapter, is_adapter
from medllm.weights.chat_template import ChatTemplate, template_of
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import check_vocabulary, load_adapters, load_base, load_tokenizer
from medllm.weights.loadable import has_tokenizer


@dataclass(frozen=True)
class TrainingStart:
    """What a training begins with."""

    model: Any
    """A PeftModel whose adapter `default` learns on, or a full model that is to get a fresh adapter."""
    tokenizer: PreTrainedTokenizerBase
    base: Checkpoint
    below: Adapter | None = None
    """The adapter that was folded into the model in memory, because the fresh one is trained above it."""


def tokenizer_folder(settings: Cpt | Rpo, sources: dict[str, Path]) -> Path:
    """Find the tokenizer of what `model` names: beside it, or else beside the base."""
    folder = sources[settings.model]
    return folder if has_tokenizer(folder) else sources["base"]


def chat_template_for(
    settings: Cpt | Rpo, sources: dict[str, Path], tokenizer: PreTrainedTokenizerBase, *, talks: bool = False
) -> ChatTemplate | None:
    """Load the chat template by which a model is trained: its own, or its base's; None for texts that go on.

    `talks`: the data are pairs of conversations, which need one.
    """
    if settings.format == "completion" and talks:
        raise DataError(
            "training.conversations-as-text",
            f"{sources[settings.data]}: the pairs are conversations, and `rpo.format: completion` trains on texts. "
            "Write `auto` or `chat`, or make the pairs with `preferences.format: completion`.",
        )
    tries = settings.format == "auto" and isinstance(settings, Cpt)
    if not (talks or tries or settings.format == "chat"):
        return None
    folder = sources[settings.model]
    text = template_of(folder, sources.get("base"))
    if text is None and tries:
        return None
    if text is None:
        raise ModelError(
            "training.no-chat-template",
            f"{folder}: has no chat template, by which it is to be trained. Add chat_template.jinja to the base's "
            "files, or write `format: completion` (of pairs: in `preferences`).",
        )
    return ChatTemplate(tokenizer, text, settings.model)


def load_start(settings: Cpt | Rpo, sources: dict[str, Path]) -> TrainingStart:
    """Load what `model` names.

    An adapter is trained on as it is. With `lora` given, RPO folds it into the base in memory and puts a fresh adapter
    above; the reference then is the model with that fresh adapter switched off. That cannot be done in 4 bits, where
    folding would quantise the weights once more.
    """
    folder = sources[settings.model]
    adapted = is_adapter(folder)
    base = Checkpoint(sources["base"] if adapted else folder)
    _refuse_untrainable(base)
    tokenizer = load_tokenizer(tokenizer_folder(settings, sources))
    fresh_above = adapted and isinstance(settings, Rpo) and settings.lora is not None
    if fresh_above and settings.quantization == "nf4":
        raise ModelError(
            "training.adapter-on-4-bit",
            f"{folder}: with `lora`, RPO merges this adapter into the base and trains a new one, which 4-bit weights "
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
            f"{folder}: with `lora`, RPO merges this adapter into the base and trains a new one, and PEFT would change "
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
            f"{folder}: with `lora`, RPO trains a new adapter above this one and writes both as one, which DoRA does "
            "not allow. Remove `rpo.lora` to train this adapter further, or give the merged model.",
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
