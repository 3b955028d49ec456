"""Early cut-off: a stage that is remade with equal content leaves all that was made from it as it was."""

import json

import pytest

from tests.pipeline.test_run import MADE
from tests.pipeline.whole import question


@pytest.fixture
def examined(workshop):
    """The toy pipeline over a real exam and past questions in folders of their own."""
    rows = [question(f"w{number}", 2020) for number in range(3)]
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (workshop.folder / "world" / "q.jsonl").write_text(lines, "utf-8")
    (workshop.folder / "past").mkdir()
    (workshop.folder / "past" / "p.jsonl").write_text(lines.replace('"w', '"p').replace("2020", "2010"), "utf-8")
    (workshop.folder / "texts" / "b.txt").write_text("more", "utf-8")
    recipe = workshop.folder / "toy.yaml"
    recipe.write_text(recipe.read_text("utf-8").replace("cpt, data: ./texts}", "cpt, data: ./past}"), "utf-8")
    workshop.run("evaluate.shots=1")
    workshop.worked.clear()
    return workshop


def rerun(workshop) -> list[str]:
    workshop.run("evaluate.shots=1")
    return workshop.worked


def test_texts_whose_files_are_renamed_remake_the_corpus_alone(examined):
    before = {item.stage: item.standing.artifact for item in examined.plan("evaluate.shots=1").items}
    (examined.folder / "texts" / "a.txt").rename(examined.folder / "texts" / "z.txt")
    plan = examined.plan("evaluate.shots=1")
    assert {item.stage: item.only_if for item in plan.missing} == {
        "corpus": (),
        "cpt": ("corpus",),
        "preferences": ("cpt",),
        "rpo": ("cpt", "preferences"),
        "merge": ("rpo",),
        "evaluate": ("cpt", "rpo"),
    }
    assert rerun(examined) == ["corpus"]
    after = {item.stage: item.standing.artifact for item in examined.plan("evaluate.shots=1").items}
    assert {stage for stage in after if after[stage] != before[stage]} == {"corpus"}
    examined.worked.clear()
    assert rerun(examined) == []


@pytest.mark.slow
def test_a_text_that_changes_after_a_rename_remakes_all_that_learnt_it(examined):
    (examined.folder / "texts" / "a.txt").rename(examined.folder / "texts" / "z.txt")
    rerun(examined)
    examined.worked.clear()
    (examined.folder / "texts" / "z.txt").write_text("another", "utf-8")
    assert rerun(examined) == MADE


@pytest.mark.slow
def test_questions_in_another_order_or_file_are_the_same_questions_to_what_leaves_them_out(examined):
    world = examined.folder / "world"
    lines = (world / "q.jsonl").read_text("utf-8").splitlines(keepends=True)
    (world / "q.jsonl").write_text("".join(reversed(lines)), "utf-8")
    (world / "q.jsonl").rename(world / "questions.jsonl")
    assert rerun(examined) == ["evaluate"]


def test_an_explanation_of_a_question_is_nothing_to_what_leaves_it_out(examined):
    path = examined.folder / "world" / "q.jsonl"
    path.write_text(path.read_text("utf-8").replace('"explanation": "', '"explanation": "さて、'), "utf-8")
    assert rerun(examined) == ["evaluate"]


@pytest.mark.slow
def test_worked_examples_that_no_stage_shows_remake_nothing(examined):
    examined.run("evaluate.shots=0")
    examined.worked.clear()
    row = question("e1", 2015)
    (examined.folder / "world" / "exemplars.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    examined.run("evaluate.shots=0")
    assert examined.worked == []
    assert rerun(examined) == ["evaluate"]


@pytest.mark.slow
def test_another_key_of_a_question_remakes_what_leaves_the_question_out(examined):
    path = examined.folder / "world" / "q.jsonl"
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    rows[0]["answer"] = "a" if rows[0]["answer"] != "a" else "b"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    assert "corpus" in rerun(examined) and "evaluate" in examined.worked
    assert "cpt" not in examined.worked


def test_notes_on_the_base_remake_nothing_and_its_config_remakes_what_loads_it(examined):
    (examined.folder / "base" / "README.md").write_text("notes", "utf-8")
    assert rerun(examined) == []
    (examined.folder / "base" / "config.json").write_text('{"a": 1}', "utf-8")
    assert rerun(examined) == MADE[1:]


@pytest.mark.slow
def test_a_run_that_stopped_in_training_resumes_that_training_after_an_equal_corpus(examined):
    def stop(stage, part):
        if stage == "cpt" and not (part / "half").exists():
            (part / "half").write_text("learnt so far")
            raise KeyboardInterrupt

    changed = ("evaluate.shots=1", "cpt.num_train_epochs=2")
    examined.before_the_end = stop
    with pytest.raises(KeyboardInterrupt):
        examined.run(*changed)
    (examined.folder / "texts" / "a.txt").rename(examined.folder / "texts" / "z.txt")
    made = examined.run(*changed)
    assert examined.worked[:3] == ["cpt", "corpus", "cpt"]
    assert (examined.hub.pull(made["cpt"]) / "half").is_file()
