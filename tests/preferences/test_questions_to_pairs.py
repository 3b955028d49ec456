"""Labels, pairs and votes: what becomes of a sampled answer."""

import json
from datetime import date

import pytest

from medllm.exam.prompts import Prompt
from medllm.exam.question import Question
from medllm.generation.types import Reply
from medllm.preferences.pairs import STEPS, RankedAnswers, label, labelled, make_pairs, yield_report
from medllm.preferences.questions import printed_late
from medllm.preferences.votes import read_votes
from medllm.recipe.settings import DataSource
from tests.refusals import refused

QUESTION = Question(
    question_id="111A1",
    benchmark="own",
    text="発熱の原因はどれか。",
    choices=("肺炎", "胃炎", "骨折", "白内障", "難聴"),
    gold=(frozenset("a"),),
    key=("a",),
    explanation="肺炎は発熱をきたす。",
)
PROMPT = Prompt("例\n\nQuestion: x\nExplanation:", (), ("\nQuestion:",), " ")
BARE = Prompt("Question: x\nExplanation:", (), ("\nQuestion:",), " ")
TRUTH = "肺炎は発熱をきたす。\nAnswer: a"


def reply(text, reason="stop"):
    return Reply(key="k", text=text, finish_reason=reason, prompt_tokens=1, completion_tokens=len(text))


def samples_of(*texts, max_similarity=0.95):
    replies = [(number, 100 + number, reply(text)) for number, text in enumerate(texts)]
    return labelled(QUESTION, replies, model="m", revision="c0ffee", prompt_hash="h", max_similarity=max_similarity)


def pairs_of(*texts, most=3, steps=STEPS):
    ranked = RankedAnswers(PROMPT, BARE, TRUTH, samples_of(*texts))
    return make_pairs(ranked, steps=steps, most=most, max_similarity=0.95, seed=0, number=1)


@pytest.mark.parametrize(
    ("text", "reason", "expected"),
    [
        ("肺の病気である。\nAnswer: a", "stop", "chosen"),
        ("胃の病気である。\nAnswer: b", "stop", "rejected"),
        ("両方である。\nAnswer: a, b", "stop", "rejected"),
        ("わからない。", "stop", "unparsed"),
        ("肺の病気である。\nAnswer: a\n続いて", "length", "untidy"),
    ],
)
def test_an_answer_is_labelled_by_what_it_concludes(text, reason, expected):
    assert label(QUESTION, text, reason)[0] == expected


def test_the_hierarchy_is_ground_truth_above_right_above_wrong():
    right, wrong = " 肺の病気である。\nAnswer: a", " 胃の病気である。\nAnswer: b"
    pairs = {pair.pair: pair for pair in pairs_of(right, wrong)}
    assert set(pairs) == {"gt>chosen", "gt>rejected", "chosen>rejected"}
    assert pairs["gt>chosen"].chosen == pairs["gt>rejected"].chosen == " " + TRUTH
    assert pairs["gt>chosen"].rejected == pairs["chosen>rejected"].chosen == right
    assert pairs["gt>rejected"].rejected == pairs["chosen>rejected"].rejected == wrong
    every = list(pairs.values())
    assert {pair.prompt for pair in every} == {PROMPT.text}
    assert {pair.prompt_without_shots for pair in every} == {BARE.text}
    row = pairs["chosen>rejected"]
    assert (row.chosen_sample, row.rejected_sample, row.chosen_seed, row.rejected_seed) == (0, 1, 100, 101)
    assert (row.model, row.model_revision, row.prompt_hash, row.origin) == ("m", "c0ffee", "h", "sampled")


def test_unparsable_answers_are_in_no_pair():
    assert pairs_of("わからない。", "不明。") == []


def test_near_identical_answers_count_once():
    wrong = "胃の病気であると考えられるため、これを選ぶ。\nAnswer: b"
    samples = samples_of(wrong, wrong + " ", wrong.replace("。\n", "！\n"), max_similarity=0.8)
    assert [sample.duplicate for sample in samples] == [False, True, True]


