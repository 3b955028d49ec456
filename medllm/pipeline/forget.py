"""Withdrawal of a row: all versions, folders and caches that hold it or were made from it, and their deletion."""

import difflib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.hf_api import RepoFile

from medllm.errors import HubError
from medllm.generation.answer_store import AnswerKey, AnswerStore
from medllm.hub import Hub, RepoState
from medllm.hub.artifact import Kind
from medllm.hub.push import create, restore_on_main
from medllm.pipeline.clean import find_work
from medllm.pipeline.content import FORGOTTEN_FILE, forgotten_repo
from medllm.pipeline.trace import (
    KEYS,
    PARQUET,
    READ_ROWS,
    TracedRow,
    descendants,
    namespaces,
    owner_of,
    rows,
    rows_with_texts,
    tagged_outputs,
)
from medllm.recipe.base import STAGES
from medllm.wording import number_of

Version = RepoState
STAYING = "staying-"
"""The branches that hold, while a history is rewritten, the versions that stay."""


@dataclass(frozen=True)
class Withdrawal:
    """What holds a row or was made from it, in the order in which it is deleted."""

    name: str
    """The row as it was asked for."""
    namespace: str
    rows: tuple[TracedRow, ...]
    hashes: tuple[str, ...]
    """The sha256 of each text of the row."""
    folders: tuple[tuple[Path, str], ...]
    """Folders of this disk, each with its reason."""
    repositories: tuple["RepositoryPart", ...]
    replies: frozenset[AnswerKey] = frozenset()
    """Kept replies to the row itself, where it is a question."""

    def lines(self) -> Iterator[str]:
        """List each step with its reason."""
        steps = [f"{forgotten_repo(self.namespace)}: the list that keeps the row out of every later corpus"]
        steps += [f"{path}: {why}" for path, why in self.folders]
        if self.replies:
            steps.append(f"{AnswerStore.here().folder}: {number_of(len(self.replies), 'reply')} to it")
        steps += [f"{part.repo_id} ({part.kind}): {part.words()}" for part in self.repositories]
        yield from (f"{number}. {step}" for number, step in enumerate(steps, 1))


@dataclass(frozen=True)
class RepositoryPart:
    """The versions of one repository that go, and those that stay."""

    repo_id: str
    kind: Kind
    gone: tuple[tuple[Version, str], ...]
    """Each version with its reason."""
    stay: tuple[Version, ...]
    branches: tuple[str, ...]
    """Branches of unfinished work, which may have learnt it."""

    def words(self) -> str:
        """Describe what is deleted and why."""
        listed = ", ".join(f"{_tag(state)} at {state.artifact.revision[:7]} ({why})" for state, why in self.gone)
        wip = "".join(f"; branch {name} (unfinished work, may have learnt it)" for name in self.branches)
        how = f"; {len(self.stay)} other versions stay, with a new history" if self.stay else "; the whole repository"
        return f"{listed}{wip}{how}"


def withdrawal(hub: Hub, repo: str, name: str, work: Path) -> Withdrawal:
    """Find every version, folder and cache that holds a row or was made from it; nothing is changed.

    Raises HubError with near names where no version has such a row.
    """
    namespace = owner_of(repo)
    known = [tagged_output for space in namespaces(hub, repo) for tagged_output in tagged_outputs(hub, space)]
    tables = [state for state in known if state.provenance and state.provenance.stage in READ_ROWS]
    repo_id = repo.partition("@")[0]
    own = [table for table in tables if table.artifact.repo_id == repo_id]
    named = [row for table in own or tables for row in rows(hub, table.artifact, name)]
    if not own:  # a source: other sources may have files of the same name
        named = [row for row in named if str(row.text.get("source", "")).partition("@")[0] == repo_id]
    if not named:
        raise _unknown(hub, tables, repo, name)
    texts = {text for row in named for text in row.hashes}
    hits = [*named, *rows_with_texts(hub, [table.artifact for table in tables], texts, named)]
    reasons: dict[tuple[str, str], str] = {}
    for row in hits:
        reasons[row.artifact.repo_id, row.artifact.revision] = f"holds it in {row.file}"
    starts = [table for table in tables if (table.artifact.repo_id, table.artifact.revision) in reasons]
    for start in starts:
        for descendant in descendants(start.artifact, known):
            why = f"made from {start.artifact.repo_id}@{start.artifact.revision[:7]}"
            reasons.setdefault((descendant.artifact.repo_id, descendant.artifact.revision), why)
    parts = tuple(_parts(hub, known, reasons))
    learnt, replies = _answers(hub, parts, hits)
    folders = (*_folders(hub, parts, work), *learnt)
    return Withdrawal(name, namespace, tuple(hits), tuple(sorted(texts)), folders, parts, replies)


