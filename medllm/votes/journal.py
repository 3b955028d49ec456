"""The journal: votes appended line by line, each on the disk before it is acknowledged, torn lines cut off."""

import fcntl
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from medllm.errors import DataError
from medllm.votes.vote import Vote


class Journal:
    """A folder that holds votes; several processes may write to it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "votes.jsonl"
        self._lock, self._way = Lock(), Lock()
        self._known: set[str] = set()
        self._read_to = 0

    @property
    def name(self) -> str:
        """The unique name of this journal, used in the names of its files on the Hub."""
        with self._alone():
            return self._name()

    @property
    def secret(self) -> bytes:
        """A key of this journal alone that turns raters' names into irreversible numbers; never sent."""
        with self._alone():
            return self._kept("rater-key", 32).encode()

    def holds(self, vote_id: str) -> bool:
        """Return whether a vote is there already."""
        if not self.file.exists():
            return False
        with self._alone():
            self._catch_up()
            return vote_id in self._known

    def append(self, vote: Vote) -> bool:
        """Store a vote durably; False when it is there already. When this returns, the vote survives a power cut."""
        with self._alone():
            self._name()
            descriptor = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                self._cut_torn_end(descriptor)
                self._catch_up()
                if vote.vote_id in self._known:
                    return False
                _write_all(descriptor, (vote.line() + "\n").encode())
                os.fsync(descriptor)
                _sync_folder(self.folder)
            finally:
                os.close(descriptor)
            self._catch_up()
            return True

    def votes(self) -> list[Vote]:
        """Return every acknowledged vote in order; a torn last line was never acknowledged."""
        if not self.file.exists():
            return []
        whole, _, _ = self.file.read_bytes().rpartition(b"\n")
        found = []
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                found.append(Vote.read(json.loads(line)))
            except (ValueError, DataError) as fault:
                raise DataError(
                    "preferences.broken-vote",
                    f"{self.file} line {number}: is not a vote ({fault}). Correct or remove that line.",
                ) from fault
        return found

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Lock the upload to the Hub, so that of two senders the later one never sends the older state."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._way, (self.folder / "sending").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the journal against other threads and processes."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._lock, (self.folder / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _name(self) -> str:
        return self._kept("journal-id", 12)

    def _kept(self, name: str, length: int) -> str:
        """A number drawn once and kept in a file that only its owner reads."""
        file = self.folder / name
        if not file.exists():
            aside = file.with_suffix(".part")
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as handle:
                handle.write(uuid.uuid4().hex[:length])
                handle.flush()
                os.fsync(handle.fileno())
            aside.replace(file)
            _sync_folder(self.folder)
        return file.read_text(encoding="ascii")

    def _cut_torn_end(self, descriptor: int) -> None:
        """Remove a last line without its end: its writer died before it could acknowledge."""
        size = os.fstat(descriptor).st_size
        if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
            return
        whole = self.file.read_bytes().rpartition(b"\n")
        os.ftruncate(descriptor, len(whole[0]) + len(whole[1]))
        os.fsync(descriptor)

    def _catch_up(self) -> None:
        """Read the votes added since the last read, by this process or by others."""
        with self.file.open("rb") as handle:
            handle.seek(self._read_to)
            for line in handle:
                if not line.endswith(b"\n"):
                    return  # torn: its writer died, and the next one cuts it off
                self._known.add(json.loads(line)["vote_id"])
                self._read_to += len(line)


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _sync_folder(folder: Path) -> None:
    """Sync a folder: a new file's name is durable only after that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
