"""A folder of safetensors weights, read by its headers: names on disk and in memory, shapes, shards, identity."""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medllm.errors import ModelError

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
SAMPLED_BYTES = 1024
HEAD = "lm_head.weight"
PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
"""Kinds of number that a change can be added to."""


@dataclass(frozen=True)
class Tensor:
    """The place of one tensor in the files, without its values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    shard: str
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Bytes that it takes on disk."""
        return self.end - self.begin


def read_header(path: Path) -> tuple[dict[str, Tensor], dict[str, str], int]:
    """Read one safetensors file's tensors, its metadata and where its data begins, without loading a value."""
    try:
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            header: dict[str, Any] = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {}) or {}
        tensors = {
            name: Tensor(name, tuple(entry["shape"]), entry["dtype"], path.name, *entry["data_offsets"])
            for name, entry in header.items()
        }
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise ModelError(
            "weights.not-safetensors",
            f"{path}: is not a complete safetensors file ({fault}). Download or make it again.",
        ) from fault
    start = 8 + length
    longest = max((tensor.end for tensor in tensors.values()), default=0)
    if start + longest > path.stat().st_size:
        raise ModelError(
            "weights.cut-off",
            f"{path}: the file is cut off after {path.stat().st_size} bytes. Download or make it again.",
        )
    return tensors, metadata, start


def read_bytes(path: Path, tensor: Tensor) -> bytes:
    """Read one tensor's values as they lie in its file."""
    start = read_header(path)[2]
    with path.open("rb") as file:
        file.seek(start + tensor.begin)
        return file.read(tensor.size)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or name the file that holds none."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as fault:
        raise ModelError(
            "weights.broken-json", f"{path}: cannot be read as JSON ({fault}). Download or make it again."
        ) from fault
    if not isinstance(value, dict):
        raise ModelError("weights.broken-json", f"{path}: does not hold a JSON object. Download or make it again.")
    return value


