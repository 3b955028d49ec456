"""Blind review: names stay hidden, the same vote sent twice is one, and thanks come only when it is safe."""

import asyncio
import csv
import io
import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from itertools import combinations

import httpx
import pytest
from starlette.applications import Starlette
from typer.testing import CliRunner

import medllm.cli.main  # noqa: F401  (registers the commands)
from medllm.cli.app import app
from medllm.errors import DataError, HubError
from medllm.exam.extract.completion import sentences
from medllm.page.context import PageContext
from medllm.page.html import words
from medllm.page.review import BLOCK, COMMON, Review, correction_id, vote_id
from medllm.page.review_form import ReviewPages, agreement_line, pair_form, review_routes
from medllm.page.vote_box import VoteBox, card, open_vote_box
from medllm.votes import journal as journal_module
from medllm.votes.journal import Journal
from medllm.votes.statistics import vote_report
from medllm.votes.vote import counted
from tests.page.simulated import HOSTILE, MODELS
from tests.refusals import refused


@pytest.fixture
def review(results) -> Review:
    return Review(results)


def form(review: Review, rater: str = "r1", at: int = 0, **more: object) -> dict:
    return {"rater": rater, "at": at, "shown": review.pair(rater, at).shown, "choice": "a", **more}


def test_every_pair_can_be_reached_once_and_the_first_are_the_same_for_all(review):
    def seen(rater):
        pairs = []
        while (pair := review.pair(rater, len(pairs))) is not None:
            pairs.append((pair.key, *sorted((pair.a.model, pair.b.model))))
        return pairs

    one, two = seen("r1"), seen("r2")
    texts = [
        {"".join(record.completion.split()) for record in map(review.results.record, [key] * 2, two, ["explain"] * 2)}
        for key in review.results.keys
        for two in combinations(MODELS, 2)
    ]
    unlike = sum(len(both) == 2 for both in texts)
    assert 0 < unlike < len(texts), "two equal texts are no pair"
    assert len(one) == len(set(one)) == unlike
    assert one[:COMMON] == two[:COMMON]
    assert one != two
    assert sorted(one) == sorted(two)


def test_assigned_pairs_go_to_as_many_raters_as_the_study_wants_and_to_nobody_else(tmp_path, page):
    (tmp_path / "assignments.json").write_text('{"raters": ["Sato", "田中", "kato"], "pairs": 30, "overlap": 2}')
    with ExitStack() as stack:
        box = open_vote_box(page.results, tmp_path, stack)
    assigned = Counter()
    for name in ("name: sato ", "name:田中", "name:Kato"):
        rater = box.rater(name)
        pairs = [box.review.pair(rater, at) for at in range(box.review.size(rater))]
        assert len(pairs) == 20 and box.review.pair(rater, 20) is None
        assigned.update((pair.key, *sorted((pair.a.model, pair.b.model))) for pair in pairs)
    assert len(assigned) == 30 and set(assigned.values()) == {2}
    assert words()["not_assigned"]["en"] in ReviewPages(page, box).pair(box.rater("name:guest"), 0, "en")


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{",
        '{"raters": ["a", "A"], "pairs": 9, "overlap": 1}',
        '{"raters": ["a"], "pairs": 9, "overlap": 2}',
        '{"raters": ["a"], "pairs": 0, "overlap": 1}',
    ],
)
def test_assignments_that_cannot_be_read_are_refused(tmp_path, page, text):
    (tmp_path / "assignments.json").write_text(text)
    with refused("preferences.broken-assignments"), ExitStack() as stack:
        open_vote_box(page.results, tmp_path, stack)


def test_pairs_that_differ_in_correctness_come_first(review):
    pairs = [review.pair("r1", at) for at in range(COMMON)]
    assert all(pair.a.correct != pair.b.correct for pair in pairs)


def test_sides_are_drawn_so_that_no_model_is_always_on_one(review):
    first = [review.pair(f"r{number}", 0).a.model for number in range(40)]
    assert len(set(first)) == 2


def test_the_form_names_no_model_and_keeps_hostile_text_text(page, review):
    at = next(at for at in range(400) if HOSTILE in review.pair("r1", at).a.completion)
    pair = review.pair("r1", at)
    form = pair_form(pair, page.results.question(pair.key), at, "evaluation-only")
    assert not [model for model in MODELS if f">{model}<" in form or f'"{model}"' in form]
    assert "<script" not in form
    assert "${" not in form


def test_a_vote_holds_what_was_shown_and_nothing_the_browser_made_up(review):
    vote = review.vote(
        form(review, reasons_a=["fact", "nonsense"], faulty_b=[0, 999, "x"], note="注" * 5000, role="king", seconds=-4)
    )
    pair = review.pair("r1", 0)
    assert vote.reasons_a == ("fact",)
    assert vote.faulty_b == (sentences(pair.b.completion)[0].strip(),)
    assert len(vote.note) == 1000
    assert (vote.role, vote.seconds) == ("", 0.0)
    assert vote.rater != "r1"
    assert vote.use == "evaluation-only"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"choice": "c"}, "unknown-choice"),
        ({"shown": "0" * 16}, "outdated-vote"),
        ({"at": 10**6}, "outdated-vote"),
        ({"rater": ""}, "incomplete-vote"),
        ({"at": "0"}, "incomplete-vote"),
    ],
)
def test_a_vote_that_is_none_is_refused(review, wrong, code):
    with refused(f"preferences.{code}", kind=DataError):
        review.vote({**form(review), **wrong})


