"""An exam of one's own is read from documented columns, and every fault in it is named by its line."""

import json
from datetime import date

import pytest

from medllm.errors import DataError
from medllm.exam.benchmarks import exemplars, load

FULL = {
    "question_id": "x-1", "text": "どれか。", "choices": ["ア", "イ", "ウ"], "answer": ["a", "c"], "accepted": ["b"],
    "exam_date": "2024-02-03", "year": 2024, "section": "B", "points": 3, "required": True, "image": False,
    "category": "内科", "human_accuracy": 0.8, "prohibited": ["b"], "explanation": "理由", "group": "case-1",
    "context": "症例", "language": "ja",
}  # fmt: skip
LEAST = {"question_id": "x-2", "text": "求めよ。", "choices": [], "answer": 2.5}


def write(folder, *rows, name="exam.jsonl"):
    (folder / name).write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    return folder


def test_all_columns_and_the_least_columns_are_read(tmp_path):
    full, least = load("mine", write(tmp_path, FULL, LEAST))
    assert full.gold == (frozenset("ac"), frozenset("b"))
    assert (full.exam_date, full.points, full.required, full.group) == (date(2024, 2, 3), 3, True, "case-1")
    assert full.prohibited == frozenset("b")
    assert (least.numeric, least.gold_answer, least.points, least.exam_date) == (True, "2.5", 1, None)
    assert load("mine", tmp_path / "exam.jsonl") == [full, least], "the file itself may be named too"


def test_worked_examples_lie_beside_the_exam_and_are_not_part_of_it(tmp_path):
    write(tmp_path, LEAST)
    write(tmp_path, FULL, name="exemplars.jsonl")
    assert [question.question_id for question in load("mine", tmp_path)] == ["x-2"]
    assert [question.question_id for question in exemplars("mine", tmp_path)] == ["x-1"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"answr": "a"}, "line 2: unknown column answr. The columns are question_id"),
        ({"choices": "ア,イ"}, "line 2: choices is 'ア,イ'. Give a list of texts"),
        ({"choices": list("アイウエオカキクケ")}, "line 2: has 9 choices. At most 8"),
        ({"answer": None}, "line 2: answer is None"),
        ({"answer": ["d"]}, "line 2: mine question x-1: the key names d but there are 3 choices"),
        ({"text": ""}, "line 2: text is ''"),
        ({"exam_date": "3 Feb 2024"}, "line 2: exam_date is '3 Feb 2024'. Write it as YYYY-MM-DD"),
    ],
)
def test_a_fault_is_named_by_its_line(tmp_path, change, fault):
    with pytest.raises(DataError) as caught:
        load("mine", write(tmp_path, LEAST, FULL | change))
    assert fault in str(caught.value)


def test_an_id_twice_an_empty_file_and_an_empty_folder_are_faults(tmp_path):
    with pytest.raises(DataError, match="the id x-2 occurs twice"):
        load("mine", write(tmp_path, LEAST, LEAST))
    with pytest.raises(DataError, match="is empty"):
        load("mine", write(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no exam named mine"):
        load("mine", tmp_path / "empty")


def test_a_file_in_another_encoding_is_named_by_its_line(tmp_path):
    text = json.dumps(LEAST) + "\n" + json.dumps(FULL, ensure_ascii=False)
    (tmp_path / "exam.jsonl").write_bytes(text.encode("euc_jp"))
    with pytest.raises(DataError, match=r"exam\.jsonl line 2: is not UTF-8"):
        load("mine", tmp_path)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "exam.jsonl").write_text(json.dumps(LEAST), encoding="utf-8-sig")
    assert len(load("mine", tmp_path)) == 1
