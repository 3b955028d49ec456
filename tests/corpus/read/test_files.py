"""Every kind of source, past exams too, becomes texts with their place; what cannot be read is named and counted."""

import csv
import gzip
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.corpus.decontaminate.exam_items import held_out
from medllm.corpus.documents import Draft
from medllm.corpus.read import raw_files, rows
from medllm.corpus.read.files import read_drafts, read_exam
from medllm.corpus.read.sources import TextSource, split_source
from medllm.exam import benchmarks
from tests.refusals import refused

TEXT = "六十歳の女性。発熱と咳とを主訴に来院した。"


def drafts(folder: Path, **options) -> list[Draft]:
    return [draft for piece in split_source(TextSource("notes", folder, **options)) for draft in read_drafts(piece)]


def only(folder: Path, **options) -> Draft:
    (draft,) = drafts(folder, **options)
    return draft


def reasons(found: list[Draft]) -> list[str]:
    """The reason under which each draft that could not be read is counted."""
    return [draft.fault.partition(": ")[0] for draft in found if draft.fault]


def test_json_lines_carry_text_place_and_what_a_row_says_of_itself(tmp_path):
    row = {"id": "a1", "text": TEXT, "date": "平成27年", "license": "CC0", "other": 1}
    (tmp_path / "rows.jsonl").write_text(
        json.dumps(row, ensure_ascii=False) + "\n\n" + json.dumps({"text": "二"}) + "\n"
    )
    first, second = drafts(tmp_path, license="cc-by-4.0", published="2016")
    assert (first.text, first.locator, first.published, first.license) == (TEXT, "rows.jsonl:1#a1", "平成27年", "CC0")
    assert (second.locator, second.published, second.license) == ("rows.jsonl:3", "2016", "cc-by-4.0")


def test_columns_are_mapped_by_the_recipe(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"in": TEXT, "name": "肺炎", "issued": "2015"}))
    draft = only(tmp_path, columns={"text": "in", "id": "name", "published": "issued"})
    assert (draft.text, draft.locator, draft.published) == (TEXT, "rows.jsonl:1#肺炎", "2015")


def test_a_column_that_is_nowhere_is_a_fault_of_the_recipe(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"in": TEXT, "name": "肺炎"}))
    with refused("corpus.no-text-column", "notes: rows.jsonl:1", "`text`", "in, name", "{text: NAME}"):
        drafts(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "cp932", "euc_jp", "utf-16"])
def test_json_lines_are_read_in_any_japanese_encoding(tmp_path, encoding):
    written = "".join(json.dumps({"text": TEXT * (n + 1)}, ensure_ascii=False) + "\n" for n in range(3))
    (tmp_path / "rows.jsonl").write_bytes(written.encode(encoding))
    assert [draft.text for draft in drafts(tmp_path)] == [TEXT, TEXT * 2, TEXT * 3]


def test_a_long_file_is_cut_at_its_lines_and_no_line_is_lost_or_read_twice(tmp_path, monkeypatch):
    rows = [json.dumps({"text": f"{number}。{TEXT * (number % 7)}"}, ensure_ascii=False) for number in range(500)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows) + "\n", "utf-8")
    whole = drafts(tmp_path)
    for size in (997, 1000, 4096, len(rows[0].encode()) + 1):
        monkeypatch.setattr("medllm.corpus.read.sources.PIECE", size)
        assert len(split_source(TextSource("notes", tmp_path))) > 10
        assert drafts(tmp_path) == whole
    assert len(whole) == 500


