"""Reading a recipe: every fault at once with its code and place, overrides and ablations."""

from pathlib import Path

import pytest

from medllm.errors import RecipeError
from medllm.recipe import parse_override, read_recipe, with_overrides
from tests.recipe.conftest import faults_in
from tests.refusals import refused


def test_a_missing_file_is_named(tmp_path: Path):
    with refused("recipe.no-such-file", tmp_path / "no.yaml", "recipes/", kind=RecipeError):
        read_recipe(tmp_path / "no.yaml")


def test_a_folder_is_named(tmp_path: Path):
    with refused("recipe.is-a-folder", tmp_path, kind=RecipeError):
        read_recipe(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "code", "values"),
    [
        (
            "num_train_epochs: 2",
            "num_train_epochs: many",
            "recipe.wrong-type",
            ("line 10, cpt.num_train_epochs:", "`many`", "number"),
        ),
        ("cutoff: 2017-12-31", "cutoff: soon", "recipe.wrong-type", ("line 4, cutoff:", "`soon`", "2017-12-31")),
        ("cutoff: 2017-12-31", "cutoff: 2017", "recipe.wrong-type", ("line 4, cutoff:", "`2017`", "2017-12-31")),
        ("merge: {model: rpo}", "merge: rpo", "recipe.wrong-type", ("line 19, merge:", "`rpo`", "`key: value`")),
        (
            "num_train_epochs: 2",
            "num_train_epochs: true",
            "recipe.wrong-type",
            ("line 10, cpt.num_train_epochs:", "`True`"),
        ),
        (
            "num_train_epochs: 2",
            "num_train_epochs: 0",
            "recipe.out-of-range",
            ("line 10, cpt.num_train_epochs:", "`0`", "more than 0"),
        ),
        ("name: small", "name: a/b", "recipe.not-a-hub-name", ("line 1, name:", "`a/b`")),
        (
            "namespace: me",
            "namespace: me\nslurm: {mem: 200 GB}",
            "recipe.wrong-form",
            ("line 4, slurm.mem:", "`200 GB`", "[KMGT]"),
        ),
        (
            "namespace: me",
            "namespace: me\nslurm: {extra: [account=med]}",
            "recipe.not-an-sbatch-option",
            ("line 4, slurm.extra:", "`account=med`"),
        ),
        (
            "merge: {model: rpo}",
            "merge: {model: rpo, dtype: int8}",
            "recipe.unknown-value",
            ("line 19, merge.dtype:", "`int8`", "'bfloat16', 'float16' or 'float32'"),
        ),
        (
            "learning_rate:",
            "learnig_rate:",
            "recipe.unknown-key",
            ("line 11, cpt.learnig_rate:", "Did you mean `learning_rate`?"),
        ),
        (
            "lora: {r: 64",
            "lora: {rank: 1, r: 64",
            "recipe.unknown-key",
            ("line 9, cpt.lora.rank:", "Available: r, "),
        ),
        ("merge:", "merg:", "recipe.unknown-key", ("line 19, merg:", "Did you mean `merge`?")),
        ("exam: own", "exm: own", "recipe.unknown-key", ("corpus.data[1].exm:", "Did you mean `exam`?")),
        ("  rpo_alpha: 10\n", "", "recipe.missing-key", ("line 15, rpo.rpo_alpha:",)),
        ("namespace: me\n", "", "recipe.missing-key", ("small.yaml, namespace:",)),
        (
            "{rpo.rpo_alpha: 0}",
            "{rpo.rpo_alfa: 0}",
            "recipe.unknown-key",
            ("line 24, ablations.cpt-dpo: rpo.rpo_alfa:", "Did you mean `rpo_alpha`?"),
        ),
        (
            "{rpo.rpo_alpha: 0}",
            "{name.x: 0}",
            "recipe.not-a-block",
            ("line 24, ablations.cpt-dpo: name.x:", "`name`", "`x`"),
        ),
    ],
)
def test_a_fault_is_named_with_its_line_place_and_value(read_changed, old: str, new: str, code: str, values):
    with refused(code, "small.yaml", *values, kind=RecipeError):
        read_changed(old, new)


def test_all_faults_are_reported_at_once_in_the_files_order(read_changed):
    with refused("recipe.faults", "small.yaml has 4 faults:") as caught:
        read_changed(
            "cpt:\n  lora: {r: 64, lora_alpha: 128}\n  num_train_epochs: 2",
            "cpt:\n  lora: {r: 0, lora_alpha: x}\n  data: rpo\n  num_train_epoks: 2",
        )
    assert faults_in(caught.value) == [
        ("line 9, cpt.lora.lora_alpha", "recipe.wrong-type"),
        ("line 9, cpt.lora.r", "recipe.out-of-range"),
        ("line 10, cpt.data", "recipe.later-stage"),
        ("line 11, cpt.num_train_epoks", "recipe.unknown-key"),
    ]


def test_overrides_are_checked_like_the_recipe(sound: Path):
    recipe = read_recipe(sound, dict([parse_override("rpo.rpo_alpha=0")]))
    assert recipe.rpo and recipe.rpo.rpo_alpha == 0
    with refused("recipe.out-of-range", "rpo.rpo_alpha:", "`-1`", "at least 0"):
        with_overrides(recipe, {"rpo.rpo_alpha": -1})
    with refused("recipe.no-value-to-set", "--set rpo.rpo_alpha:", "`--set rpo.rpo_alpha=0`"):
        parse_override("rpo.rpo_alpha")
    assert parse_override("a.b=[1, x]") == ("a.b", [1, "x"])
    assert parse_override("a=1e-5") == ("a", 1e-5)
