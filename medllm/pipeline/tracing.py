"""The answer of `medllm trace`: the way back, the rows, and all that saw them, in lines or as JSON."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from medllm.errors import HubError
from medllm.hub import Artifact, Hub, Kind, RepoState
from medllm.pipeline.trace import TracedRow, TraceStep, ancestors, descendants, direct_consumers, rows, tagged_outputs
from medllm.recipe.reference import parse_reference


@dataclass(frozen=True)
class Traced:
    """One artifact, and one row of it if a row was asked for."""

    artifact: Artifact
    back: tuple[TraceStep, ...]
    found: tuple[TracedRow, ...]
    forward: tuple[RepoState, ...]

    def lines(self) -> Iterator[str]:
        """The trace as lines of text."""
        for step in self.back:
            name = step.source.reference if step.depth else ""
            place = f"{step.source.repo_id}@{step.source.commit}" if step.source.repo_id else step.source.digest
            made = f"  ({step.provenance.stage} of {step.provenance.recipe})" if step.provenance else ""
            yield f"{'  ' * step.depth}{name + ' = ' if name else ''}{place}{made}"
        for line, count in Counter(_row_told(row) for row in self.found).items():
            yield line + (f"  ({count} rows)" if count > 1 else "")
        seen = "what was made from " + ("it" if not self.found else "what was kept of it")
        yield f"{seen}, directly or through others: " + (str(len(self.forward)) if self.forward else "nothing")
        for standing in self.forward:
            yield f"  {standing.provenance.stage if standing.provenance else '?'}: {standing.artifact}"

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
                {"artifact": str(row.artifact), "file": row.file, "kept": row.kept, **row.text} for row in self.found
            ],
            "seen_by": [str(standing.artifact) for standing in self.forward],
        }


def _row_told(row: TracedRow) -> str:
    told = ", ".join(f"{key}: {value}" for key, value in row.text.items())
    return f"row in {row.artifact} {row.file} ({'kept' if row.kept else 'not learnt'}): {told}"


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
    known = [one for space in _namespaces(hub, repo_id) for one in tagged_outputs(hub, space)]
    back = tuple(ancestors(hub, artifact))
    if row is None:
        return Traced(artifact, back, (), tuple(descendants(artifact, known)))
    places = [artifact] if hub.provenance(artifact) else [one.artifact for one in direct_consumers(artifact, known)]
    found = [hit for place in places for hit in rows(hub, place, row)]
    if not found:
        looked = ", ".join(str(place) for place in places) or "nothing that medllm made from it"
        raise HubError(
            "command.unknown-row",
            f"{repo_id}: no row is called `{row}` (looked in {looked}). Give a locator such as FILE:LINE.",
        )
    seen: dict[str, RepoState] = {}
    for hit in found:
        if hit.kept:
            own = [one for one in known if one.artifact == hit.artifact and hit.artifact != artifact]
            seen |= {str(one.artifact): one for one in [*own, *descendants(hit.artifact, known)]}
    return Traced(artifact, back, tuple(found), tuple(seen.values()))


def _resolved(hub: Hub, repo_id: str, revision: str, kind: str) -> Artifact:
    kinds: tuple[Kind, ...] = get_args(Kind)
    if kind and kind not in kinds:
        raise HubError("command.unknown-value", f"--kind {kind}: unknown kind. Give one of {', '.join(kinds)}.")
    for one in kinds:
        if kind in ("", one) and hub.state_at(repo_id, one) is not None:
            return hub.resolve(repo_id, one, revision)
    raise HubError(
        "hub.no-such-repository",
        f"{repo_id}: no such repository, or this token cannot read it. Check the name and the token.",
    )


def _as_made(hub: Hub, artifact: Artifact) -> Artifact:
    """The commit that others were made from: a later commit may have changed the card alone."""
    provenance = hub.provenance(artifact)
    found = hub.find(artifact.repo_id, artifact.kind, provenance.digest) if provenance else None
    return found.artifact if found else artifact


def _namespaces(hub: Hub, repo_id: str) -> list[str]:
    """Where to look for what was made: the repository's own namespace and all of this token's."""
    account = hub.account() if hub.token else None
    mine = [account.name, *account.organizations] if account else []
    return list(dict.fromkeys([repo_id.partition("/")[0], *mine]))
