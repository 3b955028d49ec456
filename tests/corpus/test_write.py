"""The tables of a corpus: no row without provenance, groups that fit in memory, and a table even of no rows."""

from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.corpus import write
from medllm.corpus.write import AUDIT, CORPUS, TableWriter

ROW = {
    "id": "0123456789abcdef",
    "text": "腎臓は血液をこす。" * 10,
    "source": "./texts",
    "locator": "rows.jsonl:1",
    "license": "cc0-1.0",
    "published": date(2015, 1, 1),
    "exam_date": None,
    "kind": "text",
    "topic": "",
    "characters": 90,
    "tokens": None,
}


def test_groups_are_bounded_by_characters_and_not_only_by_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(write, "TOGETHER", 450)
    with TableWriter(tmp_path, 3, CORPUS) as table:
        for _ in range(12):
            table.add(ROW)
    written = pq.ParquetFile(tmp_path / "00003.parquet")
    assert [written.metadata.row_group(number).num_rows for number in range(3)] == [5, 5, 2]
    assert written.read().to_pylist() == [ROW] * 12


def test_a_thousand_short_rows_are_a_group(tmp_path):
    with TableWriter(tmp_path, 0, CORPUS) as table:
        for _ in range(1500):
            table.add(ROW)
    written = pq.ParquetFile(tmp_path / "00000.parquet").metadata
    assert [written.row_group(number).num_rows for number in range(2)] == [1000, 500]


def test_no_rows_are_a_table_with_its_columns(tmp_path):
    with TableWriter(tmp_path / "audit", 7, AUDIT):
        pass
    found = pq.read_table(tmp_path / "audit" / "00007.parquet")
    assert (found.num_rows, found.schema) == (0, AUDIT)


@pytest.mark.parametrize("name", sorted(write.PROVENANCE))
def test_a_row_without_provenance_is_refused_by_the_file_itself(tmp_path, name):
    with pytest.raises((pa.ArrowException, ValueError), match=f"'{name}' is declared non-nullable"):  # noqa: SIM117
        with TableWriter(tmp_path, 0, CORPUS) as table:
            table.add({**ROW, name: None})
