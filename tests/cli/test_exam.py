"""`medllm exam import`: one command from an export of Excel to an exam that `medllm score` takes."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medllm.cli.main import app
from tests.refusals import refused

ROWS = "番号,問題文,A,B,正解,年度\n1,どれか。,肺炎,胃炎,B,令和5年\n2,どちらか。,心不全,腎不全,9,令和5年\n"


def run(*words: str) -> str:
    done = CliRunner().invoke(app, ["exam", "import", *words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "export.csv").write_bytes(ROWS.encode("cp932"))
    return tmp_path


def test_a_faulty_row_stops_the_import_with_its_number_and_nothing_is_written(export: Path):
    with refused("exam.faulty-rows", "export.csv", "1 of 2 rows", "row 3", "--skip-faulty"):
        run("export.csv", "--out", "naika")
    assert not (export / "naika").exists()


def test_a_faulty_row_is_left_out_and_listed_on_request(export: Path):
    report = json.loads(run("export.csv", "--out", "naika", "--skip-faulty", "--json"))
    assert (report["questions"], report["by_year"], [one["row"] for one in report["left_out"]]) == (1, {"2023": 1}, [3])
    assert json.loads((export / "naika" / "import.json").read_text("utf-8")) == report
    shown = run("export.csv", "--out", "naika", "--skip-faulty")
    assert "answer = 正解" in shown
    assert "row 3" in shown


def test_the_line_for_a_recipe_names_the_folder_and_the_day_of_the_first_exam(export: Path):
    rows = "番号,問題文,A,B,正解,試験日\n1,どれか。,肺炎,胃炎,B,2020-02-09\n2,どちらか。,心不全,腎不全,A,2019/2/8\n"
    (export / "dated.csv").write_text(rows, "utf-8")
    assert "exams: {naika: {source: ./naika, first: 2019-02-08}}" in run("dated.csv", "--out", "naika")


def test_a_missing_column_is_named_with_the_headings_there_are(export: Path):
    (export / "bad.csv").write_text("a1,b1\nx,y\n", "utf-8")
    with refused("exam.column-not-found", "bad.csv", "answer", "--columns", "a1, b1"):
        run("bad.csv", "--out", "x")


def test_a_guess_by_the_cells_alone_waits_for_a_yes(export: Path):
    (export / "plain.csv").write_text("q,k,A,B\n正しいのはどちらであるか。,a,肺炎,胃炎\n", "utf-8")
    with refused("exam.column-unsure", "text = q", "answer = k", "--yes"):
        run("plain.csv", "--out", "x")
    assert "1 questions" in run("plain.csv", "--out", "x", "--yes")
    assert "1 questions" in run("plain.csv", "--out", "y", "--columns", "text=q,answer=k")


@pytest.mark.parametrize(("columns", "code"), [("stem=q", "exam.unknown-field"), ("text=問", "exam.unknown-heading")])
def test_an_unknown_field_or_heading_of_columns_is_refused(export: Path, columns: str, code: str):
    with refused(code, "--columns"):
        run("export.csv", "--out", "x", "--columns", columns)
