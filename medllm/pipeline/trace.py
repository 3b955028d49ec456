"""Where an output or a row came from, and every dataset and model that saw it: the way back, and the take-down."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from medllm.errors import HubError
from medllm.hub import Artifact, Hub, Input, Provenance, RepoState
from medllm.recipe.reference import STAGES

KEYS = ("id", "question_id", "locator", "prompt_hash")
"""Columns by which people name a row of a corpus, of preference pairs or of records."""

TOLD = (
    "id",
    "question_id",
    "source",
    "locator",
    "license",
    "published",
    "exam_date",
    "kind",
    "reason",
    "origin",
    "pair",
)
"""The columns shown of a row; never its text, which may be long or about a person."""


@dataclass(frozen=True)
class TracedRow:
    """One row with the name asked for, and the artifact and file that hold it."""

    artifact: Artifact
    file: str
    text: dict[str, Any]

    @property
    def kept(self) -> bool:
        """Whether what reads this artifact saw the row: dropped, audited, or a sample that is in no pair, none did."""
        return not self.file.startswith(("dropped/", "audit/", "samples/"))


@dataclass(frozen=True)
class TraceStep:
    """One artifact on the way back, how deep, and what it was made from."""

    depth: int
    source: Input
    provenance: Provenance | None


def ancestors(hub: Hub, artifact: Artifact) -> Iterator[TraceStep]:
    """All that an output was made from, nearest first, down to repositories and folders that medllm did not make."""
    start = Input(artifact.repo_id, artifact.kind, artifact.repo_id, artifact.revision)
    yield from _back(hub, start, 0, set())


def _back(hub: Hub, source: Input, depth: int, seen: set[str]) -> Iterator[TraceStep]:
    provenance = None
    if source.repo_id and source.kind and source.commit:
        try:
            provenance = hub.provenance(Artifact(source.repo_id, source.kind, source.commit))
        except HubError:
            provenance = None  # deleted since, or no longer to be seen: the line itself stays
    yield TraceStep(depth, source, provenance)
    known = f"{source.repo_id}@{source.commit}"
    if provenance and known not in seen:
        seen.add(known)
        for above in provenance.inputs:
            yield from _back(hub, above, depth + 1, seen)


def tagged_outputs(hub: Hub, namespace: str) -> list[RepoState]:
    """Every version of every output of medllm in a namespace, by its made-tags."""
    return [one for repo_id, kind in hub.repositories(namespace) for one in hub.versions(repo_id, kind)]


def descendants(start: Artifact, known: list[RepoState]) -> list[RepoState]:
    """Every output that was made from this artifact, directly or through others; nearest first."""
    reached = {(start.repo_id, start.revision)}
    found: list[RepoState] = []
    grew = True
    while grew:
        grew = False
        for standing in known:
            key = (standing.artifact.repo_id, standing.artifact.revision)
            if key in reached or standing.provenance is None:
                continue
            if any((source.repo_id, source.commit) in reached for source in standing.provenance.inputs):
                reached.add(key)
                found.append(standing)
                grew = True
    return found


def rows(hub: Hub, artifact: Artifact, name: str) -> list[TracedRow]:
    """List the rows of one artifact that have this name."""
    folder = hub.pull(artifact)
    return [row for path in sorted(folder.rglob("*.parquet")) for row in _rows_of(folder, path, artifact, name)]


def _rows_of(folder: Path, path: Path, artifact: Artifact, name: str) -> Iterator[TracedRow]:
    columns = set(pq.read_schema(path).names)
    told = [column for column in TOLD if column in columns]
    keys = [column for column in KEYS if column in columns]
    if not keys:
        return
    table = pq.read_table(path, columns=sorted({*told, *keys}))
    for key in keys:
        hits = table.filter(pc.equal(pc.cast(table[key], "string"), name)).select(told).to_pylist()
        if hits:
            for hit in hits:
                yield TracedRow(
                    artifact, path.relative_to(folder).as_posix(), {k: v for k, v in hit.items() if v is not None}
                )
            return


def direct_consumers(source: Artifact, known: list[RepoState]) -> list[RepoState]:
    """The corpora and preference sets that were made directly from a source, at any of its commits."""
    return [
        standing
        for standing in known
        if standing.provenance
        and standing.provenance.stage in STAGES[:3]
        and any(one.repo_id == source.repo_id for one in standing.provenance.inputs)
    ]
