"""The quickstart's table: this run's rows beside the recorded ones, if they were asked the same questions."""

from medllm.cli.quickstart import RECORDED, table_of
from medllm.exam.record import read_records, write_records
from medllm.miniature.corpora import RESULTS


def trained_here(tmp_path, questions=None):
    kept = [one for one in read_records(RESULTS) if one.model not in RECORDED]
    names = sorted({one.question_id for one in kept})[:questions]
    (tmp_path / "records").mkdir()
    write_records([one for one in kept if one.question_id in set(names)], tmp_path / "records" / "own.parquet")
    return tmp_path


def test_the_recorded_rows_stand_beside_a_run_on_the_recorded_exam(tmp_path):
    assert set(RECORDED) < set(table_of(trained_here(tmp_path)).rows)


def test_the_recorded_rows_stay_away_from_a_run_on_another_exam(tmp_path):
    assert set(table_of(trained_here(tmp_path, questions=40)).rows) == {"base", "cpt", "cpt-rpo", "final"}
