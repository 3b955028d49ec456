"""What a vote may hold, which votes count, and the way to preference rows: test items never train."""

import json
from dataclasses import replace
from datetime import date

import pytest

from medllm.errors import DataError
from medllm.exam.prompts import Prompt
from medllm.exam.question import Question
from medllm.exam.record import Record
from medllm.votes.vote import Vote, counted, digest, preference_rows, use_of
from tests.refusals import refused
from tests.votes.making import vote

CUTOFF = date(2017, 12, 31)


def question(benchmark: str, day: date | None) -> Question:
    return Question(
        question_id="1",
        benchmark=benchmark,
        text="?",
        choices=("x", "y"),
        gold=(frozenset("a"),),
        key=("a",),
        exam_date=day,
    )


@pytest.mark.parametrize(
    "wrong",
    [{"choice": "c"}, {"choice": ["a"]}, {"length_a": -1}, {"length_b": True}, {"seconds": "9"},
     {"seconds": float("nan")}, {"reasons_a": ["ugly"]}, {"faulty_b": [1]}, {"rater": None}, {"use": "sale"},
     {"note": 5}],
)  # fmt: skip
def test_a_vote_of_a_wrong_type_or_an_unknown_value_is_refused_by_its_field(wrong):
    row = json.loads(vote(1).line()) | wrong
    with refused("preferences.invalid-vote", next(iter(wrong)), kind=DataError):
        Vote.read(row)


@pytest.mark.parametrize("row", [[], "a", 1, {}, {"vote_id": "x"}])
def test_what_lacks_a_field_is_no_vote(row):
    with refused("preferences.incomplete-vote", kind=DataError):
        Vote.read(row)


def test_of_a_raters_votes_on_one_pair_the_last_counts_and_others_votes_stay():
    first = vote(1, rater="r1", choice="a")
    other = vote(2, rater="r2", question_id="115A1", completion_a=first.completion_a, completion_b=first.completion_b)
    corrected = vote(
        3, rater="r1", question_id="115A1", choice="a", supersedes=first.vote_id, model_a=first.model_b,
        model_b=first.model_a, completion_a=first.completion_b, completion_b=first.completion_a,
    )  # fmt: skip
    assert counted([first, other, corrected]) == [corrected, other]
    earlier = replace(corrected, time="2025-12-31T00:00:00+00:00")
    assert counted([first, other, earlier]) == [first, other], "by time, not by the order of files"


@pytest.mark.parametrize(
    ("benchmark", "day", "cutoff"),
    [
        ("igakuqa", date(2010, 2, 1), CUTOFF),
        ("own-exam", date(2018, 2, 1), CUTOFF),
        ("own-exam", None, CUTOFF),
        ("own-exam", date(2010, 2, 1), None),
    ],
)
def test_votes_on_test_items_young_exams_and_unknown_dates_are_evaluation_only(benchmark, day, cutoff):
    assert use_of(question(benchmark, day), cutoff) == "evaluation-only"


def test_votes_on_an_old_exam_of_ones_own_may_train():
    assert use_of(question("own-exam", date(2017, 2, 1)), CUTOFF) == "training"


def record(model: str, text: str) -> Record:
    return Record(
        question_id="1", benchmark="own-exam", model=model, prompt="explain", status="answered", correct=True,
        points=1.0, points_total=1.0, completion=text,
    )  # fmt: skip


def test_only_decided_votes_on_training_items_become_pairs_with_the_chosen_text_first():
    texts = {"base": "短い", "final": "長い説明"}
    known = {"completion_a": digest(texts["base"]), "completion_b": digest(texts["final"])}
    votes = [
        vote(1, choice="b", use="training", **known),
        vote(2, choice="tie", use="training", **known),
        vote(3, choice="a", use="evaluation-only", **known),
        vote(4, choice="a", use="training"),
    ]
    prompt, bare = Prompt("例\n\n問題", (), (), " "), Prompt("問題", (), (), " ")
    rows = preference_rows(votes, lambda one, model: record(model, texts[model]), lambda one: (prompt, bare))
    assert [(row["chosen"], row["rejected"], row["origin"], row["pair"]) for row in rows] == [
        (" 長い説明", " 短い", "expert", "expert")
    ]
    assert [(row["prompt"], row["prompt_without_shots"], row["prompt_hash"]) for row in rows] == [
        ("例\n\n問題", "問題", prompt.hash)
    ]
