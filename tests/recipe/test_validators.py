"""What must hold between the blocks of a recipe, told by the exact words."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medllm.recipe import read_recipe
from medllm.recipe.dependencies import missing_folders

Refuse = Callable[[str, str], str]


def test_an_unknown_benchmark(refused: Refuse):
    words = refused("held_out: [igakuqa, medqa-ja]", "held_out: [igakuqa, medqa-ja, igakuqaa]")
    assert "corpus.held_out: Unknown exam `igakuqaa`. Did you mean `igakuqa`?" in words


def test_an_exam_that_is_asked_must_be_held_out(refused: Refuse):
    words = "corpus.held_out: `evaluate` asks `medqa-ja`, which is not held out. Add it here."
    assert refused("held_out: [igakuqa, medqa-ja]", "held_out: [igakuqa]") == f"small.yaml, line 7, {words}"
    words = words.replace("corpus", "preferences")
    own = refused("preferences:\n  model: cpt", "preferences:\n  held_out: [igakuqa]\n  model: cpt")
    assert own == f"small.yaml, line 13, {words}"


def test_a_repository_needs_a_revision(refused: Refuse):
    words = "`me/texts` has no revision. Write `me/texts@main`, a tag or, best, a commit."
    assert refused("me/texts@v1", "me/texts") == f"small.yaml, line 6, corpus.data[0]: {words}"
    assert refused("0.5B@main", "0.5B").startswith("small.yaml, line 2, base: `Qwen/Qwen2.5-0.5B` has no revision.")


def test_the_cutoff_precedes_every_exam(refused: Refuse):
    assert refused("cutoff: 2017-12-31", "cutoff: 2019-12-31") == (
        "small.yaml, line 4, cutoff: 2019-12-31 is not before the first `igakuqa` exam asked (2018-02-10). "
        "Set it earlier, or limit `years` to later exams."
    )


def test_later_years_may_be_asked_after_a_later_cutoff(sound: Path):
    later = {"cutoff": "2019-12-31", "evaluate.years": [2021, 2022]}
    assert read_recipe(sound, later).evaluate


def test_a_circle_is_named(refused: Refuse):
    words = "small.yaml, line 8, cpt.model: `rpo` runs after `cpt` and cannot be its input. Available: base."
    assert refused("cpt:\n", "cpt:\n  model: rpo\n").startswith(words.replace("line 8", "line 9"))
    assert "preferences.model: `preferences` cannot be its own input." in refused(
        "preferences:\n  model: cpt", "preferences:\n  model: preferences"
    )


def test_a_dataset_is_no_model(refused: Refuse):
    words = refused("rpo:\n  model: cpt", "rpo:\n  model: corpus")
    assert (
        words == "small.yaml, line 16, rpo.model: `corpus` is a dataset; this key needs a model. Available: base, cpt."
    )
    words = refused("  learning_rate: 1e-4", "  data: base")
    assert words == "small.yaml, line 11, cpt.data: `base` is a model; this key needs a dataset."


def test_a_stage_that_is_not_made_is_named(refused: Refuse):
    words = refused("cpt:\n  lora: {r: 64, lora_alpha: 128}\n  num_train_epochs: 2\n  learning_rate: 1e-4", "")
    mend = "this recipe has no stage `cpt`. Add a `cpt:` block, or name a repository."
    assert words.splitlines() == [
        "small.yaml has 3 faults:",
        f"  line 10, preferences.model: {mend} Available: base.",
        f"  line 13, rpo.model: {mend} Available: base.",
        f"  line 18, evaluate.models.cpt: {mend} Available: base, rpo, merge.",
    ]


def test_a_folder_must_be_there(refused: Refuse):
    assert (
        refused("me/texts@v1", "./texts")
        == "small.yaml, line 6, corpus.data[0]: folder ./texts not found (looked in .)."
    )


def test_a_folder_that_a_command_writes_may_be_absent(sound: Path):
    text = sound.read_text("utf-8").replace("me/texts@v1", "./texts")
    sound.write_text(text.replace("namespace: me", "namespace: me\nprepared_by: make texts"), "utf-8")
    recipe = read_recipe(sound)
    assert missing_folders(recipe) == ("./texts",)
    (sound.parent / "texts").mkdir()
    assert missing_folders(recipe) == ()


def test_a_word_that_is_no_source(refused: Refuse):
    words = refused("  learning_rate: 1e-4", "  data: corpsu")
    assert words.endswith("Unknown source `corpsu`. Did you mean `corpus`? Or write `ORG/NAME@REVISION` or `./folder`.")


def test_rules_between_blocks(refused: Refuse):
    assert (
        refused("  num_train_epochs: 2\n", "")
        == "small.yaml, line 8, cpt: give exactly one of `num_train_epochs` and `max_steps`."
    )
    assert "rpo.lora: `base` has no adapter to train further." in refused("rpo:\n  model: cpt", "rpo:\n  model: base")
    assert "preferences.samples: 8 samples at temperature 0 are identical." in refused(
        "preferences:\n  model: cpt", "preferences:\n  model: cpt\n  temperature: 0"
    )
    assert "cpt.run_on: Unknown machine `a1000x4`. Did you mean `a100x4`?" in refused(
        "  num_train_epochs: 2", "  num_train_epochs: 2\n  run_on: a1000x4"
    )
    assert "cpt.total_batch_size: 6 rows do not divide over 4 at once." in refused(
        "  num_train_epochs: 2", "  num_train_epochs: 2\n  run_on: a100x4\n  total_batch_size: 6"
    )
    assert "cpt.dtype: t4x1 cannot compute in bfloat16." in refused(
        "  num_train_epochs: 2", "  num_train_epochs: 2\n  run_on: t4-small"
    )
    assert "ablations.cpt: `cpt` is already the name of a row" in refused("cpt-dpo: {", "cpt: {")


@pytest.mark.parametrize(
    ("new", "fault"),
    [
        ("accelerate: fsdp2, optim: paged_adamw_8bit", "cpt.optim"),
        ("accelerate: fsdp2, quantization: nf4, dtype: float32", "cpt.dtype"),
        ("lora: {r: 4, lora_alpha: 8, target_modules: [q_proj, lm_head]}", "cpt.lora.target_modules"),
    ],
)
def test_what_would_end_at_the_first_update_is_refused_in_the_recipe(refused, new, fault):
    old = "cpt:\n  lora: {r: 64, lora_alpha: 128}\n  num_train_epochs: 2\n  learning_rate: 1e-4\n"
    lora = "" if new.startswith("lora") else "lora: {r: 4, lora_alpha: 8}, "
    assert fault in refused(old, f"cpt: {{{lora}num_train_epochs: 2, {new}}}\n")


def test_a_batch_is_shared_by_all_nodes(refused):
    old = "cpt:\n  lora: {r: 64, lora_alpha: 128}\n"
    assert "16 rows do not divide over 24 at once" in refused(old, f"slurm: {{nodes: 3}}\n{old}  run_on: a100x8\n")


def test_an_optimizer_that_cannot_step_over_shares_is_refused_with_every_way_to_ask_for_them(refused: Refuse, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("num_processes: 4\ndistributed_type: FSDP\n", "utf-8")
    for accelerate in ("fsdp2", str(file)):
        words = refused(
            "  learning_rate: 1e-4", f"  optim: adamw_8bit\n  accelerate: {accelerate}\n  learning_rate: 1e-4"
        )
        assert (
            "cpt.optim: `adamw_8bit` cannot be divided by FSDP2. Set `optim: adamw_torch`, or `accelerate: ddp`."
            in words
        )