def local_places(hub: Hub, repo: str, name: str, work: Path) -> list[tuple[Path, str]]:
    """List the folders and caches of this disk that hold a row or learnt it, each with its reason; for `trace`."""
    try:
        return list(withdrawal(hub, repo, name, work).folders)
    except HubError as error:
        if error.code != "command.unknown-row":  # a row of results: no training read it
            raise
        return []


def _unknown(hub: Hub, tables: list[Version], repo: str, name: str) -> HubError:
    there: set[str] = set()
    for table in tables:
        folder = hub.pull(table.artifact, PARQUET)
        for path in folder.rglob("*.parquet"):
            for key in set(KEYS) & set(pq.read_schema(path).names):
                there |= set(map(str, pq.read_table(path, columns=[key])[key].to_pylist()))
    near = difflib.get_close_matches(name, sorted(there), 3, 0.5)
    known = f" Near names: {', '.join(near)}." if near else ""
    return HubError(
        "command.unknown-row",
        f"{repo}: no row is called `{name}` in any of {len(tables)} versions of corpora and preference sets, so there "
        f"is nothing to delete.{known} Give its id, its question_id or its locator, such as FILE:LINE.",
    )


def _parts(hub: Hub, known: list[Version], reasons: dict[tuple[str, str], str]) -> Iterator[RepositoryPart]:
    """Group the versions by repository: what was made last comes first, and what leads there goes last."""
    order = {stage: number for number, stage in enumerate(STAGES)}
    by_repo: dict[tuple[str, Kind], list[Version]] = {}
    for state in known:
        by_repo.setdefault((state.artifact.repo_id, state.artifact.kind), []).append(state)

    def depth(item: tuple[tuple[str, Kind], list[Version]]) -> int:
        return -order[item[1][0].provenance.stage] if item[1][0].provenance else 0  # type: ignore[index]

    recipes = {
        state.provenance.recipe
        for state in known
        if state.provenance and (state.artifact.repo_id, state.artifact.revision) in reasons
    }
    for (repo_id, kind), versions in sorted(by_repo.items(), key=depth):
        gone = [
            (version, reasons[key]) for version in versions if (key := (repo_id, version.artifact.revision)) in reasons
        ]
        refs = hub.refs(repo_id, kind)
        own = any(version.provenance and version.provenance.recipe in recipes for version in versions)
        branches = [ref.name for ref in refs.branches if own and ref.name.startswith("making-")] if refs else []
        if gone:
            stay = [version for version in versions if (repo_id, version.artifact.revision) not in reasons]
            yield RepositoryPart(repo_id, kind, tuple(gone), tuple(stay), tuple(branches))


def _folders(hub: Hub, parts: tuple[RepositoryPart, ...], work: Path) -> Iterator[tuple[Path, str]]:
    """Yield the work folders of what goes, unfinished work of its recipes, and the cached copies."""
    digests = {state.provenance.digest[:12] for part in parts for state, _ in part.gone if state.provenance}
    recipes = {state.provenance.recipe for part in parts for state, _ in part.gone if state.provenance}
    for recipe in sorted(recipes):
        for place in find_work(work / recipe):
            unfinished = any(place.glob("making*"))
            if place.name.rpartition("-")[2] in digests:
                yield place, "work of a version that goes"
            elif unfinished:
                yield place, "unfinished work, may have learnt it"
        yield from ((path, "figures of its evaluation") for path in sorted((work / recipe).glob("results-*.json")))
    for part in parts:
        cached = hub.cache_folder(part.repo_id, part.kind)
        if cached.is_dir():
            yield cached, "copies of its files"


