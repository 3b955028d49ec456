"""What is no sound YAML is refused by line, a huge or deep file at once, and words stay words."""

import time
from pathlib import Path

import pytest

from medllm.errors import RecipeError
from medllm.recipe import read_recipe


def said(path: Path) -> str:
    with pytest.raises(RecipeError) as fault:
        read_recipe(path)
    return str(fault.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: [a", "r.yaml, line 1: not YAML: expected ',' or ']', but got '<stream end>'."),
        (b"name: a\n\tbase: b\n", "r.yaml, line 2: indented with a tab. YAML needs spaces."),
        (b"name: a\nname: b\n", "r.yaml, line 2: `name` is a duplicate of line 1. Keep one."),
        (b"cpt:\n  lora: {r: 1, r: 2}\n", "r.yaml, line 2: `cpt.lora.r` is a duplicate of line 2. Keep one."),
        (b"\xe5\xe9", "r.yaml is not UTF-8 text (byte 0). Save it as UTF-8."),
        ("name: 医療".encode("shift_jis"), "r.yaml is not UTF-8 text (byte 6). Save it as UTF-8."),
        (b"", "r.yaml has no `key: value` lines. A recipe starts with `name: ...`; see recipes/."),
        (b"- a\n- b\n", "r.yaml has no `key: value` lines. A recipe starts with `name: ...`; see recipes/."),
        (b"a: &x 1\nb: *x\n", "r.yaml, line 1: anchors and aliases are not supported. Write the value out."),
        (b"a: !!python/object:os.system x", "r.yaml, line 1: not YAML: could not determine a constructor for the tag"),
        (b"a: \x00", "r.yaml is not YAML: unacceptable character #x0000: special characters are not allowed"),
        (b"a: 1\n---\nb: 2\n", "r.yaml, line 2: not YAML: but found another document."),
        (b"name: a\r\n? [x, y]\r\n: 1", "r.yaml, line 2: not YAML: found unhashable key."),
    ],
)
def test_what_is_not_sound_yaml_is_named_by_line(
    content: bytes, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_bytes(content)
    assert said(Path("r.yaml")).startswith(words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a: b\n" * 100_000, "r.yaml has more than 64,000 bytes and is not read as a recipe."),
        ("[" * 60_000, "r.yaml, line 1: nested more than 12 levels deep. Recipes need at most five."),
        ("{a: " * 15_000, "r.yaml, line 1: nested more than 12 levels deep. Recipes need at most five."),
        ("- " * 30_000, "r.yaml, line 1: nested more than 12 levels deep. Recipes need at most five."),
    ],
    ids=["huge", "brackets", "braces", "dashes"],
)
def test_a_huge_or_deep_file_is_refused_at_once(
    content: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(content)
    before = time.process_time()
    assert said(Path("r.yaml")) == words
    assert time.process_time() - before < 5  # under 0.1 s in practice; a hang would be minutes


def test_1e_4_is_a_number(sound: Path):
    cpt = read_recipe(sound).cpt
    assert cpt and cpt.learning_rate == 1e-4


def test_words_that_yaml_would_bend_stay_words(sound: Path):
    text = sound.read_text().replace("name: small", "name: no")
    sound.write_text(text)
    assert read_recipe(sound).name == "no"
