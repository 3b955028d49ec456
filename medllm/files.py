"""Files and folders that are whole or absent: written beside their place, then renamed into it."""

import shutil
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


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, `NAME.part`, and move it to `path` when the block ends.

    A block that raises leaves `path` as it was and removes its half; what a kill leaves is removed by the next block.
    """
    part = path.with_name(f"{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
    except Exception:
        shutil.rmtree(part, ignore_errors=True)
        raise
    replace_folder(part, path)


def replace_folder(folder: Path, path: Path) -> None:
    """Move a whole folder to `path`, in the place of the folder that may be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    folder.replace(path)
