"""Past exams are written out as in the paper; questions that want a picture are not, those that do not are."""

import json
from pathlib import Path

import pytest

from medllm.corpus.decontaminate.exam_items import held_out
from medllm.corpus.read.exam_sets import read_exam
from medllm.corpus.read.sources import TextSource
from medllm.exam import benchmarks

ROW = {
    "question_id": "P1",
    "text": "牛乳と一緒に飲んではならないのはどれか。",
    "choices": ["テトラサイクリン", "葉酸"],
    "answer": "a",
    "exam_date": "2015-03-01",
    "explanation": "カルシウムと結びつく。",
}


def exam(folder: Path, *rows: dict) -> TextSource:
    written = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (folder / "questions.jsonl").write_text(written, "utf-8")
    return TextSource("./past", folder, exam="own", license="cc-by-4.0", published="2016", kind="exam")


def test_each_item_is_written_plainly_and_explained(tmp_path):
    plain, explained = read_exam(exam(tmp_path, ROW))
    asked = "Question: 牛乳と一緒に飲んではならないのはどれか。\na. テトラサイクリン\nb. 葉酸\n"
    assert plain.text == asked + "Answer: a"
    assert explained.text == asked + "Explanation: カルシウムと結びつく。\nAnswer: a"
    assert plain.locator != explained.locator
    assert plain.group == explained.group == "own/P1"
    assert (plain.exam_date, plain.published, plain.license) == ("2015-03-01", "2016", "cc-by-4.0")


def test_an_item_without_an_explanation_is_written_plainly_only(tmp_path):
    (only,) = read_exam(exam(tmp_path, {**ROW, "explanation": None}))
    assert only.locator == "P1 plain"


@pytest.mark.parametrize(
    ("changed", "wants"),
    [
        ({"text": "下図の構造をもつのはどれか。"}, True),
        ({"text": "以下の薬剤が処方された。誤っているのはどれか。"}, True),
        ({"text": "化合物Aの主生成物はどれか。"}, True),
        ({"choices": ["(図1)", "(図2)"]}, True),
        ({"text": "牛乳に関する記述のうち、正しいのはどれか。"}, False),
        ({"text": "以下の記述のうち、正しいのはどれか。"}, False),
    ],
)
def test_a_question_printed_with_a_picture_is_dropped_only_when_it_speaks_of_it(tmp_path, changed, wants):
    drafts = list(read_exam(exam(tmp_path, {**ROW, **changed, "image": True})))
    assert [draft.fault is not None for draft in drafts] == [wants, wants]


def test_held_out_items_have_their_case_and_their_options(tmp_path):
    exam(tmp_path, {**ROW, "context": "五十歳の男性。"})
    (item,) = held_out([("own", tmp_path)])
    assert (item.name, item.question) == ("own/P1", "五十歳の男性。\n牛乳と一緒に飲んではならないのはどれか。")
    assert item.options == ("テトラサイクリン", "葉酸")


def test_the_pharmacists_exams_are_read_with_their_dates_and_their_catalogue_license(shared_data):
    source = TextSource("yakugakuqa", shared_data / "yakugakuqa", exam="yakugakuqa", kind="exam")
    drafts = list(read_exam(source))
    questions = benchmarks.load("yakugakuqa", shared_data / "yakugakuqa")
    assert {draft.group for draft in drafts} == {f"yakugakuqa/{question.question_id}" for question in questions}
    assert {draft.license for draft in drafts} == {"CC-BY-SA-4.0"}
    assert min(str(draft.exam_date) for draft in drafts) == "2012-03-03"