def test_questions_up_to_the_cutoff_may_train_and_others_may_not(results):
    young, old = Review(results, date(2021, 6, 1)), Review(results, date(2017, 12, 31))
    uses = {young.vote(form(young, at=at)).use for at in range(40)}
    assert uses == {"training", "evaluation-only"}
    assert {old.vote(form(old, at=at)).use for at in range(40)} == {"evaluation-only"}


def asked(page: PageContext, ballot: VoteBox, method: str, path: str, **more: object) -> httpx.Response:
    async def ask():
        app = Starlette(routes=review_routes(page, ballot))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page") as client:
            return await client.request(method, path, **more)

    return asyncio.run(ask())


def test_the_rater_is_thanked_when_the_vote_is_on_the_disk_and_twice_is_once(tmp_path, page, review):
    ballot = VoteBox(review, Journal(tmp_path))
    for _ in range(2):
        answer = asked(page, ballot, "POST", "/medllm/vote", json=form(review))
        assert answer.status_code == 200
        assert "ありがとう" in answer.text
        assert named(answer) == [], "later votes would not be blind"
        assert 'data-at="1"' in answer.text, "the next pair follows at once"
    assert len(ballot.journal.votes()) == 1


def named(answer: httpx.Response) -> list[str]:
    return [model for model in MODELS if f"<b>{model}</b>" in answer.text or f">{model}<" in answer.text]


def voted(page: PageContext, ballot: VoteBox, at: int, **more: object) -> httpx.Response:
    answer = asked(page, ballot, "POST", "/medllm/vote", json=form(ballot.review, at=at, **more))
    assert answer.status_code == 200, answer.text
    return answer


def test_models_are_named_and_own_votes_given_out_only_when_a_block_is_complete(tmp_path, page, review):
    ballot = VoteBox(review, Journal(tmp_path))
    for at in range(BLOCK - 1):
        assert named(voted(page, ballot, at)) == []
    for path in ("/medllm/votes.csv?rater=r1", "/medllm/votes.txt?rater=r1"):
        assert asked(page, ballot, "GET", path).status_code == 403
    assert named(asked(page, ballot, "GET", "/medllm/pair?rater=r1&block=1")) == []
    assert "最後の組" in asked(page, ballot, "GET", "/medllm/pair?rater=r1").text
    last = voted(page, ballot, BLOCK - 1, choice="skip")
    pairs = [review.pair("r1", at) for at in range(BLOCK)]
    assert set(named(last)) == {one.model for pair in pairs for one in (pair.a, pair.b)}
    assert last.text.count("<tr>") == BLOCK + 1
    assert named(asked(page, ballot, "GET", "/medllm/pair?rater=r2&block=1")) == [], "another rater's block is open"
    voted(page, ballot, BLOCK)
    rows = list(csv.DictReader(io.StringIO(asked(page, ballot, "GET", "/medllm/votes.csv?rater=r1").text)))
    assert [row["choice"] for row in rows] == ["a"] * (BLOCK - 1) + ["skip"], "without the vote of the open block"
    assert [row["model_a"] for row in rows] == [pair.a.model for pair in pairs]


def test_the_page_and_the_command_print_the_same_figures_of_votes(tmp_path, page, review):
    ballot = VoteBox(review, Journal(tmp_path))
    for rater in ("r1", "r2"):
        for at in range(BLOCK):
            sent = form(review, rater, at, choice=("a", "b", "tie", "skip")[(at + len(rater)) % 4], role="nurse")
            assert asked(page, ballot, "POST", "/medllm/vote", json=sent).status_code == 200
    shown = asked(page, ballot, "GET", "/medllm/votes.txt?rater=r1").text
    printed = CliRunner().invoke(app, ["votes", str(tmp_path)])
    assert printed.exit_code == 0
    assert shown.split("\n") == printed.stdout.rstrip("\n").split("\n")
    report = vote_report(ballot.journal.votes())
    assert report.skipped == 10
    assert f"{report.agreement.fleiss.value:.2f}".replace("-", "−") in agreement_line(ballot.agreement())
    assert f"投票 {report.votes} 件" in agreement_line(ballot.agreement())


def test_the_counts_of_votes_are_alive_and_each_vote_is_read_once(tmp_path, page, review, monkeypatch):
    reading: list[bytes] = []
    read = journal_module._vote_of
    monkeypatch.setattr(journal_module, "_vote_of", lambda line, *more: reading.append(line) or read(line, *more))
    ballot = VoteBox(review, Journal(tmp_path))
    for at in range(BLOCK - 1):
        answer = voted(page, ballot, at)
        assert f"投票 {at + 1} 件、評価者 1 人" in answer.text
        assert answer.text.count('id="agreement"') == 1
    assert "評価者 2 人" in asked(page, ballot, "POST", "/medllm/vote", json=form(review, "r2", 0)).text
    assert len(reading) == BLOCK, "pairs that are shown later do not read the votes again"


