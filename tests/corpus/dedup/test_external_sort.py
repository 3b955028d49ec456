"""More records than are held at once come back in order, and holding them does not grow with their number."""

import random
import tracemalloc

import numpy as np
import pytest

from medllm.corpus.dedup import external_sort
from medllm.corpus.dedup.external_sort import Sorter

KIND = np.dtype([("root", "<i8"), ("late", "?"), ("id", "S4")])


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(external_sort, "HELD", 100)
    monkeypatch.setattr(external_sort, "READ", 7)


def test_many_runs_are_merged_by_all_fields_in_order(small, tmp_path):
    draw = random.Random(1)
    records = [(draw.randrange(-5, 30), draw.random() < 0.5, b"%d" % draw.randrange(99)) for _ in range(2345)]
    with Sorter(tmp_path / "runs", KIND) as sorter:
        sorter.fill(iter(records))
        assert len(list((tmp_path / "runs").iterdir())) > 10, "nothing was written aside"
        assert list(sorter) == sorted(records)
    assert not (tmp_path / "runs").exists()


def test_arrays_are_taken_too_and_nothing_gives_nothing(small, tmp_path):
    with Sorter(tmp_path / "runs", KIND) as sorter:
        assert list(sorter) == []
        sorter.add(np.array([(2, True, b"b"), (1, False, b"a")], KIND))
        assert list(sorter) == [(1, False, b"a"), (2, True, b"b")]


def test_what_a_killed_process_left_is_not_taken_for_a_run(small, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "000000").write_bytes(b"half a record")
    with Sorter(tmp_path / "runs", KIND) as sorter:
        sorter.add([(1, False, b"a")])
        assert len(list(sorter)) == 1


def test_five_times_as_many_records_need_no_more_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(external_sort, "HELD", 5000)
    monkeypatch.setattr(external_sort, "READ", 16)

    def peak(count: int) -> int:
        tracemalloc.start()
        try:
            with Sorter(tmp_path / "runs", KIND) as sorter:
                sorter.fill((number * 7919 % count, False, b"") for number in range(count))
                assert sum(1 for _ in sorter) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(100_000) < 1.5 * peak(20_000)
