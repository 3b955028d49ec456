"""A LoRA adapter on disk: the layers it sits on, what it changes, by how much, and whether it fits its base."""

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medllm.errors import ModelError
from medllm.weights.adapter_kinds import refuse_unknown
from medllm.weights.checkpoint import HEAD, PICKLES, Checkpoint, Tensor, read_bytes, read_header, read_json


def outside_text(model: Any) -> str | None:  # noqa: ANN401  a PreTrainedModel
    """A regular expression of the modules that do not work on text, for PEFT's `exclude_modules`; None where all do.

    A model that also sees pictures has layers of the same names in its vision tower, which learns nothing from text.
    """
    if model.config.get_text_config() is model.config:
        return None
    decoder = model.get_decoder()
    path = next((name for name, module in model.named_modules() if module is decoder), "")
    return rf"(?!{re.escape(path)}\.|lm_head$).*" if path else None


def refuse_unstored(model: Any, base: Checkpoint) -> None:  # noqa: ANN401  a PeftModel
    """Refuse an adapter in memory that no later stage could lay on the base: asked before its first step is paid for.

    Every adapted module must be a layer whose weight the base's files hold as one tensor of the same shape.
    """
    faults = []
    for path, module in model.named_modules():
        name = path.removeprefix("base_model.model.")
        if not hasattr(module, "lora_A") or not (module.lora_A or module.lora_embedding_A):
            continue
        place = base.stored(f"{name}.weight")
        if place is None and base.tied and f"{name}.weight" == HEAD:
            place = base.embedding
        shape = (module.out_features, module.in_features)
        if place is None:
            faults.append(f"{name}, which its files do not hold as one tensor (a mixture's experts, or joined layers)")
        elif base.tensors[place].shape not in (shape, shape[::-1]):
            faults.append(f"{name} of {shape}, which its files hold as {base.tensors[place].shape}")
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise ModelError(
            "weights.unmergeable-layer",
            f"{base.name}: the adapter changes {faults[0]}{more}. It can be trained, but not merged or loaded on the "
            "base again. Remove that layer from `lora.target_modules`.",
        )


PREFIX = "base_model.model."
BASE_FILE = "base.json"
# What PEFT writes for a pair of factors; embeddings have names of their own and are stored transposed.
FACTOR = re.compile(r"^(?P<module>.+)\.(lora_A\.weight|lora_B\.weight|lora_embedding_A|lora_embedding_B)$")
MAGNITUDE = ".lora_magnitude_vector"
BIAS, ROWS = ".lora_B.bias", ".token_adapter.trainable_tokens_delta"
TRANSPOSED = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp"})
"""Families whose layers store their weights as inputs x outputs: the same change would be another one there."""


