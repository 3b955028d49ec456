"""Who votes: a number of the browser's, or a name that is kept by nobody; each goes on where they left off."""

import json

import pytest

from medllm.hub import Hub
from medllm.localhub import serve
from medllm.page.review import Review
from medllm.page.vote_box import VoteBox, open_vote_box
from medllm.votes.journal import Journal
from tests.page.test_review import asked, form


@pytest.fixture
def ballot(tmp_path, results) -> VoteBox:
    """A place for votes."""
    journal = Journal(tmp_path / "votes")
    return VoteBox(Review(results), journal, key=journal.secret)


def cast(ballot: VoteBox, page, given: str, choice: str = "a"):
    """Vote on the next pair as a browser does; the rater's name as it was typed."""
    rater = ballot.rater(given)
    at = ballot.place(rater)
    sent = form(ballot.review, rater, at, choice=choice) | {"rater": given}
    assert asked(page, ballot, "POST", "/medllm/vote", json=sent).status_code == 200
    return at


def test_a_named_rater_goes_on_at_another_computer_and_two_at_one_are_two(page, ballot):
    assert [cast(ballot, page, given) for given in ("name:佐藤", "name: 佐藤　", "name:鈴木", "5f3a")] == [0, 1, 0, 0]
    assert len({vote.rater for vote in ballot.journal.votes()}) == 3
    found = ballot.agreement()
    assert (found.votes, found.raters) == (4, 3)


def test_the_page_shows_the_first_pair_without_a_vote(page, ballot):
    cast(ballot, page, "name:佐藤")
    assert 'data-at="1"' in asked(page, ballot, "GET", "/medllm/pair?rater=name:佐藤").text
    assert 'data-at="0"' in asked(page, ballot, "GET", "/medllm/pair?rater=name:鈴木").text


def test_no_name_is_stored_and_without_the_key_none_can_be_found_by_trying(page, ballot, tmp_path, results):
    cast(ballot, page, "name:佐藤")
    stored = b"".join(path.read_bytes() for path in (tmp_path / "votes").iterdir())
    assert "佐藤".encode() not in stored
    assert json.dumps("佐藤")[1:-1].encode() not in stored
    other = VoteBox(ballot.review, Journal(tmp_path / "other"), key=Journal(tmp_path / "other").secret)
    assert other.rater("name:佐藤") != ballot.rater("name:佐藤")
    assert (tmp_path / "votes" / "rater-key").stat().st_mode & 0o077 == 0


def test_the_key_outlives_a_restart(tmp_path, results):
    from contextlib import ExitStack

    with ExitStack() as stack:
        first, second = (open_vote_box(results, tmp_path / "votes", stack) for _ in range(2))
    assert first.rater("name:佐藤") == second.rater("name:佐藤")


def test_where_the_disk_is_lost_a_vote_whose_thanks_were_lost_is_not_sent_twice(tmp_path, results, page, monkeypatch):
    from contextlib import ExitStack

    with serve(tmp_path / "hub", user="clinic") as served:
        for name, value in {"HF_ENDPOINT": served.url, "HF_TOKEN": served.token, "MEDLLM_VOTES": "clinic/votes",
                            "SPACE_ID": "clinic/space"}.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        placed = []
        for start in ("first", "second"):  # the Space's disk is new at every start
            (tmp_path / start).mkdir()
            monkeypatch.chdir(tmp_path / start)
            with ExitStack() as stack:
                ballot = open_vote_box(results, None, stack)
                assert not ballot.lasting
                placed.append(ballot.place(ballot.rater("name:佐藤")))
                sent = form(ballot.review, ballot.rater("name:佐藤"), 0) | {"rater": "name:佐藤"}
                assert asked(page, ballot, "POST", "/medllm/vote", json=sent).status_code == 200
        hub = Hub(served.url, served.token, tmp_path / "cache", "test", waits=())
        folder = hub.pull(hub.resolve("clinic/votes", "dataset"))
        lines = [line for file in folder.glob("votes/*.jsonl") for line in file.read_text("utf-8").splitlines()]
    assert placed == [0, 1]
    assert len(lines) == 1