def _answers(
    hub: Hub, parts: tuple[RepositoryPart, ...], hits: list[TracedRow]
) -> tuple[list[tuple[Path, str]], frozenset[AnswerKey]]:
    """Return the files of the store with replies of models that learnt the row, and the kept replies to the row."""
    store = AnswerStore.here()
    if store.folder is None or not store.folder.is_dir():
        return [], frozenset()
    versions = [(state, state.provenance) for part in parts for state, _ in part.gone if state.provenance]
    gone = {(state.artifact.repo_id, state.artifact.revision) for state, _ in versions}
    gone |= {(state.artifact.repo_id, name) for state, made in versions for name in (made.digest, made.identity)}
    questions = {(row.text.get("benchmark"), row.text["question_id"]) for row in hits if row.text.get("question_id")}
    models: set[str] = set()
    replies: set[AnswerKey] = set()
    for state, made in versions:
        if made.stage not in ("teach", "preferences", "rounds", "evaluate"):
            continue
        learnt = {use.reference for use in made.inputs if {(use.repo_id, use.commit), (use.repo_id, use.digest)} & gone}
        asked = made.settings.get("models") or {"train": made.settings.get("model")}
        folder = hub.pull(state.artifact, ("records/*", "samples/*", "kept_back/*"))
        for path in (path for name in ("records", "samples") for path in folder.rglob(f"{name}/*.parquet")):
            whole = made.stage == "rounds" or (  # whose models answer one after the other, and learn in between
                str(asked.get(path.stem.partition("-")[0] if path.parent.name == "samples" else path.stem)) in learnt
            )
            for row in _keyed_rows(path):
                key = AnswerKey.read(row["answer_key"])
                if key and whole:
                    models.add(key.model)
                elif key and (row["benchmark"], row["question_id"]) in questions:
                    replies.add(key)
    files = [path for model in sorted(models) if (path := store.folder / f"{model}.jsonl").is_file()]
    kept = frozenset(store.find(replies, defaultdict(set)))
    return [(path, "kept replies of a model that learnt it") for path in files], kept


def _keyed_rows(path: Path) -> list[dict[str, Any]]:
    """Read what names a reply and its question; nothing from tables of before replies were kept."""
    names = ["answer_key", "benchmark", "question_id"]
    if not set(names) <= set(pq.read_schema(path).names):
        return []
    keyed: list[dict[str, Any]] = pq.read_table(path, columns=names).to_pylist()
    return keyed


def carry_out(hub: Hub, plan: Withdrawal) -> Iterator[str]:
    """Delete everything in order and yield a line for each step; interrupted, it goes on when started again.

    The rows go last, so that they lead to what is left as long as something is.
    """
    yield _block(hub, plan)
    for path, _ in plan.folders:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        yield f"deleted {path}"
    if plan.replies:
        yield f"deleted {number_of(AnswerStore.here().remove(plan.replies), 'kept reply')}"
    for part in plan.repositories:
        _withdraw(hub, part)
        yield f"deleted {number_of(len(part.gone), 'version')} of {part.repo_id}"
    folder = Path(hub.name)
    if (folder / "hub.sqlite").is_file():
        yield _collect(folder)


def _block(hub: Hub, plan: Withdrawal) -> str:
    """Add the row to the list of the namespace's forgotten rows."""
    repo_id = forgotten_repo(plan.namespace)
    hub.call(repo_id, lambda api: create(api, repo_id, "dataset", private=True))
    path = hub.file(hub.resolve(repo_id, "dataset"), FORGOTTEN_FILE)
    before = path.read_text("utf-8") if path else ""
    questions = sorted({str(row.text["question_id"]) for row in plan.rows if row.text.get("question_id")})
    entry = {"sha256": list(plan.hashes), "questions": questions}
    if any({key: json.loads(line)[key] for key in entry} == entry for line in before.splitlines()):
        return f"{repo_id} lists the row already"
    line = json.dumps({**entry, "at": datetime.now(UTC).isoformat(timespec="seconds")})
    added = [CommitOperationAdd(FORGOTTEN_FILE, f"{before}{line}\n".encode())]
    hub.call(
        repo_id,
        lambda api: api.create_commit(repo_id, added, repo_type="dataset", commit_message="A row is withdrawn"),
    )
    return f"{repo_id} lists the row: later corpora drop it as `forgotten`"


