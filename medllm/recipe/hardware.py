"""Machines that a stage may run on and shapes of base models: memory, speed, price and numbers of parameters."""

import ast
import json
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medllm.errors import ModelError
from medllm.recipe.base import parse_reference


@dataclass(frozen=True)
class Shape:
    """The values of a decoder's config that decide its size."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    family: str = "llama"
    experts: int = 0
    """Experts of a block; 0 for a model without them."""
    expert_intermediate: int = 0
    """Feed-forward size of one expert."""
    expert_layers: int = 0
    """Blocks whose feed-forward is experts."""
    shared_intermediate: int = 0
    """Feed-forward size of the experts that every token goes through."""

    def linear(self) -> dict[str, tuple[int, int]]:
        """List the linear layers of a block, each with its input and output size."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (self.hidden, query),
            "k_proj": (self.hidden, key),
            "v_proj": (self.hidden, key),
            "o_proj": (query, self.hidden),
            "gate_proj": (self.hidden, self.intermediate),
            "up_proj": (self.hidden, self.intermediate),
            "down_proj": (self.intermediate, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Count the weights of all blocks' linear layers, which NF4 quantizes. Experts are not among them."""
        each = {name: inward * outward for name, (inward, outward) in self.linear().items()}
        dense = sum(each[name] for name in ("gate_proj", "up_proj", "down_proj"))
        shared = 3 * self.hidden * self.shared_intermediate * self.expert_layers
        return self.layers * (sum(each.values()) - dense) + (self.layers - self.expert_layers) * dense + shared

    @property
    def expert_parameters(self) -> int:
        """Count the weights of experts and routers: three-dimensional tensors, which NF4 does not quantize."""
        return self.expert_layers * self.experts * self.hidden * (3 * self.expert_intermediate + 1)

    @property
    def other_parameters(self) -> int:
        """Count the weights of embedding, head (once when tied), biases and norms, which NF4 does not quantize."""
        query, key = self.heads * self.head_dim, self.kv_heads * self.head_dim
        bias = query + 2 * key if self.family == "qwen2" else 0
        norms = {"gemma3": 4 * self.hidden + 2 * self.head_dim, "qwen3": 2 * self.hidden + 2 * self.head_dim}
        block = bias + norms.get(self.family, 2 * self.hidden)
        return self.embedding * (1 if self.tied else 2) + self.layers * block + self.hidden

    @property
    def embedding(self) -> int:
        """Count the weights of one embedding table."""
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """Count all parameters of the model."""
        return self.linear_parameters + self.expert_parameters + self.other_parameters

    def lora_parameters(self, r: int, target_modules: tuple[str, ...]) -> int:
        """Count the parameters of a LoRA adapter of rank r: r times input plus output size, for each of its layers."""
        linear = self.linear()
        named = set(linear) if "all-linear" in target_modules else set(target_modules)
        blocks = sum(r * sum(linear[name]) for name in named & set(linear))
        tables = sum(
            r * (self.vocabulary + self.hidden) for name in target_modules if name in ("embed_tokens", "lm_head")
        )
        return self.layers * blocks + tables


def _qwen2(hidden: int, layers: int, heads: int, kv: int, intermediate: int, vocabulary: int, *, tied: bool) -> Shape:
    return Shape(hidden, layers, heads, kv, hidden // heads, intermediate, vocabulary, tied, "qwen2")


KNOWN: dict[str, Shape] = {
    "Qwen/Qwen2.5-0.5B": _qwen2(896, 24, 14, 2, 4864, 151936, tied=True),
    "Qwen/Qwen2.5-1.5B": _qwen2(1536, 28, 12, 2, 8960, 151936, tied=True),
    "Qwen/Qwen2.5-3B": _qwen2(2048, 36, 16, 2, 11008, 151936, tied=True),
    "Qwen/Qwen2.5-7B": _qwen2(3584, 28, 28, 4, 18944, 152064, tied=False),
    "Qwen/Qwen2.5-14B": _qwen2(5120, 48, 40, 8, 13824, 152064, tied=False),
    "Qwen/Qwen2.5-32B": _qwen2(5120, 64, 40, 8, 27648, 152064, tied=False),
    "Qwen/Qwen2.5-72B": _qwen2(8192, 80, 64, 8, 29568, 152064, tied=False),
    "Qwen/Qwen3-8B-Base": Shape(4096, 36, 32, 8, 128, 12288, 151936, False, "qwen3"),
    "meta-llama/Llama-3.1-8B": Shape(4096, 32, 32, 8, 128, 14336, 128256, False),
    "meta-llama/Llama-3.1-70B": Shape(8192, 80, 64, 8, 128, 28672, 128256, False),
    "mistralai/Mistral-7B-v0.3": Shape(4096, 32, 32, 8, 128, 14336, 32768, False),
    "google/gemma-3-270m": Shape(640, 18, 4, 1, 256, 2048, 262144, True, "gemma3"),
}
"""Bases of known shape; a variant (`-Instruct`, `Qwen2.5-Coder-...`) has the same."""

PROVEN = ("qwen2", "qwen3", "llama", "mistral", "gemma3_text", "gemma3")
"""Model types, by the `model_type` of config.json, for which the tests hold the local engine to plain `generate`: on a
base of any other type it is probed when it is loaded."""

_CAUSAL_TABLE = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
_FAMILIES = {"qwen2": "qwen2", "qwen3": "qwen3", "gemma3": "gemma3", "gemma3_text": "gemma3"}


def known_shape(base: str, folder: Path) -> Shape | None:
    """Look up a base: in the table for a repository, in its config.json for a folder; None when unknown."""
    reference = parse_reference(base)
    if reference.where == "folder":
        config = folder / base / "config.json"
        return shape_from_config(config) if config.is_file() else None
    name = (reference.repo_id or "").removesuffix("-Instruct").removesuffix("-it").replace("Qwen2.5-Coder", "Qwen2.5")
    return KNOWN.get(name)


def shape_if_known(base: str, folder: Path) -> Shape | None:
    """Look up a base; None also where its config.json is not that of a supported decoder."""
    try:
        return known_shape(base, folder)
    except ModelError:
        return None


def refuse_unsupported(path: Path) -> None:
    """Raise ModelError for a base that the installed transformers has no causal language model for, before any stage.

    Without transformers nothing is known yet; the base is then refused when it is loaded.
    """
    config = _read(path)
    kind = config.get("model_type")
    known = causal_types()
    if kind is None or kind in PROVEN or not known or kind in known:  # one that names no type is refused when loaded
        return
    try:
        shape = shape_from_config(path)
        size = f" It has {shape.parameters / 1e9:.2f} billion parameters"
        if shape.expert_parameters:
            size += f", {shape.expert_parameters / 1e9:.2f} of them in experts, which NF4 does not shrink"
        size += "."
    except ModelError:
        size = ""
    if config.get("auto_map"):
        mend = (
            "Its code is in its repository, which medllm never runs: serve it with a program that you trust with that "
            "(`vllm serve --trust-remote-code`) and give its address as `engine`, or use another base."
        )
    else:
        mend = "Update transformers, or use another base."
    raise ModelError(
        "weights.unsupported-type",
        f"{path}: the installed transformers has no causal language model of type `{kind}`.{size} {mend}",
    )


@lru_cache(maxsize=1)
def causal_types() -> frozenset[str]:
    """List the model types that the installed transformers loads as causal language models, without importing it.

    Read from the table in its source: an import takes seconds of which a check needs none. Empty where it is not there.
    """
    spec = find_spec("transformers")
    if spec is None or spec.origin is None:
        return frozenset()
    path = Path(spec.origin).parent / "models" / "auto" / "modeling_auto.py"
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (OSError, SyntaxError):
        return frozenset()
    for node in tree.body:
        names = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(name, ast.Name) and name.id == _CAUSAL_TABLE for name in names):
            firsts = [pair.elts[0] for pair in ast.walk(node) if isinstance(pair, ast.Tuple) and pair.elts]
            return frozenset(str(first.value) for first in firsts if isinstance(first, ast.Constant))
    return frozenset()


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("not a JSON object")
    except FileNotFoundError as fault:
        raise ModelError("weights.no-config", f"{path} does not exist. Name a model's config.json.") from fault
    except (ValueError, OSError) as fault:
        text = f"{path} is not the config of a supported decoder ({fault})."
        raise ModelError("weights.bad-config", text) from fault
    return config


def shape_from_config(path: Path) -> Shape:
    """Read the shape from a transformers config.json."""
    config = _read(path)
    try:
        text: dict[str, Any] = config.get("text_config", config)
        heads, hidden = int(text["num_attention_heads"]), int(text["hidden_size"])
        family = _FAMILIES.get(str(text.get("model_type")), "llama")
        return Shape(
            hidden,
            int(text["num_hidden_layers"]),
            heads,
            int(text.get("num_key_value_heads") or heads),
            int(text.get("head_dim") or hidden // heads),
            int(text.get("intermediate_size") or text["moe_intermediate_size"]),
            int(text["vocab_size"]),
            bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", family == "gemma3"))),
            family,
            **_experts(text),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        reason = f"{path} is not the config of a supported decoder ({fault})."
        raise ModelError("weights.bad-config", reason) from fault


def _experts(text: dict[str, Any]) -> dict[str, int]:
    """Read the experts from a config, with the keys of Mixtral, Qwen, DeepSeek and GPT-OSS."""
    experts = next(
        (int(text[key]) for key in ("num_experts", "num_local_experts", "n_routed_experts") if text.get(key)), 0
    )
    if experts < 2:
        return {}
    each = int(text.get("moe_intermediate_size") or text["intermediate_size"])
    layers = int(text["num_hidden_layers"])
    step = int(text.get("decoder_sparse_step") or text.get("interleave_moe_layer_step") or 1)
    dense = {int(layer) for layer in text.get("mlp_only_layers") or ()} | set(
        range(int(text.get("first_k_dense_replace") or 0))
    )
    sparse = sum(1 for layer in range(layers) if layer not in dense and (layer + 1) % step == 0)
    shared = int(text.get("shared_expert_intermediate_size") or 0) or int(text.get("n_shared_experts") or 0) * each
    return {"experts": experts, "expert_intermediate": each, "expert_layers": sparse, "shared_intermediate": shared}


PRICES_READ = "2026-11"
"""When the prices below were read in the Hub's documentation of Jobs (docs/hub/jobs-pricing)."""

NODES = "MEDLLM_NODES"
"""How many machines a stage has, of which this is the first: the script of `--on slurm` sets it."""


def nodes() -> int:
    """How many machines work on this stage."""
    return int(os.environ.get(NODES, "1"))


@dataclass(frozen=True)
class GpuType:
    """One GPU, with the manufacturer's figures; not measured here."""

    memory_gb: float
    tflops: float
    """Dense bf16 (fp16 on a T4) tensor throughput, in 10^12 operations a second."""
    bandwidth_gb: float
    """Memory bandwidth, in 10^9 bytes a second."""
    bfloat16: bool = True


GPUS: dict[str, GpuType] = {
    "t4": GpuType(16, 65, 320, bfloat16=False),
    "l4": GpuType(24, 121, 300),
    "a10g": GpuType(24, 70, 600),
    "l40s": GpuType(48, 362, 864),
    "a100": GpuType(80, 312, 2039),
    "h100": GpuType(80, 989, 3350),
    "h200": GpuType(141, 989, 4800),
}

HUB: dict[tuple[str, int], tuple[str, float]] = {
    ("t4", 1): ("t4-small", 0.40),
    ("l4", 1): ("l4x1", 0.80),
    ("l4", 4): ("l4x4", 3.80),
    ("a10g", 1): ("a10g-small", 1.00),
    ("a10g", 2): ("a10g-largex2", 3.00),
    ("a10g", 4): ("a10g-largex4", 5.00),
    ("l40s", 1): ("l40sx1", 1.80),
    ("l40s", 4): ("l40sx4", 8.30),
    ("l40s", 8): ("l40sx8", 23.50),
    ("a100", 1): ("a100-large", 2.50),
    ("a100", 4): ("a100x4", 10.00),
    ("a100", 8): ("a100x8", 20.00),
    ("h200", 1): ("h200", 5.00),
    ("h200", 2): ("h200x2", 10.00),
    ("h200", 4): ("h200x4", 20.00),
    ("h200", 8): ("h200x8", 40.00),
}
"""The Hub's name and US dollars an hour, for the sizes that it rents out."""

DISK: dict[str, int] = {
    "cpu-basic": 50,
    "cpu-upgrade": 50,
    "t4-small": 50,
    "l4x1": 400,
    "l4x4": 3200,
    "a10g-small": 110,
    "a10g-largex2": 1000,
    "a10g-largex4": 2000,
    "l40sx1": 380,
    "l40sx4": 3200,
    "l40sx8": 6500,
    "a100-large": 1000,
}
"""GB of disk by the Hub's name of a machine, as its documentation of Spaces' hardware gives them; the others are not
stated there, and are not checked."""

OTHER_NAMES = {"t4-medium": ("t4", 1), "a10g-large": ("a10g", 1)}

CPU = ("cpu", "cpu-basic", "cpu-upgrade")
"""Machines without a GPU: memory is not checked, and hours are not estimated."""


@dataclass(frozen=True)
class Machine:
    """A number of equal GPUs on one machine, or a machine without GPUs."""

    name: str
    gpu: GpuType | None
    count: int
    flavor: str | None
    """The Hub's name; None when the Hub does not rent this size."""
    dollars_an_hour: float | None


def machine(name: str) -> Machine | None:
    """Parse `a100x4`, `a100-large` or `cpu`; None for an unknown name.

    >>> machine("a100x4").dollars_an_hour, machine("a100-large").name, machine("a100x2").flavor
    (10.0, 'a100x1', None)
    """
    if name in CPU:
        return Machine(name, None, 1, name if name != "cpu" else "cpu-basic", None)
    by_flavor = OTHER_NAMES | {flavor: key for key, (flavor, _) in HUB.items()}
    match = re.fullmatch(r"([a-z0-9]+?)(?:x([1-9][0-9]?))?", name)
    if name in by_flavor:
        kind, count = by_flavor[name]
    elif match and match[1] in GPUS:
        kind, count = match[1], int(match[2] or 1)
    else:
        return None
    flavor, price = HUB.get((kind, count), (None, None))
    return Machine(f"{kind}x{count}", GPUS[kind], count, flavor, price if price is not None else _price(kind, count))


def cheapest_with_disk(size: float) -> str | None:
    """Name the cheapest machine of the Hub whose stated disk holds `size` bytes; one without a GPU comes first."""
    prices = dict(HUB.values())
    fitting = [flavor for flavor, gb in DISK.items() if gb * 1e9 >= size]
    return min(fitting, key=lambda flavor: prices.get(flavor, 0.0), default=None)


def _price(kind: str, count: int) -> float | None:
    """Estimate the price of a size that the Hub does not rent, from its single GPU."""
    single = HUB.get((kind, 1))
    return single[1] * count if single else None


def machine_names() -> list[str]:
    """List the values of `run_on`, for errors and help."""
    return [*(f"{kind}x{count}" for kind, count in HUB), "a100x2", "h100x1", "h100x4", "h100x8", *CPU]
