"""Content digests: what later stages read of an output, and what a stage reads of an exam.

Times, machines, versions, commits and cards do not count, so a stage that is remade with equal content keeps its place.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from medllm.errors import MedllmError
from medllm.hub import Hub, Provenance, digest_of_folder
from medllm.hub.artifact import Kind
from medllm.recipe import Recipe, Use
from medllm.recipe.reference import Stage

CARDS = (".gitattributes", "README.md", Provenance.FILE)
"""Files that the pipeline or the Hub adds to an output."""
RECORDS = (*CARDS, "facts.json", "certificate.json", "training/*", "audit.html", "audit.json")
"""Those, and what a stage of weights records of its work: times, memory, curves."""
PAIR = ("prompt", "prompt_without_shots", "chosen", "rejected")
"""The columns of a preference pair that a training reads."""
NO_QUESTIONS = ("exemplars.jsonl", "prompts/*", "*.md", "*.txt", "LICENSE*", "LICENCE*", "NOTICE*")
"""Files of an exam's folder that hold no question of it: a stage that only leaves its questions out reads none."""
NO_WEIGHTS = ("*.md", "LICENSE*", "LICENCE*", "NOTICE*", "*.png", "*.jpg", "*.svg", "*.pdf")
"""Files of a model's folder that loading never reads."""
ASKED = ("question_id", "text", "choices", "key", "exam_date", "year", "context", "vignette_text", "vignette_id")
"""The columns of a question that decide whether a text contains it."""


def content_of(stage: Stage, out: Path) -> str:
    """Hash what later stages read of an output: `sha256:` and 64 letters.

    Of a corpus that is its texts in any order (a training sorts them), of preferences the pairs in order, of the other
    stages the bytes of their files.
    """
    if stage == "corpus":
        return _digest([_texts(out / "corpus")])
    if stage == "preferences":
        return _digest([*_pairs(out / "data"), _round(out)])
    if stage in ("cpt", "rpo", "merge"):
        return _digest([digest_of_folder(out, without=RECORDS), _round(out)])
    return _digest([digest_of_folder(out, without=CARDS)])


def equal_version(hub: Hub, repo_id: str, kind: Kind, provenance: Provenance) -> Provenance | None:
    """Find another version of a repository that has the same content; the one on main is preferred."""
    head = hub.state_at(repo_id, kind)
    if head is None:
        return None
    for state in (head, *hub.versions(repo_id, kind)):
        other = state.provenance
        if other and other.content == provenance.content is not None and other.digest != provenance.digest:
            return other
    return None


def exam_digest(recipe: Recipe, use: Use, folder: Path) -> str:
    """Hash what one stage reads of an exam in a folder; an exam that cannot be read counts by its files.

    A stage that holds it out reads the questions and their translations in any order, `evaluate` all of each question
    and as many worked examples as it shows.
    """
    try:
        return _digest(_read_exam(recipe, use, folder))
    except (MedllmError, OSError, ValueError):
        return digest_of_folder(folder, without=NO_QUESTIONS if use.held_out else ())


def _read_exam(recipe: Recipe, use: Use, folder: Path) -> Iterator[bytes | str]:
    from medllm.exam.benchmarks import exemplars, load, translations

    name = _reader(recipe, use)
    rows = [question.to_row() for question in load(name, folder)]
    if use.held_out:
        shown = [_line({key: value for key, value in row.items() if key in _columns()}) for row in rows]
        yield from sorted(shown)
        yield from sorted(_line([one.question_id, one.text, *one.choices]) for one in translations(name, folder))
        return
    yield from map(_line, rows)
    shots = recipe.evaluate.shots if recipe.evaluate and use.wanted == "exam" else 0
    count = shots if isinstance(shots, int) else shots.get(name, 0)
    if count:
        yield from (_line(one.to_row()) for one in exemplars(name, folder)[:count])
        yield from sorted(_line([one.question_id, one.text, *one.choices]) for one in translations(name, folder))


def _columns() -> set[str]:
    from medllm.exam.question import PUBLISHED

    return {PUBLISHED.get(name, name) for name in ASKED}


def _reader(recipe: Recipe, use: Use) -> str:
    """Name the reader of an exam: a past exam in `preferences.data` states it, else it is `own`."""
    if use.wanted == "exam":
        return use.source
    stated = recipe.preferences.data if recipe.preferences else ()
    return next((one.exam for one in stated if one.source == use.source and one.exam), "own")


def _texts(folder: Path) -> bytes:
    """Hash the texts of a corpus as a set with counts, in 16 bytes of memory for each."""
    import pyarrow.parquet as pq

    found = [
        hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
        for path in sorted(folder.glob("*.parquet"))
        for batch in pq.ParquetFile(path).iter_batches(1000, columns=["text"])
        for text in batch.column(0).to_pylist()
    ]
    return np.sort(np.array(found, "V16").view("S16").ravel() if found else np.empty(0, "S16")).tobytes()


def _pairs(folder: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    for path in sorted(folder.glob("*.parquet")):
        columns = [name for name in PAIR if name in pq.read_schema(path).names]
        for batch in pq.ParquetFile(path).iter_batches(1000, columns=columns):
            yield from map(_line, batch.to_pylist())


def _round(out: Path) -> str:
    """The round of sampling, which the next round reads from the facts."""
    path = out / "facts.json"
    return str(json.loads(path.read_text("utf-8")).get("round")) if path.is_file() else ""


def _line(value: Any) -> str:  # noqa: ANN401  any row
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _digest(parts: Iterable[bytes | str]) -> str:
    whole = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")
        whole.update(len(data).to_bytes(8, "big") + data)
    return f"sha256:{whole.hexdigest()}"
