"""The rows of the ablation table: shared stages once, own repositories for the rest, one table with paired tests."""

import pytest

from medllm.errors import RecipeError
from medllm.exam.statistics import mcnemar
from medllm.pipeline.ablation import ablate, draw_rows
from tests.refusals import refused


def made_table(workshop, *overrides, asked=lambda plans: None):
    return ablate(workshop.recipe(*overrides), workshop.bench(), workshop.launch, asked)


def test_what_rows_share_is_made_once_and_what_differs_has_repositories_of_its_own(workshop):
    made_table(workshop)
    assert sorted(workshop.worked) == sorted(
        ["corpus", "cpt", "preferences", "rpo", "merge", "evaluate", "rpo", "evaluate"]
    )
    names = {repo_id for repo_id, _ in workshop.hub.repositories("clinic")}
    assert {"clinic/toy-rpo", "clinic/toy-cpt-dpo-rpo", "clinic/toy-evaluate", "clinic/toy-cpt-dpo-evaluate"} <= names
    assert "clinic/toy-cpt-dpo-cpt" not in names
    workshop.worked.clear()
    made_table(workshop)
    assert workshop.worked == []


def test_the_table_has_a_row_for_each_and_its_numbers_are_those_of_the_records(workshop):
    values = made_table(workshop).as_json()
    assert list(values["rows"]) == ["base", "cpt", "cpt-dpo", "final"]
    for row in values["rows"].values():
        assert row["delta"] == pytest.approx(row["explain"] - row["plain"])
        assert row["interval"][0] <= row["delta"] <= row["interval"][1]
    pairs = {(one["first"], one["second"], one["prompt"]) for one in values["exams"]["world"]["comparisons"]}
    assert len(pairs) == 2 * 6  # every two of four rows, both ways of asking
    assert all(0 <= one["p"] <= one["p_holm"] <= 1 for one in values["exams"]["world"]["comparisons"])


def test_a_reader_sees_that_p_is_of_questions_and_the_difference_of_points(workshop):
    table = made_table(workshop)
    lines = table.lines()
    assert sum("points, 95 %" in line and "got right; p of these" in line for line in lines) == 1
    for one in table.as_json()["exams"]["world"]["comparisons"]:
        assert one["p"] == mcnemar(one["only_first"], one["only_second"])
        line = next(line for line in lines if f"{one['second']} minus {one['first']}, {one['prompt']}" in line)
        assert f"{one['second']} {one['only_second']}, {one['first']} {one['only_first']}: p " in line


def test_the_paper_s_five_rows_come_from_three_ablations_in_the_papers_order(workshop):
    only = "{preferences.model: base, rpo.model: base, rpo.lora: {r: 4, lora_alpha: 8}}"
    table = made_table(workshop, f"ablations={{cpt-dpo: {{rpo.rpo_alpha: 0}}, rpo-only: {only}}}")
    assert table.rows == ("base", "rpo-only", "cpt", "cpt-dpo", "final")
    assert sum("world" in line for line in table.lines()) == 1


def test_all_plans_are_shown_before_anything_is_made_and_a_no_makes_nothing(workshop):
    shown = {}

    def refuse(plans):
        shown.update({name: [item.stage for item in plan.missing] for name, plan in plans.items()})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made_table(workshop, asked=refuse)
    assert workshop.worked == []
    assert shown["cpt-dpo"] == ["corpus", "cpt", "preferences", "rpo", "evaluate"]


def test_the_figure_holds_every_row(workshop, tmp_path):
    draw_rows(made_table(workshop), tmp_path / "rows.svg")
    assert (tmp_path / "rows.svg").read_text(encoding="utf-8").count("<svg") == 1


def test_rows_need_a_final_model_to_vary(workshop):
    with refused("recipe.no-final-model", "`final`", kind=RecipeError):
        made_table(workshop, "evaluate.models={cpt: cpt}")


def test_rows_that_are_named_by_seed_are_gathered_into_a_mean_over_trainings(workshop):
    table = made_table(workshop, "ablations={final-seed1: {rpo.seed: 1}, final-seed2: {rpo.seed: 2}}")
    values = table.as_json()
    (row,) = values["exams"]["world"]["trainings"]
    assert row["models"] == ("final", "final-seed1", "final-seed2")
    each = [values["rows"][name]["delta"] for name in row["models"]]
    assert row["delta"]["values"] == pytest.approx(each)
    assert row["delta"]["mean"] == pytest.approx(sum(each) / 3)
    assert row["delta"]["interval"]["low"] < row["delta"]["mean"] < row["delta"]["interval"]["high"]
    assert any("final, 3 trainings" in line for line in table.lines())


def test_the_table_says_that_it_is_of_trained_models_and_gives_an_interval_with_each_difference(workshop):
    table = made_table(workshop)
    assert "these two trained models" in "\n".join(table.lines())
    assert "not that the methods do" in table.as_json()["of"]
    for one in table.as_json()["exams"]["world"]["comparisons"]:
        assert one["interval"][0] < one["difference"] < one["interval"][1]
