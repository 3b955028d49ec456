"""A recipe with a teacher: what is refused, what is only said, what it needs, and what `medllm check` counts."""

from datetime import date
from pathlib import Path

import pytest

from medllm.recipe import read_recipe, settings_for_digest, stages_of, uses
from medllm.recipe.dependencies import hosts_of
from medllm.recipe.estimate import plan
from medllm.recipe.teacher_rules import exam_days
from tests.recipe.test_estimate import step
from tests.refusals import refused

BIG = {"teach.model": "big", "teach.engine": "http://10.0.0.7:8000/v1", "teach.data": "me/explanations@v1"}
ALONE = {"base": None, "corpus": None, "cpt": None, "preferences": None, "rpo": None, "merge": None, "evaluate": None}
ALONE |= {"ablations": {}}


def test_a_teacher_comes_before_the_pairs_and_takes_what_the_corpus_holds_out(sound: Path):
    recipe = read_recipe(sound, BIG)
    assert stages_of(recipe)[:4] == ("corpus", "cpt", "teach", "preferences")
    assert recipe.teach and recipe.teach.held_out == ("igakuqa", "medqa-ja")
    assert recipe.teach.cutoff == date(2017, 12, 31)
    assert [use.place for use in uses(recipe, "teach")] == ["teach.data[0]", "teach.held_out", "teach.held_out"]


@pytest.mark.parametrize(
    ("model", "engine", "places"),
    [
        ("cpt", "local", ["teach.model", "base"]),
        ("cpt", "http://127.0.0.1:1/v1", ["teach.model", "base"]),
        ("me/big@v1", "vllm", ["teach.model", "base"]),
        ("me/big", "http://127.0.0.1:1/v1", []),
        ("openai:gpt", "local", []),
        ({"api": "http://127.0.0.1:1/v1", "model": "gpt"}, "local", []),
    ],
)
def test_a_teacher_is_read_where_its_files_are(sound: Path, model, engine, places):
    recipe = read_recipe(sound, {**BIG, "teach.model": model, "teach.engine": engine})
    assert [use.place for use in uses(recipe, "teach") if use.wanted == "model"] == places


def test_pairs_and_rounds_may_take_a_teachers_explanations_for_the_truth(sound: Path):
    taught = {**BIG, "preferences.explanations": "teach"}
    recipe = read_recipe(
        sound, {**taught, "rounds.exam": "yakugakuqa", "corpus.held_out": ["igakuqa", "medqa-ja", "yakugakuqa"]}
    )
    named = [use.place for stage in ("preferences", "rounds") for use in uses(recipe, stage) if use.source == "teach"]
    assert named == ["preferences.explanations", "rounds.preferences.explanations"]
    before = read_recipe(sound).preferences
    assert before and "explanations" not in settings_for_digest(before)
    with refused("recipe.no-such-stage", "preferences.explanations", "`teach`"):
        read_recipe(sound, {"preferences.explanations": "teach"})


def test_a_recipe_that_only_teaches_needs_no_base_and_no_corpus(sound: Path):
    recipe = read_recipe(sound, {**ALONE, **BIG})
    assert stages_of(recipe) == ("teach",) and recipe.teach and recipe.teach.held_out == ()
    assert plan(recipe).steps[0].repo == "me/small-teach"
    with refused("recipe.missing-key", "base", "teach"):
        read_recipe(sound, {**ALONE, **BIG, "teach.model": "base", "teach.engine": "local"})


@pytest.mark.parametrize(
    ("changes", "code", "values"),
    [
        ({"teach.model": "rpo", "teach.engine": "local"}, "recipe.later-stage", ("teach.model", "`rpo`")),
        ({"teach.model": "big", "teach.engine": "local"}, "recipe.unknown-source", ("teach.model", "`big`")),
        ({"teach.held_out": ["igakuqa"]}, "recipe.exam-not-held-out", ("teach.held_out", "`medqa-ja`")),
        ({"teach.cutoff": "2019-01-01"}, "recipe.cutoff-too-late", ("teach.cutoff", "`igakuqa`")),
        ({"teach.temperature": 0}, "recipe.identical-samples", ("teach.samples", 4)),
        (
            {"teach.view_explanation": True, "teach.only_unexplained": True},
            "recipe.no-explanation-to-view",
            ("teach.view_explanation", "only_unexplained"),
        ),
    ],
)
def test_what_cannot_be_is_refused_at_its_key(sound: Path, changes, code, values):
    with refused(code, *values):
        read_recipe(sound, {**BIG, **changes})


@pytest.mark.parametrize("value", [20240630, True, "june", None])
def test_a_cutoff_is_a_day_or_unknown(sound: Path, value):
    with refused("recipe.wrong-type", "teach.teacher_cutoff", value):
        read_recipe(sound, {**BIG, "teach.teacher_cutoff": value})


