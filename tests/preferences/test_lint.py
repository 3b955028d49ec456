"""What in preference data teaches something else than the right answer."""

from dataclasses import replace

import pytest

from medllm.exam.question import Question
from medllm.generation.types import Reply
from medllm.preferences.lint import earlier_answer, filter_samples, foreign_diseases, lint
from medllm.preferences.pairs import PreferencePair, labelled
from tests.exam.making import question

ASKED: Question = replace(
    question(),
    text="発熱と咳嗽。診断はどれか。",
    choices=("肺炎", "胃潰瘍", "痛風", "脚気", "喘息"),
    explanation="肺炎である。",
)


def drawn(*texts):
    replies = [
        (number, None, Reply(key=str(number), text=text, finish_reason="stop", prompt_tokens=1, completion_tokens=1))
        for number, text in enumerate(texts)
    ]
    return labelled(ASKED, replies, model="m", revision=None, prompt_hash="h", max_similarity=0.95)


def pair(chosen, rejected, step="chosen>rejected"):
    return PreferencePair(
        prompt="p", chosen=chosen, rejected=rejected, prompt_without_shots="p", pair=step, origin="sampled",
        question_id=ASKED.question_id, benchmark=ASKED.benchmark, model="m", prompt_hash="h",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "earlier"),
    [
        ("正解はaである。\nよって経過も合う。\n答え:b", "a"),
        ("答え:a\n発熱がある。\n答え:b", "a"),
        ("aは誤り。bが正しい。\n答え:b", None),
        ("発熱がある。\n答え:b", None),
        ("答え:b", None),
        ("よく分からない。", None),
    ],
)
def test_an_explanation_that_gives_another_answer_before_the_last_one_is_found(text, earlier):
    assert earlier_answer(ASKED, text) == earlier


def test_diseases_of_the_question_its_choices_and_its_explanation_are_not_foreign():
    text = "肺炎よりも心筋梗塞を疑う。感染症の合併症として敗血症もある。\n答え:b"
    assert foreign_diseases(ASKED, text) == ["心筋梗塞", "敗血症"]
    assert foreign_diseases(ASKED, "肺炎球菌と胃癌検診、痛風。\n答え:b") == []


def test_a_filter_takes_right_answers_alone_out_of_the_pairs():
    samples = drawn("心筋梗塞である。\n答え:b", "肺炎である。\n答え:b", "心筋梗塞である。\n答え:e")
    assert [sample.label for sample in samples] == ["chosen", "chosen", "rejected"]
    filtered = filter_samples(ASKED, samples, ["foreign_disease"])
    assert [sample.label for sample in filtered] == ["untidy", "chosen", "rejected"]
    assert filter_samples(ASKED, samples, []) == samples


def test_the_report_counts_answers_and_pairs_by_hand():
    samples = drawn("心筋梗塞である。\n答え:b", "答え:e\nいや。\n答え:b", "肺炎である。\n答え:e")
    pairs = [
        pair("答え:b", "熱がある。\n答え:b", "gt>chosen"),
        pair("肺炎である。胸部に影がある。\n答え:b", "肺炎である。胸部に影がある。\n答え:e"),
        pair("とても長い説明が続く。\n答え:b", "答え:e"),
    ]
    report = lint([ASKED], {(ASKED.benchmark, ASKED.question_id): samples}, pairs)
    name = f"{ASKED.benchmark}/{ASKED.question_id}"
    assert report == {
        "right_answers": 2,
        "contradictions": [f"{name}#1"],
        "foreign_diseases": [f"{name}#0"],
        "diseases": {"心筋梗塞": 1},
        "near_copies": 1,
        "same_answer": 1,
        "length": {"chosen_longer": 1, "chosen_shorter": 1, "p": 1.0},
    }
