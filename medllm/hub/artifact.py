"""Outputs on the Hub and their origin: Artifact, Provenance and the digest that decides whether an output exists."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self

from medllm.errors import HubError

Kind = Literal["model", "dataset", "space"]

COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Artifact:
    """One repository at one commit: the only name for anything on the Hub once its reference is resolved."""

    repo_id: str
    kind: Kind
    revision: str
    """The full commit hash; a tag or a branch can move, and training data must not."""

    def __str__(self) -> str:
        """Return the form that people read and paste: ORG/NAME@COMMIT."""
        return f"{self.repo_id}@{self.revision}"


@dataclass(frozen=True)
class Input:
    """One source of a stage, as written in the recipe and as it was when the stage ran."""

    reference: str
    """As written in the recipe: `corpus`, `org/texts@v1`, `./texts`, or the name of an exam."""
    kind: Kind | None = None
    """The kind of repository; None for a local folder."""
    repo_id: str | None = None
    commit: str | None = None
    digest: str | None = None
    """The identity of the stage that made it, or the content of a local folder."""

    @property
    def identity(self) -> str:
        """Return what enters the digest: the identity of the stage that made the input, else the exact commit.

        A stage that is lost and rebuilt from the same recipe, or rebuilt with equal content, keeps its identity, so no
        later stage is rebuilt.
        """
        return self.digest or f"{self.repo_id}@{self.commit}"


def digest_of(stage: str, settings: Mapping[str, object], inputs: tuple[Input, ...]) -> str:
    """Return the name of an output: equal when stage, settings and the identity of every input are equal.

    >>> texts = Input("./texts", digest="sha256:1")
    >>> digest_of("cpt", {"epochs": 2}, (texts,)) == digest_of("cpt", {"epochs": 3}, (texts,))
    False
    """
    named = {source.reference: source.identity for source in inputs}
    text = json.dumps([stage, settings, named], sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_folder(folder: Path, without: Collection[str] = ()) -> str:
    """Hash the content of a local folder or file: names and bytes, no times, so that a copy is the same source.

    `without` are patterns of paths in the folder that do not count.
    """
    files = [folder] if folder.is_file() else sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in files if path == folder or not _is_one_of(path.relative_to(folder).as_posix(), without)]
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        name = path.name if path == folder else path.relative_to(folder).as_posix()
        whole.update(f"{name}\0{content}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _is_one_of(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Provenance:
    """The origin of an output: enough to make it again, to rebuild it only when needed, and to withdraw data."""

    stage: str
    recipe: str
    settings: dict[str, Any]
    inputs: tuple[Input, ...]
    versions: dict[str, str]
    digest: str
    made: dict[str, Any] = field(default_factory=dict)
    """Time, duration and hardware of the build: recorded, but not part of the digest."""
    content: str | None = None
    """The digest of what later stages read of the output."""
    same_as: str | None = None
    """The identity of an earlier version that has the same content; None for new content."""
    teachers: tuple[dict[str, Any], ...] = ()
    """The teachers whose explanations it holds or has learnt: model, revision, cutoff, and whether it is the model
    itself."""

    FILE = "provenance.json"

    @property
    def identity(self) -> str:
        """Return what enters the digests of later stages: that of the first version with this content."""
        return self.same_as or self.digest

    @property
    def tag(self) -> str:
        """Return the tag that identifies the output on the Hub: `made-` and twelve letters of its digest."""
        return f"made-{self.digest[:12]}"

    def write(self, folder: Path) -> None:
        """Write the provenance into the folder of its output."""
        values = {name: value for name, value in asdict(self).items() if name != "teachers" or value}
        text = json.dumps(values, ensure_ascii=False, indent=2, sort_keys=True)
        (folder / self.FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, text: str, place: str) -> Self:
        """Parse a provenance; `place` names the repository in the error when medllm did not write the text."""
        try:
            values = json.loads(text)
            values["inputs"] = tuple(Input(**source) for source in values["inputs"])
            values["teachers"] = tuple(values.get("teachers", ()))
            return cls(**values)
        except (ValueError, TypeError, KeyError) as fault:
            raise HubError(
                "hub.foreign-provenance",
                f"{place}: medllm did not write the {cls.FILE} there ({fault}). Give a repository that medllm made.",
            ) from fault