def test_a_right_answer_that_is_the_ground_truth_is_not_ranked_below_it():
    assert [pair.pair for pair in pairs_of(TRUTH, "胃の病気。\nAnswer: b")] == ["gt>rejected", "chosen>rejected"]


def test_pairs_are_capped_by_step_and_use_different_texts_first():
    organs = "肝腎脳耳目"
    right = [f"{organ}ではなく肺の病気である。\nAnswer: a" for organ in organs]
    wrong = [f"{organ}の病気に違いない、と言える。\nAnswer: c" for organ in organs]
    pairs = pairs_of(*right, *wrong, most=3)
    assert len(pairs) == 9
    both = [pair for pair in pairs if pair.pair == "chosen>rejected"]
    assert len({pair.chosen for pair in both}) == len({pair.rejected for pair in both}) == 3
    assert [pair.row() for pair in pairs] == [pair.row() for pair in pairs_of(*right, *wrong, most=3)]


def test_the_yield_report_counts_questions_without_contrast_and_who_is_longer():
    samples = {
        "only right": samples_of("肺の病気。\nAnswer: a"),
        "only wrong": samples_of("胃の病気。\nAnswer: b"),
        "nothing": samples_of("わからない。", "不明。"),
    }
    report = yield_report(samples, pairs_of("胃の病気。\nAnswer: b"))
    assert report["questions_without_a_wrong_answer"] == 2
    assert report["questions_without_a_right_answer"] == 2
    assert report["questions_with_nothing_parsable"] == 1
    assert report["labels"] == {"chosen": 1, "rejected": 1, "unparsed": 2, "untidy": 0}
    assert report["lengths"]["gt>rejected"]["chosen_longer_share"] == 1.0


def test_votes_of_the_space_and_of_label_studio_become_pairs_of_origin_expert(tmp_path):
    row = {"prompt": "p", "chosen": " good", "rejected": " bad", "question_id": "Q1", "benchmark": "own"}
    (tmp_path / "space.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    data = {"prompt": "p", "answer1": " one", "answer2": " two", "question_id": "Q2", "benchmark": "own"}

    def judged(side):
        return {"result": [{"type": "pairwise", "value": {"selected": side}}]}

    task = {"id": 7, "data": data, "annotations": [judged("right"), judged("none"), {"result": []}]}
    (tmp_path / "studio.json").write_text(json.dumps([task]), "utf-8")
    pairs, undecided = read_votes(tmp_path, frozenset())
    assert [(pair.chosen, pair.rejected, pair.origin) for pair in pairs] == [
        (" good", " bad", "expert"),
        (" two", " one", "expert"),
    ]
    assert undecided == 2


def test_a_vote_on_a_held_out_question_is_refused_and_an_incomplete_one_named(tmp_path):
    row = {"prompt": "p", "chosen": " good", "rejected": " bad", "question_id": "116A1", "benchmark": "igakuqa"}
    (tmp_path / "votes.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    with refused("preferences.vote-on-held-out", "votes.jsonl line 1:", "igakuqa 116A1"):
        read_votes(tmp_path, frozenset({("igakuqa", "116A1")}))
    (tmp_path / "votes.jsonl").write_text(json.dumps({**row, "rejected": ""}) + "\n", "utf-8")
    with refused("preferences.missing-columns", "votes.jsonl line 1:", "rejected"):
        read_votes(tmp_path, frozenset())


@pytest.mark.parametrize(
    ("exam", "published", "late"),
    [
        ("yakugakuqa", None, True),  # the catalogue's own day, in 2024
        ("yakugakuqa", date(2017, 12, 31), False),
        ("own", None, False),  # nothing is known but the exams' days
        ("own", date(2018, 1, 1), True),
    ],
)
def test_explanations_published_after_the_cutoff_are_too_young_unless_the_recipe_states_their_day(
    exam, published, late
):
    source = DataSource(source="./past", exam=exam, published=published)
    assert printed_late(source, date(2017, 12, 31)) == ("published after the cutoff" if late else None)
    assert printed_late(source, None) is None
