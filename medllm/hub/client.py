"""One connection to one Hub: the state of its repositories at a commit, and local copies of their files."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import GitRefs, HfApi, get_session, get_token
from huggingface_hub.constants import HF_HOME, HF_HUB_CACHE
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils.tqdm import disable_progress_bars

from medllm.errors import HubError
from medllm.hub.artifact import COMMIT, Artifact, Kind, Provenance
from medllm.hub.errors import WAITS, Account, account_of, unreachable_error, with_retries

T = TypeVar("T")

PUBLIC_HUB = "https://huggingface.co"

MIRROR_FILE = "mirror.json"
"""The file in which a mirror records the commit that it has at its source."""


@dataclass(frozen=True)
class RepoState:
    """The content of a repository at one commit: made by medllm if it has a provenance, else foreign."""

    artifact: Artifact
    provenance: Provenance | None
    files: frozenset[str]

    @property
    def empty(self) -> bool:
        """Return whether the repository holds only the files that a Hub puts into every new repository."""
        return self.files <= {".gitattributes"}


@dataclass(frozen=True)
class Hub:
    """A connection to one Hub; every call retries temporary failures and translates permanent ones into errors."""

    endpoint: str
    token: str | None = field(repr=False)
    cache: Path
    name: str
    """Display name of this Hub: its address, or the folder of a local one."""
    waits: tuple[float, ...] = WAITS
    say: Callable[[str], None] = field(default=lambda text: None, repr=False, compare=False)
    """Prints what a call waits for."""
    upstream: str | None = None
    """The Hub that is asked for a source that this one does not hold; None asks no other."""
    namespace: str | None = None
    """The user's own namespace: it is never looked for upstream, where a stranger may have its name."""
    _heard: list[bool] = field(default_factory=list, init=False, repr=False, compare=False)
    """Whether this Hub has ever answered: calls do not wait for an address that has not, it may be no Hub."""

    @property
    def api(self) -> HfApi:
        """Return the client of huggingface_hub; only this package calls it."""
        bound_session()
        return HfApi(endpoint=self.endpoint, token=self.token or False, library_name="medllm")

    def call(self, place: str, call: Callable[[HfApi], T]) -> T:
        """Make one call with retries; an error names `place`."""
        api = self.api

        def listened() -> T:
            try:
                answer = call(api)
            except Exception as fault:
                error = None if self._heard else unreachable_error(self.endpoint, fault)
                if error:
                    raise error from fault
                raise
            self._heard[:] = [True]
            return answer

        return with_retries(place, listened, self.waits, self.say)

    def account(self) -> Account:
        """Return the owner of the token, and what the token permits."""
        return account_of(self.call(self.name, lambda api: api.whoami()))

    def check_writable(self, namespace: str, repositories: Collection[str] = ()) -> None:
        """Raise HubError if the token cannot push these repositories there: before days of training, not after."""
        if self.token is None:
            raise HubError("hub.no-token", f"{self.name}: there is no token. Run `hf auth login`, or set HF_TOKEN.")
        self.account().check(self.name, namespace, repositories)

    def resolve(self, repo_id: str, kind: Kind, revision: str = "main") -> Artifact:
        """Resolve a tag, a branch or a commit to the commit it means now."""
        place = f"{repo_id}@{revision}"
        info = self.call(place, lambda api: api.repo_info(repo_id, repo_type=kind, revision=revision))
        if info.sha is None or not COMMIT.fullmatch(info.sha):
            raise HubError(
                "hub.not-a-hub", f"{place}: {self.endpoint} names no commit for it. Give the address of a Hub."
            )
        return Artifact(repo_id, kind, info.sha)

    def resolve_source(self, repo_id: str, kind: Kind, revision: str = "main") -> tuple[Artifact, str | None]:
        """Resolve what a recipe names of others; also return the commit at its source, None for what is no mirror.

        What this Hub does not hold is looked for on `upstream`, and read from there.
        """
        try:
            artifact = self.resolve(repo_id, kind, revision)
        except HubError as fault:
            if self.endpoint == PUBLIC_HUB or not isinstance(fault.__cause__, RepositoryNotFoundError):
                raise
            return self._resolve_upstream(repo_id, kind, revision, fault), None
        record = self.file(artifact, MIRROR_FILE) if self.endpoint != PUBLIC_HUB else None
        return artifact, mirrored_commit(record) if record else None

    def _resolve_upstream(self, repo_id: str, kind: Kind, revision: str, fault: HubError) -> Artifact:
        why = "no other Hub was asked"
        if self._may_be_upstream(repo_id):
            above = self._above()
            try:
                artifact = above.resolve(repo_id, kind, revision)
                self.say(f"{artifact}: {self.name} does not hold it; it is read from {above.name}")
                return artifact
            except Exception as above_fault:
                why = f"{above.name} did not give it either ({type(above_fault.__cause__ or above_fault).__name__})"
        option = "" if kind == "model" else f" --kind {kind}"
        raise HubError(
            "hub.not-mirrored",
            f"{repo_id}@{revision}: {self.name} does not hold this {kind}, and {why}. Bring it in: where there is a "
            f"network, `medllm hub mirror {repo_id}@{revision}{option} --bundle DIR`; here, `medllm hub mirror "
            f"{repo_id}@{revision}{option} --from DIR --into {self.name}`. Or correct its name.",
        ) from fault

    def _above(self) -> "Hub":
        """Return the connection to `upstream`, which is asked once and not waited for."""
        endpoint = self.upstream or PUBLIC_HUB
        token = get_token() if endpoint == PUBLIC_HUB else None
        return Hub(endpoint, token, cache_of(endpoint), endpoint, waits=(), say=self.say)

    def state_at(self, repo_id: str, kind: Kind, revision: str = "main") -> RepoState | None:
        """Return the content at a revision, or None when there is no such repository."""
        try:
            info = self.call(
                repo_id, lambda api: _or_none(lambda: api.repo_info(repo_id, repo_type=kind, revision=revision))
            )
        except HubError as error:
            raise HubError(error.code, f"{error} (looked for as a {kind})") from error
        if info is None or info.sha is None:
            return None
        artifact = Artifact(repo_id, kind, info.sha)
        files = frozenset(sibling.rfilename for sibling in getattr(info, "siblings", None) or ())
        return RepoState(artifact, self.provenance(artifact) if Provenance.FILE in files else None, files)

    def refs(self, repo_id: str, kind: Kind) -> GitRefs | None:
        """Return the branches and tags, or None when there is no such repository."""
        return self.call(repo_id, lambda api: _or_none(lambda: api.list_repo_refs(repo_id, repo_type=kind)))

    def find(self, repo_id: str, kind: Kind, digest: str) -> RepoState | None:
        """Return the output with this digest, or None when there is none: the only test of whether a stage must run."""
        tag = f"made-{digest[:12]}"
        refs = self.refs(repo_id, kind)
        commits = [ref.target_commit for ref in refs.tags if ref.name == tag] if refs else []
        if not commits:
            return None
        artifact = Artifact(repo_id, kind, commits[0])
        provenance = self.provenance(artifact)
        if provenance is None or provenance.digest != digest:
            raise HubError(
                "hub.foreign-tag",
                f"{repo_id}: the tag {tag} marks a version that medllm did not make. Delete the tag and run again.",
            )
        return RepoState(artifact, provenance, frozenset())

    def versions(self, repo_id: str, kind: Kind) -> list[RepoState]:
        """List every version that medllm tagged as made; none for a foreign repository."""
        refs = self.refs(repo_id, kind)
        states = []
        for ref in refs.tags if refs else []:
            if ref.name.startswith("made-"):
                artifact = Artifact(repo_id, kind, ref.target_commit)
                states.append(RepoState(artifact, self.provenance(artifact), frozenset()))
        return states

    def repositories(self, namespace: str) -> list[tuple[str, Kind]]:
        """List all repositories of a user or organization that this token may see."""

        def listed(api: HfApi) -> list[tuple[str, Kind]]:
            models: list[tuple[str, Kind]] = [(model.id, "model") for model in api.list_models(author=namespace)]
            models += [(dataset.id, "dataset") for dataset in api.list_datasets(author=namespace)]
            return [*models, *((space.id, "space") for space in api.list_spaces(author=namespace))]

        return self.call(namespace, listed)

    def provenance(self, artifact: Artifact) -> Provenance | None:
        """Return the provenance of a commit, or None when medllm did not make it."""
        path = self.file(artifact, Provenance.FILE)
        return None if path is None else Provenance.read(path.read_text(encoding="utf-8"), str(artifact))

    def file(self, artifact: Artifact, path: str) -> Path | None:
        """Download one file of a commit and return its path; None when the commit has no such file."""

        def fetch(api: HfApi) -> str | None:
            try:
                return api.hf_hub_download(
                    artifact.repo_id, path, repo_type=artifact.kind, revision=artifact.revision, cache_dir=self.cache
                )
            except EntryNotFoundError as fault:
                if isinstance(fault, FileNotFoundError):  # raised too when the Hub cannot be reached
                    raise
                return None

        try:
            path_fetched = self.call(f"{artifact}: {path}", fetch)
        except HubError as fault:
            if not self._is_upstream(artifact.repo_id, fault):
                raise
            return self._above().file(artifact, path)
        return None if path_fetched is None else Path(path_fetched)

    def _is_upstream(self, repo_id: str, fault: HubError) -> bool:
        """Return whether a commit that this Hub does not hold may have been resolved upstream."""
        missing = (RepositoryNotFoundError, RevisionNotFoundError)
        return self._may_be_upstream(repo_id) and isinstance(fault.__cause__, missing)

    def _may_be_upstream(self, repo_id: str) -> bool:
        return self.upstream is not None and repo_id.split("/")[0] != self.namespace

    def cache_folder(self, repo_id: str, kind: Kind) -> Path:
        """Return the cache folder of this repository's files, unfinished downloads included."""
        return self.cache / repo_folder_name(repo_id=repo_id, repo_type=kind)

    def pull(self, artifact: Artifact, only: tuple[str, ...] = ()) -> Path:
        """Download a commit, or only some of its files, into a folder; later calls read it from this Hub's cache."""

        def download(api: HfApi) -> str:
            return str(
                api.snapshot_download(
                    artifact.repo_id,
                    repo_type=artifact.kind,
                    revision=artifact.revision,
                    allow_patterns=list(only) or None,
                    cache_dir=self.cache,
                    tqdm_class=None,
                )
            )

        try:
            return Path(self.call(str(artifact), download))
        except HubError as fault:
            if not self._is_upstream(artifact.repo_id, fault):
                raise
            return self._above().pull(artifact, only)


