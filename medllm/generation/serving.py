"""The command line of the vLLM server that a run starts itself: a function of model, adapters, GPUs, settings."""

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medllm.errors import ModelError
from medllm.generation.types import BASE
from medllm.recipe.servers import VllmOptions
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import Quantization, import_torch
from medllm.weights.resources import bytes_in_memory

PROGRAM = "MEDLLM_VLLM"
"""The environment variable with the path of a `vllm` program or of its Python environment, or the word `uv`."""
VERSION = "0.32.0"
"""The version of vLLM that the tests ran, and that `MEDLLM_VLLM=uv` installs where the recipe fixes no other."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values of `--max-lora-rank`."""
ROOM = 0.6
"""Largest share of the server's GPU memory that the weights may take; the rest is for the cache [assumed]."""
CONTEXTS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")
"""How families name the longest text that a model can follow."""
UNBOUNDED = 2**31
"""The context of a model whose config sets none, as that of a recurrent one."""
PLAIN = re.compile(r"[\w.@-]+")
"""Names that `--lora-modules NAME=PATH` takes as they are."""
SECRET = re.compile(r"TOKEN|KEY|SECRET|PASSW", re.IGNORECASE)
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOOPBACK_IP": "127.0.0.1",
    "PYTHONUNBUFFERED": "1",
}
"""What the server's environment sets: no network, no statistics, and loopback between its own processes."""
DROPPED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "VLLM_PORT")


@dataclass(frozen=True)
class Serving:
    """What one server holds and how it computes."""

    base: Path
    adapters: Mapping[str, Path]
    dtype: str = "bfloat16"
    quantization: Quantization = "none"
    length: int = 4096
    """The longest prompt with its reply, in tokens."""
    options: VllmOptions = field(default_factory=VllmOptions)
    gpus: int = 0
    gpu_bytes: float = 0.0
    """Memory of one GPU."""
    weights: float = 0.0
    """Bytes of the base's weights in memory."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which the server knows base and adapters."""
        return (BASE, *self.adapters)


def command(program: Sequence[str], serving: Serving, port: int) -> list[str]:
    """The command line; it holds no key, and nothing that reaches another machine or runs code of a repository."""
    shared, copies = devices(serving)
    options = serving.options
    words = [*program, "serve", str(serving.base), "--served-model-name", BASE]
    words += ["--host", "127.0.0.1", "--port", str(port), "--dtype", serving.dtype]
    # Without a publisher's top_k or repetition_penalty: a request alone decides how its reply is drawn.
    words += ["--max-model-len", str(serving.length), "--generation-config", "vllm", "--disable-uvicorn-access-log"]
    if serving.quantization == "nf4":
        words += ["--quantization", "bitsandbytes"]
    if serving.gpus:
        words += ["--gpu-memory-utilization", f"{options.gpu_memory_utilization:g}"]
    words += ["--tensor-parallel-size", str(shared)] if shared > 1 else []
    words += ["--data-parallel-size", str(copies)] if copies > 1 else []
    words += ["--max-num-seqs", str(options.max_num_seqs)] if options.max_num_seqs else []
    words += ["--enforce-eager"] if options.enforce_eager else []
    if serving.adapters:
        rank = lora_rank([_rank(folder) for folder in serving.adapters.values()])
        words += ["--enable-lora", "--max-loras", str(len(serving.adapters)), "--max-lora-rank", str(rank)]
        words += ["--lora-modules", *(_module(name, folder) for name, folder in serving.adapters.items())]
    return words


