"""People see how much of the sources has come, then how much of the training lies behind, and nothing made up."""

import json
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from medllm import work_progress
from medllm.pipeline import progress
from medllm.pipeline.progress import WorkPace, describe_work, report_pull, report_push, report_work
from medllm.recipe.rounds import RoundRpo, Rounds
from medllm.recipe.settings import Cpt
from medllm.work_progress import WorkProgress, counted, poll_in_background, report_progress


def test_what_has_come_of_the_sources_is_shown_while_they_come(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    (tmp_path / "here-before").write_bytes(b"x" * 5_000_000)
    messages = []
    with report_pull(SimpleNamespace(stage="cpt"), [tmp_path, tmp_path / "not-there-yet"], messages.append):
        time.sleep(0.05)
        assert messages == []
        (tmp_path / "weights.incomplete").write_bytes(b"x" * 2_000_000)
        (tmp_path / "link").symlink_to("here-before")
        deadline = time.monotonic() + 30
        while "cpt: 2.0 MB of its sources pulled" not in messages and time.monotonic() < deadline:
            time.sleep(0.01)
    assert messages[-1] == "cpt: 2.0 MB of its sources pulled"


def test_a_training_tells_its_share_and_loss_from_the_last_whole_line_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    log = tmp_path / "making.part" / "training" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"step": 4, "loss": 6.609049987792969}) + '\n{"step": 5, "lo')
    item = SimpleNamespace(stage="cpt", settings=Cpt(lora={"r": 4, "lora_alpha": 8}, max_steps=10))
    messages = []
    with report_work(item, tmp_path, messages.append):
        deadline = time.monotonic() + 30
        while not messages and time.monotonic() < deadline:
            time.sleep(0.01)
        assert messages[-1] == "cpt: 40 % done, loss 6.609", "what is left is not known before something was gained"
        log.write_text(json.dumps({"step": 9, "loss": "6.5"}) + "\n")
        while "90 %" not in messages[-1] and time.monotonic() < deadline:
            time.sleep(0.01)
    assert messages[-1].startswith("cpt: 90 % done, loss 6.500, ") and messages[-1].endswith(" s left")


def test_the_training_within_a_round_is_shown_by_the_rounds_name(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    log = tmp_path / "making.part" / "steps" / "round-3" / "rpo.part" / "training" / "log.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text(json.dumps({"step": 4, "loss": "6.5"}) + "\n")
    rounds = Rounds(exam="mock", rpo=RoundRpo(max_steps=8))
    messages = []
    with report_work(SimpleNamespace(stage="rounds", settings=rounds), tmp_path, messages.append):
        deadline = time.monotonic() + 30
        while not messages and time.monotonic() < deadline:
            time.sleep(0.01)
    assert messages[0] == "rounds: round-3, training: 50 % done, loss 6.500"


def test_a_stage_reports_its_items_from_any_process_and_the_time_that_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(work_progress, "EVERY", 0.0)
    item = SimpleNamespace(stage="merge", settings=None)
    messages = []
    with report_work(item, tmp_path, messages.append):
        for number in counted(range(5), 5, "shards"):
            deadline = time.monotonic() + 30
            while not any(f" {number} of 5 shards" in one for one in messages) and time.monotonic() < deadline:
                time.sleep(0.01)
    begun = [one for one in messages if "5 of 5" not in one]  # the end may or may not be seen
    assert begun[0] == "merge: 0 of 5 shards" and begun[-1].startswith("merge: 4 of 5 shards, ")
    assert begun[-1].endswith(" left") and not list(tmp_path.iterdir())
    report_progress(WorkProgress("", 1, 2, "shards"), now=True)
    assert not list(tmp_path.iterdir()), "nobody shows it"


def test_tokens_a_second_give_the_time_left_at_most_until_a_reply_is_whole(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace = WorkPace()
    asked = WorkProgress("base, cpt", 0, 60, "replies", tokens=0, most_tokens=60_000)
    assert describe_work(asked, pace) == "base, cpt: 0 of 60 replies"
    now[0] += 9
    first = replace(asked, tokens=9, tokens_settled=9)
    assert describe_work(first, pace) == "base, cpt: 0 of 60 replies, 9 tokens, 1.0 tokens/s", "not 17 hours"
    now[0] += 1
    half = replace(asked, tokens=1_000, tokens_settled=1_000)
    text = "base, cpt: 0 of 60 replies, 1,000 tokens, 100 tokens/s, at most 10 min left"
    assert describe_work(half, pace) == text
    now[0] += 10
    third = replace(asked, done=20, tokens=2_000, tokens_settled=20_000)
    assert describe_work(third, pace) == "base, cpt: 20 of 60 replies, 2,000 tokens, 100 tokens/s, at most 40 s left"
    now[0] += 120
    slow = replace(third, tokens=2_012)
    assert ", 2,012 tokens, 0.1 tokens/s, " in describe_work(slow, pace), "the rate is that of the last minute or more"


def test_prompts_that_are_read_count_before_the_first_token_is_written(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    pace = WorkPace()
    asked = WorkProgress("mine", 0, 20, "replies", most_tokens=1_000)
    describe_work(asked, pace)
    now[0] += 4
    text = "mine: 0 of 20 replies, 3,000 prompt tokens read, 750 tokens/s"
    assert describe_work(replace(asked, tokens_read=3_000), pace) == text


def test_a_push_shows_how_much_of_it_is_sent_and_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "POLL_SECONDS", 0.01)
    messages = []
    with report_push("merge: pushing to me/ward", tmp_path, messages.append):
        for sent in (0, 500_000_000, 1_000_000_000):
            report_progress(WorkProgress("", sent, 2_000_000_000, "bytes"), now=True)
            amount = f", {progress.format_bytes(sent)} of 2.0 GB"
            deadline = time.monotonic() + 30
            while not any(amount in one for one in messages) and time.monotonic() < deadline:
                time.sleep(0.01)
    assert messages[0].startswith("merge: pushing to me/ward, 0 bytes of 2.0 GB, ") and " left" not in messages[0]
    assert messages[-1].startswith("merge: pushing to me/ward, 1.0 GB of 2.0 GB, ")
    assert " s left, " in messages[-1] and messages[-1].endswith(" so far")


def test_a_call_that_has_begun_ends_before_the_block_is_left():
    looks, thrice, slow = [], threading.Event(), threading.Event()

    def look() -> None:
        looks.append("begun")
        if len(looks) >= 5:
            thrice.set()
            slow.wait(0.2)
        looks.append("ended")

    with poll_in_background(look, 0.01, "a test"):
        assert thrice.wait(60)
    assert looks[-1] == "ended"
    assert "a test" not in {thread.name for thread in threading.enumerate()}


def test_an_error_of_the_block_ends_the_polling():
    with pytest.raises(ZeroDivisionError), poll_in_background(lambda: None, 0.01, "a test"):
        raise ZeroDivisionError
    assert "a test" not in {thread.name for thread in threading.enumerate()}
