"""Every error has a stable code, and docs/errors.md lists all of them."""

import ast
import copy
import re
from pathlib import Path

import pytest

from docs import error_codes
from docs.error_codes import AREAS, CODE, error_classes, raised_errors, template
from medllm.errors import DataError, MissingExtraError
from tests.refusals import refused


def test_every_error_is_raised_with_a_literal_code():
    bare = [f"{error.path}:{error.line}" for error in raised_errors() if error.code is None]
    assert bare == []


def test_a_code_names_one_of_the_areas():
    codes = {error.code for error in raised_errors() if error.code}
    assert [code for code in codes if code.split(".")[0] not in AREAS] == []


def test_a_text_is_more_than_the_values_put_into_it():
    worded = [error for error in raised_errors() if error.code]
    assert [
        f"{e.path}:{e.line}" for e in worded if len(re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", "", e.text))) < 2
    ] == []


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


def compared_prose(source: str) -> list[int]:
    """Lines of a test that compare the wording of one of our errors; `refused` compares code and values."""
    ours = error_classes() | {"MedllmError", "MissingExtraError"}
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "pytest.raises"
        and any(keyword.arg == "match" for keyword in node.keywords)
        and ours & {name.id for name in ast.walk(node.args[0]) if isinstance(name, ast.Name)}
    ]


def test_no_test_compares_the_wording_of_an_error():
    files = sorted(Path(__file__).parent.rglob("*.py"))
    assert [f"{path.name}:{line}" for path in files for line in compared_prose(path.read_text("utf-8"))] == []


def test_the_wording_of_an_error_that_is_not_ours_may_be_compared():
    assert compared_prose("with pytest.raises(OSError, match='full'): pass") == []
    assert compared_prose("with pytest.raises(DataError): pass") == []
    assert compared_prose("with pytest.raises(DataError, match='empty'): pass") == [1]


def raised_in(folder: Path, source: str) -> list[tuple[str | None, str]]:
    """The codes and texts of a module's errors; `DataError` is one of ours."""
    (folder / "ours.py").write_text("class DataError(MedllmError): ...\n" + source, "utf-8")
    return [(error.code, error.text) for error in raised_errors.__wrapped__(folder)]


def test_a_text_that_is_assigned_above_its_call_is_read_there(tmp_path: Path):
    source = (
        "text = 'no key'\nraise DataError('exam.a', text)\n"
        "text = f'{n} keys'\ntext += ' too many'\nraise DataError('exam.b', text)\n"
    )
    assert raised_in(tmp_path, source) == [("exam.a", "no key"), ("exam.b", "{n} keys too many")]


def test_an_error_with_the_code_of_another_one_is_listed_where_that_one_is_made(tmp_path: Path):
    assert raised_in(tmp_path, "raise DataError(fault.code, f'{row}: {fault}')") == []
    assert raised_in(tmp_path, "raise DataError(code, 'no key')") == [(None, "no key")]


def test_a_text_that_is_given_to_a_function_with_a_code_is_listed_under_that_code(tmp_path: Path):
    source = (
        "def bad(text):\n    return DataError('exam.a', text)\n"
        "raise bad(f'{row} has no key')\nraise bad('no rows at all')\n"
    )
    assert sorted(raised_in(tmp_path, source)) == [("exam.a", "no rows at all"), ("exam.a", "{row} has no key")]


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
