"""The same records have the same interval everywhere, and the gate reads an end that few questions cannot hide."""

import json
import random

import numpy as np
import pytest
from typer.testing import CliRunner

from medllm.cli.main import app
from medllm.exam.grading import grade
from medllm.exam.record import write_records
from medllm.exam.stability.report import ScoreRow, score_table, stability_report
from medllm.hub import Artifact
from medllm.page.loading import read
from medllm.page.results import Origin
from medllm.page.scores import score_lines
from medllm.pipeline import gate
from medllm.pipeline.ablation import Ablation
from medllm.pipeline.results import EvaluationResults
from medllm.recipe import read_recipe
from tests.exam.making import question, record
from tests.pipeline.toy import lay_out


def exam(years=(2020, 2021), count=36):
    """Invented questions with points, sections and vignettes, over some years."""
    return [
        question(
            question_id=f"{year}-{n}", text=f"{year} 問 {n}", year=year, points=3 if n % 4 == 0 else 1,
            benchmark="mine", vignette_id=f"{year}-case-{n // 3}" if n % 12 < 6 else None,
        )
        for year in years for n in range(count)
    ]  # fmt: skip


def replies(questions, models):
    chance = random.Random(7)
    for model, (plain, explained) in models.items():
        for prompt, rate in (("plain", plain), ("explain", explained)):
            for one in questions:
                letter = "b" if chance.random() < rate else "c"
                yield grade(one, f"答え:{letter}", model=model, prompt=prompt)


@pytest.fixture(params=[(2020, 2021), (2020,)], ids=["two years", "one year"])
def intervals_by_all(request, tmp_path):
    """What score, stability, ablate, the card and the page say of the same records, by model."""
    questions = exam(request.param)
    records = list(replies(questions, {"base": (0.7, 0.5), "final": (0.95, 0.97)}))
    write_records(records, tmp_path / "records.jsonl")
    rows = [
        {"question_id": one.question_id, "text": one.text, "choices": list(one.choices), "answer": "b",
         "year": one.year, "points": one.points, "group": one.vignette_id}
        for one in questions
    ]  # fmt: skip
    (tmp_path / "exam.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")

    def command(*words):
        return json.loads(CliRunner().invoke(app, [str(word) for word in (*words, "--json")]).stdout)

    page = read(tmp_path / "records.jsonl", Origin("here"))
    return {
        "score": command("score", "mine", tmp_path / "records.jsonl", "--data", tmp_path / "exam.jsonl"),
        "stability": command("stability", tmp_path / "records.jsonl"),
        "ablate": Ablation.of_records(records).as_json(),
        "card": score_table(stability_report(records)),
        "page": score_lines(page, np.ones(len(page.keys), dtype=bool), "points"),
        "page by accuracy": score_lines(page, np.ones(len(page.keys), dtype=bool), "accuracy"),
    }


def ends(found):
    return [found["interval"]["low"], found["interval"]["high"]]


@pytest.mark.parametrize("model", ["base", "final"])
@pytest.mark.parametrize("prompt", ["plain", "explain"])
def test_a_score_has_one_interval_in_score_stability_ablate_card_and_page(intervals_by_all, model, prompt):
    stable = next(one for one in intervals_by_all["stability"]["models"] if one["model"] == model)["conditions"][prompt]
    scored = next(one for one in intervals_by_all["score"] if (one["model"], one["prompt"]) == (model, prompt))
    row = intervals_by_all["ablate"]["rows"][model]
    (line,) = [line for line in intervals_by_all["page"] if line.model == model]
    (card,) = [one for one in intervals_by_all["card"] if one.model == model]
    share = getattr(line, prompt)
    wanted = ends(stable["score"])
    assert scored["interval"] == pytest.approx(wanted, abs=1e-12)
    assert row[f"{prompt}_interval"] == pytest.approx(wanted, abs=1e-12)
    assert [share.low, share.high] == pytest.approx(wanted, abs=1e-12)
    assert [scored["score"], row[prompt], share.value] == pytest.approx([stable["score"]["value"]] * 3, abs=1e-12)
    assert card.as_text()[prompt].endswith(f"({100 * wanted[0]:.1f} to {100 * wanted[1]:.1f})")
    accuracy = getattr(next(one for one in intervals_by_all["page by accuracy"] if one.model == model), prompt)
    assert scored["accuracy_interval"] == pytest.approx(ends(stable["accuracy"]), abs=1e-12)
    assert [accuracy.low, accuracy.high] == pytest.approx(ends(stable["accuracy"]), abs=1e-12)


