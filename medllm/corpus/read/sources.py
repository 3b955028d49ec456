"""Sources of texts: a folder cut into pieces of similar size, so that work is split the same on any machine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal

from medllm.corpus.documents import Draft, Kind
from medllm.corpus.read.raw_files import is_wide
from medllm.errors import DataError

PIECE = 32 * 1024 * 1024
"""Maximum bytes of a file that one task reads; a long JSONL file is cut at its line breaks."""
LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
READABLE = (
    *LINES,
    ".json",
    ".parquet",
    ".csv",
    ".tsv",
    ".txt",
    ".md",
    ".html",
    ".htm",
    ".pdf",
    ".docx",
    ".pptx",
    ".epub",
    ".zip",
)
_ASIDE = frozenset(("readme.md", "dataset_infos.json", "provenance.json", "facts.json"))


@dataclass(frozen=True)
class TextSource:
    """A source in the recipe, with the facts that the recipe states for all its texts."""

    name: str
    folder: Path
    """A folder, or a single file."""
    columns: dict[str, str] = field(default_factory=dict)
    license: str | None = None
    published: str | None = None
    exam_date: str | None = None
    kind: Kind = "text"
    topic: str = ""
    """The recipe's name for the kind of text, for the counts on the card."""
    exam: str | None = None
    """The benchmark whose reader reads questions from the folder, for a source that is an exam set."""
    years: tuple[int, ...] | None = None
    """Only the questions of these years, of an exam set."""
    formats: tuple[Literal["plain", "explain"], ...] = ("plain", "explain")
    """Prompts by which each exam item is written out."""
    template: Literal["paper", "igakuqa"] = "paper"
    """Wording of those prompts."""

    def draft(self, text: str, locator: str, stated: dict[str, str | None], *, fault: str | None = None) -> Draft:
        """Build a draft of this source; facts in the row take precedence over those of the recipe."""
        return Draft(
            text,
            self.name,
            locator,
            license=stated.get("license") or self.license,
            published=stated.get("published") or self.published,
            exam_date=stated.get("exam_date") or self.exam_date,
            kind=self.kind,
            topic=self.topic,
            fault=fault,
        )


@dataclass(frozen=True)
class SourcePart:
    """A part of a source that one task reads: a file, or the lines of a file that begin between two bytes."""

    source: TextSource
    path: Path
    name: str
    """Path of the file inside the source."""
    begin: int = 0
    end: int | None = None
    line: int = 1
    """Number of the line in which the part begins."""

    @property
    def size(self) -> int:
        """Return the number of bytes to read from the file."""
        if self.source.exam:
            return 0
        return (self.path.stat().st_size if self.end is None else self.end) - self.begin


def split_source(source: TextSource) -> list[SourcePart]:
    """List all pieces of a source in order of name: the same files give the same pieces everywhere."""
    if not source.folder.exists():
        raise DataError(
            "corpus.no-source",
            f"{source.name}: `{source.folder}` does not exist. Check the spelling, or download it first.",
        )
    if source.exam:
        return [SourcePart(source, source.folder, "")]
    if source.folder.is_file():
        return list(_pieces(source, source.folder, source.folder.name))
    paths = sorted(path for path in source.folder.rglob("*") if path.is_file() and not _hidden(path, source.folder))
    if not any(path.name.lower().endswith(READABLE) and not describes_source(path.name) for path in paths):
        raise DataError(
            "corpus.nothing-readable",
            f"{source.name}: the folder has no readable file. Readable are {', '.join(READABLE)}.",
        )
    return [piece for path in paths for piece in _pieces(source, path, path.relative_to(source.folder).as_posix())]


def split_into_tasks(sources: Sequence[TextSource]) -> list[list[SourcePart]]:
    """Group the pieces of all sources into tasks of similar size, by the files alone, whatever the workers."""
    tasks: list[list[SourcePart]] = [[]]
    held = 0
    for piece in (piece for source in sources for piece in split_source(source)):
        if tasks[-1] and held + piece.size > PIECE:
            tasks.append([])
            held = 0
        tasks[-1].append(piece)
        held += piece.size
    return tasks


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.relative_to(folder).parts)


def describes_source(name: str) -> bool:
    """Return whether a file describes a dataset rather than belongs to it; it is counted as dropped.

    >>> [describes_source(name) for name in ("README.md", "a/LICENSE", "notes/readme.md", "a.md")]
    [True, True, True, False]
    """
    path = PurePosixPath(name.lower())
    return path.name in _ASIDE or path.stem in ("license", "licence", "notice")


def _pieces(source: TextSource, path: Path, name: str) -> Iterator[SourcePart]:
    size = path.stat().st_size
    if not name.lower().endswith((".jsonl", ".ndjson")) or size <= PIECE or is_wide(path):
        yield SourcePart(source, path, name)
        return
    begin, line = 0, 1
    with path.open("rb") as stream:
        while begin < size:
            end = min(begin + PIECE, size)
            yield SourcePart(source, path, name, begin, end, line)
            line += _breaks(stream, begin, end)
            begin = end


def _breaks(stream: BinaryIO, begin: int, end: int) -> int:
    """Count the lines that end in a part of a file."""
    stream.seek(begin)
    counted, left = 0, end - begin
    while left and (data := stream.read(min(left, 1 << 20))):
        counted += data.count(b"\n")
        left -= len(data)
    return counted
