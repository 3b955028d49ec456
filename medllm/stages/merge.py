"""The `merge` stage: merges an adapter into its base as one ordinary model, with a certificate of parity."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from medllm.errors import ModelError
from medllm.recipe.settings import Merge
from medllm.stages.workdir import move_into_place, say, work_folder, write_facts

CERTIFICATE = "certificate.json"


def make(settings: Merge, sources: dict[str, Path], out: Path) -> None:
    """Merge shard by shard; called again after an interruption, it goes on with the shards that are missing."""
    if (out / "facts.json").is_file():
        return
    facts = merge_into(
        sources["base"], [sources[settings.model]], out, dtype=settings.dtype, questions=settings.parity_questions
    )
    put_in_place(out, {**facts, "settings": settings.model_dump(mode="json")})


def put_in_place(out: Path, facts: dict[str, Any]) -> None:
    """Lay the facts beside the merged model and move both to `out`, without what was needed on the way."""
    from medllm.generation.certificate import NOTES
    from medllm.weights.merge import BEGUN

    work = work_folder(out)
    write_facts(work, {"stage": "merge", **facts})
    move_into_place(work, out, (NOTES, BEGUN))


def merge_into(base: Path, adapters: list[Path], out: Path, *, dtype: str | None, questions: int) -> dict[str, Any]:
    """Fill the work folder beside `out` with the merged model, and return what was done.

    Every check that needs no output runs first: tokenizer, adapters, disk space, the certificate's memory.
    A certificate that fails is an error; the merged model then stays in the work folder.
    """
    from medllm.errors import disk_is_full
    from medllm.generation.certificate import Certificate
    from medllm.training.checkpointing import write_tokenizer
    from medllm.weights.adapter import Adapter
    from medllm.weights.checkpoint import Checkpoint
    from medllm.weights.merge import merge
    from medllm.weights.resources import numbers_of

    tell = partial(say, "merge")
    checkpoint, laid = Checkpoint(base), [Adapter(folder) for folder in adapters]
    for adapter in laid:
        adapter.fits(checkpoint)
    tokenizer = _tokenizer(checkpoint, laid)
    certificate = Certificate(base, adapters, dtype or numbers_of(checkpoint), questions, tell)
    if questions:
        certificate.check()
    work = work_folder(out)
    try:
        merge(checkpoint, laid, work, dtype=dtype, say=tell, beside=certificate.disk_bytes(tokenizer))
        write_tokenizer(tokenizer, work)
        facts: dict[str, Any] = {
            "base": checkpoint.name,
            "fingerprint": checkpoint.fingerprint,
            "adapters": [adapter.base["name"] + " + " + adapter.folder.name for adapter in laid],
            "bytes": sum(path.stat().st_size for path in work.glob("*.safetensors")),
        }
        if questions:
            facts["certificate"] = certificate.measure(work)
            (work / CERTIFICATE).write_text(json.dumps(facts["certificate"], indent=1) + "\n", "utf-8")
    except OSError as fault:
        if not disk_is_full(fault):
            raise
        raise ModelError(
            "stage.disk-full", f"{work}: the disk is full. Free some space and run again; finished shards are kept."
        ) from fault
    if questions and facts["certificate"]["verdict"] != "passed":
        raise ModelError(
            "weights.certificate-failed",
            f"{work}: the certificate of the merge failed: {'; '.join(facts['certificate']['faults'])}. The merged "
            f"model does not answer as base and adapter do; the folder keeps it with its {CERTIFICATE}. Merge with "
            "PEFT to compare, or merge without a certificate (`parity_questions: 0`).",
        )
    return facts


def _tokenizer(base: Any, adapters: list[Any]) -> Any:  # noqa: ANN401  a Checkpoint, Adapters, a tokenizer
    """The last adapter's tokenizer, or else the base's; it must name no token that the merged model has no row for."""
    from medllm.weights.load import load_tokenizer
    from medllm.weights.loadable import has_tokenizer

    last = adapters[-1].folder if has_tokenizer(adapters[-1].folder) else base.folder
    tokenizer = load_tokenizer(last)
    grown = [rows for adapter in adapters if (rows := adapter.vocabulary(base)) is not None]
    rows = max([*grown, base.tensors[base.embedding].shape[0] if base.embedding else 2**62])
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows:
        raise ModelError(
            "weights.vocabulary-too-large",
            f"{last}: the tokenizer's highest token is {highest}, and the merged model's embedding has only {rows} "
            "rows. Give the tokenizer of the base, or the base that was resized for this tokenizer.",
        )
    return tokenizer
