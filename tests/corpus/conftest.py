"""The real exams as items, read once for all tests of the audit."""

from pathlib import Path

import pytest

from medllm.corpus.exams import as_item, held_out
from medllm.corpus.items import Item
from medllm.corpus.leakage import ExamIndex
from medllm.exam import benchmarks


@pytest.fixture(scope="session")
def igakuqa(shared_data: Path) -> list[Item]:
    return held_out([("igakuqa", shared_data / "igakuqa")])


@pytest.fixture(scope="session")
def index(igakuqa: list[Item]) -> ExamIndex:
    return ExamIndex(igakuqa)


@pytest.fixture(scope="session")
def yakugakuqa(shared_data: Path) -> list[Item]:
    return [as_item(question) for question in benchmarks.load("yakugakuqa", shared_data / "yakugakuqa")]
