"""Every error has a stable code, and docs/errors.md lists all of them."""

import ast
import copy
import re

import pytest

from docs import error_codes
from docs.error_codes import AREAS, CODE, raised_errors, template
from medllm.errors import DataError, MissingExtraError
from tests.refusals import refused

WITHOUT_CODES = (
    "medllm/cards.py",
    "medllm/cli/",
    "medllm/compare.py",
    "medllm/corpus/",
    "medllm/evaluation/",
    "medllm/exam/",
    "medllm/generation/",
    "medllm/hub/",
    "medllm/launch/",
    "medllm/localhub/",
    "medllm/miniature/",
    "medllm/page/",
    "medllm/pipeline/",
    "medllm/preferences/",
    "medllm/recipe/",
    "medllm/stages/",
    "medllm/training/",
    "medllm/votes/",
    "medllm/weights/",
)
"""Files whose errors have no code yet."""


def test_every_error_is_raised_with_a_literal_code():
    bare = [f"{error.path}:{error.line}" for error in raised_errors() if error.code is None]
    assert [place for place in bare if not place.startswith(WITHOUT_CODES)] == []


def test_a_code_names_one_of_the_areas():
    codes = {error.code for error in raised_errors() if error.code}
    assert [code for code in codes if code.split(".")[0] not in AREAS] == []


def test_a_text_is_more_than_the_values_put_into_it():
    worded = [error for error in raised_errors() if error.code]
    assert [f"{e.path}:{e.line}" for e in worded if len(re.sub(r"\{\w+\}", "", e.text).split()) < 4] == []


@pytest.mark.parametrize("code", ["recipe.unknown-exam", "exam.no-key", "hub.status-404"])
def test_a_code_is_an_area_and_a_kind_in_small_letters(code: str):
    assert CODE.fullmatch(code)


@pytest.mark.parametrize("code", ["Recipe.unknown", "no-key", "exam.no_key", "exam.", "a.b.c", "exam: no key"])
def test_anything_else_is_no_code(code: str):
    assert not CODE.fullmatch(code)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("'no key'", "no key"),
        ("f'{path}: no key'", "{path}: no key"),
        ("f'{self.path}: line {number + 1}' + ' of it'", "{path}: line {number} of it"),
        ("f'{len(rows):,} rows, {join(names)}'", "{rows} rows, {names}"),
    ],
)
def test_a_text_is_listed_with_a_name_for_each_value(expression: str, text: str):
    assert template(ast.parse(expression, mode="eval").body) == text


def test_an_error_keeps_its_code_and_text_when_it_is_copied_as_between_processes():
    error = copy.deepcopy(DataError("exam.no-key", "q1: has no key."))
    assert (error.code, str(error)) == ("exam.no-key", "q1: has no key.")
    extra = copy.deepcopy(MissingExtraError("train", "the merge"))
    assert (extra.code, str(extra)) == ("install.missing-extra", str(MissingExtraError("train", "the merge")))


def test_refused_compares_the_code_and_the_values():
    with refused("exam.no-key", "q1"):
        raise DataError("exam.no-key", "q1: has no key.")
    with pytest.raises(AssertionError), refused("exam.no-text"):
        raise DataError("exam.no-key", "q1: has no key.")
    with pytest.raises(AssertionError), refused("exam.no-key", "q2"):
        raise DataError("exam.no-key", "q1: has no key.")


def test_the_page_lists_every_code():
    page = error_codes.errors_page()
    assert [e.code for e in raised_errors() if e.code and f"| `{e.code}` |" not in page] == []
