"""Whatever a file holds, the reader answers with a recipe or with a RecipeError: never a traceback, never a hang."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medllm.errors import RecipeError
from medllm.recipe import parse_override, read_recipe
from tests.recipe.conftest import SOUND
from tests.refusals import refused

LINES = SOUND.splitlines(keepends=True)
SIGNS = [
    "{",
    "}",
    "[",
    "]",
    ":",
    "-",
    "&",
    "*",
    "#",
    "|",
    ">",
    "?",
    "!",
    '"',
    "'",
    "&a",
    "*a",
    "!!int",
    "---",
    "null",
    "true",
    ".nan",
    "1e999",
    "-1",
    "0x10",
    "2017-13-45",
    "９",
    "医",
]
SCRAPS = st.sampled_from(
    [*LINES, *SIGNS, "", " ", "\n", "  ", "\t", "- ", ": ", "---\n", "\u2028", "9" * 400, "name: 1\n", "1: 2\n"]
)
QUIET = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def answered(path: Path) -> None:
    with contextlib.suppress(RecipeError):
        read_recipe(path)


@QUIET
@given(pieces=st.lists(SCRAPS, max_size=30))
def test_scraps_of_yaml(pieces: list[str], tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text("".join(pieces), encoding="utf-8")
    answered(path)


@QUIET
@given(content=st.binary(max_size=300))
def test_any_bytes(content: bytes, tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    answered(path)


@QUIET
@given(at=st.integers(0, len(LINES) - 1), scrap=SCRAPS, drop=st.booleans())
def test_a_sound_recipe_with_one_line_bent(at: int, scrap: str, drop: bool, tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text("".join([*LINES[:at], scrap, *LINES[at + (1 if drop else 0) :]]), encoding="utf-8")
    answered(path)


@QUIET
@given(text=st.text(max_size=40))
def test_any_override(text: str):
    with contextlib.suppress(RecipeError):
        parse_override(text)


@pytest.mark.parametrize("value", [".inf", ".nan", "1e999"])
def test_a_number_without_end_is_refused(value: str, tmp_path: Path):
    path = tmp_path / "r.yaml"
    path.write_text(SOUND.replace("1e-4", value))
    read_as = {".inf": "inf", ".nan": "nan", "1e999": "inf"}[value]
    with refused("recipe.wrong-type", "line 11, cpt.learning_rate:", f"`{read_as}`", kind=RecipeError):
        read_recipe(path)