def test_a_vote_is_corrected_within_its_block_and_final_when_models_are_named(tmp_path, page, review):
    ballot = VoteBox(review, Journal(tmp_path))
    voted(page, ballot, 0, choice="a", reasons_b=["fact"], faulty_a=[0], note="<b>注</b>")
    first = vote_id("r1", review.pair("r1", 0))
    again = asked(page, ballot, "GET", "/medllm/pair?rater=r1&at=0").text
    assert f'data-supersedes="{first}"' in again
    assert 'name="reasons_b" value="fact" checked' in again
    assert again.count('aria-pressed="true"') == 1
    assert "&lt;b&gt;注&lt;/b&gt;</textarea>" in again
    for _ in range(2):
        voted(page, ballot, 0, choice="b", supersedes=first)
    voted(page, ballot, 0, choice="tie", supersedes=correction_id(first))
    votes = ballot.journal.votes()
    assert [vote.choice for vote in votes] == ["a", "b", "tie"]
    assert [vote.supersedes for vote in votes] == ["", votes[0].vote_id, votes[1].vote_id]
    assert [vote.choice for vote in counted(votes)] == ["tie"]
    for at in range(1, BLOCK):
        voted(page, ballot, at)
    late = form(review, at=0, choice="a", supersedes=votes[2].vote_id)
    refusal = asked(page, ballot, "POST", "/medllm/vote", json=late)
    assert refusal.status_code == 409
    with refused("preferences.closed-block", kind=DataError):
        ballot.cast(late)
    assert len(ballot.journal.votes()) == BLOCK + 2


@pytest.mark.parametrize("supersedes", ["0" * 32, ["x"], 7])
def test_a_correction_of_a_vote_that_is_not_there_is_refused(tmp_path, page, review, supersedes):
    ballot = VoteBox(review, Journal(tmp_path))
    voted(page, ballot, 0)
    with refused("preferences.outdated-vote", kind=DataError):
        ballot.cast(form(review, supersedes=supersedes))
    assert len(ballot.journal.votes()) == 1


def test_a_damaged_journal_closes_the_review_and_names_its_line_to_the_operator_only(tmp_path, page, review, capsys):
    ballot = VoteBox(review, Journal(tmp_path))
    voted(page, ballot, 0)
    with (tmp_path / "votes.jsonl").open("a") as file:
        file.write("{broken\n")
    for fresh in (ballot, VoteBox(review, Journal(tmp_path))):
        for method, path, more in (
            ("GET", "/medllm/pair?rater=r1", {}),
            ("GET", "/medllm/votes.csv?rater=r1", {}),
            ("POST", "/medllm/vote", {"json": form(review, at=1)}),
        ):
            answer = asked(page, fresh, method, path, **more)
            assert answer.status_code == 503
            assert "投票を受け付けません" in answer.text
            assert str(tmp_path) not in answer.text
            assert f"{tmp_path / 'votes.jsonl'}" in capsys.readouterr().err


def test_without_a_lasting_disk_no_thanks_before_the_hub_has_the_vote(tmp_path, page, review):
    class Away:
        """A Hub that is out of reach."""

        def elsewhere(self):
            """Nothing is known of other starts."""
            return frozenset()

        def send(self):
            """Fail as the real one does."""
            raise HubError("hub.unreachable", "away")

    ballot = VoteBox(review, Journal(tmp_path), Away(), lasting=False)
    answer = asked(page, ballot, "POST", "/medllm/vote", json=form(review))
    assert answer.status_code == 503
    assert "ありがとう" not in answer.text


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"[1]", "application/json", 400),
        (b"{" * 30_000, "application/json", 400),
        (json.dumps({"rater": "r"}).encode(), "application/json", 409),
    ],
)
def test_other_sites_floods_and_nonsense_are_refused(tmp_path, page, review, content, kind, status):
    ballot = VoteBox(review, Journal(tmp_path))
    answer = asked(page, ballot, "POST", "/medllm/vote", content=content, headers={"content-type": kind})
    assert answer.status_code == status
    assert ballot.journal.votes() == []


def test_a_position_beyond_the_last_pair_says_so(tmp_path, page, review):
    ballot = VoteBox(review, Journal(tmp_path))
    for at in ("999999", "-1", "x", "9" * 40):
        assert "もうありません" in asked(page, ballot, "GET", f"/medllm/pair?rater=r1&at={at}").text


def test_the_card_says_what_may_be_trained_on_and_marks_simulated_results(results):
    text = card(results, "clinic/votes")
    assert "config_name: preferences" in text
    assert "simulated" in text
    real = replace(results, origin=replace(results.origin, marking="recorded"))
    assert "simulated" not in card(real, "clinic/votes")
