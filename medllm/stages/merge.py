"""The `merge` stage: an adapter and its base to one model that loads like any other, with a certificate of parity."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from medllm.errors import ModelError
from medllm.recipe.settings import Merge
from medllm.training.work import move_into_place, say, work_folder, write_facts


def make(settings: Merge, sources: dict[str, Path], out: Path) -> None:
    """Merge shard by shard; called again after an interruption, it goes on with the shards that are missing."""
    if (out / "facts.json").is_file():
        return
    facts = merge_into(
        sources["base"], [sources[settings.model]], out, dtype=settings.dtype, questions=settings.certify
    )
    put_in_place(out, {**facts, "settings": settings.model_dump(mode="json")})


def put_in_place(out: Path, facts: dict[str, Any]) -> None:
    """Lay the facts beside the merged model and move both to `out`, without what was needed on the way."""
    from medllm.weights.merge import BEGUN

    work = work_folder(out)
    write_facts(work, {"stage": "merge", **facts})
    move_into_place(work, out, ("together", BEGUN))


def merge_into(base: Path, adapters: list[Path], out: Path, *, dtype: str | None, questions: int) -> dict[str, Any]:
    """Fill the work folder beside `out` with the merged model, and tell what was done."""
    from medllm.training.finish import write_tokenizer
    from medllm.weights.adapter import Adapter
    from medllm.weights.checkpoint import Checkpoint
    from medllm.weights.load import load_tokenizer
    from medllm.weights.merge import merge
    from medllm.weights.spent import disk_is_full

    checkpoint, laid = Checkpoint(base), [Adapter(folder) for folder in adapters]
    work = work_folder(out)
    try:
        merge(checkpoint, laid, work, dtype=dtype, say=partial(say, "merge"))
    except OSError as fault:
        if not disk_is_full(fault):
            raise
        raise ModelError(f"{work}: no space left there. Free some and run again; finished shards are kept.") from fault
    last = adapters[-1] if (adapters[-1] / "tokenizer.json").is_file() else base
    write_tokenizer(load_tokenizer(last), work)
    facts: dict[str, Any] = {
        "base": checkpoint.name,
        "fingerprint": checkpoint.fingerprint,
        "adapters": [adapter.base["name"] + " + " + adapter.folder.name for adapter in laid],
        "bytes": sum(path.stat().st_size for path in work.glob("*.safetensors")),
    }
    if questions:
        facts["certificate"] = certify(base, adapters, work, questions=questions, dtype=dtype)
        (work / "certificate.json").write_text(json.dumps(facts["certificate"], indent=1) + "\n", "utf-8")
    return facts


def certify(base: Path, adapters: list[Path], merged: Path, *, questions: int, dtype: str | None) -> dict[str, Any]:
    """Measure how far the merged model answers as base and adapter do; a 4-bit base too, if that was trained on."""
    from medllm.generation.canary import canary
    from medllm.generation.parity import Answerer, compare
    from medllm.weights.adapter import Adapter
    from medllm.weights.compose import concatenate

    adapter = adapters[0]
    if len(adapters) > 1:
        adapter = merged / "together"
        concatenate([Adapter(folder) for folder in adapters], adapter)
    numbers = dtype or "bfloat16"
    asked, examples = canary(questions)
    whole = Answerer(merged, dtype=numbers)
    say("merge", f"certifying on {questions} questions")
    pairs = {"adapter": Answerer(base, adapter, dtype=numbers)}
    found = {name: compare(one, whole, asked, examples) for name, one in pairs.items()}
    if _trained_in_4_bit(adapters):
        four = Answerer(base, adapter, dtype=numbers, quantization="nf4")
        found["adapter on the 4-bit base"] = compare(four, whole, asked, examples)
    told: dict[str, Any] = {}
    for name, parity in found.items():
        told |= {f"{key.replace('_', ' ')} (merged against {name})": value for key, value in parity.as_facts().items()}
    return {"questions": questions, "numbers": numbers, **told}


def _trained_in_4_bit(adapters: list[Path]) -> bool:
    told = [folder / "facts.json" for folder in adapters]
    settings = [json.loads(path.read_text("utf-8")).get("settings", {}) for path in told if path.is_file()]
    return any(one.get("quantization") == "nf4" for one in settings)
