"""The block `rounds`: what it takes from the other blocks, and what is refused before any work."""

import pytest

from medllm.errors import RecipeError
from medllm.recipe import read_recipe, settings_for_digest, uses
from medllm.recipe.dependencies import is_full, lora_of, trainings_of
from medllm.recipe.estimate import plan
from medllm.recipe.rounds import parts_of
from tests.recipe.conftest import SOUND, faults_in

OWN = "exams: {mock: {source: me/mock@v1, first: 2018-01-10}}\n"


def recipe_text(block: str = "{exam: mock}", *changes: tuple[str, str]) -> str:
    text = OWN + SOUND.replace("[igakuqa, medqa-ja]", "[igakuqa, medqa-ja, mock]", 1)
    text = text.replace("merge: {model: rpo}", f"rounds: {block}\nmerge: {{model: rounds}}")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(block: str = "{exam: mock}", *changes: tuple[str, str], **overrides):
        (tmp_path / "small.yaml").write_text(recipe_text(block, *changes), "utf-8")
        return read_recipe(tmp_path / "small.yaml", {key.replace("__", "."): value for key, value in overrides.items()})

    return read


def test_a_round_takes_every_key_that_it_does_not_give_from_the_other_blocks(read):
    recipe = read("{exam: mock, rpo: {beta: 0.5}, preferences: {samples: 4}}", ("rpo_alpha: 10", "rpo_alpha: 7"))
    rounds = recipe.rounds
    assert (rounds.rpo.rpo_alpha, rounds.rpo.beta, rounds.rpo.num_train_epochs) == (7, 0.5, 1)
    assert recipe.rpo.beta == 0.1, "the block itself stays as it is"
    assert rounds.preferences.samples == 4 and rounds.preferences.data == recipe.preferences.data
    assert rounds.preferences.held_out == ("igakuqa", "medqa-ja", "mock")
    assert rounds.preferences.cutoff == recipe.cutoff
    assert rounds.evaluate.benchmarks == ("mock",) and rounds.evaluate.prompts == ("plain", "explain")
    assert rounds.evaluate.models == {}, "other models of `evaluate` do not change the rounds"


def test_a_sample_that_was_reviewed_is_no_sample_of_another_round(read):
    reviewed = ("data: me/explanations@v1", "data: me/explanations@v1\n  leaks_reviewed: [own/1, own/2#0]")
    assert read("{exam: mock}", reviewed).rounds.preferences.leaks_reviewed == ("own/1",)
    own = "{exam: mock, preferences: {leaks_reviewed: [own/1, round-2/own/2#0, round-3/own/2#1]}}"
    sampling = read(own, reviewed).rounds.preferences
    assert sampling.of_round(2, "rpo", 1).leaks_reviewed == ("own/1", "own/2#0")
    assert sampling.of_round(3, "round-2", 2).leaks_reviewed == ("own/1", "own/2#1")


def test_another_end_of_the_training_puts_out_the_one_of_rpo(read):
    rpo = read("{exam: mock, rpo: {max_steps: 50}}").rounds.rpo
    assert (rpo.max_steps, rpo.num_train_epochs) == (50, None)


def test_the_digest_counts_what_a_round_does_and_not_who_else_is_evaluated(read):
    first = settings_for_digest(read().rounds)
    assert first == settings_for_digest(read("{exam: mock}", ("models: {base: base, cpt: cpt,", "models: {")).rounds)
    assert first == settings_for_digest(read("{exam: mock, run_on: a100x4}").rounds)
    assert first != settings_for_digest(read("{exam: mock}", ("rpo_alpha: 10", "rpo_alpha: 7")).rounds)
    assert first != settings_for_digest(read("{exam: mock, reference: first}").rounds)


def test_an_ablation_reaches_the_rounds_by_their_own_keys_and_by_those_of_rpo(read):
    assert read(rounds__max_rounds=0).rounds.max_rounds == 0
    assert read(rpo__rpo_alpha=0).rounds.rpo.rpo_alpha == 0


def test_the_sources_of_the_rounds_are_a_model_past_exams_and_the_development_exam(read):
    places = {use.place: use.source for use in uses(read(), "rounds")}
    assert places["rounds.model"] == "rpo" and places["rounds.preferences.data[0]"] == "me/explanations@v1"
    assert places["rounds.exam"] == "mock" and places["base"] == "base"


def test_the_adapter_of_the_rounds_has_the_shape_of_the_last_training(read):
    recipe = read("{exam: mock, rpo: {lora: {r: 8, lora_alpha: 16}}}")
    assert lora_of(recipe, "rounds").r == 8 and lora_of(read(), "rounds").r == 64
    assert not is_full(recipe, "rounds")
    assert [place for place, _ in trainings_of(recipe)] == ["cpt", "rpo", "rounds.rpo"]
    assert len(parts_of(recipe.rounds)) == 3 and parts_of(recipe.rpo) == (recipe.rpo,)


def test_the_dry_run_counts_one_training_and_names_what_a_round_asks(read):
    (step,) = [
        step for step in plan(read("{exam: mock, max_rounds: 2, run_on: a100x1}")).steps if step.stage == "rounds"
    ]
    assert (step.repo, step.kind, step.machine) == ("me/small-rounds", "model", "a100x1")
    assert step.trainable_parameters == 35_192_832 and step.fits
    assert step.notes[0].startswith("at most 2 rounds; of each: 8 answers to each question")
    assert "1 model x 2 prompts, one answer to each question of mock" in step.notes[0]


