"""Uploads votes to a Hub dataset in the background, with retries until the Hub has each vote exactly once."""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event, Thread
from typing import Any

from huggingface_hub import HfApi

from medllm.errors import HubError, MedllmError
from medllm.hub import Hub
from medllm.votes.journal import Journal
from medllm.votes.vote import Vote

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
        self._sent: dict[str, int] = {}
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
        chunks = dict(self._grown())
        if not chunks:
            return
        with tempfile.TemporaryDirectory() as aside:
            folder = Path(aside)
            for name, votes in chunks.items():
                _write(folder / "votes" / name, [json.loads(vote.line()) for vote in votes])
                trained = self.rows(votes)
                if trained:
                    _write(folder / "preferences" / name, trained)
            (folder / "README.md").write_text(self.card, encoding="utf-8")
            self.hub.call(self.repo_id, lambda api: self._commit(api, folder))
        self._sent |= {name: len(votes) for name, votes in chunks.items()}

    def _commit(self, api: HfApi, folder: Path) -> None:
        api.create_repo(self.repo_id, repo_type="dataset", private=True, exist_ok=True)
        api.upload_folder(
            repo_id=self.repo_id, repo_type="dataset", folder_path=folder, commit_message="Votes from the Space"
        )

    def _grown(self) -> Iterator[tuple[str, list[Vote]]]:
        votes = self.journal.votes()
        for start in range(0, len(votes), CHUNK):
            chunk = votes[start : start + CHUNK]
            name = f"{self.journal.name}-{start // CHUNK:05d}.jsonl"
            if self._sent.get(name) != len(chunk):
                yield name, chunk

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
