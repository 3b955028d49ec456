"""An exam of one's own is read from documented columns, and every fault in it is named by its line."""

import json
from datetime import date

import pytest

from medllm.errors import DataError
from medllm.exam.benchmarks import exemplars, load
from tests.refusals import refused

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
    assert (full.exam_date, full.points, full.required, full.vignette_id) == (date(2024, 2, 3), 3, True, "case-1")
    assert full.prohibited == frozenset("b")
    assert (least.numeric, least.gold_answer, least.points, least.exam_date) == (True, "2.5", 1, None)
    assert load("mine", tmp_path / "exam.jsonl") == [full, least], "the file itself may be named too"


def test_worked_examples_lie_beside_the_exam_and_are_not_part_of_it(tmp_path):
    write(tmp_path, LEAST)
    write(tmp_path, FULL, name="exemplars.jsonl")
    assert [question.question_id for question in load("mine", tmp_path)] == ["x-2"]
    assert [question.question_id for question in exemplars("mine", tmp_path)] == ["x-1"]


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        ({"answr": "a"}, "exam.unknown-column", ("answr", "question_id")),
        ({"choices": "ア,イ"}, "exam.choices-not-a-list", ("choices is 'ア,イ'.",)),
        ({"choices": ["ア"]}, "exam.one-choice", ("choices is ['ア'].",)),
        ({"choices": ["ア", " "]}, "exam.empty-choice", ("choices is ['ア', ' '].",)),
        ({"choices": ["Ａ", "A"]}, "exam.equal-choices", ("choices is ['Ａ', 'A'].",)),
        ({"choices": list("アイウエオカキクケ")}, "exam.too-many-choices", ("9 choices", "8")),
        ({"answer": None}, "exam.no-key", ("has no answer",)),
        ({"answer": "a,a"}, "exam.letter-twice", ("answer is 'a,a'.",)),
        ({"answer": ["d"]}, "exam.key-outside-choices", ("mine question x-1:", "key names d", "3 choices (a to c)")),
        ({"prohibited": ["z"]}, "exam.key-outside-choices", ("prohibited names z", "3 choices (a to c)")),
        ({"prohibited": FULL["answer"]}, "exam.prohibited-key", ("prohibited is",)),
        ({"accepted": "b"}, "exam.accepted-not-a-list", ("accepted is 'b'.",)),
        ({"accepted": [FULL["answer"]]}, "exam.answer-twice", ("accepted is",)),
        ({"text": ""}, "exam.missing-text", ("text is ''.",)),
        ({"category": 0.5}, "exam.not-text", ("category is 0.5.",)),
        ({"required": "true"}, "exam.not-true-or-false", ("required is 'true'.",)),
        ({"points": 1_001}, "exam.out-of-range", ("points is 1001.", "1,000")),
        ({"human_accuracy": 85}, "exam.out-of-range", ("human_accuracy is 85.", "0 to 1")),
        ({"language": "de"}, "exam.unknown-language", ("language is 'de'.",)),
        ({"exam_date": "3 Feb 2024"}, "exam.not-a-day", ("exam_date is '3 Feb 2024'.", "YYYY-MM-DD")),
    ],
)
def test_a_fault_is_named_by_its_line(tmp_path, change, code, values):
    with refused(code, "line 2: ", *values, kind=DataError):
        load("mine", write(tmp_path, LEAST, FULL | change))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("question_id", [None, "", " ", True, 1.5, ["x"], {}]),
        ("text", [None, "", "\u3000", False, ["x"], "\ud83d"]),
        (
            "choices",
            [
                None,
                "ア",
                {},
                ["ア"],
                ["ア", None],
                ["ア", 1],
                ["ア", ""],
                ["ア", "イ", "ア"],
                ["ア", "イ", "イ "],
                ["Ａ", "A"],
            ],
        ),
        ("answer", [None, "", [], ["a", "a"], "a,a", ["z"], "a,z", ["d"], ["ac"], 1, True, [None], [["a"]], {"a": 1}]),
        ("accepted", ["b", 3, True, [None], [["z"]], [[]], ["b", "b"], ["a,c"], {"b": 1}]),
        ("exam_date", ["", "2024", "20240203", "2024-13-01", "2024-02-30", 20240203, True, ["2024-02-03"]]),
        ("year", ["2024", 2024.5, 0, -1, 10_000, True, float("nan"), [2024]]),
        ("section", [True, 1.5, ["B"], {}]),
        ("points", ["3", "", -2, 0, 1.5, float("nan"), float("inf"), 1e308, 1_001, True, False, [3]]),
        ("required", ["false", "true", "", 0, 1, [True], float("nan")]),
        ("image", ["false", "no", 0, 1, [False]]),
        ("category", [True, 0.5, ["内科"]]),
        ("human_accuracy", ["0.8", -0.1, 1.01, 85, float("nan"), float("inf"), True]),
        ("prohibited", [["z"], "z", ["b", "b"], ["d"], ["a"], [None], [1], True, 1, {"b": 1}, ""]),
        ("explanation", [True, ["理由"], 0.5]),
        ("group", [True, ["case-1"], 1.5]),
        ("context", [False, ["症例"]]),
        ("language", ["de", "JA", "", True, 1, ["ja"]]),
    ],
)
def test_every_column_refuses_a_wrong_type_and_a_value_out_of_range_by_line_and_name(tmp_path, column, values):
    for value in values:
        row = FULL | {column: value}
        (tmp_path / "exam.jsonl").write_text(f"{json.dumps(LEAST)}\n{json.dumps(row)}", encoding="utf-8")
        with pytest.raises(DataError) as caught:
            load("mine", tmp_path)
        message = str(caught.value)
        assert "exam.jsonl line 2: " in message, (column, value)
        assert column in message or (column == "answer" and "the key" in message), (column, value, message)


