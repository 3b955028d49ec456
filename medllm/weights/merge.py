"""The merge, shard by shard: one tensor in memory at a time, bit for bit what PEFT's merge gives with all of them."""

import hashlib
import json
import re
import shutil
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from medllm.errors import ModelError
from medllm.files import atomic_write
from medllm.weights.adapter import BIAS, PREFIX, ROWS, Adapter
from medllm.weights.adapter_delta import AdapterChange, Factors, lasting, read_factors, table
from medllm.weights.checkpoint import (
    DTYPES,
    HEAD,
    Checkpoint,
    Sink,
    Tensor,
    TensorSource,
    count_of,
    open_tensors,
    parts_of,
    read_header,
    read_json,
    workers,
    write_tensors,
)
from medllm.work_progress import counted

CHOICES = ("exclude_modules", "layers_to_transform", "layers_pattern")
"""Keys that narrow which modules an adapter sits on."""


def refuse_together(adapters: list[Adapter]) -> None:
    """Refuse several adapters that cannot be made one, because one of them does more than add."""
    apart = [adapter for adapter in adapters if not adapter.is_sum]
    if len(adapters) > 1 and apart:
        raise ModelError(
            "weights.adapters-apart",
            f"{apart[0].folder}: is DoRA, whose change depends on the weights below it, so it cannot be made one "
            "adapter with another. Merge one of the two first (`medllm merge`) and give the merged model as the base; "
            "or train the same adapter further (leave out `rpo.lora`).",
        )