def _or_none(call: Callable[[], T]) -> T | None:
    """Return None for a missing repository; a gated or forbidden one exists, so it stays an error."""
    try:
        return call()
    except GatedRepoError:
        raise
    except RepositoryNotFoundError as fault:
        if "redentials" in (fault.server_message or ""):
            raise
        return None


def mirrored_commit(record: Path) -> str | None:
    """Read the commit at the source from a mirror's record; None where the source had none."""
    try:
        commit = json.loads(record.read_text(encoding="utf-8"))["commit"]
    except (ValueError, KeyError, TypeError):
        return None
    return commit if isinstance(commit, str) and COMMIT.fullmatch(commit) else None


def cache_of(name: str) -> Path:
    """Return a cache folder for each Hub: ORG/NAME on a local Hub is not the ORG/NAME of the public one."""
    if name == PUBLIC_HUB:
        return Path(HF_HUB_CACHE)
    return Path(HF_HOME) / "medllm" / hashlib.sha256(name.encode()).hexdigest()[:12]


@contextmanager
def connect(
    where: str | None = None,
    user: str | None = None,
    *,
    jobs: bool = False,
    bars: bool = True,
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Hub]:
    """Connect to the Hub at an address or in a folder; the embedded Hub serves a folder during the connection.

    On a local Hub `user` is our account: the recipe's namespace, so that we can push to it. With `jobs` the local Hub
    runs our Jobs as processes of this machine. Without `bars` the client draws no bars: medllm reports progress.
    """
    if not bars or not sys.stderr.isatty():
        disable_progress_bars()
    if where is None or where.startswith(("http://", "https://")):
        endpoint = (where or os.environ.get("HF_ENDPOINT") or PUBLIC_HUB).rstrip("/")
        yield Hub(endpoint, get_token(), cache_of(endpoint), endpoint, say=say)
        return
    from medllm.localhub import serve

    folder = Path(where).resolve()
    with serve(folder, user=user, allow_jobs=jobs) as served:
        yield Hub(served.url, served.token, cache_of(str(folder)), where, say=say, upstream=_upstream(), namespace=user)


def _upstream() -> str | None:
    """Return the Hub from which a local one reads what it does not hold; MEDLLM_UPSTREAM names it, `none` is none."""
    named = os.environ.get("MEDLLM_UPSTREAM") or PUBLIC_HUB
    return None if named == "none" else named.rstrip("/")


CONNECT = 20.0
READ = 60.0
"""Seconds without one byte of an answer, for requests that only read."""
WORK = 600.0
"""The same for requests that make the Hub work: a commit of large files takes it a while."""


def bound_session() -> None:
    """Add timeouts to the client's session; the client sets none, and loses ours with each new session."""
    session = get_session()
    hooks = session.event_hooks
    if bound not in hooks["request"]:
        session.event_hooks = {**hooks, "request": [*hooks["request"], bound]}


def bound(request: httpx2.Request) -> None:
    """Set each timeout that the request does not set itself."""
    read = READ if request.method in ("GET", "HEAD") else WORK
    limits = {"connect": CONNECT, "read": read, "write": WORK, "pool": WORK}
    set_before = {name: value for name, value in request.extensions.get("timeout", {}).items() if value is not None}
    request.extensions["timeout"] = {**limits, **set_before}
