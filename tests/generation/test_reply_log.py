"""The log of a run's replies: what is reported of them while they are written."""

import pytest

from medllm import work_progress
from medllm.generation.answer_store import Answerer, AnswerStore
from medllm.generation.reply_log import KeptGenerator, generate_watched
from medllm.generation.types import Reply, Request

WHO = Answerer({"engine": "local", "files": ["1"]})


class Writing:
    """Writes two tokens of each reply, and counts them as it goes."""

    engine, read, written = "local 0.1.0", 0, 0

    def generate(self, requests):
        self.read = 70
        for request in requests:
            self.written += 2
            yield Reply(key=request.key, text=request.text, finish_reason="stop", prompt_tokens=7, completion_tokens=2)
        self.written += 1  # of a reply that is under way


@pytest.fixture
def states(tmp_path, monkeypatch):
    """The states that are reported, the last one of them at the end."""
    seen = []
    monkeypatch.setattr(work_progress, "report_progress", lambda state, now=False: seen.append(state))
    monkeypatch.setattr(work_progress, "EVERY", 60.0)
    with work_progress.progress_in(tmp_path / "progress.json"):
        yield seen


def ask(generator, folder, *names):
    requests = [Request(key=name, text=name, max_new_tokens=100 if name == "long" else 10) for name in names]
    kept = KeptGenerator(generator, AnswerStore(folder / "store"), dict.fromkeys(names, WHO))
    return list(generate_watched(kept, requests, folder / f"{len(names)}.jsonl", "mine", "replies"))


def test_a_finished_reply_counts_with_all_its_room_and_one_under_way_with_its_tokens(states, tmp_path):
    assert len(ask(Writing(), tmp_path, "a", "long")) == 2
    (end,) = states
    assert (end.done, end.total, end.tokens, end.tokens_read) == (2, 2, 5, 70)
    assert (end.most_tokens, end.tokens_settled) == (110, 111), "and one token of a third"


def test_what_is_kept_counts_as_done_without_a_token_of_this_run(states, tmp_path):
    ask(Writing(), tmp_path, "a", "b")
    replies = ask(Writing(), tmp_path, "a", "b", "long")
    assert len(replies) == 3 and states[-1].most_tokens == 120
    assert states[-1].tokens_settled == 121
