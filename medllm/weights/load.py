"""The base and its adapters in memory: safetensors only, nothing initialised at random, nothing run from the Hub."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medllm.errors import MissingExtraError, ModelError, memory_is_full
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint, read_json
from medllm.weights.loadable import model_errors, refuse_without_tokenizer

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Quantization = Literal["none", "nf4"]
# Tokenizers that split differently are found by encoding a text; this one mixes scripts, widths, digits and line ends.
PROBE = "問1：72歳の男性。SpO₂ 93%、CRP 12.5mg/dL。\n　ａ〜ｅのうち２つ選べ。\n\n答え: a, c\n"

# Ends of text and of turn by family. A model published without them runs on into invented questions.
END_MARKS = (
    *("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eot|>", "<|end_of_text|>", "<end_of_turn>", "<turn|>", "<eos>"),
    *("</s>", "<|end|>", "<|return|>", "<|call|>", "<|END_OF_TURN_TOKEN|>", "<end_of_utterance>", "<|endofturn|>"),
    *("<｜end▁of▁sentence｜>", "[EOS]"),
)
WITHIN = {"<|end|>": ("<|channel|>", "<|content|>")}
"""Marks that end a message within a reply, not the reply, where the vocabulary has one of the others: the thinking of
harmony and Solar ends with the mark with which Phi's reply ends."""


def default_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    torch = import_torch()
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def import_torch() -> Any:  # noqa: ANN401  a module
    """Import torch, or name the extra that brings it."""
    try:
        import torch
    except ImportError as fault:
        raise MissingExtraError("train", "Working with model weights") from fault
    return torch


def release() -> None:
    """Free the memory of models that are no longer referenced, on the accelerator as well."""
    torch = import_torch()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer that tokenizer.json describes, or else that of vocab.json and merges.txt or tokenizer.model.

    AutoTokenizer picks a class by the model's type and, for Qwen2, rebuilds the splitting from its own rules and
    ignores the file; so its answer on a probe is compared with the file's, and the plain class is taken if they differ.
    """
    import_torch()
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    refuse_without_tokenizer(folder)
    path = folder / "tokenizer.json"
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (ImportError, OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        reason = (str(fault).strip() or type(fault).__name__).splitlines()[0]
        raise ModelError(
            "weights.broken-tokenizer",
            f"{folder}: the tokenizer cannot be read ({reason}). Load it where it works and save it as tokenizer.json "
            "with `save_pretrained`.",
        ) from fault
    if path.is_file():
        written = Tokenizer.from_file(str(path)).encode(PROBE, add_special_tokens=False).ids
        if tokenizer(PROBE, add_special_tokens=False)["input_ids"] != written:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if tokenizer.eos_token_id is None:
        raise ModelError(
            "weights.no-end-token",
            f"{folder}: the tokenizer has no end-of-text token. Set `eos_token` in tokenizer_config.json.",
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_base(
    folder: Path,
    *,
    dtype: str = "bfloat16",
    quantization: Quantization = "none",
    attn_implementation: str = "auto",
    device: str | torch.device | None = None,
) -> PreTrainedModel:
    """Load a full model with frozen, finished weights.

    `device` is `auto` to divide it over all GPUs and the machine's memory.
    """
    torch = import_torch()
    from transformers import AutoModelForCausalLM

    for error in model_errors(folder):
        raise error
    kind = getattr(torch, dtype)
    divided = device == "auto"
    place = torch.device(device) if device is not None and not divided else default_device()
    options: dict[str, Any] = {
        "device_map": "auto" if divided else {"": place},
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if attn_implementation != "auto":
        options["attn_implementation"] = attn_implementation
    if quantization == "nf4":
        options["quantization_config"] = nf4(kind)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=kind, output_loading_info=True, **options)
    except (ImportError, RuntimeError, ValueError, OSError, MemoryError) as fault:
        if memory_is_full(fault):
            raise ModelError(
                "weights.no-memory",
                f"{folder}: the model does not fit into memory. Set `quantization: nf4`, or take a smaller base.",
            ) from fault
        raise ModelError(
            "weights.load-failed",
            f"{folder}: transformers cannot load the model: {str(fault).splitlines()[0]} If that names no remedy, "
            "update transformers or download the model again.",
        ) from fault
    wrong = sorted(report["missing_keys"]) or sorted(str(key) for key in report["mismatched_keys"])
    if wrong:
        raise ModelError(
            "weights.incomplete-model",
            f"{folder}: {len(wrong)} tensors are missing or have another shape (first: {wrong[0]}). Download the model "
            "again.",
        )
    keep_autograd(model)
    loaded: PreTrainedModel = model.eval()
    return loaded


def nf4(compute: torch.dtype) -> Any:  # noqa: ANN401  a BitsAndBytesConfig
    """QLoRA's settings: NormalFloat, its scales quantised as well, products computed in `compute`."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as fault:
        raise MissingExtraError("train", "`quantization: nf4`") from fault
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        bnb_4bit_quant_storage=compute,
    )


