"""The glossary names things that exist: some forty words, each with an importable name and a meaning."""

import re
from importlib import import_module
from pathlib import Path

import pytest

ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| `(medllm[\w.]+)` \|$", Path("docs/glossary.md").read_text("utf-8"), re.M)


@pytest.mark.parametrize("name", [name for _, _, name in ROWS])
def test_every_name_of_the_glossary_exists(name: str):
    module, _, member = name.rpartition(".")
    assert hasattr(import_module(module), member)


def test_the_glossary_has_some_forty_words_and_each_once():
    words = [word for word, _, _ in ROWS]
    assert 40 <= len(words) <= 55
    assert len(set(words)) == len(words)
    assert all(len(meaning.split()) >= 5 for _, meaning, _ in ROWS)