@pytest.mark.parametrize("model", ["base", "final"])
def test_what_explaining_changes_has_one_interval_in_stability_ablate_card_gate_and_page(intervals_by_all, model):
    stable = next(one for one in intervals_by_all["stability"]["models"] if one["model"] == model)["change"]
    (line,) = [line for line in intervals_by_all["page"] if line.model == model]
    (card,) = [one for one in intervals_by_all["card"] if one.model == model]
    wanted = ends(stable["delta"])
    assert intervals_by_all["ablate"]["rows"][model]["interval"] == pytest.approx(wanted, abs=1e-12)
    assert [line.change.low, line.change.high] == pytest.approx(wanted, abs=1e-12)
    assert (line.change.lost, line.change.gained) == (stable["lost"], stable["gained"])
    assert [card.change.low, card.change.high] == pytest.approx(wanted, abs=1e-12)
    assert [line.change.value, card.change.value] == pytest.approx([stable["delta"]["value"]] * 2, abs=1e-12)
    assert intervals_by_all["ablate"]["rows"][model]["delta"] == pytest.approx(stable["delta"]["value"], abs=1e-12)
    assert (card.change.p, line.change.p) == pytest.approx((stable["p"], stable["p"]), rel=1e-12)
    assert line.change.retention == pytest.approx(stable["retention"]["value"], abs=1e-12)
    assert card.as_text()["delta"].endswith(f"({100 * wanted[0]:+.1f} to {100 * wanted[1]:+.1f})")


def test_the_page_s_row_and_the_card_s_row_have_equal_counts(intervals_by_all):
    def counts(row):
        shares = [(share.right, share.asked) for share in row.shares.values()]
        return [*shares, row.change.lost, row.change.gained, row.change.kept, row.change.never]

    cards = {row.model: counts(row) for row in intervals_by_all["card"]}
    assert {row.model: counts(row) for row in intervals_by_all["page"]} == cards


def test_a_row_is_read_back_as_it_was_written(intervals_by_all):
    rows = intervals_by_all["card"]
    assert [ScoreRow.from_json(json.loads(json.dumps(row.to_json()))) for row in rows] == rows


def test_two_models_have_one_interval_in_stability_ablate_and_score(intervals_by_all):
    stable = {one["prompt"]: one for one in intervals_by_all["stability"]["comparisons"]}
    scored = next(one for one in intervals_by_all["score"] if (one["model"], one["prompt"]) == ("final", "plain"))
    found, compared = scored["difference"], stable["plain"]
    assert (found["against"], found["against_prompt"], found["questions"]) == ("base", "plain", compared["questions"])
    assert found["interval"] == pytest.approx(ends(compared["difference"]), abs=1e-12)
    assert (found["only_reference"], found["only_this"]) == (compared["only_first"], compared["only_second"])
    assert found["p"] == pytest.approx(compared["p"], rel=1e-12)
    for one in intervals_by_all["ablate"]["exams"]["mine"]["comparisons"]:
        assert one["interval"] == pytest.approx(ends(stable[one["prompt"]]["difference"]), abs=1e-12)
        assert one["interval"][0] < one["difference"] < one["interval"][1]


def worst_of(count, exams=("mine",), prompts=("plain", "explain")):
    """The far end that the gate reads where the final model is right everywhere."""
    records = [
        record(f"q{n}", benchmark=name, model="final", prompt=prompt)
        for name in exams for n in range(count)
        for prompt in (prompts if name == "mine" else ("plain", "explain"))
    ]  # fmt: skip
    rows = tuple(score_table(stability_report(records)))
    return EvaluationResults(Artifact("clinic/toy-evaluate", "dataset", "0" * 40), rows).worst_delta


def unmet(tmp_path, worst):
    lay_out(tmp_path)
    recipe = read_recipe(tmp_path / "toy.yaml", {"gate.max_drop": 0.05})
    return [condition for condition in gate.failed_gate_conditions(recipe, {}, worst) if "max_drop" in condition]


@pytest.mark.parametrize("count", [1, 10, 12, 50])
def test_an_exam_of_few_questions_does_not_open_the_gate_even_when_nothing_was_lost(tmp_path, count):
    assert worst_of(count) < -0.05
    assert unmet(tmp_path, worst_of(count))


def test_an_exam_of_many_questions_opens_it(tmp_path):
    assert worst_of(400) > -0.05
    assert unmet(tmp_path, worst_of(400)) == []


def test_one_short_exam_among_long_ones_keeps_it_shut(tmp_path):
    records = [
        record(f"q{n}", benchmark="long", model="final", prompt=p) for n in range(400) for p in ("plain", "explain")
    ]
    records += [record(f"q{n}", model="final", prompt=p) for n in range(10) for p in ("plain", "explain")]
    rows = tuple(score_table(stability_report(records)))
    assert unmet(tmp_path, EvaluationResults(Artifact("a/b", "dataset", "0" * 40), rows).worst_delta)


def test_an_exam_that_was_asked_only_one_way_keeps_it_shut(tmp_path):
    worst = worst_of(400, exams=("mine", "other"), prompts=("plain",))
    assert worst is None
    assert unmet(tmp_path, worst)
