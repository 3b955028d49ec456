"""The merge, shard by shard: one tensor in memory at a time, bit for bit what PEFT's merge gives with all of them."""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from medllm.errors import ModelError
from medllm.weights.adapter import Adapter, weight_name
from medllm.weights.checkpoint import Checkpoint, Tensor, read_header, read_json
from medllm.weights.slices import DTYPES, Sink, Source, count_of, opened, workers, written

NAMES = {kind: name for name, kind in DTYPES.items()}
HEAD = "lm_head.weight"
HEAD_SHARD = "model-lm_head.safetensors"
INDEX = "model.safetensors.index.json"
BEGUN = "merging.json"
"""Which merge the shards in a folder are of; only needed on the way."""


@dataclass(frozen=True)
class Change:
    """What one adapter does to one tensor."""

    adapter: Adapter
    module: str | None
    replaced: Tensor | None


def merge(
    base: Checkpoint, adapters: list[Adapter], out: Path, *, dtype: str | None, say: Callable[[str], None]
) -> None:
    """Write the merged model to `out`; shards that an interrupted merge had finished are not made again.

    Each adapter in turn: W <- round(W + scale * B @ A), the sum in float32 and rounded once, as PEFT does.
    """
    for adapter in adapters:
        adapter.fits(base)
    changes = _changes(base, adapters)
    kind = DTYPES[{"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[dtype]] if dtype else None
    out.mkdir(parents=True, exist_ok=True)
    embedding = parted(base, changes)
    _room_for(base, out, embedding, kind)
    _begin(base, adapters, out, dtype)
    for number, shard in enumerate(base.shards, 1):
        made = out / _shard_name(shard, embedding)
        if made.is_file():
            continue
        aside = made.with_name(made.name + ".part")
        _write_shard(shard, aside, changes, kind)
        aside.replace(made)
        say(f"{made.name} ({number} of {len(base.shards)})")
    if embedding is not None:
        _write_head(base, embedding, out, changes.get(HEAD, []), kind)
        say(f"{HEAD_SHARD}: the head is no longer the embedding, for an adapter changes only one of them")
    _write_index([_shard_name(shard, embedding) for shard in base.shards], out)
    _write_config(base, out, kind, untied=embedding is not None)


def _begin(base: Checkpoint, adapters: list[Adapter], out: Path, dtype: str | None) -> None:
    """Note what is merged, and refuse to go on among the shards of another merge: the model would be half of each."""
    files = [path for adapter in adapters for path in (adapter.path, adapter.folder / "adapter_config.json")]
    mine = {"base": base.fingerprint, "adapters": [_digest(path) for path in files], "dtype": dtype}
    note = out / BEGUN
    if any(out.glob("*.safetensors")) and (not note.is_file() or read_json(note) != mine):
        raise ModelError(f"{out}: shards of another merge lie there. Remove that folder, or finish that merge first.")
    note.write_text(json.dumps(mine) + "\n", "utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _room_for(base: Checkpoint, out: Path, embedding: str | None, kind: torch.dtype | None) -> None:
    """Refuse to begin what the disk cannot hold: counted as it will be written, without the shards that stand."""
    standing = {shard for shard in base.shards if (out / _shard_name(shard, embedding)).is_file()}
    written = [tensor for tensor in base.tensors.values() if base.folder / tensor.shard not in standing]
    if embedding is not None and not (out / HEAD_SHARD).is_file():
        written.append(base.tensors[embedding])
    needed = sum(_bytes(tensor, kind) for tensor in written)
    free = shutil.disk_usage(out).free
    if free < needed:
        raise ModelError(
            f"{out}: the merged model needs {needed / 1e9:.3g} GB there, and {free / 1e9:.3g} GB are free. Free some."
        )


def _bytes(tensor: Tensor, kind: torch.dtype | None) -> int:
    """How many bytes a tensor takes once it is written."""
    to = kind if kind is not None and tensor.dtype in DTYPES else None
    return tensor.size if to is None else count_of(tensor) * to.itemsize


def _changes(base: Checkpoint, adapters: list[Adapter]) -> dict[str, list[Change]]:
    """Per tensor, in the adapters' order; every tensor of every adapter must have found its place."""
    changes: dict[str, list[Change]] = {}
    for adapter in adapters:
        for name, tensor in adapter.replaced.items():
            if name not in base.tensors and not (name == HEAD and base.tied):
                raise ModelError(f"{adapter.folder}: replaces {name}, which {base.name} does not have.")
            changes.setdefault(name, []).append(Change(adapter, None, tensor))
        for module in adapter.modules:
            changes.setdefault(f"{module}.weight", []).append(Change(adapter, module, None))
    return changes


def parted(base: Checkpoint, changes: dict[str, list[Change]]) -> str | None:
    """The name of the embedding when a tied head must become a tensor of its own, else None.

    An adapter changes the embedding or the head, and while it is an adapter the other stays as it was. Merging into
    the one tensor that both share would change both: the merged model would be another one than the adapter's.
    """
    if not base.tied:
        return None
    embedding = weight_name("lm_head", base)
    of_both = changes.get(embedding, []) and all(
        change.adapter.config.get("ensure_weight_tying") for change in changes[embedding]
    )
    touched = bool(changes.get(embedding)) or bool(changes.get(HEAD))
    return embedding if touched and not of_both else None


def _write_head(base: Checkpoint, embedding: str, out: Path, changes: list[Change], kind: torch.dtype | None) -> None:
    """Write the head that is no longer the embedding as one more shard."""
    tensor = replace(base.tensors[embedding], name=HEAD)
    aside = out / (HEAD_SHARD + ".part")
    with opened(base.folder / tensor.shard) as source, written(aside) as sink:
        _write(source, [tensor], {HEAD: changes}, sink, kind, {"format": "pt"})
    aside.replace(out / HEAD_SHARD)


def _write_shard(shard: Path, aside: Path, changes: dict[str, list[Change]], kind: torch.dtype | None) -> None:
    tensors, metadata, _ = read_header(shard)
    order = sorted(tensors.values(), key=lambda tensor: tensor.begin)
    with opened(shard) as source, written(aside) as sink:
        _write(source, order, changes, sink, kind, metadata or {"format": "pt"})


def _write(
    source: Source,
    order: list[Tensor],
    changes: dict[str, list[Change]],
    sink: Sink,
    kind: torch.dtype | None,
    metadata: dict[str, str],
) -> None:
    """Write one file: its header first, then tensor after tensor as each is read and changed."""
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for tensor in order:
        to = kind if kind is not None and tensor.dtype in DTYPES else DTYPES.get(tensor.dtype)
        length = _bytes(tensor, kind)
        name = NAMES[to] if to is not None else tensor.dtype
        header[tensor.name] = {"dtype": name, "shape": tensor.shape, "data_offsets": [at, at + length]}
        at += length
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    sink.append(struct.pack("<Q", len(words)) + words)
    with workers() as pool:
        for tensor in order:
            factors = [_factors(change) for change in changes.get(tensor.name, [])]
            for rows, part in source.parts(tensor):
                sink.append(pool.submit(_changed, part, rows, factors, kind))


@dataclass(frozen=True)
class Factors:
    """An adapter's change in memory: two factors and their scale, or the tensor that replaces the base's."""

    narrow: torch.Tensor | None = None
    wide: torch.Tensor | None = None
    scale: float = 1.0
    transposed: bool = False
    """Whether the module is an embedding, whose change is stored transposed."""
    replaced: torch.Tensor | None = None

    def on(self, part: torch.Tensor, rows: slice) -> torch.Tensor:
        """These rows of the tensor with the change; the products are ordered as PEFT's are, for the same bits."""
        if self.narrow is None or self.wide is None:
            assert self.replaced is not None
            return self.replaced[rows].to(part.dtype)
        if not self.transposed:
            return (part.float() + self.wide[rows] @ self.narrow * self.scale).to(part.dtype)
        # An embedding's change is rounded to the base's numbers before it is added, and once more after.
        delta = ((self.wide @ self.narrow[:, rows]).T * self.scale).to(part.dtype)
        return (part.float() + delta.float()).to(part.dtype)


def _changed(part: torch.Tensor, rows: slice, factors: list[Factors], kind: torch.dtype | None) -> torch.Tensor:
    """Some rows of a tensor as they will be written."""
    for one in factors:
        part = one.on(part, rows)
    return part if kind is None or not part.is_floating_point() else part.to(kind)


def _factors(change: Change) -> Factors:
    with safe_open(str(change.adapter.path), "pt") as file:
        if change.replaced is not None:
            return Factors(replaced=file.get_tensor(change.replaced.name))
        assert change.module is not None
        narrow, wide = change.adapter.modules[change.module]
        a, b = file.get_tensor(narrow.name).float(), file.get_tensor(wide.name).float()
    return Factors(a, b, change.adapter.scale(change.module), "embedding" in narrow.name)


def _shard_name(shard: Path, parted_from: str | None) -> str:
    """The base's name for a shard, but for a lone one that gets a neighbour: `model.safetensors` hides all others."""
    return "model-body.safetensors" if parted_from and shard.name == "model.safetensors" else shard.name


def _write_index(shards: list[str], out: Path) -> None:
    """Say which shard holds what, where there are several."""
    shards = [*shards, HEAD_SHARD] if (out / HEAD_SHARD).is_file() else shards
    if len(shards) == 1:
        return
    found = {shard: read_header(out / shard)[0] for shard in shards}
    places = {name: shard for shard, tensors in found.items() for name in tensors}
    total = sum(tensor.size for tensors in found.values() for tensor in tensors.values())
    told = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (out / INDEX).write_text(json.dumps(told, indent=2) + "\n", "utf-8")


def _write_config(base: Checkpoint, out: Path, kind: torch.dtype | None, *, untied: bool) -> None:
    """The base's config, without how it was once quantized, with the numbers the weights now have."""
    config = {key: value for key, value in base.config.items() if key not in ("quantization_config", "torch_dtype")}
    if kind is not None:
        config["dtype"] = str(kind).removeprefix("torch.")
    elif "torch_dtype" in base.config:
        config["dtype"] = base.config["torch_dtype"]
    if untied:
        config["tie_word_embeddings"] = False
        if "text_config" in config:
            config["text_config"] = {**config["text_config"], "tie_word_embeddings": False}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
