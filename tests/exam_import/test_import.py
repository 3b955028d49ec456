"""An exam as people have it (a Shift_JIS export, a workbook, JSON) becomes an exam of one's own."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from openpyxl import Workbook

from medllm.errors import DataError
from medllm.exam.benchmarks import custom, load
from medllm.exam_import import guess_columns, import_rows, parse_columns, read_sheet, write_exam
from medllm.exam_import.rows import ImportedExam
from tests.refusals import refused

HEADINGS = ("番号", "問題文", "選択肢1", "選択肢2", "選択肢3", "正解", "年度", "解説")
ROWS = (
    (1, "正しいのはどれか。", "肺炎", "胃炎", "膵炎", 2, 2019, "胃炎である。"),
    (2, "誤っているのは, どれか。", "赤血球", "白血球", "血小板", "1,3", 2020, ""),
)


def csv_file(path: Path, rows: Sequence[Sequence[Any]], encoding: str = "cp932", delimiter: str = ",") -> Path:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def workbook(path: Path, rows: Sequence[Sequence[Any]], **more: Sequence[Sequence[Any]]) -> Path:
    book = Workbook()
    for row in rows:
        book.active.append(list(row))
    for name, others in more.items():
        sheet = book.create_sheet(name)
        for row in others:
            sheet.append(list(row))
    book.save(path)
    return path


def imported(path: Path, columns: Sequence[str] = (), **options: Any) -> ImportedExam:
    sheet = read_sheet(path, options.pop("sheet", None))
    return import_rows(sheet, guess_columns(sheet, parse_columns(columns, sheet)), **options)


EXPECTED = [
    {
        "question_id": "1", "text": "正しいのはどれか。", "choices": ["肺炎", "胃炎", "膵炎"], "answer": "b",
        "year": 2019, "explanation": "胃炎である。",
    },
    {
        "question_id": "2", "text": "誤っているのは, どれか。", "choices": ["赤血球", "白血球", "血小板"],
        "answer": "a,c", "year": 2020,
    },
]  # fmt: skip


@pytest.mark.parametrize("encoding", ["cp932", "utf-8", "utf-8-sig", "utf-16", "euc_jp"])
def test_a_csv_is_read_in_the_encoding_that_it_has(tmp_path: Path, encoding: str):
    assert list(imported(csv_file(tmp_path / "exam.csv", (HEADINGS, *ROWS), encoding)).questions) == EXPECTED


@pytest.mark.parametrize("delimiter", ["\t", ";"])
def test_tabs_and_semicolons_between_cells_are_recognised(tmp_path: Path, delimiter: str):
    path = csv_file(tmp_path / "exam.csv", (HEADINGS, *ROWS), delimiter=delimiter)
    assert list(imported(path).questions) == EXPECTED


def test_a_workbook_with_a_title_above_its_headings_gives_the_same_questions(tmp_path: Path):
    path = workbook(tmp_path / "exam.xlsx", (("院内試験",), (), HEADINGS, *ROWS))
    assert list(imported(path).questions) == EXPECTED


def test_json_of_quiz_programs_is_read_with_choices_by_letter_and_keys_as_a_list_or_run_together(tmp_path: Path):
    options = {"A": "肺炎", "B": "胃炎", "C": "膵炎"}
    years = [
        {"id": "A001", "examYear": year, "prompt": "どれか。2つ選べ。", "options": options, "answer": "AC"}
        for year in (2023, 2024)
    ]
    (tmp_path / "years.json").write_text(json.dumps({"total": 2, "questions": years}), "utf-8")
    first, second = imported(tmp_path / "years.json").questions
    assert (first["text"], first["choices"], first["answer"]) == ("どれか。2つ選べ。", ["肺炎", "胃炎", "膵炎"], "a,c")
    assert (first["year"], second["year"]) == (2023, 2024)
    assert first["question_id"] != second["question_id"]
    choices = [{"id": "a", "text": "肺炎"}, {"id": "b", "text": "胃炎"}]
    row = {"id": 1, "text": "どれか。", "options": choices, "correctAnswers": ["b"]}
    (tmp_path / "list.json").write_text(json.dumps([row]), "utf-8")
    (question,) = imported(tmp_path / "list.json").questions
    assert (question["choices"], question["answer"]) == (["肺炎", "胃炎"], "b")


def test_json_with_english_names_gives_the_same_questions(tmp_path: Path):
    names = ("id", "question", "options", "answer", "year", "rationale")
    rows = [dict(zip(names, (*row[:2], list(row[2:5]), *row[5:]), strict=True)) for row in ROWS]
    (tmp_path / "exam.json").write_text(json.dumps({"title": "x", "questions": rows}, ensure_ascii=False), "utf-8")
    assert list(imported(tmp_path / "exam.json").questions) == EXPECTED


def key_of(
    tmp_path: Path, cell: object, choices: Sequence[str] = ("肺炎", "胃炎", "膵炎", "肝炎"), **options: Any
) -> Any:
    head = ("問題文", *(f"選択肢{at}" for at in range(1, len(choices) + 1)), "正解")
    rows = [head, ("正しいのはどれか。", *choices, cell)]
    (row,) = imported(workbook(tmp_path / "keys.xlsx", rows), **options).questions
    return [row["answer"], *row.get("accepted", [])]


@pytest.mark.parametrize(
    ("cell", "answers"),
    [
        (2, ["b"]), (2.0, ["b"]), ("2", ["b"]), ("２", ["b"]), ("②", ["b"]), ("b", ["b"]), ("Ｂ", ["b"]), ("ア", ["a"]),
        ("(2)", ["b"]), ("2番", ["b"]), ("正解：2", ["b"]), ("胃炎", ["b"]), ("1,3", ["a,c"]), ("1 3", ["a,c"]),
        ("①③", ["a,c"]), ("13", ["a,c"]), ("acd", ["a,c,d"]), ("1と3", ["a,c"]), ("ア・ウ", ["a,c"]), ("う", ["c"]),
        ("1または3", ["a", "c"]), ("a or d", ["a", "d"]), ("肺炎、膵炎", ["a,c"]),
    ],
)  # fmt: skip
def test_a_key_is_read_in_every_form_that_people_write(tmp_path: Path, cell: object, answers: list[str]):
    assert key_of(tmp_path, cell) == answers


@pytest.mark.parametrize(("first", "answer"), [(0, "a"), (1, None)])
def test_a_key_of_zero_needs_to_know_where_the_choices_begin(tmp_path: Path, first: int, answer: str | None):
    with refused("exam.ambiguous-keys", "--first-choice"):
        key_of(tmp_path, 0)
    if answer:
        assert key_of(tmp_path, 0, first_choice=first) == [answer]
    else:
        rows = [("問題文", "選択肢1", "選択肢2", "正解"), ("どれか。", "肺炎", "胃炎", 0)]
        (fault,) = imported(workbook(tmp_path / "zero.xlsx", rows), first_choice=first).faults
        assert fault.row == 2


def test_a_kana_that_two_orders_know_needs_to_be_decided(tmp_path: Path):
    with refused("exam.ambiguous-keys", "--kana"):
        key_of(tmp_path, "い")
    assert key_of(tmp_path, "い", kana="iroha") == ["a"]
    assert key_of(tmp_path, "い", kana="aiueo") == ["b"]
    assert key_of(tmp_path, "ろ") == ["b"]


@pytest.mark.parametrize("cell", ["急性虫垂炎", "9", "e", "", "1, 5", "?"])
def test_a_key_that_names_no_choice_is_a_fault_of_its_row(tmp_path: Path, cell: str):
    head = ("問題文", "選択肢1", "選択肢2", "選択肢3", "選択肢4", "正解")
    rows = [head, ("どれか。", "肺炎", "胃炎", "膵炎", "肝炎", 1), ("どれか。", "肺炎", "胃炎", "膵炎", "肝炎", cell)]
    exam = imported(csv_file(tmp_path / "exam.csv", rows))
    assert ([fault.row for fault in exam.faults], len(exam.questions)) == ([3], 1)


def numbers(tmp_path: Path, *rows: tuple[str, ...]) -> ImportedExam:
    head = ("問題文", "選択肢1", "選択肢2", "選択肢3", "正解")
    return imported(csv_file(tmp_path / "exam.csv", [head, *(("何個か。", *row) for row in rows)]))


def test_a_number_that_is_the_text_of_one_choice_and_the_place_of_another_is_refused(tmp_path: Path):
    assert [fault.row for fault in numbers(tmp_path, ("2", "3", "4", "2")).faults] == [2]
    assert [fault.row for fault in numbers(tmp_path, ("2", "3", "4", "2"), ("5", "6", "7", "6")).faults] == [2]


def test_numbers_are_places_where_another_row_proves_it(tmp_path: Path):
    exam = numbers(tmp_path, ("2", "3", "4", "2"), ("5", "6", "7", "3"))
    assert ([row["answer"] for row in exam.questions], exam.faults) == (["b", "c"], ())


def test_a_number_may_be_the_text_of_a_choice(tmp_path: Path):
    assert [row["answer"] for row in numbers(tmp_path, ("5", "6", "7", "6")).questions] == ["b"]


@pytest.mark.parametrize(
    ("cell", "answer"),
    [
        ("21.5", "21.5"), (21.5, "21.5"), ("21.5 kg/m2", "21.5"), ("２１．５ｋｇ/ｍ²", "21.5"),
        ("BMI = 62/1.7^2 = 21.5", "21.5"), ("1,200 mL", "1200"), (28, "28"),
    ],
)  # fmt: skip
def test_a_numeric_key_is_read_with_its_unit(tmp_path: Path, cell: object, answer: str):
    path = workbook(tmp_path / "exam.xlsx", [("問題文", "正解"), ("BMI を求めよ。", cell)])
    (row,) = imported(path).questions
    assert (row["answer"], row["choices"]) == (answer, [])


@pytest.mark.parametrize("cell", ["急性虫垂炎", "10〜20 mg", "20-30"])
def test_a_free_text_or_a_range_without_choices_is_a_fault(tmp_path: Path, cell: str):
    exam = imported(csv_file(tmp_path / "exam.csv", [("問題文", "正解"), ("病名を答えよ。", cell)]))
    assert [fault.row for fault in exam.faults] == [2]


@pytest.mark.parametrize(
    "cell",
    [
        "肺炎\n胃炎\n膵炎", "肺炎；胃炎；膵炎", "a. 肺炎\nb. 胃炎\nc. 膵炎", "①肺炎②胃炎③膵炎",
        '["肺炎", "胃炎", "膵炎"]', "1) 肺炎 2) 胃炎 3) 膵炎",
    ],
)  # fmt: skip
def test_all_choices_may_be_in_one_cell(tmp_path: Path, cell: str):
    path = csv_file(tmp_path / "exam.csv", [("問題文", "選択肢", "正解"), ("どれか。", cell, "3")])
    (row,) = imported(path).questions
    assert (row["choices"], row["answer"]) == (["肺炎", "胃炎", "膵炎"], "c")


@pytest.mark.parametrize(
    "text",
    ["どれか。\na 肺炎\nb 胃炎", "どれか。\n1. 肺炎\n2. 胃炎", "どれか。①肺炎 ②胃炎", "どれか。(ア)肺炎 (イ)胃炎"],
)
def test_choices_at_the_end_of_the_question_are_cut_off_it(tmp_path: Path, text: str):
    (row,) = imported(csv_file(tmp_path / "exam.csv", [("問題文", "正解"), (text, "2")])).questions
    assert (row["text"], row["choices"], row["answer"]) == ("どれか。", ["肺炎", "胃炎"], "b")


def test_labels_before_the_choices_are_dropped_and_empty_last_choices_too(tmp_path: Path):
    rows = [("問題文", "A", "B", "C", "正解"), ("どれか。", "ア 肺炎", "イ 胃炎", "", "B")]
    (row,) = imported(csv_file(tmp_path / "exam.csv", rows)).questions
    assert (row["choices"], row["answer"]) == (["肺炎", "胃炎"], "b")


@pytest.mark.parametrize(
    "choices", [("1 年", "2 年"), ("1.5 mL", "2.5 mL"), ("①", "②"), ("a 波", "b 波"), ("1 日", "2 週")]
)
def test_choices_that_only_look_labelled_stay_as_they_are(tmp_path: Path, choices: tuple[str, str]):
    rows = [("問題文", "A", "B", "正解"), ("どれか。", *choices, "B")]
    assert imported(csv_file(tmp_path / "exam.csv", rows)).questions[0]["choices"] == list(choices)


def test_an_empty_choice_between_two_others_is_a_fault(tmp_path: Path):
    rows = [("問題文", "A", "B", "C", "正解"), ("どれか。", "肺炎", "", "膵炎", "C")]
    (fault,) = imported(csv_file(tmp_path / "exam.csv", rows)).faults
    assert fault.row == 2
    assert "choice 2" in fault.text


@pytest.mark.parametrize(
    ("cell", "year"),
    [
        (2019, 2019), ("2019年度", 2019), ("令和3年", 2021), ("H30", 2018), (date(2020, 2, 8), 2020),
        ("第113回（2019年）", 2019),
    ],
)  # fmt: skip
def test_years_are_read_in_western_and_japanese_form(tmp_path: Path, cell: object, year: int):
    path = workbook(
        tmp_path / "exam.xlsx", [("問題文", "A", "B", "正解", "年度"), ("どれか。", "肺炎", "胃炎", "A", cell)]
    )
    assert imported(path).questions[0]["year"] == year


def test_a_date_of_excel_is_the_day_of_the_exam(tmp_path: Path):
    rows = [("問題文", "A", "B", "正解", "実施日"), ("どれか。", "肺炎", "胃炎", "A", date(2020, 2, 8))]
    row = imported(workbook(tmp_path / "exam.xlsx", rows)).questions[0]
    assert (row["exam_date"], row["year"]) == ("2020-02-08", 2020)


def test_ids_that_begin_again_each_year_get_the_year(tmp_path: Path):
    rows = [HEADINGS, ROWS[0], (1, *ROWS[1][1:])]
    assert [row["question_id"] for row in imported(csv_file(tmp_path / "exam.csv", rows)).questions] == [
        "2019-1",
        "2020-1",
    ]


def test_an_id_that_occurs_twice_in_a_year_is_a_fault_of_the_second_row(tmp_path: Path):
    exam = imported(csv_file(tmp_path / "exam.csv", [HEADINGS, ROWS[0], ROWS[0]]))
    assert [fault.row for fault in exam.faults] == [3]


def test_a_named_image_is_counted_and_reported(tmp_path: Path):
    rows = [
        ("問題文", "A", "B", "正解", "画像"),
        ("どれか。", "肺炎", "胃炎", "A", "fig1.png"),
        ("どれか。", "肺炎", "胃炎", "A", ""),
    ]
    exam = imported(csv_file(tmp_path / "exam.csv", rows))
    assert [row.get("image") for row in exam.questions] == [True, None]
    assert any("fig1.png" in note for note in exam.notes)


@pytest.mark.parametrize(
    ("explanation", "noted"),
    [
        ("正解は３である。", True),
        ("①は誤り。", True),
        ("選択肢2は禁忌である。", True),
        ("正答：イ", True),
        ("3番が正しい。", True),
        ("3日後に再診する。血圧は正しく測る。答えは37.5である。", False),
        ("正解はbである。治療は2番目の選択である。9は誤り。", False),
        ("正解はアスピリンである。", False),
    ],
)
def test_explanations_that_name_choices_otherwise_than_they_are_asked_are_noted(tmp_path: Path, explanation, noted):
    rows = [HEADINGS, ("1", "正しいのはどれか。", "肺炎", "胃炎", "心不全", "3", "2019", explanation)]
    exam = imported(csv_file(tmp_path / "exam.csv", rows))
    assert exam.questions[0]["explanation"] == explanation
    assert (
        [note for note in exam.notes if "name choices" in note and "row 2" in note] != [] if noted else exam.notes == ()
    )


def test_a_row_that_the_reader_of_exams_would_refuse_is_a_fault_of_that_row(tmp_path: Path):
    good = ("1", "正しいのはどれか。", "肺炎", "胃炎", "心不全", "3", "2019", "")
    twice = ("2", "空気はどこを通るか。", "気管支", "肺胞", "気管支", "2", "2019", "")
    exam = imported(csv_file(tmp_path / "exam.csv", [HEADINGS, good, twice]))
    assert [row["question_id"] for row in exam.questions] == ["1"]
    (fault,) = exam.faults
    assert fault.row == 3 and fault.text.startswith("choices is ") and "same text" in fault.text


def test_columns_without_known_headings_are_unsure(tmp_path: Path):
    rows = [
        ("x", "y", "z1", "z2"),
        ("この疾患で正しいのはどれか。", "b", "肺炎", "胃炎"),
        ("誤っているのはどれか選べ。", "a", "心不全", "腎不全"),
    ]
    sheet = read_sheet(csv_file(tmp_path / "exam.csv", rows))
    guess = guess_columns(sheet)
    assert (guess.fields, sorted(guess.unsure)) == ({"text": "x", "answer": "y"}, ["answer", "text"])
    named = guess_columns(sheet, parse_columns(["text=x,answer=y,choices=z1..z2"], sheet))
    assert (named.unsure, named.choices) == ((), ("z1", "z2"))


def test_a_comma_in_every_question_is_named_with_its_rows(tmp_path: Path):
    (tmp_path / "exam.csv").write_text("問題文,正解\n発熱, 咳嗽を認める。,a\n頭痛, 悪心を認める。,b\n", "utf-8")
    with refused("exam.too-many-cells", "2 rows", "2 (3 cells)"):
        read_sheet(tmp_path / "exam.csv")


def test_a_workbook_with_several_filled_sheets_needs_one_to_be_named(tmp_path: Path):
    path = workbook(tmp_path / "exam.xlsx", (HEADINGS, *ROWS), second=(HEADINGS, *ROWS))
    with refused("exam.several-sheets", "second", "--sheet"):
        read_sheet(path)
    assert len(imported(path, sheet="second").questions) == 2
    with refused("exam.unknown-sheet", "third", "second"):
        read_sheet(path, "third")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.xlsx", b"PK\x03\x04 broken", "exam.broken-workbook"),
        ("a.docx", b"x", "exam.unknown-table-format"),
        ("a.csv", b"", "exam.empty-table"),
        ("a.csv", "問題文,正解\n".encode(), "exam.empty-table"),
        ("a.csv", b"\x00\x01\x02\xff\x00", "exam.not-utf-8"),
        ("a.csv", "問題文,問題文\nx,y\n".encode(), "exam.heading-twice"),
        ("a.json", b"{", "exam.broken-json"),
        ("a.json", b'{"a": 1}', "exam.no-list-of-questions"),
        ("a.jsonl", b"[1]\n", "exam.row-is-no-object"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_its_name(tmp_path: Path, name: str, content: bytes, code: str):
    (tmp_path / name).write_bytes(content)
    with refused(code, name):
        read_sheet(tmp_path / name)
    with refused("exam.no-such-file", "none.csv"):
        read_sheet(tmp_path / "none.csv")


def test_what_is_written_is_read_by_the_reader_of_own_exams(tmp_path: Path):
    path = csv_file(tmp_path / "exam.csv", (HEADINGS, *ROWS))
    sheet = read_sheet(path)
    columns = guess_columns(sheet)
    write_exam(import_rows(sheet, columns), tmp_path / "naika", str(path), columns)
    questions = custom.read(tmp_path / "naika", "naika")
    assert [(one.question_id, one.gold_answer, one.year) for one in questions] == [("1", "b", 2019), ("2", "a,c", 2020)]
    assert json.loads((tmp_path / "naika" / "import.json").read_text("utf-8"))["by_year"] == {"2019": 1, "2020": 1}
    assert sorted(one.name for one in (tmp_path / "naika").iterdir()) == ["import.json", "questions.jsonl"]


def test_a_folder_with_other_files_is_not_written_to(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    sheet = read_sheet(csv_file(tmp_path / "exam.csv", (HEADINGS, *ROWS)))
    columns = guess_columns(sheet)
    with refused("exam.folder-not-empty", "mine", kind=DataError):
        write_exam(import_rows(sheet, columns), tmp_path / "mine", "exam.csv", columns)
    assert [one.name for one in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_igakuqa_written_as_a_table_comes_back_with_every_key(tmp_path: Path, shared_data: Path, kind: str):
    questions = load("igakuqa", shared_data / "igakuqa")
    head = ("問題番号", "問題文", *(f"選択肢{at}" for at in range(1, 9)), "正解", "年度", "配点")
    rows: list[tuple[Any, ...]] = [head]
    for one in questions:
        choices = (*one.choices, *[""] * (8 - len(one.choices)))
        letters = [] if one.numeric else [str("abcdefgh".index(letter) + 1) for letter in sorted(one.gold[0])]
        key = ",".join(letters) or one.gold_answer
        rows.append((one.question_id, one.text, *choices, key, one.year, one.points))
    path = csv_file(tmp_path / "exam.csv", rows, "utf-8") if kind == "csv" else workbook(tmp_path / "exam.xlsx", rows)
    exam = imported(path)
    # Questions without points and choices that are pictures cannot be asked, and are named by their rows.
    askable = [one for one in questions if one.points > 0 and all(choice.strip() for choice in one.choices)]
    assert len(exam.faults) == len(questions) - len(askable) > 5
    answers = {row["question_id"]: (row["answer"], row["choices"], row.get("points", 1)) for row in exam.questions}
    assert answers == {
        one.question_id: (one.gold_answer, [choice.strip() for choice in one.choices], one.points) for one in askable
    }