@dataclass(frozen=True)
class Checkpoint:
    """A full model on disk. Pickled weights are refused here, before any library is asked to open them."""

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "config.json").is_file():
            if not self.folder.is_dir():
                raise ModelError(
                    "weights.no-folder", f"{self.folder}: there is no such folder. Give the folder of a full model."
                )
            kind = "an adapter" if (self.folder / "adapter_config.json").is_file() else "not a model"
            raise ModelError(
                "weights.not-a-model",
                f"{self.folder}: is {kind} (config.json is missing). Give the folder of a full model.",
            )
        if not self.shards:
            pickled = sorted(p.name for pattern in PICKLES for p in self.folder.glob(pattern))
            if pickled:
                raise ModelError(
                    "weights.pickled",
                    f"{self.folder}: the weights are pickled ({pickled[0]}), and unpickling runs any code they hold. "
                    "Convert them to safetensors where you trust them.",
                )
            raise ModelError(
                "weights.no-weights", f"{self.folder}: there are no *.safetensors weights. Download the model again."
            )

    @cached_property
    def shards(self) -> list[Path]:
        """The weight files in order of name; an adapter lying beside them is not part of the model."""
        return sorted(p for p in self.folder.glob("*.safetensors") if p.name != "adapter_model.safetensors")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The values of the model's config.json."""
        return read_json(self.folder / "config.json")

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name, checked against the index where there is one."""
        found = {name: tensor for shard in self.shards for name, tensor in read_header(shard)[0].items()}
        index = self.folder / "model.safetensors.index.json"
        if index.is_file():
            missing = sorted(set(read_json(index).get("weight_map", {})) - set(found))
            if missing:
                raise ModelError(
                    "weights.missing-shards",
                    f"{self.folder}: no shard holds {len(missing)} tensors of the index (first: {missing[0]}). "
                    "Download the missing shards.",
                )
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits from every tensor's name, shape and first bytes: another base has another one."""
        digest = hashlib.sha256()
        for shard in self.shards:
            tensors, _, start = read_header(shard)
            with shard.open("rb") as file:
                for tensor in sorted(tensors.values(), key=lambda t: t.name):
                    digest.update(f"{tensor.name} {tensor.shape} ".encode())
                    file.seek(start + tensor.begin)
                    digest.update(file.read(min(SAMPLED_BYTES, tensor.size)))
        return digest.hexdigest()[:12]

    @property
    def name(self) -> str:
        """What to call this model: `ORG/NAME` where the folder is a Hub snapshot, else the folder's name."""
        return model_name(self.folder)

    @cached_property
    def _renamed(self) -> tuple[Callable[[str], str | None], dict[str, str]]:
        """How transformers renames while it loads, and the file's name of each tensor by its name in memory."""
        from medllm.weights.checkpoint import renaming

        rename = renaming(self.folder)
        found = {rename(name): name for name in self.tensors}
        return rename, {memory: name for memory, name in found.items() if memory is not None}

    def stored(self, name: str) -> str | None:
        """The file's name of a tensor that is given as memory or file names it; None where the base has none."""
        if name in self.tensors:
            return name
        if name == HEAD and self.head is None:
            return None  # a tied head: to know that takes no transformers
        rename, by_memory = self._renamed
        return by_memory.get(name) or by_memory.get(rename(name) or "")

    def bytes_of(self, name: str) -> bytes:
        """The values of one tensor, as they lie in its shard."""
        return read_bytes(self.folder / self.tensors[name].shard, self.tensors[name])

    @cached_property
    def embedding(self) -> str | None:
        """The file's name of the table of tokens."""
        return next((name for name in self.tensors if name.endswith("embed_tokens.weight")), None)

    @cached_property
    def head(self) -> str | None:
        """The file's name of the head, where it is a tensor of its own."""
        return next((name for name in self.tensors if name.endswith(HEAD)), None)

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding itself; a config may leave that to the family's default."""
        text = self.config.get("text_config") or {}
        setting = self.config.get("tie_word_embeddings", text.get("tie_word_embeddings"))
        return self.head is None and setting is not False

    def refuse_quantized(self) -> None:
        """Refuse a base whose stored weights are packed or scaled: adding to those numbers means nothing."""
        scaled = bool(self.config.get("quantization_config"))
        packed = sorted(
            name
            for name, tensor in self.tensors.items()
            if tensor.dtype.startswith("F8") or (scaled and tensor.dtype not in PLAIN)
        )
        if packed:
            raise ModelError(
                "weights.quantized-base",
                f"{self.folder}: the weights are stored quantized ({packed[0]} is {self.tensors[packed[0]].dtype}). "
                "Give the base before quantization.",
            )


def model_name(folder: Path) -> str:
    """Read `ORG/NAME` off a Hub cache path (models--ORG--NAME/snapshots/COMMIT), else take the folder's name."""
    for part in reversed(folder.absolute().parts):
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    return folder.absolute().name


def renaming(folder: Path) -> Callable[[str], str | None]:
    """Read from config.json how a tensor's name on disk becomes its name in memory; both kinds of name may be given.

    The function gives None for a tensor that transformers joins with others while it loads (fused experts). It is
    needed where the two differ: Gemma 3 with vision stores `language_model.model.layers...` and holds
    `model.language_model.layers...`.
    """
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming, rename_source_key

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
        found = get_model_conversion_mapping(model)
    except (ImportError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as fault:
        raise ModelError(
            "weights.unknown-tensor-names",
            f"{folder}: the installed transformers does not know how this model names its tensors "
            f"({str(fault).splitlines()[0] if str(fault) else type(fault).__name__}). Update transformers.",
        ) from fault
    renamings = [one for one in found if isinstance(one, WeightRenaming)]
    converters = [one for one in found if not isinstance(one, WeightRenaming)]
    state = model.state_dict()

    def rename(name: str) -> str | None:
        new, joined = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        return None if joined is not None else str(new)

    return rename