def _withdraw(hub: Hub, part: RepositoryPart) -> None:
    """Delete versions of one repository, with the large files that no other version uses."""
    repo_id, kind = part.repo_id, part.kind
    gone = {state.provenance.digest for state, _ in part.gone if state.provenance}
    hub.call(repo_id, lambda api: _recover(api, repo_id, kind))
    stay = [
        version
        for version in hub.versions(repo_id, kind)
        if version.provenance and version.provenance.digest not in gone
    ]
    if not stay:
        hub.call(repo_id, lambda api: _erase(api, part, set()))
        hub.call(repo_id, lambda api: api.delete_repo(repo_id, repo_type=kind, missing_ok=True))
        return
    head = hub.state_at(repo_id, kind)
    if head and head.provenance and head.provenance.digest in gone:
        restore_on_main(hub, stay[-1].artifact)
    hub.call(repo_id, lambda api: _rewrite(api, part))


def _recover(api: HfApi, repo_id: str, kind: Kind) -> None:
    """Set the tags of an interrupted rewriting: the branch `staying-TAG` holds what TAG marked."""
    refs = api.list_repo_refs(repo_id, repo_type=kind)
    tags = {ref.name for ref in refs.tags}
    for name in [ref.name for ref in refs.branches if ref.name.startswith(STAYING)]:
        if name.removeprefix(STAYING) not in tags:
            api.create_tag(repo_id, tag=name.removeprefix(STAYING), revision=name, repo_type=kind)
        api.delete_branch(repo_id, branch=name, repo_type=kind)


def _rewrite(api: HfApi, part: RepositoryPart) -> None:
    """Give each version that stays a history of its own, and drop the others with their large files."""
    repo_id, kind = part.repo_id, part.kind
    refs = api.list_repo_refs(repo_id, repo_type=kind)
    tags = {ref.name for ref in refs.tags}
    gone = {_tag(state) for state, _ in part.gone}
    for name in part.branches:
        api.delete_branch(repo_id, branch=name, repo_type=kind)
    for name in sorted(tags - gone):
        branch = f"{STAYING}{name}"
        api.create_branch(repo_id, branch=branch, revision=name, repo_type=kind)
        api.super_squash_history(repo_id, branch=branch, repo_type=kind)
        api.delete_tag(repo_id, tag=name, repo_type=kind)
        api.create_tag(repo_id, tag=name, revision=branch, repo_type=kind)
        api.delete_branch(repo_id, branch=branch, repo_type=kind)
    api.super_squash_history(repo_id, branch="main", repo_type=kind)
    used: set[str] = set()
    for name in ("main", *sorted(tags - gone)):
        tree = api.list_repo_tree(repo_id, repo_type=kind, revision=name, recursive=True)
        used |= {entry.lfs.sha256 for entry in tree if isinstance(entry, RepoFile) and entry.lfs}
    _erase(api, part, used)
    for name in sorted(tags & gone):  # last: without its tag a version is no longer found
        api.delete_tag(repo_id, tag=name, repo_type=kind)


def _erase(api: HfApi, part: RepositoryPart, used: set[str]) -> None:
    """Erase the repository's large files that are not in use, from its history and the disk of the Hub."""
    gone = [file for file in api.list_lfs_files(part.repo_id, repo_type=part.kind) if file.file_oid not in used]
    if gone:
        api.permanently_delete_lfs_files(part.repo_id, gone, repo_type=part.kind)


def _collect(folder: Path) -> str:
    """Free what the embedded Hub keeps of the deleted versions, at once."""
    from medllm.localhub import Store
    from medllm.localhub.store import removal

    store = Store(folder)
    try:
        done = removal.collect(store, timedelta(0))
    finally:
        store.close()
    return f"the Hub in {folder} freed {done.bytes} bytes"


def left_to_people(hub: Hub, plan: Withdrawal) -> Iterator[str]:
    """List what no command can delete."""
    named = (row.text for row in plan.rows if "source" in row.text)
    sources = sorted({f"{text['source']} {text.get('locator', '')}" for text in named})
    yield from (f"the source itself: {source}" for source in sources)
    yield "copies that other people or machines downloaded"
    if not (Path(hub.name) / "hub.sqlite").is_file():
        yield (
            "on huggingface.co, deleted commits stay readable by their hash until the Hub collects them: ask its "
            "support to do so. On an embedded Hub: medllm hub gc DIR --grace-hours 0"
        )


def _tag(version: Version) -> str:
    return version.provenance.tag if version.provenance else version.artifact.revision[:7]
