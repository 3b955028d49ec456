"""What is no sound YAML is refused by line, a huge or deep file at once, and words stay words."""

import time
from pathlib import Path

import pytest

from medllm.errors import RecipeError
from medllm.recipe import read_recipe
from tests.refusals import refused


@pytest.mark.parametrize(
    ("content", "code", "values"),
    [
        (b"name: [a", "recipe.not-yaml", ("line 1:",)),
        (b"name: a\n\tbase: b\n", "recipe.tab", ("line 2:",)),
        (b"name: a\nname: b\n", "recipe.duplicate-key", ("line 2:", "`name`", "line 1.")),
        (b"cpt:\n  lora: {r: 1, r: 2}\n", "recipe.duplicate-key", ("line 2:", "`cpt.lora.r`", "line 2.")),
        (b"\xe5\xe9", "recipe.not-utf-8", ("byte 0",)),
        ("name: 医療".encode("shift_jis"), "recipe.not-utf-8", ("byte 6",)),
        (b"", "recipe.no-keys", ("`name: ...`",)),
        (b"- a\n- b\n", "recipe.no-keys", ("`name: ...`",)),
        (b"a: &x 1\nb: *x\n", "recipe.anchor", ("line 1:",)),
        (b"a: !!python/object:os.system x", "recipe.not-yaml", ("line 1:", "constructor")),
        (b"a: \x00", "recipe.not-yaml", ("#x0000",)),
        (b"a: 1\n---\nb: 2\n", "recipe.not-yaml", ("line 2:", "another document")),
        (b"name: a\r\n? [x, y]\r\n: 1", "recipe.not-yaml", ("line 2:", "unhashable key")),
    ],
)
def test_a_file_that_is_not_sound_yaml_is_refused_by_line(content: bytes, code: str, values, tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with refused(code, path, *values, kind=RecipeError):
        read_recipe(path)


@pytest.mark.parametrize(
    ("content", "code", "values"),
    [
        ("a: b\n" * 100_000, "recipe.too-large", ("64,000",)),
        ("[" * 60_000, "recipe.too-deep", ("line 1:", "12 levels")),
        ("{a: " * 15_000, "recipe.too-deep", ("line 1:", "12 levels")),
        ("- " * 30_000, "recipe.too-deep", ("line 1:", "12 levels")),
    ],
    ids=["huge", "brackets", "braces", "dashes"],
)
def test_a_huge_or_deep_file_is_refused_at_once(content: str, code: str, values, tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(content)
    before = time.process_time()
    with refused(code, path, *values, kind=RecipeError):
        read_recipe(path)
    assert time.process_time() - before < 5  # under 0.1 s in practice; a hang would be minutes


def test_1e_4_is_a_number(sound: Path):
    cpt = read_recipe(sound).cpt
    assert cpt and cpt.learning_rate == 1e-4


def test_words_that_yaml_would_bend_stay_words(sound: Path):
    text = sound.read_text().replace("name: small", "name: no")
    sound.write_text(text)
    assert read_recipe(sound).name == "no"