@dataclass(frozen=True)
class Adapter:
    """A folder of PEFT LoRA weights, read by header."""

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "adapter_config.json").is_file():
            if not self.folder.is_dir():
                raise ModelError(
                    "weights.no-folder", f"{self.folder}: there is no such folder. Give the folder of an adapter."
                )
            kind = "a full model" if (self.folder / "config.json").is_file() else "not an adapter"
            raise ModelError(
                "weights.not-an-adapter",
                f"{self.folder}: is {kind} (adapter_config.json is missing). Give the folder of an adapter that was "
                "trained on the base.",
            )
        if not self.path.is_file():
            pickled = sorted(p.name for pattern in PICKLES for p in self.folder.glob(pattern))
            if pickled:
                raise ModelError(
                    "weights.pickled",
                    f"{self.folder}: the adapter is pickled ({pickled[0]}), and unpickling runs any code it holds. "
                    "Save the adapter as safetensors.",
                )
            raise ModelError(
                "weights.no-weights",
                f"{self.folder}: there is no adapter_model.safetensors. Save the adapter as safetensors.",
            )
        refuse_unknown(self.config, str(self.folder))

    @property
    def path(self) -> Path:
        """The path of the weights' file."""
        return self.folder / "adapter_model.safetensors"

    @cached_property
    def config(self) -> dict[str, Any]:
        """The values of PEFT's adapter_config.json."""
        return read_json(self.folder / "adapter_config.json")

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """The adapter's tensors under the names the model gives their modules."""
        stored = read_header(self.path)[0]
        # PEFT also saves the embedding below an adapted one, under this middle name, and where the vocabulary was
        # resized each wrapped table once more: as it was, and again as it is.
        named = {
            name.removeprefix(PREFIX).replace(".base_layer.", "."): tensor
            for name, tensor in stored.items()
            if ".original_module." not in name
        }
        again = {name: name.replace(".modules_to_save.", ".") for name in named if ".modules_to_save." in name}
        return {again.get(name, name): tensor for name, tensor in named.items() if again.get(name) not in named}

    @cached_property
    def modules(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Each module with a LoRA pair: its two factors, the narrow one (A) first."""
        pairs: dict[str, dict[str, Tensor]] = {}
        for name, tensor in self.tensors.items():
            if match := FACTOR.match(name):
                pairs.setdefault(match["module"], {})["A" if "_A" in name[len(match["module"]) :] else "B"] = tensor
        broken = sorted(module for module, pair in pairs.items() if len(pair) < 2)
        if broken:
            raise ModelError(
                "weights.half-pair", f"{self.folder}: {broken[0]} has only one LoRA factor. Save the adapter again."
            )
        return {module: (pair["A"], pair["B"]) for module, pair in pairs.items()}

    @cached_property
    def biases(self) -> dict[str, Tensor]:
        """What is added to the bias of each module (`lora_bias`), times its scale."""
        tensors_by_layer = {
            name.removesuffix(BIAS): tensor for name, tensor in self.tensors.items() if name.endswith(BIAS)
        }
        return {module: tensor for module, tensor in tensors_by_layer.items() if module in self.modules}

    @cached_property
    def magnitudes(self) -> dict[str, Tensor]:
        """The lengths that DoRA gives the rows of each module's weight."""
        if not self.config.get("use_dora"):
            return {}
        tensors_by_layer = {
            name.removesuffix(MAGNITUDE): tensor for name, tensor in self.tensors.items() if name.endswith(MAGNITUDE)
        }
        without = sorted(self.modules.keys() ^ tensors_by_layer.keys())
        if without:
            raise ModelError(
                "weights.half-pair",
                f"{self.folder}: is DoRA, and {without[0]} has not both its factors and its lengths. Save the adapter "
                "again.",
            )
        return tensors_by_layer

    @property
    def is_sum(self) -> bool:
        """Whether all it does to a weight is to add to it or to replace it: two of that kind can be made one."""
        return not self.config.get("use_dora")

    @cached_property
    def rows(self) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
        """Each module with retrained rows (`trainable_token_indices`): the rows' new values and their numbers."""
        tensors_by_layer = {
            name.removesuffix(ROWS): tensor for name, tensor in self.tensors.items() if name.endswith(ROWS)
        }
        indices = self.config.get("trainable_token_indices") or {}
        numbers = {
            module: indices if isinstance(indices, list) else _by_end(indices, module) for module in tensors_by_layer
        }
        for module, tensor in tensors_by_layer.items():
            if len(numbers[module]) != tensor.shape[0]:
                raise ModelError(
                    "weights.wrong-row-count",
                    f"{self.folder}: `trainable_token_indices` names {len(numbers[module])} rows of {module}, and "
                    f"{tensor.shape[0]} are stored. Save the adapter again.",
                )
        return {module: (tensor, tuple(numbers[module])) for module, tensor in tensors_by_layer.items()}

    @cached_property
    def replaced(self) -> dict[str, Tensor]:
        """Tensors that replace the base's outright: PEFT's modules_to_save, `bias: all`, a resized embedding."""
        known = {*(module + BIAS for module in self.biases), *(module + ROWS for module in self.rows)}
        known |= {module + MAGNITUDE for module in self.magnitudes}
        left = {name: tensor for name, tensor in self.tensors.items() if not FACTOR.match(name) and name not in known}
        strange = sorted(name for name in left if ".lora_" in name or "token_adapter" in name)
        if strange:
            raise ModelError(
                "weights.unknown-tensor",
                f"{self.folder}: holds {strange[0]}, which is not part of plain LoRA. Merge the adapter with PEFT and "
                "give the merged model instead.",
            )
        return left

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
        """Whether it identifies its base among others of equal shapes: only an adapter made here has a fingerprint."""
        return "fingerprint" in self.base

    def fits(self, base: Checkpoint) -> None:
        """Refuse another base, naming both: by fingerprint where there is one, and by every shape."""
        print_ = self.base.get("fingerprint")
        if print_ and print_ != base.fingerprint:
            raise ModelError(
                "weights.other-base",
                f"{self.folder}: the adapter was trained on {self.base['name']} (fingerprint {print_}), and the given "
                f"base is {base.name} ({base.fingerprint}). Give the base of the adapter.",
            )
        base.refuse_quantized()
        if base.config.get("model_type") in TRANSPOSED:
            raise ModelError(
                "weights.transposed-base",
                f"{self.folder}: {base.name} is a {base.config['model_type']} model, which stores the weights of its "
                f"layers transposed (Conv1D). Merge the adapter with PEFT and give the merged model instead.",
            )
        faults = [fault for module in self.modules if (fault := self._misfit(module, base))]
        faults += [fault for name in self.replaced if (fault := self._misplaced(name, base))]
        faults += [fault for module in {*self.biases, *self.rows} if (fault := self._unlike(module, base))]
        if faults:
            raise ModelError(
                "weights.misfit",
                f"{self.folder}: the adapter was trained on {self.base['name']} and does not fit {base.name}: "
                f"{faults[0]} (faults: {len(faults)}). Give the base of the adapter.",
            )
        word = word_apart(base.folder, self.folder)
        if word is not None:
            raise ModelError(
                "weights.other-tokenizer",
                f"{self.folder}: the adapter's tokenizer gives `{word}` another number than the tokenizer of "
                f"{base.name}. Give the base of the adapter, or put that base's tokenizer beside the adapter.",
            )

    @cached_property
    def switched(self) -> frozenset[str]:
        """Tensors of whole modules that PEFT keeps beside the base's and switches with the adapter (modules_to_save).

        PEFT takes every module whose name ends in one of the given words: `norm` matches `input_layernorm` as well.
        """
        ends = tuple(str(module) for module in self.config.get("modules_to_save") or ())
        if self.config.get("ensure_weight_tying") and any(end.endswith(("embed_tokens", "lm_head")) for end in ends):
            ends = (*ends, "embed_tokens", "lm_head")
        return frozenset(
            name
            for name in self.replaced
            if any(name[:at].endswith(ends) for at, sign in enumerate(name) if sign == "." and ends)
        )

    @property
    def acts_on_both_ends(self) -> bool:
        """Whether it changes a tied embedding and its head together."""
        return bool(self.config.get("ensure_weight_tying") or self.rows)

    def overwrites(self, base: Checkpoint) -> list[str]:
        """Tensors of the base itself that differ once the adapter is laid on it, and stay so when it is switched off.

        PEFT keeps a copy of the modules in `modules_to_save`; biases (`bias: all`) and resized embeddings it writes
        over the base's.
        """
        bare = [name for name in self.replaced if name not in self.switched]
        places = {name: self.placed(name, base) for name in bare}
        return sorted(
            name
            for name, place in places.items()
            if place is None or read_bytes(self.path, self.replaced[name]) != base.bytes_of(place)
        )

    def vocabulary(self, base: Checkpoint) -> int | None:
        """The rows of the embedding it was trained with, where they are more than the base's and all are stored."""
        ends = [end for end in (base.embedding, base.head) if end is not None]
        shapes = {self.placed(name, base): tensor.shape for name, tensor in self.replaced.items()}
        rows = {shapes[end][0] for end in ends if end in shapes and shapes[end][1:] == base.tensors[end].shape[1:]}
        grown = all(end in shapes for end in ends) and len(rows) == 1
        return max(rows) if grown and max(rows) > base.tensors[ends[0]].shape[0] else None

    def placed(self, name: str, base: Checkpoint) -> str | None:
        """Find the name in the base's files of a tensor that the adapter names; a tied head is in the embedding."""
        stored = base.stored(name)
        return base.embedding if stored is None and base.tied and name == HEAD else stored

    def _misfit(self, module: str, base: Checkpoint) -> str | None:
        place = self.placed(f"{module}.weight", base)
        if place is None:
            return f"the base has no {module}"
        narrow, wide = self.modules[module]
        rank = _by_pattern(self.config.get("rank_pattern"), module, self.config["r"])
        if rank != narrow.shape[0]:
            return f"the rank of {module} is {rank} in adapter_config.json and {narrow.shape[0]} in the weights"
        inputs, outputs = narrow.shape[1], wide.shape[0]
        changes = (inputs, outputs) if "embedding" in narrow.name else (outputs, inputs)
        shape = base.tensors[place].shape
        grown = self.vocabulary(base)
        if grown and place in (base.embedding, base.head):
            shape = (grown, *shape[1:])
        if module in self.magnitudes and "embedding" in narrow.name:
            return f"{module} is an embedding with DoRA, which only PEFT can merge"
        if module in self.magnitudes and self.magnitudes[module].shape != (outputs,):
            return f"DoRA has lengths of {self.magnitudes[module].shape} for {module}, whose weight has {outputs} rows"
        return None if changes == shape else f"{module} is changed as {changes} and the base's is {shape}"

    def _misplaced(self, name: str, base: Checkpoint) -> str | None:
        place = self.placed(name, base)
        if place is None:
            return f"it replaces {name}, which the base does not have"
        ours, theirs = self.replaced[name].shape, base.tensors[place].shape
        if ours == theirs or (self.vocabulary(base) == ours[0] and place in (base.embedding, base.head)):
            return None
        grown = ours[1:] == theirs[1:] and ours[0] > theirs[0]
        difference = f"{name} is {ours} and the base's {theirs}"
        return (
            f"{difference} (its vocabulary was resized; embedding and head must both be stored)"
            if grown
            else difference
        )

    def _unlike(self, module: str, base: Checkpoint) -> str | None:
        """What is wrong with the rows or the bias of a module."""
        if module in self.biases:
            bias = base.stored(f"{module}.bias")
            if bias is None:
                return (
                    f"`lora_bias` adds to the bias of {module}, which has none in the base: no merged model can hold it"
                )
            shapes = self.biases[module].shape, base.tensors[bias].shape
            return None if shapes[0] == shapes[1] else f"the bias of {module} is {shapes[0]} and the base's {shapes[1]}"
        place = self.placed(f"{module}.weight", base)
        if place is None:
            return f"the base has no {module}"
        tensor, numbers = self.rows[module]
        shape = base.tensors[place].shape
        grown = self.vocabulary(base) or shape[0]
        if tensor.shape[1:] != shape[1:] or not all(0 <= number < grown for number in numbers):
            return f"rows up to {max(numbers)} of {module} are retrained, {tensor.shape[1]} wide; the base has {shape}"
        return None


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
    return {**numbers, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens") or ()}}


def _by_pattern(patterns: dict[str, float] | None, module: str, default: float) -> float:
    """PEFT's rule: the first pattern that is the module's name or a dotted end of it."""
    return next((value for pattern, value in (patterns or {}).items() if matches(pattern, module)), default)


def matches(pattern: str, module: str) -> bool:
    """Whether a key of PEFT's `rank_pattern` or `alpha_pattern` means this module: its name, or a dotted end of it."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None


def _by_end(indices: dict[str, list[int]], module: str) -> list[int]:
    """The rows of a module, named whole or by its dotted end."""
    return next((rows for name, rows in indices.items() if module == name or module.endswith(f".{name}")), [])


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
