"""The dry run: what would be made in which order, what is known of its cost, and what is left open."""

import json
from pathlib import Path

import pytest

from medllm.errors import ModelError
from medllm.recipe import read_recipe
from medllm.recipe.estimate import CostPlan, StageCost, plan
from tests.refusals import refused

SIZED = {"corpus.data": [{"source": "me/texts@v1", "tokens": 9_000_000}, {"source": "me/x@v1", "tokens": 1_000_000}]}


def step(found: CostPlan, stage: str) -> StageCost:
    return next(one for one in found.steps if one.stage == stage)


def test_the_plan_names_repositories_in_order(sound: Path):
    found = plan(read_recipe(sound))
    assert [(one.repo, one.kind) for one in found.steps] == [
        ("me/small-corpus", "dataset"),
        ("me/small-cpt", "model"),
        ("me/small-preferences", "dataset"),
        ("me/small-rpo", "model"),
        ("me/small", "model"),
        ("me/small-evaluate", "dataset"),
    ]
    assert step(found, "rpo").uses == ("cpt", "preferences")
    assert found.parameters == 494_032_768


def test_tokens_hours_and_price_follow_from_stated_sizes(sound: Path):
    cpt = step(plan(read_recipe(sound, SIZED | {"cpt.run_on": "a100x4"})), "cpt")
    assert cpt.tokens == 2 * 10_000_000
    # 0.5B: 2 x (357,826,560 + 136,134,656) + 2 x 2048 x 896 x 24 = 1,076,002,816 a token forward, three times over;
    # 2e7 tokens at 312e12 x 0.35 a second: 0.1642 GPU-hours; four GPUs cost $10 an hour
    assert cpt.gpu_hours == pytest.approx(1_076_002_816 * 3 * 2e7 / (312e12 * 0.35) / 3600, abs=0.006)
    assert cpt.dollars == pytest.approx(0.41, abs=0.02)


def test_replayed_text_is_counted(sound: Path):
    half = SIZED | {"corpus.replay": {"source": "me/general@v1", "share": 0.5}}
    assert step(plan(read_recipe(sound, half)), "cpt").tokens == 2 * 20_000_000


def test_steps_decide_tokens_where_they_are_given(sound: Path):
    changes = {"cpt.num_train_epochs": None, "cpt.max_steps": 10, "cpt.total_batch_size": 4, "cpt.max_length": 256}
    assert step(plan(read_recipe(sound, changes)), "cpt").tokens == 10 * 4 * 256


def test_what_the_recipe_does_not_decide_is_left_open(sound: Path):
    cpt = step(plan(read_recipe(sound)), "cpt")
    assert (cpt.tokens, cpt.gpu_hours, cpt.dollars, cpt.gb_a_gpu, cpt.fits) == (None, None, None, None, None)
    rated = step(plan(read_recipe(sound, {"cpt.run_on": "l4x1"})), "cpt")
    assert rated.notes == ("data size not stated: 0.21 GPU-hours, $0.17 for 10 million tokens and epoch",)


def test_pairs_are_bounded_by_the_questions(sound: Path):
    rpo = step(plan(read_recipe(sound, {"preferences.questions": 100, "preferences.pairs_per_question": 1})), "rpo")
    assert rpo.tokens == 100 * 3 * 2 * 2048


def test_what_does_not_fit_is_a_warning_with_a_mend(sound: Path):
    changes = {"base": "Qwen/Qwen2.5-72B@main", "cpt.run_on": "a100x1", "preferences.run_on": "a100x1"}
    found = plan(read_recipe(sound, changes))
    assert found.warnings == (
        "cpt: needs about 173 GB a GPU, `a100x1` has 80: set `quantization: nf4`.",
        "preferences: needs about 161 GB a GPU, `a100x1` has 80: set `quantization: nf4`.",
    )


def test_a_server_elsewhere_needs_no_memory_here(sound: Path):
    changes = {"base": "Qwen/Qwen2.5-72B@main", "preferences.run_on": "l4x1"}
    assert step(plan(read_recipe(sound, changes)), "preferences").fits is False
    served = plan(read_recipe(sound, changes | {"preferences.engine": "http://127.0.0.1:8000/v1"}))
    assert step(served, "preferences").fits is None


def test_a_chat_template_that_no_question_is_asked_by_is_noted(sound: Path):
    (sound.parent / "own.jinja").write_text("{{ messages[0].content }}")

    def notes(form: str) -> list[str]:
        changes = {"chat_template": "./own.jinja", "preferences.format": "chat", "evaluate.format": form}
        costs = plan(read_recipe(sound, changes))
        return [stage for stage in ("preferences", "evaluate") if "without `chat_template`" in str(step(costs, stage))]

    assert notes("completion") == ["evaluate"]
    assert notes("chat") == []


