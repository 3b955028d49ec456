"""`medllm votes` on journals and datasets: the report's own figures, whole CSV, and faults with their places."""

import csv
import json

import pytest
from typer.testing import CliRunner

import medllm.cli.main  # noqa: F401  (it registers the commands)
from medllm.cli.app import app
from medllm.hub import Hub
from medllm.localhub import serve
from medllm.votes.journal import Journal, Uploader
from medllm.votes.statistics import vote_report
from medllm.votes.vote import Vote, digest
from tests.refusals import refused
from tests.votes.making import vote


@pytest.fixture
def cast() -> list[Vote]:
    """Twelve pairs, each judged by two raters; one vote is corrected, one pair skipped."""
    found = [
        vote(at, rater=rater, vote_id=digest(f"{at} {rater}")[:32], choice="abt"[at % 3].replace("t", "tie"))
        for at in range(12)
        for rater in ("r1", "r2")
    ]
    corrected = vote(0, rater="r2", vote_id=digest("corrected")[:32], choice="bad", supersedes=found[1].vote_id)
    return [*found, corrected, vote(20, choice="skip", note="=1+1")]


@pytest.fixture
def journal(tmp_path, cast) -> Journal:
    """A journal of these votes."""
    kept = Journal(tmp_path / "votes")
    for one in cast:
        kept.append(one)
    return kept


def ran(*words: object):
    done = CliRunner().invoke(app, ["votes", *map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0
    return done


@pytest.mark.parametrize("cluster", ["question", "rater"])
def test_the_json_is_the_report_of_the_votes(journal, cast, cluster):
    shown = json.loads(ran(journal.folder, "--json", "--cluster", cluster).stdout)
    assert shown == vote_report(cast, cluster).to_json()
    assert (shown["votes"], shown["corrected"], shown["skipped"], shown["clusters"]) == (
        24, 1, 1, {"question": 12, "rater": 2}[cluster]
    )  # fmt: skip


def test_the_text_names_votes_rates_strengths_and_agreement(journal):
    text = ran(journal.folder).stdout
    assert "24 votes by 2 raters on 12 questions (a 7, b 8, bad 1, tie 8); 1 corrected, 1 skipped" in text
    assert "  base               47.9 % [" in text
    assert "n = 24: 7 won, 8 lost, 8 ties, 1 both bad" in text
    assert "Agreement on 12 shared pairs (12 couples of judgements)" in text
    assert "  equal choices      91.7 %" in text


def test_the_csv_holds_every_vote_with_whether_it_counts_and_runs_no_formula(journal, cast, tmp_path):
    out = tmp_path / "votes.csv"
    ran(journal.folder, "--csv", out)
    rows = list(csv.DictReader(out.read_text("utf-8-sig").splitlines()))
    assert [row["vote_id"] for row in rows] == [one.vote_id for one in cast]
    assert [at for at, row in enumerate(rows) if row["counts"] == "False"] == [1]
    assert rows[-1]["note"] == "'=1+1"


def test_the_dataset_gives_the_figures_of_the_journal(journal, tmp_path):
    with serve(tmp_path / "hub", user="clinic") as served:
        hub = Hub(served.url, served.token, tmp_path / "cache", "test", waits=())
        Uploader(hub, "clinic/votes", journal, lambda votes: [], "---\nlicense: cc-by-4.0\n---\n# Votes\n").send()
        folder = hub.pull(hub.resolve("clinic/votes", "dataset"))
        assert ran(folder, "--json").stdout == ran(journal.folder, "--json").stdout


def test_a_half_written_vote_counts_not_and_a_damaged_one_is_named(journal):
    whole = ran(journal.folder, "--json").stdout
    with journal.file.open("a", encoding="utf-8") as file:
        file.write(vote(40).line()[:60])
    assert ran(journal.folder, "--json").stdout == whole
    with journal.file.open("a", encoding="utf-8") as file:
        file.write("\n")
    with refused("preferences.broken-vote", journal.file, "line 27"):
        CliRunner().invoke(app, ["votes", str(journal.folder)], catch_exceptions=False)


def test_a_folder_without_votes_and_no_folder_are_named(tmp_path):
    with refused("preferences.empty-votes-folder", tmp_path):
        CliRunner().invoke(app, ["votes", str(tmp_path)], catch_exceptions=False)
    with refused("preferences.no-votes-folder", tmp_path / "absent"):
        CliRunner().invoke(app, ["votes", str(tmp_path / "absent")], catch_exceptions=False)


def test_an_unknown_cluster_is_refused(journal):
    with refused("command.unknown-value", "--cluster exam"):
        CliRunner().invoke(app, ["votes", str(journal.folder), "--cluster", "exam"], catch_exceptions=False)
