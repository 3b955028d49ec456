"""A teacher is stated on everything that descends from it, across recipes, and the gate can refuse it."""

import pytest

from medllm.errors import HubError
from tests.pipeline.test_publish import CLEAN, PUBLIC, main_of
from tests.refusals import refused

DOWNSTREAM = ("rpo", "merge", "evaluate")
ALL_CLEAN = {**CLEAN, "teach": CLEAN["preferences"]}


def taught(cutoff="2021-01-01", **changed):
    """Overrides: a teacher behind an address, from whose explanations `rpo` is made."""
    given = {"model": "big", "engine": "http://127.0.0.1:1/v1", "data": "./texts", "teacher_cutoff": cutoff, **changed}
    return (f"teach={{{', '.join(f'{key}: {value}' for key, value in given.items())}}}", "rpo.data=teach")


def teachers(workshop, artifact):
    return [(one["model"], one["cutoff"], one["is_itself"]) for one in workshop.hub.provenance(artifact).teachers]


def test_what_descends_from_a_teacher_records_it_and_what_does_not_has_no_word_of_it(workshop):
    made = workshop.run(*taught())
    assert {stage: teachers(workshop, made[stage]) for stage in ("teach", *DOWNSTREAM)} == {
        stage: [("big", "2021-01-01", False)] for stage in ("teach", *DOWNSTREAM)
    }
    assert [teachers(workshop, made[stage]) for stage in ("corpus", "cpt", "preferences")] == [[], [], []]
    assert "teachers" not in (workshop.hub.pull(made["cpt"]) / "provenance.json").read_text("utf-8")


def test_the_cards_of_models_name_the_exam_that_the_teacher_may_know(workshop):
    workshop.publish(*taught())
    for repo in ("clinic/toy-rpo", "clinic/toy"):
        card = main_of(workshop, repo, "README.md")
        assert "## Teachers" in card and "`big`" in card
        assert "the data cutoff of the teacher big is 2021-01-01, so it may know world (first asked 2020-01-01)" in card
    assert "## Teachers" not in main_of(workshop, "clinic/toy-cpt", "README.md")


def test_an_older_teacher_is_named_without_a_warning(workshop):
    workshop.publish(*taught("2019-06-30"))
    card = main_of(workshop, "clinic/toy", "README.md")
    assert "Data cutoff, as the recipe states it: 2019-06-30. Every exam that is asked is later." in card


def test_a_teacher_that_is_stated_otherwise_changes_the_cards_of_what_stays(workshop):
    workshop.publish(*taught("unknown"))
    assert "is not stated, so it may know world" in main_of(workshop, "clinic/toy", "README.md")
    workshop.worked.clear()
    workshop.publish(*taught("2019-06-30"))
    assert "may know" not in main_of(workshop, "clinic/toy", "README.md")


def test_the_recipes_own_model_as_its_teacher_brings_nothing_of_an_exam(workshop):
    own = taught("unknown", model="cpt", engine="local")
    made = workshop.publish(*own)
    assert teachers(workshop, made["merge"]) == [("clinic/toy-cpt", "unknown", True)]
    card = main_of(workshop, "clinic/toy", "README.md")
    assert "It is the recipe's own model" in card and "may know" not in card


def test_a_teacher_goes_along_into_another_recipe(workshop):
    workshop.run(*taught(), wanted=("teach",))
    recipe = ("name=second", "rpo.data=clinic/toy-teach@main")
    made = workshop.run(*recipe)
    assert teachers(workshop, made["merge"]) == [("big", "2021-01-01", False)]
    assert teachers(workshop, made["preferences"]) == []


def test_a_student_that_teaches_hands_its_own_teacher_on(workshop):
    workshop.run(*taught(), wanted=("merge",))
    own = taught("2018-12-31", model="clinic/toy@main", engine="local")
    made = workshop.run("name=third", *own)
    assert sorted(teachers(workshop, made["merge"])) == [
        ("big", "2021-01-01", False), ("clinic/toy", "2018-12-31", False),
    ]  # fmt: skip


def test_a_folder_of_explanations_names_its_teacher_too(workshop):
    made = workshop.run(*taught(), wanted=("teach",))
    folder = workshop.folder / "explained"
    folder.mkdir()
    for path in workshop.hub.pull(made["teach"]).rglob("*"):
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    made = workshop.run("name=fourth", "rpo.data=./explained")
    assert teachers(workshop, made["rpo"]) == [("big", "2021-01-01", False)]


def test_the_gate_refuses_such_a_teacher_where_the_recipe_wants_it(workshop):
    workshop.facts = ALL_CLEAN
    workshop.run(*taught(), wanted=("teach",))
    recipe = ("name=second", "rpo.data=clinic/toy-teach@main", *PUBLIC)
    with refused("stage.gate-closed", "gate.teacher_cutoff", "big", "world (first asked 2020-01-01)", kind=HubError):
        workshop.publish(*recipe, "gate.teacher_cutoff=refuse")
    workshop.publish(*recipe)
    assert workshop.hub.call("clinic/second", lambda api: api.repo_info("clinic/second")).private is False


def test_a_teacher_dated_twice_counts_with_the_later_day(workshop):
    workshop.run(*taught("2016-01-01"), wanted=("teach",))
    votes = "preferences.votes=[clinic/toy-teach@main]"
    made = workshop.run(*taught("2021-01-01"), "name=fifth", votes)
    assert teachers(workshop, made["preferences"]) == [("big", "2016-01-01", False)]
    assert teachers(workshop, made["rpo"]) == [("big", "2021-01-01", False)]
    made = workshop.run("name=sixth", "rpo.data=clinic/toy-teach@main", "cpt.data=clinic/fifth-teach@main")
    assert teachers(workshop, made["rpo"]) == [("big", "2021-01-01", False)]


def test_a_public_recipe_that_its_own_gate_would_refuse_is_refused_before_any_work(workshop):
    with refused("recipe.teacher-may-know-exam", "teach.teacher_cutoff", "big", "2021-01-01", "2020-01-01"):
        workshop.recipe(*taught(), *PUBLIC, "gate.teacher_cutoff=refuse")
    with pytest.raises(Exception, match="teacher_cutoff"):
        workshop.recipe(*taught(), "gate.teacher_cutoff=never")