def test_the_mark_at_the_head_of_a_file_is_no_part_of_its_first_line(tmp_path):
    line = json.dumps({"text": TEXT}, ensure_ascii=False).encode()
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\n{broken\n" + line + b"\n")
    assert [draft.text == TEXT for draft in drafts(tmp_path)] == [True, False, True]


def test_half_a_character_becomes_a_mark_that_a_file_can_hold(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a\\ud83d b", "id": "\\udc00", "license": "\\ud800"}', "utf-8")
    found = only(tmp_path)
    assert (found.text, found.locator, found.license) == ("a\ufffd b", "rows.jsonl:1#\ufffd", "\ufffd")


def test_tables_pages_and_packed_lines_are_read(tmp_path):
    pq.write_table(pa.table({"text": [TEXT, "二"], "year": [2015, 2016], "x": [1, 2]}), tmp_path / "a.parquet")
    with (tmp_path / "b.csv").open("w", encoding="cp932", newline="") as stream:
        csv.writer(stream).writerows([["text", "date"], [TEXT + "\n改行", "2014"]])
    (tmp_path / "c.txt").write_text(TEXT, "euc_jp")
    (tmp_path / "d.md").write_text("---\ndate: 2013-04-05\nlicense: CC BY 4.0\n---\n# 肺炎\n" + TEXT, "utf-8")
    with gzip.open(tmp_path / "e.jsonl.gz", "wt", encoding="utf-8") as stream:
        stream.write(json.dumps({"text": TEXT}))
    with zipfile.ZipFile(tmp_path / "f.zip", "w") as archive:
        archive.writestr("inner/one.txt", TEXT)
        archive.writestr("inner/two.jpg", b"\xff\xd8")
    (tmp_path / "g.json").write_text(json.dumps([{"text": TEXT}, "not a row"]), "utf-8")
    found = {draft.locator: draft for draft in drafts(tmp_path)}
    assert found["a.parquet:1"].published == "2015"
    assert found["b.csv:3"].text == TEXT + "\n改行"
    assert found["c.txt"].text == TEXT
    assert (found["d.md"].published, found["d.md"].license) == ("2013-04-05", "CC BY 4.0")
    assert found["e.jsonl.gz:1"].text == TEXT
    assert found["f.zip/inner/one.txt"].text == TEXT
    assert found["f.zip/inner/two.jpg"].fault.startswith("unknown_format: `jpg`")
    assert reasons([found["g.json:2"]]) == ["broken_json"]
    assert len(found) == 10


def test_files_that_describe_a_dataset_are_counted_and_are_not_its_texts(tmp_path):
    (tmp_path / "README.md").write_text("# A card")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.txt").write_text(TEXT)
    (tmp_path / "LICENSE").write_text("MIT")
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    found = drafts(tmp_path)
    assert [draft.locator for draft in found if draft.fault is None] == ["a.txt"]
    dropped = [draft for draft in found if draft.fault]
    assert [draft.locator for draft in dropped] == ["LICENSE", "README.md"]
    assert reasons(dropped) == ["about_the_source", "about_the_source"]


def test_a_folder_without_texts_and_one_that_is_not_there_are_named(tmp_path):
    with refused("corpus.nothing-readable", "notes: ", ".jsonl, "):
        drafts(tmp_path)
    with refused("corpus.no-source", "notes: ", tmp_path / "nowhere"):
        drafts(tmp_path / "nowhere")


def test_a_file_with_one_broken_line_keeps_the_others(tmp_path):
    good = json.dumps({"text": TEXT}, ensure_ascii=False).encode()
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join([good, b'{"text": "\xe3\x81"}', b"{broken", b"[1, 2]", good]))
    found = drafts(tmp_path)
    assert [draft.text == TEXT for draft in found] == [True, False, False, False, True]
    assert reasons(found) == ["broken_encoding", "broken_json", "broken_json"]
    assert "byte 10" in found[1].fault and "column 2" in found[2].fault


@pytest.mark.parametrize("size", [2**27, pytest.param(2**31, marks=pytest.mark.long)], ids=["128 MiB", "2 GiB"])
def test_a_line_that_is_too_long_is_refused_without_being_held(tmp_path, size):
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as stream:
        stream.write(b'{"text": "' + "あ".encode() * 30_000)
        stream.seek(size)
        stream.write(b'"}\n' + json.dumps({"text": TEXT}).encode() + b"\n")
    long, after = drafts(tmp_path)
    assert reasons([long]) == ["too_large"]
    assert f"{size + 3:,} bytes" in long.fault and "67,108,864" in long.fault
    assert long.text == ""
    assert (after.text, after.locator) == (TEXT, "rows.jsonl:2")


def test_a_page_larger_than_a_document_may_be_is_refused(tmp_path):
    with (tmp_path / "a.txt").open("wb") as stream:
        stream.truncate(raw_files.LARGEST + 1)
    found = only(tmp_path)
    assert reasons([found]) == ["too_large"]
    assert "67,108,865 bytes" in found.fault and "67,108,864" in found.fault


def test_an_empty_file_is_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.csv").write_bytes(b" \n")
    (tmp_path / "c.jsonl").write_bytes(b"\n\n")
    (tmp_path / "d.jsonl.gz").write_bytes(gzip.compress(b""))
    assert reasons(drafts(tmp_path)) == ["empty_file"] * 4


def test_lines_and_files_nested_beyond_reason_are_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ' + "[" * 200_000 + "]" * 200_000 + "}\n")
    (tmp_path / "b.json").write_text("[" * 200_000)
    found = drafts(tmp_path)
    assert reasons(found) == ["broken_json"] * 2
    assert all("nested" in draft.fault for draft in found)


def test_bombs_are_named_and_not_unpacked(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as stream:
        for _ in range(40):
            stream.write(b'{"text": "' + b"0" * 1_000_000 + b'"}\n')
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.txt", b"0" * 30_000_000)
    table = pa.table({"text": ["0" * 1000] * 1000})
    pq.write_table(table, tmp_path / "c.parquet")
    found = drafts(tmp_path)
    first, second = (draft for draft in found if draft.fault)
    assert reasons([first, second]) == ["archive_bomb"] * 2
    assert "16,777,216 bytes" in first.fault and "30,000,000 bytes" in second.fault
    assert len([draft for draft in found if draft.locator.startswith("c.parquet")]) == 1000


def test_packed_lines_that_break_off_keep_what_came_before(tmp_path):
    packed = gzip.compress(b"".join(b'{"text": "%d"}\n' % number for number in range(50_000)))
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "b.jsonl.gz").write_bytes(b"not packed at all")
    (tmp_path / "c.txt").symlink_to("gone")
    (tmp_path / "d.jsonl").write_text('{"text": 1' + "0" * 5000 + "}\n")
    *before, broken, plain, number = drafts(tmp_path)
    assert len(before) > 10_000
    assert reasons([broken, plain, number]) == ["broken_archive", "broken_archive", "broken_json"]
    assert "end-of-stream" in broken.fault and "b'no'" in plain.fault and "number" in number.fault


def test_a_file_that_is_gone_when_it_is_read_is_named(tmp_path):
    (tmp_path / "a.txt").write_text(TEXT, "utf-8")
    (piece,) = split_source(TextSource("notes", tmp_path))
    (tmp_path / "a.txt").unlink()
    (found,) = read_drafts(piece)
    assert found.fault.startswith("unreadable_file: No such file or directory.")


def test_a_broken_parquet_table_and_archive_are_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    (tmp_path / "b.zip").write_bytes(b"PK and nothing more")
    assert reasons(drafts(tmp_path)) == ["broken_parquet", "broken_archive"]


def test_a_row_group_that_would_not_fit_is_refused(tmp_path, monkeypatch):
    pq.write_table(pa.table({"text": [TEXT] * 1000}), tmp_path / "a.parquet", use_dictionary=False)
    monkeypatch.setattr("medllm.corpus.read.rows.ROOM", 1000)
    found = only(tmp_path)
    assert reasons([found]) == ["archive_bomb"] and "row group 0" in found.fault


def test_an_unknown_kind_of_file_is_counted_beside_the_texts(tmp_path):
    (tmp_path / "a.odt").write_bytes(b"PK")
    (tmp_path / "b.txt").write_text(TEXT, "utf-8")
    assert drafts(tmp_path)[0].fault.startswith("unknown_format: `odt`")


def test_a_csv_with_a_runaway_quote_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "LARGEST", 1000)
    buffer = io.StringIO()
    csv.writer(buffer).writerows([["text"], ["あ" * 2000]])
    (tmp_path / "a.csv").write_text(buffer.getvalue(), "utf-8")
    before = csv.field_size_limit()
    found = only(tmp_path)
    assert reasons([found]) == ["broken_table"] and "line 1" in found.fault and "(1000)" in found.fault
    assert csv.field_size_limit() == before, "other readers of this process keep their own limit"


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


def test_an_item_with_a_year_alone_is_dated_by_the_years_last_day_unless_the_recipe_states_the_day(tmp_path):
    undated = exam(tmp_path, {**ROW, "exam_date": None, "year": 2015})
    stated = replace(undated, exam_date="2015-02-07")
    assert [next(iter(read_exam(source))).exam_date for source in (undated, stated)] == ["2015-12-31", "2015-02-07"]


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