def concatenate(adapters: list[Adapter], out: Path) -> None:
    """Lay the factors side by side: the product of the wide factors is the sum of the products.

    Each adapter's scale is multiplied into its B factor, so the new one acts with scale 1 whatever scales, ranks and
    layers the given ones had. Tensors and rows that an adapter replaces outright (modules_to_save,
    trainable_token_indices) are those of the last that has them; PEFT's own `add_weighted_adapter` drops them without
    a word.
    """
    refuse_together(adapters)
    tensors: dict[str, torch.Tensor] = {}
    ranks: dict[str, int] = {}
    rows: dict[str, dict[int, torch.Tensor]] = {}
    for adapter in adapters:
        with safe_open(str(adapter.path), "pt") as file:
            for module, (narrow, wide) in adapter.modules.items():
                a = file.get_tensor(narrow.name).float()
                b = file.get_tensor(wide.name).float() * adapter.scale(module)
                if narrow.name in tensors:
                    a, b = torch.cat([tensors[narrow.name], a]), torch.cat([tensors[wide.name], b], 1)
                tensors[narrow.name], tensors[wide.name] = a, b
                ranks[module] = a.shape[0]
            for module, tensor in adapter.biases.items():
                added = file.get_tensor(tensor.name).float() * adapter.scale(module)
                tensors[tensor.name] = added + tensors[tensor.name] if tensor.name in tensors else added
            for tensor in adapter.replaced.values():
                tensors[tensor.name] = file.get_tensor(tensor.name)
            for module, (tensor, numbers) in adapter.rows.items():
                values = file.get_tensor(tensor.name)
                rows.setdefault(module, {}).update(zip(numbers, values, strict=True))
    for module, values in rows.items():
        tensors[PREFIX + module + ROWS] = torch.stack(list(values.values()))
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(out / "adapter_model.safetensors"))
    config = _config(adapters, ranks) | {
        "lora_bias": any(name.endswith(BIAS) for name in tensors),
        "trainable_token_indices": {module: list(values) for module, values in rows.items()} or None,
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _config(adapters: list[Adapter], ranks: dict[str, int]) -> dict[str, Any]:
    """One rank for most modules and a pattern for each other; alpha equals rank everywhere, which is scale 1."""
    usual = Counter(ranks.values()).most_common(1)[0][0]
    patterns = {re.escape(module): rank for module, rank in ranks.items() if rank != usual}
    saved = sorted({module for adapter in adapters for module in adapter.config.get("modules_to_save") or ()})
    # Names of layers apply to all blocks; where an adapter sits on some of them only, each module is named.
    some = any(isinstance(a.config.get("target_modules"), str) or any(map(a.config.get, CHOICES)) for a in adapters)
    return {
        **adapters[-1].config,
        **dict.fromkeys(CHOICES),
        "r": usual,
        "lora_alpha": usual,
        "use_rslora": False,
        "init_lora_weights": True,
        "ensure_weight_tying": any(adapter.config.get("ensure_weight_tying") for adapter in adapters),
        "rank_pattern": patterns,
        "alpha_pattern": patterns,
        "target_modules": sorted(ranks) if some else sorted({module.rsplit(".", 1)[-1] for module in ranks}),
        "modules_to_save": saved or None,
        "inference_mode": True,
    }


NAMES = {kind: name for name, kind in DTYPES.items()}
SHORT_NAMES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
ROWS_SAMPLED = 64
"""Rows of each tensor on which rounding is measured."""
HEAD_SHARD = "model-lm_head.safetensors"
INDEX = "model.safetensors.index.json"
BEGUN = "merging.json"
"""Which merge the shards in a folder are of; only needed on the way."""


def merge(
    base: Checkpoint,
    adapters: list[Adapter],
    out: Path,
    *,
    dtype: str | None,
    say: Callable[[str], None],
    beside: float = 0.0,
) -> None:
    """Write the merged model to `out`; shards that an interrupted merge had finished are not made again.

    Each adapter in turn: W <- round(W + scale * B @ A), the sum in float32 and rounded once, as PEFT does. `beside` is
    what else the disk must have room for, in bytes.
    """
    for adapter in adapters:
        adapter.fits(base)
    changes = changes_of(base, adapters)
    kind = DTYPES[SHORT_NAMES[dtype]] if dtype else None
    out.mkdir(parents=True, exist_ok=True)
    embedding = split_rows(base, changes)
    say(_checked_room(base, out, changes, kind, beside))
    _begin(base, adapters, out, dtype)
    for shard in counted(base.shards, len(base.shards), "shards", "merging"):
        made = out / _shard_name(shard, embedding)
        if made.is_file():
            continue
        with atomic_write(made) as part:
            _write_shard(shard, part, changes, kind)
    if embedding is not None:
        _write_head(base, embedding, out, changes.get(HEAD, []), kind)
        say(f"{HEAD_SHARD}: the head is no longer the embedding, for an adapter changes only one of them")
    _write_index([_shard_name(shard, embedding) for shard in base.shards], out)
    _write_config(base, out, kind, changes)


def _begin(base: Checkpoint, adapters: list[Adapter], out: Path, dtype: str | None) -> None:
    """Note what is merged, and refuse to go on among the shards of another merge: the model would be half of each."""
    files = [path for adapter in adapters for path in (adapter.path, adapter.folder / "adapter_config.json")]
    mine = {"base": base.fingerprint, "adapters": [_digest(path) for path in files], "dtype": dtype}
    note = out / BEGUN
    if any(out.glob("*.safetensors")) and (not note.is_file() or read_json(note) != mine):
        raise ModelError(
            "weights.other-merge",
            f"{out}: the folder holds shards of another merge. Remove that folder, or finish that merge first.",
        )
    note.write_text(json.dumps(mine) + "\n", "utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked_room(
    base: Checkpoint, out: Path, changes: dict[str, list[AdapterChange]], kind: torch.dtype | None, beside: float
) -> str:
    """Describe the disk space that is needed and free, as it will be written and without the shards that are done.

    Raise ModelError where the disk cannot hold it.
    """
    embedding = split_rows(base, changes)
    done = {shard for shard in base.shards if (out / _shard_name(shard, embedding)).is_file()}
    written = [tensor for tensor in base.tensors.values() if base.folder / tensor.shard not in done]
    if embedding is not None and not (out / HEAD_SHARD).is_file():
        written.append(replace(base.tensors[embedding], name=HEAD))
    needed = sum(_bytes(_as_written(tensor, changes), kind) for tensor in written)
    free = shutil.disk_usage(out).free
    notes = f" and the files beside it {beside / 1e9:.3g} GB" if beside else ""
    if free < needed + beside:
        raise ModelError(
            "weights.disk-too-small",
            f"{out}: the merged model needs {needed / 1e9:.3g} GB{notes}, and {free / 1e9:.3g} GB of the disk are "
            "free. Free some space.",
        )
    return f"the merged model needs {needed / 1e9:.3g} GB of disk{notes}; {free / 1e9:.3g} GB are free"


def _bytes(tensor: Tensor, kind: torch.dtype | None) -> int:
    """How many bytes a tensor takes once it is written."""
    to = kind if kind is not None and tensor.dtype in DTYPES else None
    return tensor.size if to is None else count_of(tensor) * to.itemsize


def changes_of(base: Checkpoint, adapters: list[Adapter]) -> dict[str, list[AdapterChange]]:
    """Per tensor of the base's files, in the adapters' order; `fits` has found every one its place."""
    changes: dict[str, list[AdapterChange]] = {}

    def note(name: str, change: AdapterChange) -> None:
        # A head that is the embedding has no tensor; what only it gets is kept under its own name.
        place = base.stored(name) or (HEAD if name == HEAD and base.tied else None)
        assert place is not None, f"{name} was not looked for in the base"
        changes.setdefault(place, []).append(change)

    for adapter in adapters:
        for name, tensor in adapter.replaced.items():
            note(name, AdapterChange(adapter, replaced=tensor))
        for module in adapter.modules:
            note(f"{module}.weight", AdapterChange(adapter, module=module))
        for module in adapter.biases:
            note(f"{module}.bias", AdapterChange(adapter, bias=module))
        for module in adapter.rows:
            note(f"{module}.weight", AdapterChange(adapter, rows=module))
            if base.tied and base.stored(f"{module}.weight") == base.embedding and len(adapter.rows) == 1:
                note(HEAD, AdapterChange(adapter, rows=module))
    return changes


def split_rows(base: Checkpoint, changes: dict[str, list[AdapterChange]]) -> str | None:
    """The name of the embedding when a tied head must become a tensor of its own, else None.

    An adapter changes the embedding or the head, and while it is an adapter the other stays as it was. Merging into
    the one tensor that both share would change both: the merged model would be another one than the adapter's. Only
    retrained rows, and adapters with `ensure_weight_tying`, act on both.
    """
    embedding = base.embedding
    if not base.tied or embedding is None:
        return None
    touched = [*changes.get(embedding, []), *changes.get(HEAD, [])]
    of_both = all(change.adapter.config.get("ensure_weight_tying") for change in touched)
    same_rows = [c.rows for c in changes.get(embedding, [])] == [c.rows for c in changes.get(HEAD, [])]
    return embedding if touched and not (of_both or (same_rows and all(c.rows for c in touched))) else None


def share_lost_to_rounding(base: Checkpoint, adapters: list[Adapter], dtype: str) -> float | None:
    """The share of the adapters' change for which the merged model's numbers are too coarse, as root mean squares.

    Over the first rows of each layer with factors; None where there is none. A weight keeps its value where the change
    is below half a step of its number format, so bfloat16 can lose an adapter of a few updates nearly whole.
    """
    missed = wanted = 0.0
    for name, changes in changes_of(base, adapters).items():
        if name not in base.tensors or any(change.module is None for change in changes):
            continue
        factors = [read_factors(change) for change in changes]
        tensor = base.tensors[name]
        with open_tensors(base.folder / tensor.shard) as source:
            part = next(iter(source.parts(tensor)))[1][:ROWS_SAMPLED]
        rows = slice(0, len(part))
        if all(change.adapter.is_sum for change in changes):
            change = _changed(torch.zeros(part.shape), rows, factors, None)
        else:  # what DoRA adds depends on the weight
            change = _changed(part.float(), rows, factors, None) - part.float()
        written = _changed(part, rows, factors, DTYPES[SHORT_NAMES[dtype]]).float()
        weight = tensor.shape[0] / len(part)
        missed += weight * float((written - part.float() - change).double().square().sum())
        wanted += weight * float(change.double().square().sum())
    return (missed / wanted) ** 0.5 if wanted else None


def _write_head(
    base: Checkpoint, embedding: str, out: Path, changes: list[AdapterChange], kind: torch.dtype | None
) -> None:
    """Write the head that is no longer the embedding as one more shard."""
    tensor = replace(base.tensors[embedding], name=HEAD)
    with (
        atomic_write(out / HEAD_SHARD) as part,
        open_tensors(base.folder / tensor.shard) as source,
        write_tensors(part) as sink,
    ):
        _write(source, [tensor], {HEAD: changes}, sink, kind, {"format": "pt"})


def _write_shard(shard: Path, aside: Path, changes: dict[str, list[AdapterChange]], kind: torch.dtype | None) -> None:
    tensors, metadata, _ = read_header(shard)
    order = sorted(tensors.values(), key=lambda tensor: tensor.begin)
    with open_tensors(shard) as source, write_tensors(aside) as sink:
        _write(source, order, changes, sink, kind, metadata or {"format": "pt"})


def _write(
    source: TensorSource,
    order: list[Tensor],
    changes: dict[str, list[AdapterChange]],
    sink: Sink,
    kind: torch.dtype | None,
    metadata: dict[str, str],
) -> None:
    """Write one file: its header first, then tensor after tensor as each is read and changed."""
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for tensor in order:
        to = kind if kind is not None and tensor.dtype in DTYPES else DTYPES.get(tensor.dtype)
        values = _as_written(tensor, changes)
        length = _bytes(values, kind)
        name = NAMES[to] if to is not None else tensor.dtype
        header[tensor.name] = {"dtype": name, "shape": values.shape, "data_offsets": [at, at + length]}
        at += length
    words = json.dumps(header, separators=(",", ":")).encode()
    words += b" " * (-len(words) % 8)
    sink.append(struct.pack("<Q", len(words)) + words)
    with workers() as pool:
        for tensor in order:
            factors = lasting([read_factors(change) for change in changes.get(tensor.name, [])])
            grown = _as_written(tensor, changes) is not tensor
            # A table that grew has rows that the base has not; the adapter replaces them all.
            parts = parts_of(table(factors, tensor)) if grown else source.parts(tensor)
            for rows, part in parts:
                sink.append(pool.submit(_changed, part, rows, factors, kind))


def _as_written(tensor: Tensor, changes: dict[str, list[AdapterChange]]) -> Tensor:
    """The same tensor, or a larger one where an adapter brings a larger vocabulary."""
    shapes = [change.replaced.shape for change in changes.get(tensor.name, []) if change.replaced is not None]
    if not shapes or shapes[-1] == tensor.shape:
        return tensor
    return replace(tensor, shape=shapes[-1], end=tensor.begin + tensor.size // tensor.shape[0] * shapes[-1][0])


def _changed(part: torch.Tensor, rows: slice, factors: list[Factors], kind: torch.dtype | None) -> torch.Tensor:
    """Some rows of a tensor as they will be written; numbers no narrower than the base's hold each sum, too."""
    if kind is not None and part.is_floating_point() and kind.itemsize >= part.dtype.itemsize:
        part = part.to(kind)
    for factor in factors:
        part = factor.on(part, rows)
    return part if kind is None or not part.is_floating_point() else part.to(kind)


def _shard_name(shard: Path, parted_from: str | None) -> str:
    """The base's name for a shard, but for a lone one that gets a neighbour: `model.safetensors` hides all others."""
    return "model-body.safetensors" if parted_from and shard.name == "model.safetensors" else shard.name


def _write_index(shards: list[str], out: Path) -> None:
    """Record which shard holds which tensor, where there are several."""
    shards = [*shards, HEAD_SHARD] if (out / HEAD_SHARD).is_file() else shards
    if len(shards) == 1:
        return
    headers = {shard: read_header(out / shard)[0] for shard in shards}
    places = {name: shard for shard, tensors in headers.items() for name in tensors}
    total = sum(tensor.size for tensors in headers.values() for tensor in tensors.values())
    values = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    (out / INDEX).write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def _write_config(
    base: Checkpoint, out: Path, kind: torch.dtype | None, changes: dict[str, list[AdapterChange]]
) -> None:
    """The base's config, without how it was once quantized, as the weights now are: numbers, head, vocabulary."""
    config = {key: value for key, value in base.config.items() if key not in ("quantization_config", "torch_dtype")}
    if kind is not None:
        config["dtype"] = str(kind).removeprefix("torch.")
    elif "torch_dtype" in base.config:
        config["dtype"] = base.config["torch_dtype"]
    now: dict[str, Any] = {}
    apart = base.head is not None and (base.embedding in changes or base.head in changes)
    if split_rows(base, changes) is not None or apart:
        now["tie_word_embeddings"] = False
    embedding = base.tensors[base.embedding] if base.embedding is not None else None
    if embedding is not None and (grown := _as_written(embedding, changes)) is not embedding:
        now["vocab_size"] = grown.shape[0]
    if "text_config" in config:
        config["text_config"] = {**config["text_config"], **now}
    config |= now if "text_config" not in config else {key: now[key] for key in now if key in config or "tie" in key}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
