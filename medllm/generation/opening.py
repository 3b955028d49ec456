"""Who answers: the maker that settings name, with the models that sources hold."""

from __future__ import annotations

import os
from pathlib import Path

from medllm.errors import ModelError
from medllm.generation.requests import BASE, Generator
from medllm.weights.adapter import is_adapter
from medllm.weights.checkpoint import model_name
from medllm.weights.load import Quantization

API = "openai:"
OPENAI = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"


def open_generators(
    models: dict[str, str],
    sources: dict[str, Path],
    *,
    engine: str = "local",
    dtype: str = "bfloat16",
    quantization: Quantization = "none",
    batch_size: int = 16,
    prices: dict[str, tuple[float, float]] | None = None,
) -> dict[str, tuple[Generator, str]]:
    """For each name in the tables: who answers for it, and under which name that maker knows it.

    Adapters and the base they lie on share one copy of the base. `openai:MODEL` is asked at OpenAI's address (or at
    OPENAI_BASE_URL), whatever the engine.
    """
    found: dict[str, tuple[Generator, str]] = {}
    local: dict[str, Path] = {}
    for name, source in models.items():
        if source.startswith(API):
            found[name] = (_api(os.environ.get("OPENAI_BASE_URL", OPENAI), prices, chat=True), source.removeprefix(API))
        elif engine != "local":
            found[name] = (_api(engine, prices, chat=False), name)
        else:
            local[name] = sources[source]
    return {**found, **_local(local, sources, dtype, quantization, batch_size)}


def _local(
    models: dict[str, Path], sources: dict[str, Path], dtype: str, quantization: Quantization, batch_size: int
) -> dict[str, tuple[Generator, str]]:
    """One maker for the base and all adapters on it, and one for each full model besides."""
    if not models:
        return {}
    from medllm.generation.local import LocalGenerator

    options = {"dtype": dtype, "quantization": quantization, "batch_size": batch_size}
    base = sources.get(BASE)
    adapters = {name: folder for name, folder in models.items() if is_adapter(folder)}
    if adapters and base is None:
        raise ModelError(f"{next(iter(adapters))} is an adapter, but no base is given to lay it on.")
    found: dict[str, tuple[Generator, str]] = {}
    together = LocalGenerator(base, adapters, **options) if adapters and base is not None else None  # type: ignore[arg-type]
    for name, folder in models.items():
        if together is not None and name in adapters:
            found[name] = (together, name)
        elif together is not None and base is not None and folder.resolve() == base.resolve():
            found[name] = (together, BASE)
        else:
            found[name] = (LocalGenerator(folder, **options), BASE)  # type: ignore[arg-type]
    return found


def _api(url: str, prices: dict[str, tuple[float, float]] | None, *, chat: bool) -> Generator:
    from medllm.generation.endpoint import EndpointGenerator

    return EndpointGenerator(url, key=os.environ.get(KEY), chat=chat, prices=prices)


def source_of(folder: Path | None) -> tuple[str | None, str | None]:
    """The name and the commit of a model, as far as its folder tells (a Hub snapshot does)."""
    if folder is None:
        return None, None
    parent = folder.absolute().parent
    return model_name(folder), folder.name if parent.name == "snapshots" else None
