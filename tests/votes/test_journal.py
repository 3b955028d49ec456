"""The journal loses nothing it has acknowledged, whatever kills its writer, and keeps nothing twice."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medllm.votes.journal import Journal
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
