"""Load the shown results from a Hub dataset at a revision, a folder, a file, or the enclosed miniature."""

import json
import os
import re
from contextlib import suppress
from dataclasses import replace
from datetime import date
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.errors import HubError, MedllmError
from medllm.exam.question import Question
from medllm.exam.record import REQUIRED, schema
from medllm.hub import Provenance, connect
from medllm.page.html import ResultsError
from medllm.page.results import Marking, Origin, RecordedResults, placeholders, read_questions

FOLDERS = ("records", "questions", "runs", "exemplars")

BESIDE = Path("results")
"""The results folder of a Space made by the `space` stage: beside app.py."""

ON_THE_HUB = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def load(given: str | None = None) -> RecordedResults:
    """Load the results to show: the given ones, else MEDLLM_RESULTS, else the miniature's recorded ones."""
    wanted = given or os.environ.get("MEDLLM_RESULTS")
    if not wanted and (BESIDE / "records").is_dir():
        return read(BESIDE, _made_from())
    if not wanted:
        folder = Path(str(resources.files("medllm"))) / "miniature" / "results"
        if not folder.is_dir():
            raise ResultsError("page.nothing")
        return read(folder, Origin("medllm miniature", marking="miniature"))
    path = Path(wanted).expanduser()
    if path.exists():
        return read(path, Origin(path.name))
    match = ON_THE_HUB.fullmatch(wanted)
    if not match or wanted.startswith(("./", "../")):
        raise ResultsError("page.not-found", name=wanted)
    return _from_hub(match[1], match[2] or "main")


def _made_from() -> Origin:
    """Return the dataset behind the results of this Space, as the pipeline recorded it when it pushed the Space."""
    file = Path(Provenance.FILE)
    values = _facts(Path("facts.json")).get("title")
    title = str(values) if values else None
    if file.is_file():
        for source in Provenance.read(file.read_text(encoding="utf-8"), file.name).inputs:
            if source.kind == "dataset" and source.repo_id:
                return Origin(source.repo_id, source.commit, title=title)
    return Origin(BESIDE.name, title=title)


def _from_hub(repo_id: str, revision: str) -> RecordedResults:
    try:
        with connect() as hub:
            artifact = hub.resolve(repo_id, "dataset", revision)
            return read(hub.pull(artifact), Origin(repo_id, artifact.revision))
    except HubError as fault:
        raise ResultsError("page.not-fetched", name=f"{repo_id}@{revision}", detail=fault) from fault


def read(path: Path, origin: Origin) -> RecordedResults:
    """Read the results in a folder of an evaluation, or in one file of records."""
    before = _states(path)
    inner = path / "records" if (path / "records").is_dir() else path
    files = sorted([*inner.glob("*.parquet"), *inner.glob("*.jsonl")]) if path.is_dir() else [path]
    if not files:
        raise ResultsError("page.empty", name=path.name)
    table = pa.concat_tables([_records(file) for file in files])
    if not table.num_rows:
        raise ResultsError("page.empty", name=path.name)
    runs = _runs(path / "runs")
    asked = read_questions(path / "questions") if (path / "questions").is_dir() else []
    facts = _facts(path / "facts.json")
    simulated = bool(facts.get("simulated")) or any(run.get("simulated") for run in runs)
    marking: Marking = "simulated" if simulated else origin.marking
    questions = asked or placeholders(table)
    shown = replace(origin, marking=marking, dated=_day_of(path, files))
    exemplars = _exemplars(path / "exemplars")
    return RecordedResults(
        tuple(questions), table, shown, tuple(runs), facts, exemplars, changed=lambda: _states(path) != before
    )


def _day_of(path: Path, files: list[Path]) -> str | None:
    """Return the day on which results were made: the pipeline notes it, else the newest file has it."""
    noted = path / Provenance.FILE
    if noted.is_file():
        with suppress(MedllmError):
            at = str(Provenance.read(noted.read_text(encoding="utf-8"), noted.name).made.get("at") or "")
            if re.match(r"\d{4}-\d\d-\d\d", at):
                return at[:10]
    if not (path / "records").is_dir() or path.is_relative_to(Path(str(resources.files("medllm")))):
        return None  # a file may have been copied, and an installation has the date of its own
    with suppress(OSError):
        return date.fromtimestamp(max(file.stat().st_mtime for file in files)).isoformat()
    return None


def _states(path: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of every file that is read; a file that vanishes meanwhile is none."""
    parts = ("*.parquet", "*.jsonl", "facts.json", *(f"{name}/*.*" for name in FOLDERS))
    states = []
    for file in sorted(file for part in parts for file in path.glob(part)) if path.is_dir() else [path]:
        with suppress(OSError):
            state = file.stat()
            states.append((str(file), state.st_size, state.st_mtime_ns))
    return states


def _exemplars(folder: Path) -> dict[str, tuple[Question, ...]]:
    """Read the worked examples by exam: one file for each."""
    return {file.stem: tuple(read_questions(file)) for file in sorted(folder.glob("*.parquet"))}


def _records(file: Path) -> pa.Table:
    """Read one file as a table of the records schema; unknown columns are left out."""
    try:
        if file.suffix == ".jsonl":
            import pyarrow.json as lines

            table = lines.read_json(file)
        else:
            table = pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as fault:
        raise ResultsError("page.unreadable", name=file.name, detail=str(fault).splitlines()[0][:160]) from fault
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise ResultsError("page.missing-columns", name=file.name, columns=", ".join(missing))
    known = pa.schema([kind for kind in schema() if kind.name in table.column_names])
    try:
        return _filled(table.select(known.names).cast(pa.schema([kind.with_nullable(True) for kind in known])))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as fault:
        raise ResultsError("page.unreadable", name=file.name, detail=str(fault).splitlines()[0][:160]) from fault


def _filled(table: pa.Table) -> pa.Table:
    """Return the table with every column of the schema, so that files of several versions can be joined."""
    columns = {
        kind.name: table.column(kind.name) if kind.name in table.column_names else pa.nulls(table.num_rows, kind.type)
        for kind in schema()
    }
    return pa.table(columns)


def _runs(folder: Path) -> list[dict[str, object]]:
    try:
        return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    except (pa.ArrowInvalid, OSError) as fault:
        raise ResultsError("page.unreadable", name="runs", detail=str(fault).splitlines()[0][:160]) from fault


def _facts(file: Path) -> dict[str, object]:
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as fault:
        raise ResultsError("page.unreadable", name=file.name, detail=type(fault).__name__) from fault
    return values if isinstance(values, dict) else {}