def keep_autograd(model: PreTrainedModel) -> None:
    """Keep bitsandbytes from repacking 4-bit weights for AVX512-BF16 processors.

    After the first pass without gradients the packed layers ignore autograd: adapters below them then train on wrong
    gradients (or fail, where there is a bias), and the packed product itself is only bfloat16.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False


def load_adapters(
    model: PreTrainedModel, folders: dict[str, Path], base: Path, *, trainable: str | None = None, alone: bool = False
) -> PeftModel:
    """Lay adapters on one copy of the base, each under its name; at most one of them may learn.

    An adapter that writes over the base's own tensors, or that brings a larger vocabulary, would change every other
    model on the copy: it is refused unless it is `alone`, with no requests to the base.
    """
    from peft import PeftModel

    checkpoint = Checkpoint(base)
    for folder in folders.values():
        adapter = Adapter(folder)
        adapter.fits(checkpoint)
        grown, over = adapter.vocabulary(checkpoint), adapter.overwrites(checkpoint)
        if (over or grown) and not (alone and len(folders) == 1):
            change = f"brings a vocabulary of {grown} tokens" if grown else f"replaces the base's {over[0]}"
            raise ModelError(
                "weights.adapter-changes-base",
                f"{folder}: the adapter {change}, so it cannot share {checkpoint.name} with other models. Merge it "
                f"first (`medllm merge {base} {folder} --out ...`) and give the merged model.",
            )
        if grown:
            model.resize_token_embeddings(grown, mean_resizing=False)
    laid: PeftModel | None = None
    # PEFT cannot load an adapter without retrained tokens once one with them is there.
    for name, folder in sorted(folders.items(), key=lambda pair: bool(Adapter(pair[1]).rows)):
        learns = name == trainable
        if laid is None:
            laid = PeftModel.from_pretrained(model, str(folder), adapter_name=name, is_trainable=learns)
        else:
            laid.load_adapter(str(folder), adapter_name=name, is_trainable=learns)
    if laid is None:
        raise ModelError("weights.no-adapter-given", "There is no adapter to load on the base. Give at least one.")
    for config in laid.peft_config.values():
        # Saving looks the base up by this name, and would ask the Hub for one that is no folder here.
        config.base_model_name_or_path = str(base)
    keep_autograd(laid)
    return laid


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, folder: Path) -> None:
    """Refuse a tokenizer that can name tokens the model has no row for."""
    rows = model.get_input_embeddings().weight.shape[0]
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise ModelError(
            "weights.vocabulary-too-large",
            f"{folder}: the tokenizer's highest token is {highest}, and the model's embedding has only {rows} rows. "
            "Use the tokenizer of the model, or the model that was resized for this tokenizer.",
        )


def end_tokens(tokenizer: PreTrainedTokenizerBase, folder: Path) -> frozenset[int]:
    """Every token at which an answer of the model in `folder` is over: the tokenizer's marks and the model's own."""
    marks = set(end_marks(tokenizer))
    for name in ("generation_config.json", "config.json"):
        values = read_json(folder / name) if (folder / name).is_file() else {}
        for part in (values, values.get("text_config") or {}):
            own = part.get("eos_token_id")
            marks |= set(own) if isinstance(own, list) else {own} if own is not None else set()
    return frozenset(marks)


def end_marks(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token at which an answer is over: the tokenizer's own end, and the end of a turn where it has one."""
    vocabulary = tokenizer.get_vocab()
    marks = [
        mark
        for mark in END_MARKS
        if mark in vocabulary and not any(inner in vocabulary for inner in WITHIN.get(mark, ()))
    ]
    return sorted({tokenizer.eos_token_id, *(vocabulary[mark] for mark in marks)})


CONTROL = re.compile(r"<\|.*\|>|<(start|end)_of_\w+>", re.DOTALL)
"""How families write marks that steer a model, where the tokenizer's file does not call them special."""


class TextTokens:
    """A tokenizer for texts of people: only their characters become tokens; special tokens come from our code."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        from tokenizers import Tokenizer

        values = json.loads(tokenizer.backend_tokenizer.to_str())
        known = {*tokenizer.all_special_tokens, *END_MARKS}
        for token in values.get("added_tokens", []):
            # Other added tokens, as runs of spaces, are part of how texts are written for this model.
            token["special"] = (
                token["special"] or token["content"] in known or bool(CONTROL.fullmatch(token["content"]))
            )
        values["truncation"] = values["padding"] = None
        self._tokens = Tokenizer.from_str(json.dumps(values))
        self._tokens.encode_special_tokens = True
        self.begin = self._marks_before(tokenizer)
        """The marks that the tokenizer puts before a text."""

    def _marks_before(self, tokenizer: PreTrainedTokenizerBase) -> list[int]:
        """What the tokenizer puts before a text, each mark once; what it puts behind one would end a prompt."""
        probe = "a"
        bare = self.plain(probe)
        whole: list[int] = tokenizer(probe)["input_ids"]
        at = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), 0)
        marks = whole[:at]
        return [mark for number, mark in enumerate(marks) if number == 0 or mark != marks[number - 1]]

    def plain(self, text: str) -> list[int]:
        """The tokens of the text's characters and nothing else."""
        ids: list[int] = self._tokens.encode(text, add_special_tokens=False).ids
        return ids

    def prompt(self, text: str) -> list[int]:
        """The tokens of a text that a model goes on with: begun as the tokenizer begins texts, and not ended."""
        return [*self.begin, *self.plain(text)]

    def prompts(self, texts: list[str]) -> list[list[int]]:
        """The same for many texts, on all cores."""
        read = self._tokens.encode_batch_fast(texts, add_special_tokens=False)
        return [[*self.begin, *token.ids] for token in read]

    def continued(self, text: str) -> list[int]:
        """The tokens of a text that goes on from another: without the space that SentencePiece puts before a text."""
        alone = self.plain("\n")
        after = self.plain("\n" + text)
        return after[len(alone) :] if alone and after[: len(alone)] == alone else self.plain(text)