def devices(serving: Serving) -> tuple[int, int]:
    """How many GPUs share one copy of the model, and how many copies there are: the fewest that hold it, then copies.

    A number of GPUs can share a copy when it divides the attention heads and the feed-forward layer, and divides the
    key-value heads or is a multiple of them.
    """
    options = serving.options
    shared = options.tensor_parallel_size
    if shared is None and serving.gpus < 2:
        shared = 1
    if shared is None:
        config = Checkpoint(serving.base).config
        fitting = [
            count for count in range(1, serving.gpus + 1) if _divides(config.get("text_config") or config, count)
        ]
        room = ROOM * options.gpu_memory_utilization * serving.gpu_bytes
        shared = next((count for count in fitting if serving.weights / count <= room), fitting[-1])
    copies = options.data_parallel_size or max(1, serving.gpus // shared)
    return shared, copies


def _divides(config: Mapping[str, Any], count: int) -> bool:
    heads = int(config.get("num_attention_heads") or 1)
    of_keys = int(config.get("num_key_value_heads") or heads)
    width = int(config.get("intermediate_size") or 0)
    return heads % count == 0 and width % count == 0 and (of_keys % count == 0 or count % of_keys == 0)


def lora_rank(ranks: Sequence[int]) -> int:
    """The smallest value of `--max-lora-rank` that takes all adapters.

    >>> lora_rank([4]), lora_rank([8, 24]), lora_rank([129])
    (8, 32, 256)
    """
    return next(rank for rank in RANKS if rank >= max(ranks))


def _rank(folder: Path) -> int:
    return max(narrow.shape[0] for narrow, _ in Adapter(folder).modules.values())


def _module(name: str, folder: Path) -> str:
    path = str(folder.absolute())
    if PLAIN.fullmatch(name) and "=" not in path and "," not in path:
        return f"{name}={path}"
    return json.dumps({"name": name, "path": path, "base_model_name": BASE}, ensure_ascii=False)


def serving_of(base: Path, adapters: Mapping[str, Path], **how: Any) -> Serving:  # noqa: ANN401  fields of Serving
    """What a server of this machine would hold: the model, its adapters, and the GPUs that are visible."""
    torch = import_torch()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    sizes = [float(torch.cuda.get_device_properties(number).total_memory) for number in range(gpus)]
    folders = {name: folder.absolute() for name, folder in adapters.items()}
    weights = float(bytes_in_memory(Checkpoint(base), how["dtype"], how["quantization"]))
    return Serving(base.absolute(), folders, gpus=gpus, gpu_bytes=min(sizes, default=0.0), weights=weights, **how)


def context_of(config: Mapping[str, Any]) -> int:
    """The longest text that a model can follow, in tokens, from its config.json."""
    text = config.get("text_config") or config
    return next((int(text[name]) for name in CONTEXTS if text.get(name)), UNBOUNDED)


def refuse_adapter(folder: Path) -> None:
    """Raise ModelError for an adapter that vLLM does not serve: it serves plain LoRA on linear layers."""
    adapter = Adapter(folder)
    ends = ("embed_tokens", "lm_head")
    kinds = {
        "is DoRA (`use_dora`)": not adapter.is_sum,
        "replaces whole tensors (`modules_to_save` or `bias`)": bool(adapter.replaced),
        "has retrained tokens (`trainable_token_indices`)": bool(adapter.rows),
        "adds to biases (`lora_bias`)": bool(adapter.biases),
        "adapts the embedding or the head": any(module.endswith(ends) for module in adapter.modules),
        f"has a rank above {RANKS[-1]}": bool(adapter.modules) and _rank(folder) > RANKS[-1],
    }
    for kind, reasons in kinds.items():
        if reasons:
            raise ModelError(
                "generation.vllm-adapter",
                f"{folder}: the adapter {kind}, which vLLM does not serve. Merge it first and give the merged model, "
                "or set `engine: local`.",
            )


def environment(given: Mapping[str, str], key: str) -> dict[str, str]:
    """The server's environment: what it is given without tokens and our Python's paths, the key, and no network."""
    kept = {name: value for name, value in given.items() if not SECRET.search(name) and name not in DROPPED}
    return {**kept, **ENVIRONMENT, "VLLM_API_KEY": key}


def find_program(given: Mapping[str, str], version: str | None = None) -> list[str]:
    """The words that start `vllm`: MEDLLM_VLLM, else the program of that name; nothing is downloaded unasked."""
    named = given.get(PROGRAM)
    wanted = f"vllm=={version or VERSION}"
    where = given.get("PATH", os.defpath)
    install = f"`uv venv ENV && uv pip install -p ENV {wanted}` and {PROGRAM}=ENV"
    if named == "uv":
        uv = shutil.which("uv", path=where)
        if uv is None:
            raise ModelError(
                "generation.no-uv", f"{PROGRAM}=uv: the program uv is not found. Install uv, or vLLM itself: {install}."
            )
        return [uv, "tool", "run", "--from", wanted, "vllm"]
    if not named:
        program = shutil.which("vllm", path=where)
        if program is None:
            raise ModelError(
                "generation.no-vllm",
                f"`engine: vllm` needs the program vllm, which is not found, and nothing was downloaded. Install it in "
                f"an environment of its own ({install}; with CUDA about 3 GB), or set {PROGRAM}=uv, and uv installs "
                f"{wanted} from the package index at the first start.",
            )
        return [program]
    path = Path(named).expanduser()
    if path.is_file() and path.name.startswith("python"):
        path = path.parent
    choices = [path] if path.is_file() else [path / "bin" / "vllm", path / "vllm"]
    for choice in choices:
        if choice.is_file() and os.access(choice, os.X_OK):
            return [str(choice.absolute())]
    raise ModelError(
        "generation.no-vllm-there",
        f"{PROGRAM}={named}: there is no program `vllm`. Give its path or the folder of its Python environment, or "
        f"install it: {install}.",
    )