@pytest.mark.parametrize(
    ("block", "changes", "code", "place"),
    [
        ("{exam: igakuqa}", [], "recipe.development-exam-asked", "rounds.exam"),
        ("{exam: medqa}", [], "recipe.development-exam-test-only", "rounds.exam"),
        ("{exam: naika}", [], "recipe.unknown-exam", "rounds.exam"),
        (
            "{exam: mock}",
            [
                (OWN, "exams: {mock: {source: me/mock@v1}, test: {source: me/mock@v1}}\n"),
                ("benchmarks: [igakuqa, medqa-ja]", "benchmarks: [test]"),
            ],
            "recipe.development-exam-asked",
            "rounds.exam",
        ),
        (
            "{exam: mock}",
            [("held_out: [igakuqa, medqa-ja, mock]", "held_out: [igakuqa, medqa-ja]")],
            "recipe.exam-not-held-out",
            "corpus.held_out",
        ),
        (
            "{exam: mock, preferences: {held_out: [igakuqa, medqa-ja]}}",
            [],
            "recipe.exam-not-held-out",
            "rounds.preferences.held_out",
        ),
        (
            "{exam: mock}",
            [("data: me/explanations@v1", "data: {source: me/mock@v1, exam: own}")],
            "recipe.development-exam-trained",
            ", preferences.data[0]",
        ),
        (
            "{exam: mock}",
            [("preferences:\n  model: cpt", "preferences:\n  held_out: [igakuqa, medqa-ja]\n  model: cpt")],
            "recipe.exam-not-held-out",
            ", preferences.held_out",
        ),
        (
            "{exam: mock}",
            [("{source: me/explanations@v1, exam: own}", "{source: me/mock@v1, exam: own}")],
            "recipe.development-exam-trained",
            "corpus.data[1]",
        ),
        ("{exam: mock, model: base}", [], "recipe.rounds-of-base", "rounds.model"),
        ("{exam: mock, rpo: {model: cpt}}", [], "recipe.set-by-rounds", "rounds.rpo.model"),
        ("{exam: mock, evaluate: {samples: 4}}", [], "recipe.set-by-rounds", "rounds.evaluate.samples"),
        (
            "{exam: mock, preferences: {engine: 'http://localhost:1/v1'}}",
            [],
            "recipe.rounds-need-weights",
            "rounds.preferences.engine",
        ),
        ("{exam: mock, prompt: think}", [], "recipe.think-needs-chat", "rounds.prompt"),
        ("{exam: mock, rpo: {loss_type: robust}}", [], "recipe.label-smoothing", "rounds.rpo.label_smoothing"),
        ("{exam: mock, preferences: {temperature: 0}}", [], "recipe.identical-samples", "rounds.preferences.samples"),
        ("{exam: mock, rpo: {total_batch_size: 6}, run_on: a100x4}", [], "recipe.batch-not-divisible", "rounds.rpo"),
        ("{exam: mock, preferences: {cutoff: 2018-06-01}}", [], "recipe.cutoff-too-late", "rounds.preferences.cutoff"),
        ("{max_rounds: 2}", [], "recipe.missing-key", "rounds.exam"),
    ],
)
def test_what_cannot_be_is_refused_at_its_key(read, block, changes, code, place):
    with pytest.raises(RecipeError) as caught:
        read(block, *changes)
    listed = faults_in(caught.value) or [(str(caught.value), caught.value.code)]  # a single fault is the error itself
    assert any(place in where and code == named for where, named in listed), caught.value


def test_a_fault_that_the_rounds_inherit_is_reported_once_where_it_is_written(read):
    with pytest.raises(RecipeError) as caught:
        read("{exam: mock}", ("rpo_alpha: 10\n  num_train_epochs: 1", "rpo_alpha: 10\n  max_steps: 1"))
    assert caught.value.code == "recipe.only-warm-up"
    assert ", rpo.max_steps" in str(caught.value) and "rounds.rpo" not in str(caught.value)


def test_two_years_of_one_file_may_be_development_and_test(read):
    both = "exams: {mock: {source: me/all@v1, years: [2018]}, test: {source: me/all@v1, years: [2019, 2020]}}\n"
    changes = [(OWN, both), ("benchmarks: [igakuqa, medqa-ja]", "benchmarks: [test]"), ("mock]", "mock, test]")]
    assert read("{exam: mock}", *changes).rounds.evaluate.exam_years == {"mock": (2018,)}


def test_a_recipe_without_preferences_and_rpo_gives_the_rounds_what_they_lack(read):
    without = [
        ("preferences:\n  model: cpt\n  data: me/explanations@v1\n", ""),
        ("rpo:\n  model: cpt\n  rpo_alpha: 10\n  num_train_epochs: 1\n", ""),
        ("final: rpo", "final: rounds"),
        ("ablations:\n  cpt-dpo: {rpo.rpo_alpha: 0}\n", ""),
    ]
    with pytest.raises(RecipeError) as caught:
        read("{exam: mock, model: me/other-rpo@main}", *without)
    assert {(place.split(", ")[1], code) for place, code in faults_in(caught.value)} >= {
        ("rounds.preferences.data", "recipe.missing-key"),
        ("rounds.rpo.rpo_alpha", "recipe.missing-key"),
    }
    block = "{exam: mock, model: me/o@main, preferences: {data: me/e@v1}, rpo: {rpo_alpha: 5, max_steps: 9}}"
    rounds = read(block, *without).rounds
    assert rounds.preferences.held_out == ("igakuqa", "medqa-ja", "mock") and rounds.rpo.rpo_alpha == 5