@pytest.mark.parametrize("value", ["二", "2.5 g", "1e3", "nan", True, float("nan"), float("inf"), ["2"], "b"])
def test_a_question_without_choices_needs_a_number(tmp_path, value):
    (tmp_path / "exam.jsonl").write_text(json.dumps(LEAST | {"answer": value}), encoding="utf-8")
    with refused("exam.not-a-number", "line 1: answer is "):
        load("mine", tmp_path)


@pytest.mark.parametrize("value", ["", None, []])
@pytest.mark.parametrize("choices", [["x", "y"], []])
def test_a_question_without_a_key_is_refused_as_such(tmp_path, value, choices):
    (tmp_path / "exam.jsonl").write_text(json.dumps(LEAST | {"answer": value, "choices": choices}), encoding="utf-8")
    with refused("exam.no-key", "line 1", "has no answer"):
        load("mine", tmp_path)


@pytest.mark.parametrize(
    ("value", "read"), [("２．５", "2.5"), ("04", "04"), (21, "21"), ("1,130", "1130"), (-1, "-1")]
)
def test_a_number_is_read_in_the_forms_that_people_write(tmp_path, value, read):
    (one,) = load("mine", write(tmp_path, LEAST | {"answer": value}))
    assert one.gold_answer == read


def test_null_is_the_same_as_absent_where_a_column_may_be_left_out(tmp_path):
    optional = set(FULL) - {"question_id", "text", "choices", "answer"}
    bare = {name: FULL[name] for name in FULL if name not in optional}
    (null,) = load("mine", write(tmp_path, bare | dict.fromkeys(optional)))
    (absent,) = load("mine", write(tmp_path, bare))
    assert null == absent


def test_a_prohibited_letter_of_a_question_without_choices_is_refused(tmp_path):
    with refused("exam.prohibited-without-choices", "line 1: prohibited is "):
        load("mine", write(tmp_path, LEAST | {"prohibited": ["a"]}))


def test_a_column_that_a_line_names_twice_is_refused(tmp_path):
    (tmp_path / "exam.jsonl").write_text(json.dumps(LEAST)[:-1] + ', "points": 1, "points": 3}', encoding="utf-8")
    with refused("exam.duplicate-column", "line 1:", "points"):
        load("mine", tmp_path)


def test_an_id_that_two_lines_share_names_both(tmp_path):
    with refused("exam.duplicate-id", "line 2: question_id:", "x-2", "exam.jsonl line 1"):
        load("mine", write(tmp_path, LEAST, LEAST | {"text": "別"}))


def test_an_id_twice_an_empty_file_and_an_empty_folder_are_faults(tmp_path):
    with refused("exam.duplicate-id", "x-2"):
        load("mine", write(tmp_path, LEAST, LEAST))
    with refused("exam.empty-file", "exam.jsonl"):
        load("mine", write(tmp_path))
    (tmp_path / "empty").mkdir()
    with refused("exam.no-exam-in-folder", tmp_path / "empty", "mine"):
        load("mine", tmp_path / "empty")


def test_a_file_in_another_encoding_is_named_by_its_line(tmp_path):
    text = json.dumps(LEAST) + "\n" + json.dumps(FULL, ensure_ascii=False)
    (tmp_path / "exam.jsonl").write_bytes(text.encode("euc_jp"))
    with refused("exam.not-utf-8", "exam.jsonl line 2:"):
        load("mine", tmp_path)


def test_a_byte_order_mark_is_no_fault(tmp_path):
    (tmp_path / "exam.jsonl").write_text(json.dumps(LEAST), encoding="utf-8-sig")
    assert len(load("mine", tmp_path)) == 1
