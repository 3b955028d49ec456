"""The real exams as items, read once for all tests of the audit, and a small corpus that is many tasks."""

import json
from pathlib import Path

import pytest

from medllm.corpus.decontaminate.exam_items import ExamItem, held_out
from medllm.corpus.decontaminate.matcher import ExamIndex
from medllm.corpus.read import sources
from tests.corpus.spread import lay_out


@pytest.fixture(scope="session")
def igakuqa_held_out(shared_data: Path) -> list[ExamItem]:
    """The 2,000 questions and after them their published translations."""
    return held_out([("igakuqa", shared_data / "igakuqa")])


@pytest.fixture(scope="session")
def igakuqa(igakuqa_held_out: list[ExamItem]) -> list[ExamItem]:
    return [item for item in igakuqa_held_out if not item.name.endswith(" (en)")]


@pytest.fixture(scope="session")
def index(igakuqa_held_out: list[ExamItem]) -> ExamIndex:
    return ExamIndex(igakuqa_held_out)


@pytest.fixture(scope="session")
def yakugakuqa(shared_data: Path) -> list[str]:
    """Every row as it is published, with its options and its explanation: also those that no model can be asked."""
    texts = []
    for path in sorted((shared_data / "yakugakuqa").glob("*.jsonl")):
        for row in map(json.loads, path.read_text("utf-8").splitlines()):
            options = row["choices"] if isinstance(row["choices"], list) else []
            texts.append("\n".join([row["problem_text"], *options, row["comment"] or ""]))
    return texts


@pytest.fixture
def small_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The folders of a small corpus, cut so small that every pass is several tasks."""
    monkeypatch.setattr(sources, "PIECE", 4000)
    return lay_out(tmp_path)
