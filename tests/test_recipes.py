"""The recipes that come with medllm: no number without its mark, and the paper's own values where it has them."""

from datetime import date
from pathlib import Path

import pytest
import yaml

from medllm.recipe import ablated, read_recipe, stages_of
from medllm.recipe.estimate import plan
from tests.refusals import refused

FOLDER = Path(__file__).parent.parent / "recipes"
MARKED = [FOLDER / f"{name}.yaml" for name in ("preferred-medllm-qwen-72b", "qwen2.5-7b", "qwen2.5-0.5b")]
DISTIL = FOLDER / "distil-qwen2.5-0.5b.yaml"
TABLES = [FOLDER / "table1.yaml", FOLDER / "table3.yaml"]
MARKS = ("[paper]", "[ours: ", "[to measure]")


def numbers(path: Path) -> list[tuple[int, str]]:
    """Every number and day of a recipe, with the line it stands on."""
    scalars = [token for token in yaml.scan(path.read_text()) if isinstance(token, yaml.ScalarToken) and token.plain]
    found = []
    for token in scalars:
        # YAML 1.1 takes 1e-4 for text; it is a number here.
        value = yaml.safe_load(token.value)
        bare = token.value.replace("-", "").replace(".", "").replace("e", "")
        if (isinstance(value, int | float | date) and not isinstance(value, bool)) or bare.isdigit():
            found.append((token.start_mark.line, token.value))
    return found


@pytest.mark.parametrize("path", [*MARKED, DISTIL], ids=lambda path: path.stem)
def test_no_number_is_without_its_mark(path: Path):
    lines = path.read_text().splitlines()
    found = numbers(path)
    assert len(found) > 20
    bare = [f"line {line + 1}: {value}" for line, value in found if not any(m in lines[line] for m in MARKS)]
    assert bare == []


