"""A recipe whose sources are small, local and right; each test breaks one of them."""

import json
from pathlib import Path

import pytest

from medllm.preflight import inspect
from medllm.recipe import local_sources, read_recipe, stages_of
from medllm.recipe.errors import RecipeFault
from tests import tiny

RECIPE = """
name: ward
base: ./base
namespace: clinic
cutoff: 2017-12-31
exams: {naika: {source: ./naika, first: 2019-02-09}}
corpus:
  data: [{source: ./texts, license: cc-by-4.0, published: 2015-04-01}]
  held_out: [naika]
preferences: {model: base, data: ./past, shots: 1}
evaluate: {models: {base: base}, benchmarks: [naika], shots: 0}
"""


def question(number: int, day: str, **changed) -> dict:
    """Return a question with two choices that differs from every other."""
    row = {
        "question_id": f"Q{number}",
        "text": "".join(tiny.sentences(1, seed=number, longest=30)) + "どれか。",
        "choices": [f"薬剤{number}の投与", f"手術{number}"],
        "answer": "a",
        "exam_date": day,
        "year": int(day[:4]),
        "explanation": "".join(tiny.sentences(1, seed=100 + number)),
    }
    return {**row, **changed}


def write_exam(folder: Path, rows: list[dict], name: str = "exam.jsonl") -> None:
    """Write questions as JSON lines."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


class Ward:
    """The folder of the recipe, and what the preflight finds in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, *, thorough: bool = False, **overrides: object) -> list[RecipeFault]:
        """Inspect the recipe with these keys changed (dots written as two underscores)."""
        changes = {key.replace("__", "."): value for key, value in overrides.items()}
        recipe = read_recipe(self.folder / "ward.yaml", changes)
        stages = stages_of(recipe)
        return inspect(recipe, stages, local_sources(recipe, stages), thorough=thorough)

    def codes(self, **overrides: object) -> list[tuple[str, str]]:
        """Return place and code of each fault."""
        return [(one.place, one.code) for one in self.find(**overrides)]


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    tiny.make_base(tmp_path / "base")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("発熱の患者にはまず身体診察を行う。" * 5, "utf-8")
    write_exam(tmp_path / "naika", [question(number, "2019-02-09") for number in range(1, 5)])
    write_exam(tmp_path / "past", [question(number, "2015-02-07") for number in range(11, 15)])
    (tmp_path / "ward.yaml").write_text(RECIPE, "utf-8")
    return Ward(tmp_path)
