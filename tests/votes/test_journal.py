"""No acknowledged vote is lost, whatever kills its writer, and each reaches the Hub exactly once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medllm.errors import HubError
from medllm.hub import Hub
from medllm.localhub import serve
from medllm.votes.journal import CHUNK, Journal, Uploader
from tests.refusals import refused
from tests.votes.making import vote

WRITER = """
import sys
from pathlib import Path
from medllm.votes.journal import Journal
from tests.votes.making import vote
journal = Journal(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), int(sys.argv[2]) + 100_000):
    journal.append(vote(number, note="長い" * (number % 400)))
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_a_vote_sent_twice_is_kept_once(tmp_path):
    journal = Journal(tmp_path)
    assert journal.append(vote(1)) is True
    assert journal.append(vote(1)) is False
    assert Journal(tmp_path).append(vote(1)) is False
    assert [kept.vote_id for kept in journal.votes()] == [vote(1).vote_id]


def test_what_is_read_back_is_what_was_written(tmp_path):
    kept = vote(1, reasons_a=("fact", "lucky"), faulty_b=("発熱がある。\n",), note="${alert(1)}\n二行目")
    Journal(tmp_path).append(kept)
    assert Journal(tmp_path).votes() == [kept]


def test_votes_of_many_threads_and_two_journals_on_one_folder_are_all_there_once(tmp_path):
    journals = (Journal(tmp_path), Journal(tmp_path))
    numbers = [number for number in range(60) for _ in range(3)]
    random.Random(0).shuffle(numbers)
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda at: journals[at[0] % 2].append(vote(at[1])), enumerate(numbers)))
    kept = [one.vote_id for one in journals[0].votes()]
    assert sorted(kept) == sorted(vote(number).vote_id for number in range(60))
    assert journals[0].name == journals[1].name


def test_a_torn_last_line_is_cut_off_and_the_next_vote_is_whole(tmp_path):
    journal = Journal(tmp_path)
    journal.append(vote(1))
    with journal.file.open("ab") as file:
        file.write(vote(2).line().encode()[:50])
    assert [kept.vote_id for kept in Journal(tmp_path).votes()] == [vote(1).vote_id]
    fresh = Journal(tmp_path)
    fresh.append(vote(3))
    assert [kept.vote_id for kept in fresh.votes()] == [vote(1).vote_id, vote(3).vote_id]


def test_a_line_that_is_no_vote_is_named(tmp_path):
    journal = Journal(tmp_path)
    journal.append(vote(1))
    with journal.file.open("a") as file:
        file.write('{"vote_id": "x"}\n')
    with refused("preferences.broken-vote", journal.file, "line 2:"):
        journal.votes()


def test_kill_9_at_any_moment_loses_no_acknowledged_vote_and_doubles_none(tmp_path):
    chance, acknowledged = random.Random(7), []
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    for turn in range(6):
        start = turn * 100_000
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(start)], stdout=subprocess.PIPE, env=environment
        )
        first = writer.stdout.readline()
        time.sleep(chance.random() * 0.3)
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read()  # not communicate, which forgets what readline has read ahead
        writer.stdout.close()
        writer.wait(timeout=60)
        acknowledged += [int(line) for line in (first + rest).split(b"\n")[:-1] if line]
    kept = [one.vote_id for one in Journal(tmp_path).votes()]
    assert len(acknowledged) > 6
    assert len(kept) == len(set(kept))
    assert {vote(number).vote_id for number in acknowledged} <= set(kept)
    assert len(kept) <= len(acknowledged) + 6, "at most the one vote in hand may be kept without its answer"


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


def test_a_corrected_vote_takes_its_preference_row_back_and_both_votes_stay(tmp_path, hub):
    journal = Journal(tmp_path / "journal")
    first = vote(1, use="training")
    sender = uploader(hub, journal, lambda votes: [{"vote_id": v.vote_id} for v in votes if v.choice in ("a", "b")])
    journal.append(first)
    sender.send()
    assert [row["vote_id"] for row in sent(hub, "preferences")] == [first.vote_id]
    journal.append(vote(1, use="training", vote_id="corrected", choice="tie", supersedes=first.vote_id))
    sender.send()
    assert sent(hub, "preferences") == []
    assert [row["vote_id"] for row in sent(hub)] == [first.vote_id, "corrected"]