def test_the_check_for_marks_can_fail(tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text("a: 1e-4\nb: 2\nc: word\nd: 2017-12-31\ne: [3]\nf: nf4\n")
    assert [value for _, value in numbers(path)] == ["1e-4", "2", "2017-12-31", "3"]


def test_the_papers_own_values_are_in_its_recipe():
    recipe = read_recipe(MARKED[0])
    cpt, rpo, preferences, evaluate = recipe.cpt, recipe.rpo, recipe.preferences, recipe.evaluate
    assert cpt and rpo and preferences and evaluate
    assert recipe.base.startswith("Qwen/Qwen2.5-72B@")
    assert recipe.cutoff == date(2017, 12, 31)
    assert (cpt.num_train_epochs, cpt.quantization, cpt.optim, cpt.lr_scheduler_type, cpt.run_on) == (
        2,
        "nf4",
        "adamw_torch",
        "cosine",
        "a100x4",
    )
    assert cpt.warmup_ratio > 0
    assert (rpo.rpo_alpha, rpo.num_train_epochs, rpo.quantization, rpo.model, rpo.run_on) == (
        10,
        1,
        "nf4",
        "cpt",
        "a100x2",
    )
    assert (preferences.shots, preferences.prompt, preferences.model) == (3, "explain", "cpt")
    assert preferences.pairs == ("gt>chosen", "gt>rejected", "chosen>rejected")
    assert evaluate.years == (2018, 2019, 2020, 2021, 2022)
    assert evaluate.prompts == ("plain", "explain")
    assert evaluate.shots == {"igakuqa": 3, "medqa-ja": 0, "medmcqa-ja": 0, "pubmedqa-ja": 0, "mmmlu-ja-med": 0}
    for line in MARKED[0].read_text().splitlines():
        key = line.strip().split(":")[0]
        if (
            key in ("num_train_epochs", "rpo_alpha", "cutoff", "quantization", "optim", "years", "shots")
            and "[paper]" not in line
        ):
            assert "[ours" in line, line


@pytest.mark.parametrize("path", MARKED, ids=lambda path: path.stem)
def test_the_rows_of_table_2_can_be_made(path: Path):
    recipe = read_recipe(path)
    assert {"base", "cpt", "final"} <= set(recipe.evaluate.models if recipe.evaluate else ())
    dpo, alone = ablated(recipe, "cpt-dpo"), ablated(recipe, "rpo-only")
    assert dpo.rpo and dpo.rpo.rpo_alpha == 0 and dpo.cpt == recipe.cpt
    assert alone.rpo and alone.rpo.model == "base" and alone.preferences and alone.preferences.model == "base"


def test_the_distillation_learns_from_a_teacher_whose_date_is_on_its_plan_and_can_be_refused():
    recipe = read_recipe(DISTIL)
    assert recipe.teach and recipe.preferences and recipe.preferences.explanations == "teach"
    assert recipe.sft and [source.source for source in recipe.sft.data] == ["teach"]
    (warning,) = plan(recipe).warnings
    assert "your-name/medllm-7b-distil@main" in warning and "igakuqa (first asked 2018-02-10)" in warning
    alone = ablated(recipe, "no-teacher")
    assert alone.preferences and alone.preferences.explanations is None and alone.sft is None
    with refused("recipe.teacher-may-know-exam", "teach.teacher_cutoff"):
        read_recipe(DISTIL, {"gate.teacher_cutoff": "refuse", "publish.private": False})


def test_the_first_step_of_the_chain_is_the_same_recipe_with_a_larger_teacher_and_student():
    base = "Qwen/Qwen2.5-7B@d149729398750b98c0af14eb82c78cfe92750796"
    larger = {"name": "medllm-7b-distil", "base": base, "teach.model": "medllm-72b"}
    larger |= {"teach.engine": "http://127.0.0.1:8000/v1", "teach.run_on": None}
    larger |= {f"{stage}.run_on": "a100x1" for stage in ("cpt", "sft", "preferences", "rpo", "evaluate")}
    found = plan(read_recipe(DISTIL, larger))
    assert [step.stage for step in found.steps if step.too_much or step.too_little_disk] == []
    assert found.hosts == ("127.0.0.1:8000 (teach.engine)",)
    assert found.steps[-3].repo == "your-name/medllm-7b-distil", "which is the teacher of the second step"


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_the_tables_only_evaluate_and_have_a_mark_at_every_number(path: Path):
    recipe = read_recipe(path)
    assert stages_of(recipe) == ("evaluate",) and recipe.namespace is None and recipe.cutoff is None
    lines = path.read_text().splitlines()
    assert [value for line, value in numbers(path) if not any(mark in lines[line] for mark in MARKS)] == []


def test_table_1_asks_the_papers_twelve_systems_as_the_paper_did():
    evaluate = read_recipe(TABLES[0]).evaluate
    assert evaluate is not None and len(evaluate.models) == 12
    assert sorted(name for name, source in evaluate.references.items() if source.startswith("openai:")) == [
        "gpt-3.5", "gpt-4", "gpt-4-turbo", "gpt-4o", "gpt-4o-mini",
    ]  # fmt: skip
    assert (evaluate.benchmarks, evaluate.shots, evaluate.prompts) == (("igakuqa",), 3, ("plain", "explain"))
    assert evaluate.years == (2018, 2019, 2020, 2021, 2022)


def test_table_3_asks_the_papers_four_sets_without_examples():
    evaluate = read_recipe(TABLES[1]).evaluate
    assert evaluate is not None and len(evaluate.models) == 3
    assert evaluate.benchmarks == ("mmmlu-ja-med", "medqa-ja", "medmcqa-ja", "pubmedqa-ja")
    assert (evaluate.shots, evaluate.prompts) == (0, ("plain",))


@pytest.mark.parametrize("path", [*MARKED, DISTIL, *TABLES], ids=lambda path: path.stem)
def test_a_recipe_opens_with_what_it_needs_how_to_run_it_and_what_it_yields(path: Path):
    head = path.read_text().split("\n\n")[0]
    assert [word for word in ("needs", "check", "run", "yields") if f"#   {word}" not in head] == []
    assert f"medllm run recipes/{path.name} " in head
