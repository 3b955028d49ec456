"""Patterns of .gitignore and .gitattributes mean here what they mean to git."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medllm.localhub.web.patterns import Ignored, Large

PATHS = ["a.env", ".env", "deep/a.env", "secret/list.txt", "secret/deep/b.txt", "x/secret/a", "raw_1.csv", "raw_ok.csv"]
PATHS += ["doc/a.txt", "doc/deep/a.txt", "a", "b/a", "build", "build/x", "[a].txt", "#note", "!important", "sp ace.txt"]


def git_ignores(folder: Path, text: str) -> set[str]:
    """What git itself keeps out."""
    if not (folder / ".git").exists():
        subprocess.run(["git", "init", "-q", folder], check=True, capture_output=True)
    (folder / ".gitignore").write_text(text)
    asked = ["git", "-C", str(folder), "-c", "core.quotepath=off", "check-ignore", "--no-index", *PATHS]
    return set(subprocess.run(asked, check=False, capture_output=True, text=True).stdout.splitlines())


@pytest.mark.parametrize(
    "text",
    [
        "*.env\n",
        "secret/\n!secret/list.txt\n",
        "raw_*.csv\n!raw_ok.csv\n",
        "/a\n",
        "doc/*.txt\n",
        "doc/**\n",
        "**/a.txt\n",
        "doc/**/a.txt\n",
        "build/\n",
        "build\n",
        "*\n!*.csv\n!.gitignore\n",
        "# a comment\n\\#note\n",
        "\\!important\n",
        "\\[a\\].txt\n",
        "[r]aw_?.csv\n",
        "raw_[!1].csv\nraw_[^o]*\n",
        "sp ace.txt  \n",
        "a.env\n!a.env\na.env\n",
        "deep\n",
        "secret/deep\n",
        "\n\n/\n",
        "x/*\n!x/secret\n",
    ],
)
def test_a_gitignore_keeps_out_what_git_keeps_out(tmp_path: Path, text: str):
    ignored = Ignored(text)
    assert {path for path in PATHS if ignored(path)} == git_ignores(tmp_path, text)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing():
    ignored = Ignored("\ufeff*.env\r\nsecret/\r\n")
    assert [ignored(path) for path in ("a.env", "secret/a", "a.txt")] == [True, True, False]


@settings(max_examples=200, deadline=1000)
@given(text=st.text("a*?[]!/\\{}-^. \n#", max_size=60), path=st.text("ab/*.[]", min_size=1, max_size=40))
def test_no_line_of_a_gitignore_is_a_fault_or_takes_long(text: str, path: str):
    assert Ignored(text)(path) in (True, False)
    assert Large(text)(path) in (True, False)


def test_a_pattern_of_many_stars_is_quick():
    assert not Ignored("*a" * 100 + "b")("a" * 1000)
    assert not Ignored("**/a/" * 60 + "b")("a/" * 60 + "a")


@pytest.mark.parametrize(
    ("text", "path", "large"),
    [
        ("*.bin filter=lfs\n", "deep/a.bin", True),
        ("*.bin filter=lfs\na.bin !filter\n", "a.bin", False),
        ("*.bin filter=lfs\na.bin -filter\n", "a.bin", False),
        ("a.bin !filter\n*.bin filter=lfs\n", "a.bin", True),
        ("*.bin filter=lfs\n*.bin text\n", "a.bin", True),
        ("data/* filter=lfs\n", "data/deep/a", False),
        ("data/** filter=lfs\n", "data/deep/a", True),
        ("/a.bin filter=lfs\n", "deep/a.bin", False),
        ('"my file.bin" filter=lfs\n', "my file.bin", True),
        ("[attr]large filter=lfs -text\n*.big large\n", "a.big", True),
        ("# *.bin filter=lfs\n", "a.bin", False),
        ("data/ filter=lfs\n", "data/a", False),
    ],
)
def test_the_last_line_of_gitattributes_that_names_a_file_counts(text: str, path: str, large: bool):
    assert Large(text)(path) is large
