"""Recorded results: every cell is found, flips are what the records say, and odd files are read or refused."""

import json
from dataclasses import replace
from urllib.parse import parse_qsl

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.exam.record import read_records, schema, write_records
from medllm.page import selection
from medllm.page.html import ResultsError, fault_panel
from medllm.page.loading import load, read
from medllm.page.results import NO_TEXT, Origin
from medllm.page.scores import score_lines, scores
from medllm.page.selection import Filter, Wanted
from tests.page.simulated import MODELS
from tests.refusals import refused


def test_every_cell_of_the_grid_is_the_record_that_was_written(evaluation, results):
    written = read_records(evaluation)
    assert len(written) == len(results.keys) * 6
    for record in written[:: max(1, len(written) // 50)]:
        assert results.record(f"{record.benchmark}/{record.question_id}", record.model, record.prompt) == record


def test_models_stand_in_training_order_and_the_origin_says_simulated(results):
    assert results.models == MODELS
    assert results.origin.marking == "simulated"


def test_flips_are_the_questions_whose_two_verdicts_differ(evaluation, results):
    right = {(r.question_id, r.model, r.prompt): r.correct for r in read_records(evaluation)}
    expected = {
        f"kakuu/{question}"
        for question, model, prompt in right
        if right[question, model, "plain"] != right[question, model, "explain"]
    }
    assert set(results.flipped) == expected
    assert expected


def test_a_lost_answer_that_cannot_be_read_is_counted_apart_from_a_wrong_one(evaluation, results):
    cells = {(r.question_id, r.model, r.prompt): r for r in read_records(evaluation)}
    names = sorted({question for question, _, _ in cells})
    lines = score_lines(results, np.ones(len(results.keys), dtype=bool), "accuracy")
    for line in lines:
        pairs = [(cells[name, line.model, "plain"], cells[name, line.model, "explain"]) for name in names]
        lost = [later for earlier, later in pairs if earlier.correct and not later.correct]
        unread = [later for later in lost if later.answer is None]
        cut = [later for later in unread if later.status == "truncated"]
        harmful = [later for later in lost if later.prohibited]
        both = [(a, b) for a, b in pairs if a.answer is not None and b.answer is not None]
        assert (line.change.lost, line.change.lost_unread, line.change.readable) == (len(lost), len(unread), len(both))
        assert line.change.delta_readable == pytest.approx(sum(b.correct - a.correct for a, b in both) / len(both))
        assert line.plain.unread == sum(a.answer is None for a, _ in pairs)
        kinds = {"lost_wrong": len(lost) - len(unread) - len(harmful), "lost_prohibited": len(harmful)}
        kinds |= {"lost_unread": len(unread) - len(cut), "lost_cut": len(cut)}
        assert {kind: len(Wanted(line.model, kind).keys(results)) for kind in kinds} == kinds
        assert line.change.lost_kinds == {kind: count for kind, count in kinds.items() if count}
        assert len(Wanted(line.model, "prohibited").keys(results)) == len(
            {r.question_id for pair in pairs for r in pair if r.prohibited}
        )
    for counted in ("lost_unread", "lost_cut", "lost_prohibited"):
        assert sum(getattr(line.change, counted) for line in lines) > 0, counted
    html = scores(results, Filter(), "accuracy")
    for kind in ("lost_wrong", "lost_prohibited", "lost_unread", "lost_cut"):
        assert f'data-outcome="{kind}"' in html


def test_lists_of_all_models_together_are_what_their_records_are(evaluation, results):
    cells = {(r.question_id, r.model, r.prompt): r for r in read_records(evaluation)}
    models, prompts = results.models, ("plain", "explain")

    def listed(kind, sort=""):
        return [results.question(key).question_id for key in Wanted("base", kind, sort=sort).keys(results)]

    names = [question.question_id for question in results.questions]
    lost = {n for n in names for m in models if cells[n, m, "plain"].correct and not cells[n, m, "explain"].correct}
    answers = {(n, p): {cells[n, m, p].answer for m in models} - {None} for n in names for p in prompts}
    share = {n: sum(cells[n, m, p].correct for m in models for p in prompts) for n in names}
    assert listed("any_lost") == [n for n in names if n in lost]
    assert listed("disagree") == [n for n in names if any(len(answers[n, p]) > 1 for p in prompts)]
    assert listed("all_wrong") == [n for n in names if share[n] == 0]
    assert 0 < len(listed("disagree")) < len(names) and lost
    length = {n: max(len(cells[n, m, p].completion) for m in models for p in prompts) for n in names}
    assert listed("asked", "hardest") == sorted(names, key=share.__getitem__)
    assert listed("asked", "longest") == sorted(names, key=lambda n: -length[n])
    turned = {n: sum(cells[n, m, "plain"].correct != cells[n, m, "explain"].correct for m in models) for n in names}
    assert listed("asked", "flips") == sorted(names, key=lambda n: -turned[n])
    wanted = Wanted("base", "disagree", sort="hardest")
    assert Wanted.read(dict(parse_qsl(wanted.query())), results) == wanted


def test_a_search_that_is_walked_is_made_once_and_few_are_kept(results, monkeypatch):
    made = []

    def search(recorded, text):
        made.append(text)
        return np.ones(len(recorded.questions), dtype=bool)

    monkeypatch.setattr(selection, "containing", search)
    for number in range(40):
        Wanted("base", "asked", text=f"word {number}").keys(results)
    Wanted("base", "asked", text="word 39").keys(results)
    assert made == [f"word {number}" for number in range(40)]
    Wanted("base", "asked", text="word 0").keys(results)
    assert made[-1] == "word 0", "the oldest is searched again"


def test_the_first_sample_is_shown_when_there_are_several(tmp_path, evaluation):
    first = read_records(evaluation)
    write_records(
        [replace(record, sample=1, completion="second") for record in first] + first, tmp_path / "all.parquet"
    )
    both = read(tmp_path, Origin("both"))
    assert all(both.record(key, "base", "plain").completion != "second" for key in both.keys)


def test_a_file_of_records_alone_is_shown_without_question_texts(evaluation):
    alone = read(next((evaluation / "records").glob("*.parquet")), Origin("alone"))
    assert {question.text for question in alone.questions} == {NO_TEXT}
    numeric = next(question for question in alone.questions if question.numeric)
    assert numeric.gold_answer == "12.5"


def test_records_as_json_lines_give_the_same_verdicts(tmp_path, evaluation, results):
    rows = pq.read_table(evaluation / "records").to_pylist()
    lines = tmp_path / "records.jsonl"
    lines.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    assert read(lines, Origin("lines")).flipped == results.flipped


def broken(folder, name):
    (folder / "records").mkdir(parents=True)
    file = folder / "records" / "r.parquet"
    if name == "missing-columns":
        pq.write_table(pa.table({"question_id": ["1"], "model": ["base"]}), file)
    if name == "unreadable":
        file.write_bytes(b"PAR1 no parquet at all")
    if name == "empty":
        pq.write_table(schema().empty_table(), file)
    return str(folder)


@pytest.mark.parametrize("name", ["missing-columns", "unreadable", "empty"])
def test_a_broken_evaluation_is_a_panel_in_both_languages_with_the_mend(tmp_path, name):
    with refused(f"page.{name}", kind=ResultsError) as caught:
        load(broken(tmp_path / "made", name))
    panel = fault_panel(caught.value)
    assert 'lang="ja"' in panel
    assert 'lang="en"' in panel
    assert "直し方" in panel


def test_a_place_that_is_not_there_says_what_to_name():
    with refused("page.not-found", "./no-such-folder", "ORG/DATASET@REVISION"):
        load("./no-such-folder")


def test_two_hundred_thousand_records_are_read_and_found(tmp_path, evaluation):
    table = pq.read_table(evaluation / "records")
    times = 200_000 // table.num_rows + 1
    ids = table.column("question_id").to_pylist()
    parts = [table.set_column(0, "question_id", pa.array([f"{name}-{copy}" for name in ids])) for copy in range(times)]
    (tmp_path / "records").mkdir()
    pq.write_table(pa.concat_tables(parts), tmp_path / "records" / "many.parquet")
    many = read(tmp_path, Origin("many"))
    assert many.table.num_rows >= 200_000
    assert many.record(f"kakuu/{ids[0]}-{times - 1}", "base", "plain").question_id == f"{ids[0]}-{times - 1}"
    assert len(many.flipped) > 0
