"""Where an output or a row came from, and every dataset and model that saw it: the way back, and the take-down."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pyarrow.compute as pc
import pyarrow.parquet as pq

from medllm.errors import HubError
from medllm.hub import Artifact, Hub, Input, Kind, Provenance, RepoState
from medllm.pipeline.facts import describe_facts, facts_of
from medllm.recipe.base import parse_reference

KEYS = ("id", "question_id", "locator", "prompt_hash")
"""Columns by which people name a row of a corpus, of preference pairs or of records."""

READ_ROWS = ("corpus", "teach", "sft", "preferences", "rpo", "rounds", "grpo")
"""The stages that read the rows of a source outside the recipe, and whose tables list them."""

PARQUET = ("*.parquet",)
"""The files of an output that have rows; of a model's repository the weights are not pulled."""

TOLD = (
    "id",
    "question_id",
    "benchmark",
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
    hashes: frozenset[str] = frozenset()
    """The sha256 of the row's text, where the table has one."""

    @property
    def kept(self) -> bool:
        """Whether what reads this artifact saw the row: no row dropped, audited, in no pair or of a round kept back."""
        return not self.file.startswith(("dropped/", "audit/", "samples/", "kept_back/"))


@dataclass(frozen=True)
class TraceStep:
    """One artifact on the way back, how deep, and what it was made from."""

    depth: int
    source: Input
    provenance: Provenance | None
    outcome: str = ""
    """What rounds came to; empty for other stages."""


def ancestors(hub: Hub, artifact: Artifact) -> Iterator[TraceStep]:
    """All that an output was made from, nearest first, down to repositories and folders that medllm did not make."""
    start = Input(artifact.repo_id, artifact.kind, artifact.repo_id, artifact.revision)
    yield from _back(hub, start, 0, set())


def _back(hub: Hub, source: Input, depth: int, seen: set[str]) -> Iterator[TraceStep]:
    provenance, outcome = None, ""
    if source.repo_id and source.kind and source.commit:
        artifact = Artifact(source.repo_id, source.kind, source.commit)
        try:
            provenance = hub.provenance(artifact)
            if provenance and provenance.stage == "rounds":
                outcome = describe_facts("rounds", facts_of(hub, artifact))
        except HubError:
            provenance = None  # deleted since, or no longer to be seen: the line itself stays
    yield TraceStep(depth, source, provenance, outcome)
    known = f"{source.repo_id}@{source.commit}"
    if provenance and known not in seen:
        seen.add(known)
        for above in provenance.inputs:
            yield from _back(hub, above, depth + 1, seen)


def tagged_outputs(hub: Hub, namespace: str) -> list[RepoState]:
    """Every version of every output of medllm in a namespace, by its made-tags."""
    return [version for repo_id, kind in hub.repositories(namespace) for version in hub.versions(repo_id, kind)]


def descendants(start: Artifact, known: list[RepoState]) -> list[RepoState]:
    """Every output that was made from this artifact, directly or through others; nearest first."""
    own = next((state.provenance for state in known if state.artifact == start), None)
    reached: set[tuple[str | None, str | None]] = {(start.repo_id, start.revision)}
    if own:  # a stage may have been made from an earlier version of the same content
        reached.add((start.repo_id, own.identity))
    states: list[RepoState] = []
    grew = True
    while grew:
        grew = False
        for standing in known:
            key = (standing.artifact.repo_id, standing.artifact.revision)
            if key in reached or standing.provenance is None:
                continue
            sources = standing.provenance.inputs
            if any({(source.repo_id, source.commit), (source.repo_id, source.digest)} & reached for source in sources):
                reached |= {key, (key[0], standing.provenance.identity)}
                states.append(standing)
                grew = True
    return states


def rows(hub: Hub, artifact: Artifact, name: str) -> list[TracedRow]:
    """List the rows of one artifact that have this name."""
    folder = hub.pull(artifact, PARQUET)
    return [row for path in sorted(folder.rglob("*.parquet")) for row in _rows_of(folder, path, artifact, name)]


def _rows_of(folder: Path, path: Path, artifact: Artifact, name: str) -> Iterator[TracedRow]:
    columns = set(pq.read_schema(path).names)
    texts = [column for column in TOLD if column in columns]
    keys = [column for column in KEYS if column in columns]
    if not keys:
        return
    table = pq.read_table(path, columns=sorted({*texts, *keys, *({"text", "sha256"} & columns)}))
    for key in keys:
        hits = table.filter(pc.equal(pc.cast(table[key], "string"), name)).to_pylist()
        if hits:
            yield from (_traced(artifact, path.relative_to(folder).as_posix(), hit, texts) for hit in hits)
            return


def _traced(artifact: Artifact, file: str, hit: dict[str, Any], shown: list[str]) -> TracedRow:
    hashed = text_hash(hit["text"]) if hit.get("text") else hit.get("sha256")
    hashes = frozenset([hashed] if hashed else [])
    return TracedRow(artifact, file, {name: hit[name] for name in shown if hit[name] is not None}, hashes)


def text_hash(text: str) -> str:
    """Return the sha256 of a text, by which a row is known whatever its file is called."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def rows_with_texts(
    hub: Hub, artifacts: Iterable[Artifact], texts: set[str], known: Iterable[TracedRow]
) -> Iterator[TracedRow]:
    """Yield the rows with these texts, by their sha256, that are not among the known ones: under any name."""
    before = {(row.artifact, row.file) for row in known}
    for artifact in artifacts if texts else ():
        folder = hub.pull(artifact, PARQUET)
        for path in sorted(folder.rglob("*.parquet")):
            file = path.relative_to(folder).as_posix()
            columns = set(pq.read_schema(path).names)
            hashed = next((column for column in ("text", "sha256") if column in columns), None)
            if hashed is None or (artifact, file) in before:
                continue
            shown = [column for column in TOLD if column in columns]
            for batch in pq.ParquetFile(path).iter_batches(1000, columns=[*shown, hashed]):
                traced = (_traced(artifact, file, row, shown) for row in batch.to_pylist())
                yield from (row for row in traced if row.hashes & texts)


def direct_consumers(source: Artifact, known: list[RepoState]) -> list[RepoState]:
    """What was made directly from the rows of a source, at any of its commits."""
    return [
        standing
        for standing in known
        if standing.provenance
        and standing.provenance.stage in READ_ROWS
        and any(read.repo_id == source.repo_id for read in standing.provenance.inputs)
    ]


@dataclass(frozen=True)
class Traced:
    """One artifact, and one row of it if a row was asked for."""

    artifact: Artifact
    back: tuple[TraceStep, ...]
    rows: tuple[TracedRow, ...]
    forward: tuple[RepoState, ...]

    def lines(self) -> Iterator[str]:
        """The trace as lines of text."""
        for step in self.back:
            name = step.source.reference if step.depth else ""
            place = f"{step.source.repo_id}@{step.source.commit}" if step.source.repo_id else step.source.digest
            came = f": {step.outcome}" if step.outcome else ""
            made = f"  ({step.provenance.stage} of {step.provenance.recipe}{came})" if step.provenance else ""
            yield f"{'  ' * step.depth}{name + ' = ' if name else ''}{place}{made}"
        for line, count in Counter(_row_line(row) for row in self.rows).items():
            yield line + (f"  ({count} rows)" if count > 1 else "")
        seen = "what was made from " + ("it" if not self.rows else "what was kept of it")
        yield f"{seen}, directly or through others: " + (str(len(self.forward)) if self.forward else "nothing")
        for standing in self.forward:
            stage, tag = (provenance.stage, provenance.tag) if (provenance := standing.provenance) else ("?", "no tag")
            yield f"  {stage}: {standing.artifact} ({tag})"

    def as_json(self) -> dict[str, Any]:
        """The trace as a value for JSON."""
        return {
            "artifact": str(self.artifact),
            "from": [
                {
                    "depth": step.depth,
                    "reference": step.source.reference,
                    "repo_id": step.source.repo_id,
                    "commit": step.source.commit,
                    "digest": step.source.digest,
                }
                for step in self.back[1:]
            ],
            "rows": [
                {"artifact": str(row.artifact), "file": row.file, "kept": row.kept, **row.text} for row in self.rows
            ],
            "seen_by": [str(standing.artifact) for standing in self.forward],
        }


def _row_line(row: TracedRow) -> str:
    texts = ", ".join(f"{key}: {value}" for key, value in row.text.items())
    return f"row in {row.artifact} {row.file} ({'kept' if row.kept else 'not learnt'}): {texts}"


def owner_of(repo: str) -> str:
    """The namespace in ORG/NAME[@REVISION]; a folder has none, and its rows are found in what was made from it."""
    if parse_reference(repo).where != "hub":
        raise HubError(
            "command.not-a-repository",
            f"{repo}: is not a repository. Write ORG/NAME or ORG/NAME@REVISION. A local folder's row is traced in"
            " the corpus made from it, "
            "by its locator: medllm trace ORG/RECIPE-corpus FILE:LINE",
        )
    return repo.partition("/")[0]


def trace_of(hub: Hub, repo: str, row: str | None, kind: str = "") -> Traced:
    """Trace a repository, or one row of it; the row of a source is looked for in what was made from that source."""
    repo_id, _, revision = repo.partition("@")
    artifact = _resolved(hub, repo_id, revision or "main", kind)
    artifact = _as_made(hub, artifact)
    known = [tagged_output for space in namespaces(hub, repo_id) for tagged_output in tagged_outputs(hub, space)]
    back = tuple(ancestors(hub, artifact))
    if row is None:
        return Traced(artifact, back, (), tuple(descendants(artifact, known)))
    if hub.provenance(artifact) is None:
        places = [direct_consumer.artifact for direct_consumer in direct_consumers(artifact, known)]
    else:
        versions = [state.artifact for state in known if state.artifact.repo_id == repo_id]
        places = [artifact, *(version for version in versions if version != artifact and not revision)]
    hits = [hit for place in places for hit in rows(hub, place, row)]
    if not hits:
        looked = ", ".join(str(place) for place in places) or "nothing that medllm made from it"
        raise HubError(
            "command.unknown-row",
            f"{repo_id}: no row is called `{row}` (looked in {looked}). Give a locator such as FILE:LINE.",
        )
    tables = [state.artifact for state in known if state.provenance and state.provenance.stage in READ_ROWS]
    hits += rows_with_texts(hub, tables, {text for hit in hits for text in hit.hashes}, hits)
    seen: dict[str, RepoState] = {}
    for hit in hits:
        if hit.kept:
            own = [state for state in known if state.artifact == hit.artifact and hit.artifact != artifact]
            seen |= {str(state.artifact): state for state in [*own, *descendants(hit.artifact, known)]}
    return Traced(artifact, back, tuple(hits), tuple(seen.values()))


def _resolved(hub: Hub, repo_id: str, revision: str, kind: str) -> Artifact:
    kinds: tuple[Kind, ...] = get_args(Kind)
    if kind and kind not in kinds:
        raise HubError("command.unknown-value", f"--kind {kind}: unknown kind. Give one of {', '.join(kinds)}.")
    for kind_tried in kinds:
        if kind in ("", kind_tried) and hub.state_at(repo_id, kind_tried) is not None:
            return hub.resolve(repo_id, kind_tried, revision)
    raise HubError(
        "hub.no-such-repository",
        f"{repo_id}: no such repository, or this token cannot read it. Check the name and the token.",
    )


def _as_made(hub: Hub, artifact: Artifact) -> Artifact:
    """The commit that others were made from: a later commit may have changed the card alone."""
    provenance = hub.provenance(artifact)
    state = hub.find(artifact.repo_id, artifact.kind, provenance.digest) if provenance else None
    return state.artifact if state else artifact


def namespaces(hub: Hub, repo_id: str) -> list[str]:
    """Where to look for what was made: the repository's own namespace and all of this token's."""
    account = hub.account() if hub.token else None
    mine = [account.name, *account.organizations] if account else []
    return list(dict.fromkeys([repo_id.partition("/")[0], *mine]))