def test_past_questions_of_a_private_file_are_sent_to_no_other_machine(sound: Path, tmp_path: Path):
    (tmp_path / "ward").mkdir()
    private = {
        "exams": {"ward": {"source": "./ward", "years": [2023], "private": True}},
        "corpus.held_out": ["igakuqa", "medqa-ja", "ward"],
        "teach.data": {"source": "./ward", "exam": "own", "years": [2016]},
    }
    with refused("recipe.private-exam", "teach.engine", "10.0.0.7", "exams.ward"):
        read_recipe(sound, {**BIG, **private})
    private["exams"]["ward"]["allowed_hosts"] = ["10.0.0.7"]
    assert read_recipe(sound, {**BIG, **private}).teach
    del private["exams"]["ward"]["allowed_hosts"]
    assert read_recipe(sound, {**BIG, **private, "teach.engine": "http://127.0.0.1:1/v1"}).teach
    asked = {"preferences.engine": "http://10.0.0.7:8000/v1", "preferences.data": private.pop("teach.data")}
    with refused("recipe.private-exam", "preferences.engine"):
        read_recipe(sound, {**private, **asked})


def test_every_server_is_listed_before_anything_is_sent(sound: Path):
    assert [(host.place, host.name) for host in hosts_of(read_recipe(sound, BIG))] == [
        ("teach.engine", "10.0.0.7:8000")
    ]
    openai = {**BIG, "teach.model": "openai:gpt", "teach.engine": "local"}
    assert [(host.place, host.name) for host in hosts_of(read_recipe(sound, openai))] == [
        ("teach.model", "api.openai.com")
    ]
    own = {**BIG, "teach.model": {"api": "https://x.org/v1", "model": "gpt"}, "teach.engine": "local"}
    found = plan(read_recipe(sound, own))
    assert found.hosts == ("x.org (teach.model)",)
    assert step(found, "teach").notes[-1] == "asks the server https://x.org/v1"


def test_check_warns_of_a_teacher_that_may_know_an_exam_and_of_no_other(sound: Path):
    days = exam_days(read_recipe(sound, BIG))
    assert days == {"igakuqa": date(2018, 2, 10), "medqa-ja": days["medqa-ja"]} and days["medqa-ja"] > date(2018, 2, 10)
    (unknown,) = plan(read_recipe(sound, BIG)).warnings
    assert "big is not stated" in unknown and "igakuqa (first asked 2018-02-10)" in unknown and "medqa-ja" in unknown
    assert "teacher_cutoff" in unknown
    (between,) = plan(read_recipe(sound, {**BIG, "teach.teacher_cutoff": "2018-02-10"})).warnings
    assert "igakuqa" in between and "medqa-ja" not in between
    assert plan(read_recipe(sound, {**BIG, "teach.teacher_cutoff": "2018-02-09"})).warnings == ()
    assert plan(read_recipe(sound, {**BIG, "teach.model": "cpt", "teach.engine": "local"})).warnings == ()


def test_an_own_exam_counts_by_its_first_day_its_years_or_as_undated(sound: Path, tmp_path: Path):
    (tmp_path / "ward").mkdir()
    changes = {"exams": {"ward": {"source": "./ward", "first": "2020-05-01"}}, "evaluate.benchmarks": ["ward"]}
    changes |= {"corpus.held_out": ["ward"], **BIG}
    assert exam_days(read_recipe(sound, changes)) == {"ward": date(2020, 5, 1)}
    assert exam_days(read_recipe(sound, {**changes, "evaluate.years": [2022]})) == {"ward": date(2022, 1, 1)}
    changes["exams"]["ward"] = {"source": "./ward", "years": [2024, 2021]}
    assert exam_days(read_recipe(sound, changes)) == {"ward": date(2021, 1, 1)}
    changes["exams"]["ward"] = {"source": "./ward"}
    assert exam_days(read_recipe(sound, changes)) == {"ward": None}
    known = {**changes, "teach.teacher_cutoff": "2016-01-01"}
    assert "ward (its first day is not stated)" in plan(read_recipe(sound, known)).warnings[0]


def test_a_larger_teacher_is_sized_by_its_own_shape(sound: Path):
    here = {**BIG, "teach.model": "Qwen/Qwen2.5-72B-Instruct@v1", "teach.engine": "local", "teach.run_on": "l4x1"}
    teacher = step(plan(read_recipe(sound, {**here, "teach.questions": 100})), "teach")
    assert teacher.fits is False and teacher.gb and teacher.gb["weights"] > 140
    assert teacher.notes[0] == "400 answers, at most 0.4 million tokens"
    assert step(plan(read_recipe(sound, BIG)), "teach").gb_a_gpu is None


def test_a_server_with_a_price_has_a_highest_cost_where_the_questions_are_limited(sound: Path):
    priced = {**BIG, "teach.prices": {"big": [1.0, 5.0]}, "teach.samples": 2, "teach.max_new_tokens": 500}
    notes = step(plan(read_recipe(sound, {**priced, "teach.questions": 1000})), "teach").notes
    assert notes[0] == "2,000 answers, at most 1.0 million tokens, at most $5.00 for them (prompts aside)"
    assert "$" not in step(plan(read_recipe(sound, priced)), "teach").notes[0]


def test_where_and_how_fast_a_teacher_is_asked_is_no_part_of_the_digest(sound: Path):
    def digested(**changes):
        teach = read_recipe(sound, {**BIG, **{f"teach.{key}": value for key, value in changes.items()}}).teach
        assert teach
        return settings_for_digest(teach)

    assert digested() == digested(engine="http://10.0.0.8:1/v1", num_concurrent=3, prices={"big": [1, 2]})
    assert digested() != digested(teacher_cutoff="2024-06-30")
    assert digested() != digested(min_chars=5)
