"""One file that is past and test by its years: what is trained on, held out and asked, and what each digest covers."""

import json

import pyarrow.parquet as pq
import pytest

from medllm.evaluation import build_exam_runs
from medllm.hub import connect
from medllm.pipeline.content import Resolver
from medllm.preferences.questions import select_questions
from medllm.preflight.inspect import inspect
from medllm.recipe import local_sources, read_recipe, settings_for_digest, stages_of
from medllm.stages import corpus
from tests.pipeline.whole import question
from tests.refusals import refused

YEARS = (2016, 2017, 2022, 2023)


@pytest.fixture
def written(tmp_path):
    """Write a recipe over one file of four years; return its parsed form, with other values where they are given."""
    (tmp_path / "naika").mkdir()
    rows = [question(f"y{year}-{number}", year) for year in YEARS for number in range(6)]
    rows.append(question("undated", 2022) | {"year": None, "exam_date": None})
    (tmp_path / "naika" / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (tmp_path / "base").mkdir()
    past = {
        "source": "./naika",
        "exam": "own",
        "years": [2016, 2017],
        "license": "cc-by-4.0",
        "published": "2017-06-01",
    }

    def write(exam=None, data=past):
        values = {
            "name": "n",
            "base": "./base",
            "namespace": "me",
            "cutoff": "2017-12-31",
            "exams": {"naika": {"source": "./naika", "first": "2022-01-01", **(exam or {"years": [2022, 2023]})}},
            "corpus": {"data": [data], "held_out": ["naika"], "min_chars": 5},
            "preferences": {"model": "base", "data": [data], "shots": 1},
            "evaluate": {"models": {"m": "base"}, "benchmarks": ["naika"], "shots": 0},
        }
        (tmp_path / "n.yaml").write_text(json.dumps(values, indent=1), "utf-8")  # JSON is YAML without aliases
        return read_recipe(tmp_path / "n.yaml")

    return write


def ids(questions):
    return {one.question_id.split("-")[0] for one in questions}


def test_past_years_are_learnt_and_the_others_held_out_and_asked(written, tmp_path):
    recipe = written()
    sources = {**local_sources(recipe, stages_of(recipe)), "./naika": tmp_path / "naika"}
    assert inspect(recipe, ("corpus",), sources) == []
    corpus.make(recipe.corpus, sources, tmp_path / "out")
    kept = pq.read_table(tmp_path / "out" / "corpus").to_pylist()
    assert len(kept) == 2 * 12, "twelve questions, plainly and explained"
    assert all(row["exam_date"].year in (2016, 2017) for row in kept)
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    assert facts["held_out"] == {"naika": 13}, "the asked years, and what states no year"

    selected = select_questions(recipe.preferences, sources)
    assert ids(selected.questions) <= {"y2016", "y2017"} and len(selected.questions) + len(selected.exemplars) == 12
    (run,) = build_exam_runs(recipe.evaluate, sources)
    assert ids(run.questions) == {"y2022", "y2023"} and len(run.questions) == 12


def test_years_that_overlap_are_refused_before_the_work(written, tmp_path):
    sources = {"naika": tmp_path / "naika", "./naika": tmp_path / "naika"}
    for recipe in (written(exam={"years": [2017, 2022]}), written(exam={"private": False})):
        assert "recipe.held-out-trained" in {fault.code for fault in inspect(recipe, ("corpus",), sources)}


def test_years_of_a_text_are_refused(written):
    with refused("recipe.years-without-exam", "corpus.data[0]"):
        written(data={"source": "./naika", "years": [2016], "license": "cc-by-4.0", "published": "2016-01-01"})


def test_a_change_of_the_asked_years_does_not_remake_what_was_learnt_but_what_holds_it_out(written, tmp_path):
    def digests():
        recipe = written()
        with connect(str(tmp_path / "hub"), "me") as hub:
            resolver = Resolver(recipe, hub)
            return {
                stage: {one.reference: one.identity for one in resolver.inputs(stage, {})}
                for stage in ("corpus", "evaluate")
            }

    before = digests()
    path = tmp_path / "naika" / "all.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for row in rows:
        if row["year"] == 2023:
            row["text"] += "（訂正）"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    after = digests()
    assert after["corpus"]["./naika"] != before["corpus"]["./naika"], "a text source counts by its files"
    assert after["corpus"]["naika"] != before["corpus"]["naika"]
    assert after["evaluate"]["naika"] != before["evaluate"]["naika"]


def test_recipes_without_years_keep_their_digests(written):
    plain = written(exam={"private": False}, data={"source": "./naika", "exam": "own"})
    dumps = [settings_for_digest(getattr(plain, stage)) for stage in ("corpus", "preferences", "evaluate")]
    assert not any("exam_years" in dump for dump in dumps)
    assert "years" not in dumps[0]["data"][0] and "years" in dumps[2]
    assert settings_for_digest(written().corpus)["exam_years"] == {"naika": [2022, 2023]}
