"""A folder of safetensors weights: its headers, names, shapes and shards, and its tensors some rows at a time."""

import hashlib
import json
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO

import torch

from medllm.errors import ModelError

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
SAMPLED_BYTES = 1024
HEAD = "lm_head.weight"
EMBEDDINGS = ("embed_tokens.weight", ".embeddings.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
"""How the table of tokens ends its name, by family."""
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
        by_name = {name: tensor for shard in self.shards for name, tensor in read_header(shard)[0].items()}
        index = self.folder / "model.safetensors.index.json"
        if index.is_file():
            missing = sorted(set(read_json(index).get("weight_map", {})) - set(by_name))
            if missing:
                raise ModelError(
                    "weights.missing-shards",
                    f"{self.folder}: no shard holds {len(missing)} tensors of the index (first: {missing[0]}). "
                    "Download the missing shards.",
                )
        return by_name

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
        rename = renaming(self.folder)
        names = {rename(name): name for name in self.tensors}
        return rename, {memory: name for memory, name in names.items() if memory is not None}

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
        return next((name for end in EMBEDDINGS for name in self.tensors if name.endswith(end)), None)

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
        conversions = get_model_conversion_mapping(model)
    except (ImportError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as fault:
        raise ModelError(
            "weights.unknown-tensor-names",
            f"{folder}: the installed transformers does not know how this model names its tensors "
            f"({str(fault).splitlines()[0] if str(fault) else type(fault).__name__}). Update transformers.",
        ) from fault
    renamings = [conversion for conversion in conversions if isinstance(conversion, WeightRenaming)]
    converters = [conversion for conversion in conversions if not isinstance(conversion, WeightRenaming)]
    state = model.state_dict()

    def rename(name: str) -> str | None:
        new, joined = rename_source_key(name, renamings, converters, model.base_model_prefix, state)
        return None if joined is not None else str(new)

    return rename


DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
NUMBERS_AT_ONCE = 2**18
"""Numbers of a tensor held at a time: the intermediate result of two products fits into the processor's cache."""
WAITING = 16
"""How many slices may be made or wait for the disk at a time; a further one is not read before."""
SENT_BYTES = 2**25
"""Bytes after which the system must begin to write: by default it gathers gigabytes, and the disk idles meanwhile."""
LEAST_ROWS = 64
"""A product of one or two rows is summed in another order than that of many, and would differ in the last bit."""


@dataclass(frozen=True)
class TensorSource:
    """A shard that is read, not mapped: the pages of a mapped file count as this process's until another needs them."""

    file: BufferedReader
    start: int

    def parts(self, tensor: Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Some rows of a tensor at a time; bytes where we do not know the kind of number."""
        if not tensor.size:
            return
        count = tensor.shape[0] if tensor.shape else 1
        self.file.seek(self.start + tensor.begin)
        for rows in _slices(count, count_of(tensor)):
            read = torch.empty(tensor.size // count * (rows.stop - rows.start), dtype=torch.uint8)
            if self.file.readinto(memoryview(read.numpy())) != len(read):
                raise ModelError(
                    "weights.cut-off",
                    f"{self.file.name}: the file became shorter during reading. Download or make it again.",
                )
            kind = DTYPES.get(tensor.dtype)
            yield rows, read if kind is None else read.view(kind).view(-1, *tensor.shape[1:])


def parts_of(whole: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Some rows at a time of a tensor that is in memory, in the same slices as one that is read."""
    for rows in _slices(len(whole), whole.numel()):
        yield rows, whole[rows]


def _slices(count: int, numbers: int) -> Iterator[slice]:
    """Which rows of `count`, with so many numbers in all, make a slice: all of one size, so none is too small."""
    most = max(LEAST_ROWS, NUMBERS_AT_ONCE * count // max(1, numbers))
    step = ceil(count / ceil(count / most))
    for begin in range(0, count, step):
        yield slice(begin, min(begin + step, count))


@contextmanager
def open_tensors(shard: Path) -> Iterator[TensorSource]:
    """Open a shard for as long as it is read."""
    with shard.open("rb") as file:
        yield TensorSource(file, read_header(shard)[2])


class Sink:
    """A file that a thread of its own writes, in order, while further slices are made."""

    def __init__(self, file: BinaryIO, thread: ThreadPoolExecutor) -> None:
        self._file, self._thread = file, thread
        self._waiting: deque[Future[None]] = deque()
        self._sent = 0

    def append(self, data: bytes | Future[torch.Tensor]) -> None:
        """Take bytes, or a slice that is still being made; its errors are raised at a later call."""
        self._waiting.append(self._thread.submit(self._write, data))
        self.wait(WAITING)

    def wait(self, most: int = 0) -> None:
        """Return when no more than so many slices wait."""
        while len(self._waiting) > most:
            self._waiting.popleft().result()

    def _write(self, data: bytes | Future[torch.Tensor]) -> None:
        # A tensor is written as bytes: numpy has no bfloat16.
        whole = data if isinstance(data, bytes) else data.result().contiguous().view(-1).view(torch.uint8).numpy().data
        self._file.write(whole)
        at = self._file.tell()
        if at - self._sent >= SENT_BYTES and hasattr(os, "posix_fadvise"):
            self._file.flush()
            os.posix_fadvise(self._file.fileno(), self._sent, at - self._sent, os.POSIX_FADV_DONTNEED)
            self._sent = at


@contextmanager
def write_tensors(path: Path) -> Iterator[Sink]:
    """Open a file to be written; when the block ends it is whole on the disk, a loss of power later included."""
    with path.open("wb") as file, ThreadPoolExecutor(1) as thread:
        sink = Sink(file, thread)
        yield sink
        sink.wait()
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Make threads, each of which computes alone: a slice is too small for several cores to share."""
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)


def count_of(tensor: Tensor) -> int:
    """How many numbers a tensor has."""
    count = 1
    for size in tensor.shape:
        count *= size
    return count
