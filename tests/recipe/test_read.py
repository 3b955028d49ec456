"""Reading a recipe: every fault at once, overrides and ablations, by the exact words."""

from collections.abc import Callable
from pathlib import Path

import pytest

from medllm.errors import RecipeError
from medllm.recipe import parse_override, read_recipe, with_overrides

Refuse = Callable[[str, str], str]


def said(path: Path) -> str:
    with pytest.raises(RecipeError) as fault:
        read_recipe(path)
    return str(fault.value)


def test_a_missing_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    assert said(Path("no.yaml")) == "no.yaml does not exist. The recipes of medllm are in recipes/."


def test_a_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    assert said(Path("recipes")) == "recipes is a folder. Give the path of a recipe file."


def test_wrong_types(refused: Refuse):
    assert (
        refused("num_train_epochs: 2", "num_train_epochs: many")
        == "small.yaml, line 10, cpt.num_train_epochs: `many` is not a number."
    )
    assert (
        refused("cutoff: 2017-12-31", "cutoff: soon")
        == "small.yaml, line 4, cutoff: `soon` is not a date as 2017-12-31."
    )
    assert (
        refused("merge: {model: rpo}", "merge: rpo")
        == "small.yaml, line 19, merge: `rpo` is not a block of `key: value`."
    )
    assert (
        refused("num_train_epochs: 2", "num_train_epochs: true")
        == "small.yaml, line 10, cpt.num_train_epochs: `True`: this key takes no true or false."
    )
    assert refused("num_train_epochs: 2", "num_train_epochs: 0").endswith(
        "cpt.num_train_epochs: `0` is out of range: it must be more than 0."
    )
    assert refused("name: small", "name: a/b").startswith(
        "small.yaml, line 1, name: `a/b` contains characters that the Hub does not allow."
    )


def test_an_unknown_key_gets_a_suggestion(refused: Refuse):
    words = "small.yaml, line 11, cpt.learnig_rate: unknown key. Did you mean `learning_rate`?"
    assert refused("learning_rate:", "learnig_rate:") == words
    assert refused("lora: {r: 64", "lora: {rank: 1, r: 64").startswith(
        "small.yaml, line 9, cpt.lora.rank: unknown key. Available: r, "
    )
    assert refused("merge:", "merg:") == "small.yaml, line 19, merg: unknown key. Did you mean `merge`?"
    assert refused("exam: own", "exm: own").endswith("corpus.data[1].exm: unknown key. Did you mean `exam`?")


def test_a_missing_key_is_told_at_its_block(refused: Refuse):
    assert (
        refused("  model: cpt\n  rpo_alpha: 10\n", "  model: cpt\n")
        == "small.yaml, line 15, rpo.rpo_alpha: is missing."
    )
    assert refused("namespace: me\n", "") == "small.yaml, namespace: is missing."


def test_all_faults_are_told_at_once_in_the_files_order(refused: Refuse):
    words = refused(
        "cpt:\n  lora: {r: 64, lora_alpha: 128}\n  num_train_epochs: 2",
        "cpt:\n  lora: {r: 0, lora_alpha: x}\n  data: rpo\n  num_train_epoks: 2",
    )
    assert [line.split(":")[0] for line in words.splitlines()] == [
        "small.yaml has 4 faults",
        "  line 9, cpt.lora.lora_alpha",
        "  line 9, cpt.lora.r",
        "  line 10, cpt.data",
        "  line 11, cpt.num_train_epoks",
    ]


def test_an_ablation_is_checked_like_the_recipe(refused: Refuse):
    words = refused("{rpo.rpo_alpha: 0}", "{rpo.rpo_alfa: 0}")
    assert words == "small.yaml, line 24, ablations.cpt-dpo: rpo.rpo_alfa: unknown key. Did you mean `rpo_alpha`?"
    assert refused("{rpo.rpo_alpha: 0}", "{name.x: 0}").endswith(
        "ablations.cpt-dpo: name.x: `name` is not a block and has no key `x`."
    )


def test_overrides_are_checked_like_the_recipe(sound: Path):
    recipe = read_recipe(sound, dict([parse_override("rpo.rpo_alpha=0")]))
    assert recipe.rpo and recipe.rpo.rpo_alpha == 0
    with pytest.raises(RecipeError, match=r"rpo\.rpo_alpha: `-1` is out of range: it must be at least 0\."):
        with_overrides(recipe, {"rpo.rpo_alpha": -1})
    with pytest.raises(RecipeError, match=r"--set rpo\.rpo_alpha: write KEY=VALUE, as `--set rpo\.rpo_alpha=0`\."):
        parse_override("rpo.rpo_alpha")
    assert parse_override("a.b=[1, x]") == ("a.b", [1, "x"])
    assert parse_override("a=1e-5") == ("a", 1e-5)
