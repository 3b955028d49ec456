"""A LoRA adapter on disk: what it changes, by how much, and whether it fits the base it is to be laid on."""

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medllm.errors import ModelError
from medllm.weights.checkpoint import PICKLES, Checkpoint, Tensor, read_header, read_json

PREFIX = "base_model.model."
BASE_FILE = "base.json"
# What PEFT writes for a pair of factors; embeddings have names of their own and are stored transposed.
FACTOR = re.compile(r"^(?P<module>.+)\.(lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B)$")


@dataclass(frozen=True)
class Adapter:
    """A folder of PEFT LoRA weights, read by header."""

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "adapter_config.json").is_file():
            if not self.folder.is_dir():
                raise ModelError(f"{self.folder}: no such folder. Give the folder of an adapter.")
            what = "a full model" if (self.folder / "config.json").is_file() else "no adapter"
            raise ModelError(
                f"{self.folder}: {what} (there is no adapter_config.json). Give the folder of an adapter that was "
                "trained on the base."
            )
        if not self.path.is_file():
            pickled = sorted(p.name for pattern in PICKLES for p in self.folder.glob(pattern))
            why = f"its weights are pickled ({pickled[0]})" if pickled else "adapter_model.safetensors is missing"
            raise ModelError(f"{self.folder}: {why}. Save the adapter as safetensors.")
        kind = self.config.get("peft_type")
        if kind != "LORA" or self.config.get("use_dora") or self.config.get("fan_in_fan_out"):
            kind = "DoRA" if self.config.get("use_dora") else kind
            raise ModelError(f"{self.folder}: the adapter is {kind}; only plain LoRA is known here.")

    @property
    def path(self) -> Path:
        """The weights' file."""
        return self.folder / "adapter_model.safetensors"

    @cached_property
    def config(self) -> dict[str, Any]:
        """PEFT's adapter_config.json."""
        return read_json(self.folder / "adapter_config.json")

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The adapter's tensors under the names the model gives their modules."""
        stored = read_header(self.path)[0]
        # PEFT also saves the embedding below an adapted one, under this middle name.
        return {name.removeprefix(PREFIX).replace(".base_layer.", "."): tensor for name, tensor in stored.items()}

    @cached_property
    def modules(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Each module with a LoRA pair: its two factors, the narrow one (A) first."""
        pairs: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self.tensors.items():
            if match := FACTOR.match(name):
                pairs.setdefault(match["module"], {})["A" if "_A" in name[len(match["module"]) :] else "B"] = tensor
        broken = sorted(module for module, pair in pairs.items() if len(pair) < 2)
        if broken:
            raise ModelError(f"{self.folder}: {broken[0]} has only one LoRA factor. Save the adapter again.")
        return {module: (pair["A"], pair["B"]) for module, pair in pairs.items()}

    @cached_property
    def replaced(self) -> dict[str, Tensor]:
        """Tensors that replace the base's outright (PEFT's modules_to_save)."""
        return {name: tensor for name, tensor in self.tensors.items() if not FACTOR.match(name)}

    def scale(self, module: str) -> float:
        """What the product of a module's factors is multiplied by, as PEFT computes it."""
        rank = _by_pattern(self.config.get("rank_pattern"), module, self.config["r"])
        alpha = _by_pattern(self.config.get("alpha_pattern"), module, self.config["lora_alpha"])
        return alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank

    @cached_property
    def base(self) -> dict[str, str]:
        """The name and fingerprint of the base it was trained on, as far as they were written down."""
        path = self.folder / BASE_FILE
        written = read_json(path) if path.is_file() else {}
        return {"name": self.config.get("base_model_name_or_path") or "an unnamed base", **written}

    @property
    def proven(self) -> bool:
        """Whether its base can be told from another of equal shapes: only an adapter made here has a fingerprint."""
        return "fingerprint" in self.base

    def fits(self, base: Checkpoint) -> None:
        """Refuse another base, naming both: by fingerprint where there is one, and by every shape."""
        print_ = self.base.get("fingerprint")
        if print_ and print_ != base.fingerprint:
            raise ModelError(
                f"{self.folder}: trained on {self.base['name']} (fingerprint {print_}), but laid on {base.name} "
                f"({base.fingerprint}). Give the base it was trained on."
            )
        faults = [fault for module in self.modules if (fault := self._misfit(module, base))]
        faults += [
            f"{name} is {tensor.shape} and the base's {base.tensors[name].shape}"
            for name, tensor in self.replaced.items()
            if name in base.tensors and base.tensors[name].shape != tensor.shape
        ]
        if faults:
            raise ModelError(
                f"{self.folder}: trained on {self.base['name']}, does not fit {base.name}: {faults[0]}"
                f"{f' (and {len(faults) - 1} more)' if len(faults) > 1 else ''}. Give the base it was trained on."
            )
        word = word_apart(base.folder, self.folder)
        if word is not None:
            raise ModelError(
                f"{self.folder}: its tokenizer is not that of {base.name}: `{word}` has another number there. Give the "
                "base it was trained on, or put that base's tokenizer beside the adapter."
            )

    def _misfit(self, module: str, base: Checkpoint) -> str | None:
        weight = base.tensors.get(weight_name(module, base))
        if weight is None:
            return f"the base has no {module}"
        narrow, wide = self.modules[module]
        inputs, outputs = narrow.shape[1], wide.shape[0]
        changes = (inputs, outputs) if "embedding" in narrow.name else (outputs, inputs)
        if changes == weight.shape:
            return None
        return f"{module} is changed as {changes} and the base's is {weight.shape}"


def weight_name(module: str, base: Checkpoint) -> str:
    """Where a module's weight lies in the base's files; a tied head lies in the embedding."""
    name = f"{module}.weight"
    if name in base.tensors or module != "lm_head" or not base.tied:
        return name
    return next((n for n in base.tensors if n.endswith("embed_tokens.weight")), name)


def word_apart(base: Path, adapter: Path) -> str | None:
    """A token of the base that its adapter's tokenizer numbers otherwise; None where they agree, or one has none."""
    paths = [folder / "tokenizer.json" for folder in (base, adapter)]
    if not all(path.is_file() for path in paths) or paths[0].read_bytes() == paths[1].read_bytes():
        return None
    ours, theirs = (_numbers(read_json(path)) for path in paths)
    return next((word for word, number in ours.items() if theirs.get(word) != number), None)


def _numbers(tokenizer: dict[str, Any]) -> dict[str, int]:
    words = tokenizer["model"]["vocab"]
    # Unigram models list their words with scores; the place in the list is the number.
    numbers = words if isinstance(words, dict) else {word: number for number, (word, _) in enumerate(words)}
    return {**numbers, **{one["content"]: one["id"] for one in tokenizer.get("added_tokens") or ()}}


def _by_pattern(patterns: dict[str, float] | None, module: str, default: float) -> float:
    """PEFT's rule: the first pattern that is the module's name or a dotted end of it."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter rather than a full model."""
    return (folder / "adapter_config.json").is_file()


def write_base(folder: Path, base: Checkpoint) -> None:
    """Note beside an adapter which base it belongs to, so that another one is refused later."""
    text = json.dumps({"name": base.name, "fingerprint": base.fingerprint}, indent=1)
    (folder / BASE_FILE).write_text(text + "\n", "utf-8")
    config = read_json(folder / "adapter_config.json")
    config["base_model_name_or_path"] = base.name
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
