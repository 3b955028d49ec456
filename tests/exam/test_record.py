"""Records survive both file forms, and a file that is no records file is named with its row and fault."""

import dataclasses
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.errors import DataError
from medllm.exam.record import COLUMNS, read_records, schema, write_records
from tests.exam.making import record
from tests.refusals import refused

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
    assert tuple(pq.read_schema(tmp_path / "r.parquet").names) == COLUMNS == tuple(schema().names)


def test_records_from_pandas_with_nan_for_absent_are_read_as_absent(tmp_path):
    table = pa.Table.from_pylist([{**_row(), "year": float("nan"), "answer": None}])
    pq.write_table(table, tmp_path / "r.parquet")
    (read,) = read_records(tmp_path / "r.parquet")
    assert read.year is None
    assert read.answer is None


@pytest.mark.parametrize(
    ("change", "code", "values"),
    [
        ({"points": float("nan")}, "exam.nan", ("points",)),
        ({"prompt": "explained"}, "exam.unknown-value", ("prompt", "'explained'", "plain, explain")),
        ({"correct": 1}, "exam.wrong-type", ("correct", "1", "bool")),
        ({"model": None}, "exam.missing-columns", ("model",)),
        ({"points": 3.0}, "exam.wrong-points", ("points is 3 of points_total 1",)),
        ({"points": -1.0}, "exam.wrong-points", ("points is -1 of points_total 1",)),
        ({"points_total": float("inf")}, "exam.wrong-points", ("points is 1 of points_total inf",)),
        ({"points": float("-inf")}, "exam.wrong-points", ("points is -inf",)),
        ({"probability": 1.5}, "exam.out-of-range", ("probability is 1.5",)),
    ],
)
def test_a_row_that_is_no_record_is_named_with_its_fault(tmp_path, change, code, values):
    lines = [_row(), _row() | change]
    (tmp_path / "r.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    with refused(code, "r.jsonl line 2:", *values, kind=DataError):
        read_records(tmp_path / "r.jsonl")


@pytest.mark.parametrize("change", [{"points": 3.0}, {"points_total": float("inf")}, {"probability": -0.5}])
def test_a_parquet_file_with_impossible_numbers_is_refused_by_its_row(tmp_path, change):
    write_records([RECORDS[0], dataclasses.replace(RECORDS[1], **change)], tmp_path / "r.parquet")
    code = "exam.out-of-range" if "probability" in change else "exam.wrong-points"
    with refused(code, "r.parquet row 2:", *(str(value).removesuffix(".0") for value in change.values())):
        read_records(tmp_path / "r.parquet")


def test_broken_json_names_its_line(tmp_path):
    (tmp_path / "r.jsonl").write_text(json.dumps(_row()) + '\n\n{"question_id": ')
    with refused("exam.broken-json", "r.jsonl line 3:"):
        read_records(tmp_path / "r.jsonl")


def test_a_line_in_another_encoding_is_named(tmp_path):
    (tmp_path / "r.jsonl").write_bytes(json.dumps(_row()).encode() + b"\n" + '{"model": "日本"}'.encode("shift_jis"))
    with refused("exam.not-utf-8", "r.jsonl line 2:"):
        read_records(tmp_path / "r.jsonl")


@pytest.mark.parametrize("name", ["r.jsonl", "r.parquet"])
def test_an_empty_file_is_a_fault(tmp_path, name):
    if name.endswith("l"):
        (tmp_path / name).write_text("")
    else:
        pq.write_table(schema().empty_table(), tmp_path / name)
    with refused("exam.empty-file", name):
        read_records(tmp_path / name)


def test_a_missing_file_and_a_folder_without_records_say_what_to_give(tmp_path):
    with refused("exam.no-such-file", tmp_path / "none.parquet"):
        read_records(tmp_path / "none.parquet")
    with refused("exam.no-records", tmp_path):
        read_records(tmp_path)


def test_a_file_that_only_claims_to_be_parquet_is_a_fault(tmp_path):
    (tmp_path / "r.parquet").write_text("not parquet")
    with refused("exam.not-parquet", "r.parquet"):
        read_records(tmp_path / "r.parquet")


def _row():
    return {
        "question_id": "1", "benchmark": "x", "model": "m", "prompt": "plain", "status": "answered", "correct": True,
        "points": 1, "points_total": 1.0,
    }  # fmt: skip
