"""Every set in the catalogue is read: real files where they are, small files of the documented columns elsewhere."""

import csv
import json
from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.exam.benchmarks import CATALOGUE, exemplars, load
from medllm.exam.benchmarks.medical import SUBJECTS
from tests.refusals import refused

FOLDERS = {
    "igakuqa": "igakuqa", "jmle2026": "jmle2026", "yakugakuqa": "yakugakuqa", "jmmlu-med": "jmmlu-med",
    "medqa": "medqa-en", "medmcqa": "medqa-en", "pubmedqa": "medqa-en",
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_real_set_has_as_many_questions_as_the_catalogue_says(name, shared_data):
    questions = load(name, shared_data / FOLDERS[name])
    assert len(questions) == CATALOGUE[name].questions
    assert {question.language for question in questions} == {CATALOGUE[name].language}
    dates = {question.exam_date for question in questions}
    assert min(dates, key=str) == CATALOGUE[name].first if CATALOGUE[name].first else dates == {None}


def test_jmle2026_has_its_choices_cut_out_and_its_vignettes_put_before(shared_data):
    questions = {question.question_id: question for question in load("jmle2026", shared_data / "jmle2026")}
    assert questions["120A-1"].choices[0] == "緊急手術"
    assert questions["120A-1"].text == "胃癌に伴う消化管穿孔による汎発性腹膜炎の治療で適切なのはどれか。"
    assert questions["120F-14"].choices[0].startswith("80,000円"), "choices in a table"
    assert questions["120A-74"].gold == (frozenset({"0.40"}),)
    assert questions["120A-74"].text.endswith("g/gCr"), "the table of digits to mark is no part of the question"
    assert questions["120B-41"].context.startswith("84歳の男性。")
    assert sum(question.points for question in questions.values()) == 500
    assert sum(question.image for question in questions.values()) == 98


def test_yakugakuqa_speaks_of_letters_throughout_and_knows_either_answers(shared_data):
    questions = {question.question_id: question for question in load("yakugakuqa", shared_data / "yakugakuqa")}
    assert questions["097001"].gold_answer == "d"
    assert questions["103127"].gold == (frozenset("bd"), frozenset("be"), frozenset("de"))
    assert questions["101021"].gold == (frozenset("a"), frozenset("b"))
    assert questions["097007"].image
    assert "選択肢cのニトラゼパム" in questions["097007"].explanation
    assert "a:誤" in questions["097007"].explanation
    assert sum(bool(question.explanation) for question in questions.values()) == 4226


def test_pubmedqa_brings_its_abstract_and_is_answered_yes_no_or_maybe(shared_data):
    first = load("pubmedqa", shared_data / "medqa-en")[0]
    assert first.choices == ("yes", "no", "maybe")
    assert first.context.startswith("Patients presenting with transient ischemic attack")


def test_mmmlu_is_cut_to_the_five_subjects_from_csv_and_from_parquet(tmp_path):
    rows = [
        {
            "Question": f"問{n}、コンマ入り",
            "A": "ア",
            "B": "イ",
            "C": "ウ",
            "D": "エ",
            "Answer": "ABCD"[n % 4],
            "Subject": subject,
        }
        for n, subject in enumerate([*SUBJECTS, "astronomy", "anatomy"])
    ]
    (tmp_path / "csv" / "test").mkdir(parents=True)
    with (tmp_path / "csv" / "test" / "mmlu_JA-JP.csv").open("w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, ["", *rows[0]])
        writer.writeheader()
        writer.writerows({"": n} | row for n, row in enumerate(rows))
    (tmp_path / "parquet" / "JA_JP").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet" / "JA_JP" / "test-00000-of-00001.parquet")
    from_csv, from_parquet = (load("mmmlu-ja-med", tmp_path / kind) for kind in ("csv", "parquet"))
    assert from_csv == from_parquet
    assert [question.category for question in from_csv] == [*SUBJECTS, "anatomy"]
    assert [question.question_id for question in from_csv][-1] == "anatomy-2"
    assert [question.gold_answer for question in from_csv] == ["a", "b", "c", "d", "a", "c"]


@pytest.mark.parametrize(
    ("name", "subset"), [("medqa-ja", "medqa_jp"), ("medmcqa-ja", "medmcqa_jp"), ("pubmedqa-ja", "pubmedqa_jp")]
)
def test_jmedbench_s_columns_are_read_from_json_lines_and_parquet(tmp_path, name, subset):
    rows = [
        {
            "sample_id": "s0",
            "question": "どれか。",
            "options": ["ア", "イ", "ウ"],
            "answer_idx": 2,
            "n_options": 3,
            "metadata": "{}",
        },
        {
            "sample_id": "s1",
            "question": "何か。",
            "options": ["ア", "イ", "ウ"],
            "answer_idx": 0,
            "n_options": 3,
            "metadata": "{}",
        },
    ]
    (tmp_path / "l" / subset).mkdir(parents=True)
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "l" / subset / "test.jsonl").write_text(lines, encoding="utf-8")
    (tmp_path / "p" / subset).mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p" / subset / "test-00000-of-00001.parquet")
    from_lines, from_parquet = (load(name, tmp_path / kind) for kind in "lp")
    assert from_lines == from_parquet
    assert [(question.question_id, question.gold_answer) for question in from_lines] == [("s0", "c"), ("s1", "a")]


def test_a_translated_row_with_an_answer_outside_its_options_is_named(tmp_path):
    (tmp_path / "medqa_jp").mkdir()
    row = {"sample_id": "s0", "question": "どれか。", "options": ["ア"], "answer_idx": 1}
    (tmp_path / "medqa_jp" / "test.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with refused("exam.out-of-range", "test.jsonl line 1:", "answer_idx is 1.", "0 to 0"):
        load("medqa-ja", tmp_path)


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_entry_says_source_license_citation_and_use(name):
    entry = CATALOGUE[name]
    assert entry.license and entry.citation and entry.files and entry.questions
    assert entry.source.startswith(("github:", "hub:"))
    assert entry.revision or entry.hub, "a GitHub source is pinned; a Hub one is pinned by whoever pulls it"
    assert entry.published >= date(2019, 1, 1)


def test_what_brings_no_worked_examples_says_so(tmp_path):
    with refused("exam.no-exemplars", tmp_path, "medqa"):
        exemplars("medqa", tmp_path)