def test_an_unknown_base_is_reported_as_unknown(sound: Path):
    found = plan(read_recipe(sound, {"base": "me/other@v1"}))
    assert found.parameters is None
    assert found.warnings == (
        "the shape of me/other@v1 is unknown, so costs are left out. Give its config.json with --config.",
    )


def test_a_folder_of_texts_is_sized_by_its_bytes(sound: Path):
    folder = sound.parent / "texts"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"x" * 3400)
    (folder / "b.jsonl").write_bytes(b"x" * 6800)
    recipe = read_recipe(sound, {"corpus.data": ["./texts"]})
    # 10,200 bytes at 3.4 a token, two epochs
    assert step(plan(recipe), "cpt").tokens == 6000
    both = read_recipe(sound, {"corpus.data": [{"source": "./texts", "exam": "own"}]})
    # each exam item is written out plainly and explained
    assert step(plan(both), "cpt").tokens == 12000
    (folder / "c.parquet").write_bytes(b"x")
    assert step(plan(recipe), "cpt").tokens is None


def test_what_only_fits_divided_says_how_to_divide_it(sound: Path):
    changes = {"base": "Qwen/Qwen2.5-14B@main", "cpt.run_on": "l40sx4", "cpt.per_device_train_batch_size": 8}
    changes |= {"cpt.total_batch_size": 32}
    divided = step(plan(read_recipe(sound, changes)), "cpt")
    assert divided.fits and divided.sharded
    assert divided.gb_loading and divided.gb_loading > divided.gb_a_gpu
    assert "set `accelerate: fsdp2`" in divided.notes[0]
    named = step(plan(read_recipe(sound, changes | {"cpt.accelerate": "fsdp2"})), "cpt")
    assert named.sharded and not any("accelerate" in note for note in named.notes)
    whole = step(plan(read_recipe(sound, changes | {"cpt.quantization": "nf4"})), "cpt")
    assert whole.fits and not whole.sharded
    assert not any("accelerate" in note for note in whole.notes)


def test_a_disk_that_is_too_small_is_a_warning_that_names_a_machine(sound: Path):
    changes = {"base": "Qwen/Qwen2.5-72B@main", "merge.run_on": "cpu-basic"}
    found = plan(read_recipe(sound, changes))
    assert step(found, "merge").gb_disk == 305.4
    assert found.warnings == ("merge: needs about 305 GB of disk; `cpu-basic` of the Hub has 50 GB: use l4x1.",)


def test_the_time_between_checkpoints_is_foretold(sound: Path):
    changes = {"base": "Qwen/Qwen2.5-72B@main", "cpt.run_on": "a100x4", "cpt.quantization": "nf4"}
    changes |= {"cpt.total_batch_size": 64, "cpt.max_length": 2048}
    cpt = step(plan(read_recipe(sound, changes)), "cpt")
    # 131,072 tokens at 15.56 GPU-hours for 10 million, on four
    assert cpt.minutes_an_update == pytest.approx(131_072 * 15.56 / 1e7 / 4 * 60, abs=0.01)
    assert cpt.minutes_between_checkpoints <= 200 * cpt.minutes_an_update + 0.1


@pytest.mark.parametrize("kind", ["t5", "vit", "a type of tomorrow", 7])
def test_a_base_of_a_type_that_cannot_be_loaded_is_refused_before_anything_is_spent(sound: Path, kind: object):
    config = sound.parent / "config.json"
    config.write_text(json.dumps({"model_type": kind}))
    with refused("weights.unsupported-type", config, f"`{kind}`", "Update transformers", kind=ModelError):
        plan(read_recipe(sound), config)
    (sound.parent / "base").mkdir()
    (sound.parent / "base" / "config.json").write_text(json.dumps({"model_type": kind}))
    with refused("weights.unsupported-type", "base/config.json", f"`{kind}`", kind=ModelError):
        plan(read_recipe(sound, {"base": "./base"}))


def test_base_and_a_model_trained_in_full_answer_one_after_the_other_and_are_both_on_the_disk(sound: Path):
    on = {"evaluate.run_on": "l4x1", "evaluate.batch_size": 1}
    adapters = step(plan(read_recipe(sound, on)), "evaluate")
    full = {**on, "cpt.lora": None, "merge": None}
    apart = step(plan(read_recipe(sound, {**full, "rpo.lora": {"r": 64, "lora_alpha": 128}})), "evaluate")
    assert apart.gb["weights"] == adapters.gb["weights"] and apart.gb_disk == pytest.approx(
        2 * adapters.gb_disk, abs=0.15
    )
    # one after the other: base alone, then the trained model with the adapter above it
    assert apart.gb["cache"] <= adapters.gb["cache"] and apart.gb["adapter"] < adapters.gb["adapter"]
    assert "2 models with weights of their own, in memory one after the other" in apart.notes
    assert step(plan(read_recipe(sound, full)), "evaluate").gb_disk == pytest.approx(3 * adapters.gb_disk, abs=0.15)
