"""A whole recipe with a teacher, every stage for real: what is kept is learnt, and every card names who wrote it."""

import json
import re

import pyarrow.parquet as pq
import pytest

from medllm.hub import connect
from medllm.launch import local
from medllm.pipeline import BuildContext, make_plan, publish, run
from medllm.pipeline.trace import ancestors
from medllm.recipe import read_recipe
from tests import tiny
from tests.pipeline.whole import _lines, lay_out, question
from tests.refusals import refused
from tests.stages.test_teach import questions_of, student_of, teacher_of

TRAINING = {
    "lora": {"r": 4, "lora_alpha": 8},
    "max_steps": 2,
    "total_batch_size": 2,
    "dtype": "float32",
    "report_to": [],
}
PAST = {"source": "./asked", "exam": "own", "license": "cc-by-4.0"}


def recipe_of(folder, teacher, student, **changed):
    """Write a recipe from the base by a teacher's explanations to a merged model, as a file."""
    asked = {"data": PAST, "held_out": ["world"], "engine": teacher, "samples": 2}
    tree = {
        "name": "taught",
        "base": "./base",
        "namespace": "clinic",
        "cutoff": "2017-12-31",
        "exams": {"world": {"source": "./world", "first": "2020-01-01"}},
        "chat_template": tiny.CHAT,
        "teach": {**asked, "model": "big", "teacher_cutoff": "2021-01-01"},
        "sft": {**TRAINING, "data": "teach", "held_out": ["world"], "max_length": 512},
        "preferences": {
            **asked,
            "model": "sft",
            "engine": student,
            "explanations": "teach",
            "format": "chat",
            "shots": 0,
            "num_concurrent": 1,
        },
        "rpo": {**TRAINING, "lora": None, "model": "sft", "rpo_alpha": 10, "max_length": 512},
        "merge": {"model": "rpo", "dtype": "float32", "parity_questions": 0},
        "evaluate": {
            "models": {"base": "base", "student": "sft", "final": "rpo"},
            "benchmarks": ["world"],
            "shots": 0,
            "dtype": "float32",
            "limit": 2,
            "max_new_tokens": {"plain": 4, "explain": 8},
        },
    }
    path = folder / "taught.yaml"
    path.write_text(json.dumps({**tree, **changed}, ensure_ascii=False), "utf-8")
    return path


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The folder of the recipe, whose past exam has no explanations."""
    folder = tmp_path_factory.mktemp("taught")
    lay_out(folder)
    rows = [{**question(f"p{number}", 2015), "explanation": None} for number in range(8)]
    _lines(folder / "asked", rows)
    (folder / "asked" / "all.jsonl").rename(folder / "asked" / "exam.jsonl")
    return folder


@pytest.mark.long
def test_a_recipe_with_a_teacher_runs_to_the_end_and_every_card_states_what_the_teacher_may_know(asked, monkeypatch):
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    teacher, student = teacher_of(asked / "asked"), student_of(asked / "asked")
    recipe = read_recipe(recipe_of(asked, teacher.url, student.url))
    with connect(str(asked / "hub"), "clinic") as hub:
        messages = []
        plan = make_plan(recipe, hub)
        bench = BuildContext(hub, asked / "runs", messages.append)
        made = run(plan, bench, local.launch, lambda plan: None)
        publish(plan, made, bench)
        calls = len(teacher.seen) + len(student.seen)
        assert make_plan(recipe, hub).missing == ()
        assert run(make_plan(recipe, hub), bench, local.launch, lambda plan: None) == made
        assert len(teacher.seen) + len(student.seen) == calls, "nothing is asked twice"
        cards = {
            stage: hub.file(hub.resolve(one.repo_id, one.kind), "README.md").read_text("utf-8")
            for stage, one in made.items()
        }
        taught, pairs = (
            pq.read_table(hub.pull(made[stage]) / "data").to_pylist() for stage in ("teach", "preferences")
        )
        recorded = {stage: hub.provenance(one).teachers for stage, one in made.items()}
        depths = {step.source.reference: step.depth for step in ancestors(hub, made["merge"])}
    teacher.close()
    student.close()
    assert len(taught) == 8 and {row["license"] for row in taught} == {"cc-by-4.0"}
    assert {pair["origin"] for pair in pairs if pair["pair"].startswith("gt>")} == {"teacher"}
    assert {stage: [one["model"] for one in teachers] for stage, teachers in recorded.items()} == {
        stage: ["big"] for stage in made
    }
    sentence = "the data cutoff of the teacher big is 2021-01-01, so it may know world (first asked 2020-01-01)"
    for stage, card in cards.items():
        assert sentence in card, stage
        assert not re.search(r"^(#+) .*\n+(?=\1 |\Z)", card, re.MULTILINE), f"{stage}: a heading with nothing under it"
    assert "| explanations kept | 8 |" in cards["teach"] and "license: " in cards["teach"]
    assert "- 8 rows: cc-by-4.0" in cards["teach"]
    assert "| questions whose verified explanation is a teacher's | 8 |" in cards["preferences"]
    assert depths["teach"] > 0
    assert [line for line in messages if line.startswith("teach: kept 8 explanations of 8 of 8 questions")]


def test_no_training_begins_where_the_teacher_never_agrees_with_the_key(asked, tmp_path):
    keys = {row["question_id"]: row["answer"] for row in questions_of(asked / "asked")}
    wrong = {name: f"答え: {'a' if key != 'a' else 'b'}" for name, key in keys.items()}
    teacher = teacher_of(asked / "asked", **wrong)
    recipe = read_recipe(recipe_of(asked, teacher.url, teacher.url))
    begun = []

    def launch(plan, item, made, bench):
        begun.append(item.stage)
        local.launch(plan, item, made, bench)

    with connect(str(tmp_path / "hub"), "clinic") as hub, refused("teach.nothing-kept", "16 wrong"):
        run(make_plan(recipe, hub), BuildContext(hub, tmp_path / "runs", lambda text: None), launch, lambda plan: None)
    teacher.close()
    assert begun == ["teach"]
