"""The blocks of a recipe and what of them goes into a digest."""

from datetime import date
from pathlib import Path

import pytest

from medllm.recipe import (
    ablated,
    parse_override,
    read_recipe,
    settings_for_digest,
    stages_of,
    uses,
    with_overrides,
)
from medllm.recipe.settings import Recipe
from tests.refusals import refused


def test_stages_come_in_the_order_in_which_they_are_made(sound: Path):
    assert stages_of(read_recipe(sound)) == ("corpus", "cpt", "preferences", "rpo", "merge", "evaluate")


def test_the_machine_and_the_split_of_a_batch_are_not_in_the_digest(sound: Path):
    recipe = read_recipe(sound)
    moved = with_overrides(recipe, {"cpt.run_on": "a100x4", "cpt.per_device_train_batch_size": 2})
    other = with_overrides(recipe, {"cpt.learning_rate": 2e-4})
    assert moved.cpt and other.cpt and recipe.cpt
    assert moved.cpt != recipe.cpt
    assert settings_for_digest(moved.cpt) == settings_for_digest(recipe.cpt)
    assert settings_for_digest(other.cpt) != settings_for_digest(recipe.cpt)


def test_what_you_say_about_the_size_of_a_source_is_not_in_the_digest(sound: Path):
    sized = read_recipe(sound, {"corpus.data": [{"source": "me/texts@v1", "tokens": 10}]})
    bare = read_recipe(sound, {"corpus.data": "me/texts@v1"})
    assert sized.corpus and bare.corpus
    assert settings_for_digest(sized.corpus) == settings_for_digest(bare.corpus)


def test_cutoff_and_held_out_exams_are_inherited(sound: Path):
    preferences = read_recipe(sound).preferences
    assert preferences
    assert preferences.cutoff == date(2017, 12, 31)
    assert preferences.held_out == ("igakuqa", "medqa-ja")


def test_an_ablation_is_the_recipe_with_its_overrides(sound: Path):
    row = ablated(read_recipe(sound), "cpt-dpo")
    assert row.rpo and row.rpo.rpo_alpha == 0
    assert row.ablations == {}


@pytest.mark.parametrize("written", ["none", "null", "~"])
def test_none_switches_a_setting_off_as_its_sentence_says(sound: Path, written: str):
    sound.write_text(sound.read_text("utf-8").replace("  held_out:", f"  near_duplicate: {written}\n  held_out:", 1))
    corpus = read_recipe(sound).corpus
    assert corpus
    assert corpus.near_duplicate is None
    assert with_overrides(read_recipe(sound), {"corpus.near_duplicate": 0.9}).corpus.near_duplicate == 0.9


def test_none_on_the_command_line_is_null_too(sound: Path):
    recipe = read_recipe(sound, dict([parse_override("corpus.near_duplicate=none"), parse_override("merge=none")]))
    assert (recipe.corpus.near_duplicate, recipe.merge) == (None, None)


def test_none_stays_a_word_where_it_is_one_of_the_values(sound: Path):
    assert read_recipe(sound, {"cpt.quantization": "none"}).cpt.quantization == "none"


def test_none_is_refused_where_a_key_cannot_be_left_out(sound: Path):
    with refused("recipe.wrong-type", "corpus.min_chars", "`none`"):
        read_recipe(sound, {"corpus.min_chars": "none"})


def test_the_schema_of_editors_knows_none():
    keys = Recipe.model_json_schema()["$defs"]["Corpus"]["properties"]
    assert {"const": "none"} in keys["near_duplicate"]["anyOf"]
    assert "none" not in str(keys["min_chars"])


def test_uses_name_each_source_and_what_is_wanted(sound: Path):
    found = {(use.place, use.source, use.wanted) for use in uses(read_recipe(sound), "evaluate")}
    assert ("evaluate.models.final", "rpo", "model") in found
    assert ("evaluate.benchmarks", "igakuqa", "exam") in found
    assert ("base", "base", "model") in found
