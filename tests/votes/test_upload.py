"""Votes reach the Hub exactly once: through retries, restarts, an hour without a Hub, and two senders."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from medllm.errors import HubError
from medllm.hub import Hub
from medllm.localhub import serve
from medllm.votes.journal import Journal
from medllm.votes.upload import CHUNK, Uploader
from tests.votes.making import vote

REPO = "clinic/votes"


def no_rows(_votes) -> list:
    return []


def uploader(hub: Hub, journal: Journal, rows=no_rows) -> Uploader:
    return Uploader(hub, REPO, journal, rows, "---\nlicense: cc-by-4.0\n---\n# Votes\n", pause=0.05)


def reach(served, cache: Path) -> Hub:
    return Hub(served.url, served.token, cache, "test", waits=())


def sent(hub: Hub, config: str = "votes") -> list[dict]:
    """The rows of the dataset as anybody would read them."""
    folder = hub.pull(hub.resolve(REPO, "dataset"))
    texts = [file.read_text(encoding="utf-8") for file in sorted(folder.glob(f"{config}/*.jsonl"))]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def eventually(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.05)


@pytest.fixture
def hub(tmp_path):
    with serve(tmp_path / "hub") as served:
        yield reach(served, tmp_path / "cache")


def test_every_vote_is_in_the_dataset_once_however_often_it_is_sent(tmp_path, hub):
    journal = Journal(tmp_path / "journal")
    first, second = uploader(hub, journal), uploader(hub, Journal(tmp_path / "journal"))
    for number in range(CHUNK + 7):
        journal.append(vote(number))
    first.send()
    journal.append(vote(CHUNK + 7))
    second.send()
    first.send()
    ids = [row["vote_id"] for row in sent(hub)]
    assert sorted(ids) == sorted(vote(number).vote_id for number in range(CHUNK + 8))
    assert hub.resolve(REPO, "dataset")


def test_a_dead_hub_keeps_votes_here_and_they_arrive_when_it_is_back(tmp_path):
    journal = Journal(tmp_path / "journal")
    with serve(tmp_path / "hub") as served:
        port = int(served.url.rsplit(":", 1)[1])
        sender = uploader(reach(served, tmp_path / "cache"), journal)
    sender.start()
    for number in range(5):
        journal.append(vote(number))
        sender.wake()
    eventually(lambda: sender.fault is not None)
    assert isinstance(sender.fault, HubError)
    assert len(journal.votes()) == 5
    with serve(tmp_path / "hub", port=port) as served:
        hub = reach(served, tmp_path / "cache")
        sender.hub = hub
        eventually(lambda: sender.fault is None)
        sender.close()
        assert sorted(row["vote_id"] for row in sent(hub)) == sorted(vote(number).vote_id for number in range(5))


def test_what_a_killed_process_left_unsent_is_sent_by_the_next_one(tmp_path, hub):
    Journal(tmp_path / "journal").append(vote(1))
    sender = uploader(hub, Journal(tmp_path / "journal"))
    sender.start()
    eventually(lambda: hub.state_at(REPO, "dataset") is not None and len(sent(hub)) == 1)
    sender.close()
    assert [row["vote_id"] for row in sent(hub)] == [vote(1).vote_id]


def test_two_spaces_with_journals_of_their_own_do_not_overwrite_each_other(tmp_path, hub):
    for name, number in (("one", 1), ("two", 2)):
        journal = Journal(tmp_path / name)
        journal.append(vote(number))
        uploader(hub, journal).send()
    assert sorted(row["vote_id"] for row in sent(hub)) == sorted(vote(number).vote_id for number in (1, 2))


def test_preference_rows_go_to_a_config_of_their_own(tmp_path, hub):
    journal = Journal(tmp_path / "journal")
    journal.append(vote(1, use="training"))
    journal.append(vote(2))
    uploader(hub, journal, lambda votes: [{"vote_id": v.vote_id} for v in votes if v.use == "training"]).send()
    assert [row["vote_id"] for row in sent(hub, "preferences")] == [vote(1).vote_id]
