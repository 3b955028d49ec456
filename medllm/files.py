"""Files that are whole or absent: written beside their place, then renamed into it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a path beside `path` to write to, and rename it to `path` when the block ends.

    A block that raises leaves `path` as it was and removes its half. A kill leaves the half, `NAME.part`, which the
    next write replaces. Missing folders are made.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with atomic_write(Path(folder) / "deep" / "a.txt") as part:
    ...         _ = part.write_text("whole")
    ...     (Path(folder) / "deep" / "a.txt").read_text(), part.name, part.exists()
    ('whole', 'a.txt.part', False)
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
    except Exception:
        part.unlink(missing_ok=True)
        raise
    part.replace(path)


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a text as UTF-8, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(text, "utf-8", errors)
