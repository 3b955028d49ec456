"""Storage of votes: a journal on the disk before each is acknowledged, and the upload of each exactly once."""

import fcntl
import json
import os
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from huggingface_hub import HfApi

from medllm.errors import DataError, HubError, MedllmError
from medllm.hub import Hub
from medllm.votes.vote import Vote, counted

TIMED = 64
"""A rater's last votes by which the time left is estimated."""


class Journal:
    """A folder that holds votes; several processes may write to it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "votes.jsonl"
        self._lock, self._way = Lock(), Lock()
        self._known: dict[str, Vote] = {}
        self._order: list[Vote] = []
        self._spent: dict[str, deque[float]] = {}
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

    def vote(self, vote_id: str) -> Vote | None:
        """Return the vote of an id; None if it is not there."""
        return self._known[vote_id] if self.holds(vote_id) else None

    def spent(self, rater: str) -> list[float]:
        """Return the seconds that a rater took for each of the last votes that are no skips."""
        if self.file.exists():
            with self._alone():
                self._catch_up()
        return list(self._spent.get(rater, ()))

    def later(self, read: int) -> list[Vote]:
        """Return the votes after the first `read` ones, in order: a reader that counts as it reads has each once."""
        if self.file.exists():
            with self._alone():
                self._catch_up()
        return self._order[read:]

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
        lines = whole.split(b"\n") if whole else []
        return [_vote_of(line, self.file, number) for number, line in enumerate(lines, start=1)]

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
                vote = _vote_of(line, self.file)
                self._known[vote.vote_id] = vote
                self._order.append(vote)
                if vote.choice != "skip":
                    self._spent.setdefault(vote.rater, deque(maxlen=TIMED)).append(vote.seconds)
                self._read_to += len(line)


def _vote_of(line: bytes, file: Path, number: int | None = None) -> Vote:
    """Return the vote of a line; DataError names the line where it is damaged."""
    try:
        return Vote.read(json.loads(line))
    except (ValueError, DataError) as fault:
        at = "a line" if number is None else f"line {number}"
        raise DataError(
            "preferences.broken-vote", f"{file} {at}: is not a vote ({fault}). Correct or remove that line."
        ) from fault


def read_votes(folder: Path) -> list[Vote]:
    """Return the votes of a journal's folder, or of a dataset of votes; each once, a torn last line left out.

    DataError where there is no vote, or where a line is damaged: its file and number are named.
    """
    if not folder.is_dir():
        raise DataError(
            "preferences.no-votes-folder", f"{folder}: is no folder. Give the folder that `medllm app --votes` names."
        )
    journal = folder / "votes.jsonl"
    files = [journal] if journal.is_file() else sorted((folder / "votes").glob("*.jsonl"))
    by_id: dict[str, Vote] = {}
    for file in files:
        whole, _, _ = file.read_bytes().rpartition(b"\n")
        for number, line in enumerate(whole.split(b"\n") if whole else (), start=1):
            vote = _vote_of(line, file, number)
            by_id.setdefault(vote.vote_id, vote)
    if not by_id:
        raise DataError(
            "preferences.empty-votes-folder",
            f"{folder}: holds no votes. Votes are in votes.jsonl, or in votes/*.jsonl of a dataset.",
        )
    return list(by_id.values())


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


CHUNK = 500
"""Votes in one file of the dataset. A file is always written whole, from the same votes: sending it twice changes
nothing, so no crash and no retry can double a vote."""

LONGEST_PAUSE = 300.0
"""Seconds between tries while the Hub is away."""

Rows = Callable[[Sequence[Vote]], list[dict[str, Any]]]
"""Makes preference rows of votes and leaves out those that may not train."""


class Uploader:
    """Sends a journal to a dataset; `wake` it after each vote."""

    def __init__(self, hub: Hub, repo_id: str, journal: Journal, rows: Rows, card: str, *, pause: float = 30.0) -> None:
        self.hub, self.repo_id, self.journal, self.rows, self.card = hub, repo_id, journal, rows, card
        self.pause = pause
        self.fault: MedllmError | None = None
        """Why the last try failed; None when all is sent."""
        self._sent: dict[str, tuple[int, int]] = {}
        self._elsewhere: frozenset[str] | None = None
        self._news, self._stop = Event(), Event()
        self._thread = Thread(target=self._run, name="medllm-votes", daemon=True)

    def start(self) -> None:
        """Begin; what an earlier process left unsent goes first."""
        self._news.set()
        self._thread.start()

    def wake(self) -> None:
        """Signal that there is a new vote."""
        self._news.set()

    def close(self, patience: float = 10.0) -> None:
        """Stop, after a last try to send what is left."""
        self._stop.set()
        self._news.set()
        self._thread.join(patience)

    def send(self) -> None:
        """Send every chunk that has grown, as one commit; HubError when the Hub does not take it."""
        with self.journal.sending():
            self._send()

    def elsewhere(self) -> frozenset[str]:
        """Return the votes that the dataset has from other journals: on a disk that does not last, from earlier starts.

        A vote that the Hub took just before this process died was not acknowledged, and will be sent once more.
        """
        if self._elsewhere is None:
            if self.hub.state_at(self.repo_id, "dataset") is None:
                return frozenset()
            folder = self.hub.pull(self.hub.resolve(self.repo_id, "dataset"))
            others = [file for file in folder.glob("votes/*.jsonl") if not file.name.startswith(self.journal.name)]
            lines = [line for file in others for line in file.read_text(encoding="utf-8").splitlines()]
            self._elsewhere = frozenset(json.loads(line)["vote_id"] for line in lines)
        return self._elsewhere

    def _send(self) -> None:
        chunks = list(self._grown())
        if not chunks:
            return
        with tempfile.TemporaryDirectory() as aside:
            folder, emptied = Path(aside), []
            for name, votes, standing in chunks:
                _write(folder / "votes" / name, [json.loads(vote.line()) for vote in votes])
                trained = self.rows(standing)
                if trained:
                    _write(folder / "preferences" / name, trained)
                else:
                    emptied.append(f"preferences/{name}")
            (folder / "README.md").write_text(self.card, encoding="utf-8")
            self.hub.call(self.repo_id, lambda api: self._commit(api, folder, emptied))
        self._sent |= {name: (len(votes), len(standing)) for name, votes, standing in chunks}

    def _commit(self, api: HfApi, folder: Path, emptied: list[str]) -> None:
        api.create_repo(self.repo_id, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=self.repo_id,
            repo_type="dataset",
            folder_path=folder,
            commit_message="Votes from the Space",
            delete_patterns=emptied or None,
        )

    def _grown(self) -> Iterator[tuple[str, list[Vote], list[Vote]]]:
        """Yield each chunk that has new votes, or lost one to a correction: its votes, and those that still count."""
        votes = self.journal.votes()
        standing = {vote.vote_id for vote in counted(votes)}
        for start in range(0, len(votes), CHUNK):
            chunk = votes[start : start + CHUNK]
            name = f"{self.journal.name}-{start // CHUNK:05d}.jsonl"
            kept = [vote for vote in chunk if vote.vote_id in standing]
            if self._sent.get(name) != (len(chunk), len(kept)):
                yield name, chunk, kept

    def _run(self) -> None:
        wait = self.pause
        while True:
            self._news.wait()
            self._news.clear()
            try:
                self.send()
                self.fault, wait = None, self.pause
            except HubError as fault:
                self.fault = fault
                self._news.set()
                wait = min(wait * 2, LONGEST_PAUSE)
            if self._stop.is_set():
                return
            self._stop.wait(wait)


def _write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
