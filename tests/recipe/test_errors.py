"""A key of before 0.1.0 is answered with its new name: in the file, in lists, under ablations and after `--set`."""

from pathlib import Path

import pytest

from medllm.corpus.read.rows import DEFAULTS
from medllm.errors import RecipeError
from medllm.recipe import read_recipe, with_overrides
from medllm.recipe.errors import RENAMED, new_name, with_new_keys
from medllm.recipe.settings import Recipe
from tests.recipe.conftest import SOUND, faults_in
from tests.refusals import refused


def keys_of(model, block: str) -> set[str]:
    """The keys that the schema knows at a dotted place."""
    if block.endswith(".columns"):
        return set(DEFAULTS)
    for part in block.split("."):
        model = next(_models(model.model_fields[part].annotation))
    return set(model.model_fields)


def _models(annotation):
    if hasattr(annotation, "model_fields"):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _models(inner)


@pytest.mark.parametrize(("block", "old"), [(block, old) for block, keys in RENAMED.items() for old in keys])
def test_each_old_key_is_gone_and_its_new_name_is_a_key(block: str, old: str):
    known = keys_of(Recipe, block)
    assert old not in known
    assert RENAMED[block][old] in known


@pytest.mark.parametrize(
    ("old", "line", "place", "new"),
    [
        ("num_train_epochs: 2->epochs: 2", 10, "cpt.epochs", "cpt.num_train_epochs"),
        ("learning_rate: 1e-4->warmup: 0.1", 11, "cpt.warmup", "cpt.warmup_ratio"),
        ("rpo_alpha: 10->rpo_alpha: 10\n  trackers: []", 18, "rpo.trackers", "rpo.report_to"),
        ("exam: own}->exam: own, licence: mit}", 6, "corpus.data[1].licence", "corpus.data[1].license"),
        ("merge: {model: rpo}->merge: {model: rpo, certify: 8}", 19, "merge.certify", "merge.parity_questions"),
    ],
)
def test_an_old_key_is_the_only_fault_and_names_the_new_one(read_changed, old: str, line: int, place: str, new: str):
    before, after = old.split("->")
    with refused("recipe.renamed-key", f"small.yaml, line {line}, {place}:", f"`{new}`"):
        read_changed(before, after)


def test_a_value_that_changed_with_its_key_is_given_in_full(read_changed):
    with refused("recipe.renamed-key", "rpo.shots:", "`rpo.keep_exemplars`", "`keep_exemplars: false`"):
        read_changed("rpo_alpha: 10", "rpo_alpha: 10\n  shots: drop")
    with refused("recipe.renamed-key", "cpt.optimizer:", "`optim: adamw_torch`"):
        read_changed("learning_rate: 1e-4", "optimizer: adamw")


def test_the_value_under_an_old_key_is_checked_in_the_same_reading(read_changed):
    with refused("recipe.faults") as caught:
        read_changed("num_train_epochs: 2", "epochs: many")
    assert faults_in(caught.value) == [
        ("line 10, cpt.epochs", "recipe.renamed-key"),
        ("line 10, cpt.num_train_epochs", "recipe.wrong-type"),
    ]


def test_an_old_key_beside_its_new_name_changes_nothing(read_changed):
    with refused("recipe.renamed-key", "line 11, cpt.epochs:", "`cpt.num_train_epochs`"):
        read_changed("num_train_epochs: 2", "num_train_epochs: 2\n  epochs: many")


def test_an_ablation_with_an_old_key_is_answered_with_the_new_one(read_changed):
    with refused("recipe.renamed-key", "line 24, ablations.cpt-dpo: rpo.epochs:", "`rpo.num_train_epochs`"):
        read_changed("{rpo.rpo_alpha: 0}", "{rpo.epochs: 3}")


def test_an_override_with_an_old_key_is_answered_with_the_new_one(sound: Path):
    for read in (
        lambda: read_recipe(sound, {"cpt.epochs": 3}),
        lambda: with_overrides(read_recipe(sound), {"cpt.epochs": 3}),
    ):
        with refused("recipe.renamed-key", "--set cpt.epochs:", "`cpt.num_train_epochs`", kind=RecipeError):
            read()


def test_a_recipe_without_an_old_key_is_left_as_it_is():
    tree = {"cpt": {"num_train_epochs": 2, "lora": {"r": 4}}, "preferences": {"shots": 3}, 1: [{"epochs": 1}]}
    assert with_new_keys(tree) == (tree, [])
    assert "epochs: " not in SOUND.replace("num_train_epochs: ", "")
    assert new_name("preferences.shots") is None
