"""Records survive both file forms, and a file that is no records file is named with its row and fault."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.errors import DataError
from medllm.exam.record import COLUMNS
from medllm.exam.records import SCHEMA, read_records, write_records
from tests.exam.making import record

RECORDS = [
    record("1", answer="b,d", completion="解説\n答え:b,d", finish_reason="stop", year=2018, group="g", probability=0.5),
    record("2", prompt="explain", status="truncated", correct=False, answer=None, truncated=True, prohibited="c"),
]


@pytest.mark.parametrize("name", ["r.parquet", "r.jsonl"])
def test_records_written_and_read_back_are_the_same(tmp_path, name):
    write_records(RECORDS, tmp_path / name)
    assert read_records(tmp_path / name) == RECORDS
    assert [path.name for path in tmp_path.iterdir()] == [name], "nothing half-made is left beside it"


def test_a_folder_of_an_evaluation_is_read_as_one(tmp_path):
    write_records(RECORDS[:1], tmp_path / "records" / "a.parquet")
    write_records(RECORDS[1:], tmp_path / "records" / "b.parquet")
    assert read_records(tmp_path) == RECORDS


def test_the_parquet_file_has_exactly_the_documented_columns(tmp_path):
    write_records(RECORDS, tmp_path / "r.parquet")
    assert tuple(pq.read_schema(tmp_path / "r.parquet").names) == COLUMNS == tuple(SCHEMA.names)


def test_records_from_pandas_with_nan_for_absent_are_read_as_absent(tmp_path):
    table = pa.Table.from_pylist([{**_row(), "year": float("nan"), "answer": None}])
    pq.write_table(table, tmp_path / "r.parquet")
    (read,) = read_records(tmp_path / "r.parquet")
    assert read.year is None
    assert read.answer is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"points": float("nan")}, "line 2: points is NaN"),
        ({"prompt": "explained"}, "line 2: prompt is 'explained'. It can be plain, explain"),
        ({"correct": 1}, "line 2: correct is 1, which is no bool"),
        ({"model": None}, "line 2: lacks model"),
        ({"points": 3.0}, "line 2: points is 3 of points_total 1"),
        ({"points": -1.0}, "line 2: points is -1 of points_total 1"),
        ({"points_total": float("inf")}, "line 2: points is 1 of points_total inf"),
        ({"points": float("-inf")}, "line 2: points is -inf"),
        ({"probability": 1.5}, "line 2: probability is 1.5"),
    ],
)
def test_a_row_that_is_no_record_is_named_with_its_fault(tmp_path, change, fault):
    lines = [_row(), _row() | change]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    with pytest.raises(DataError) as caught:
        read_records(tmp_path / "r.jsonl")
    assert fault in str(caught.value)


@pytest.mark.parametrize("change", [{"points": 3.0}, {"points_total": float("inf")}, {"probability": -0.5}])
def test_a_parquet_file_with_impossible_numbers_is_refused_by_its_row(tmp_path, change):
    write_records([RECORDS[0], dataclasses.replace(RECORDS[1], **change)], tmp_path / "r.parquet")
    with pytest.raises(DataError, match=f"row 2: {'probability' if 'probability' in change else 'points'} is"):
        read_records(tmp_path / "r.parquet")


def test_broken_json_names_its_line(tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps(_row()) + '\n\n{"question_id": ')
    with pytest.raises(DataError, match=r"r\.jsonl line 3: broken JSON at column"):
        read_records(tmp_path / "r.jsonl")


def test_a_line_in_another_encoding_is_named(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(json.dumps(_row()).encode() + b"\n" + '{"model": "日本"}'.encode("shift_jis"))
    with pytest.raises(DataError, match=r"line 2: is not UTF-8"):
        read_records(tmp_path / "r.jsonl")


@pytest.mark.parametrize("name", ["r.jsonl", "r.parquet"])
def test_an_empty_file_is_a_fault(tmp_path, name):
    if name.endswith("l"):
        (tmp_path / name).write_text("")
    else:
        pq.write_table(SCHEMA.empty_table(), tmp_path / name)
    with pytest.raises(DataError, match="is empty"):
        read_records(tmp_path / name)


def test_a_missing_file_and_a_folder_without_records_say_what_to_give(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_records(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="holds no records"):
        read_records(tmp_path)


def test_a_file_that_only_claims_to_be_parquet_is_a_fault(tmp_path):
    (tmp_path / "r.parquet").write_text("not parquet")
    with pytest.raises(DataError, match="is not a parquet file"):
        read_records(tmp_path / "r.parquet")


def _row():
    return {
        "question_id": "1", "benchmark": "x", "model": "m", "prompt": "plain", "status": "answered", "correct": True,
        "points": 1, "points_total": 1.0,
    }  # fmt: skip
