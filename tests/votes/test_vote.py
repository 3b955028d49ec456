"""Agreement and the way from votes to preference rows: sides do not matter, test items never train."""

from datetime import date

import pytest

from medllm.exam.prompts import Prompt
from medllm.exam.question import Question
from medllm.exam.record import Record
from medllm.votes.vote import agreement, digest, kappa_of, preference_rows, use_of
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


def test_two_raters_agree_on_a_text_although_it_stood_on_different_sides():
    one = vote(1, rater="r1", choice="a")
    swapped = vote(1, rater="r2", choice="b", completion_a=one.completion_b, completion_b=one.completion_a)
    found = agreement([one, swapped])
    assert (found.votes, found.raters, found.pairs, found.equal) == (2, 2, 1, 1.0)


def test_a_rater_does_not_agree_with_themselves():
    assert agreement([vote(1, rater="r1"), vote(1, rater="r1")]).pairs == 0


def test_kappa_is_zero_for_choices_by_chance_and_one_for_equal_ones():
    by_chance = [(first, second) for first in "ab" for second in "ab"] * 10
    assert kappa_of(by_chance)[1] == pytest.approx(0)
    assert kappa_of([("a", "a"), ("b", "b")] * 10)[1] == pytest.approx(1)


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
