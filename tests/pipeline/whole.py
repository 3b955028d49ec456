"""The folder of a whole recipe small enough for a test: base, texts, past exams, and the exam that is held out."""

import json
import random
import shutil
import sys
from pathlib import Path

from tests.tiny import make_base, sentences

RECIPE = Path(__file__).parent / "tiny.yaml"


def lay_out(folder: Path) -> None:
    """Write everything the recipe names."""
    folder.mkdir(exist_ok=True)
    make_base(folder / "base")
    (folder / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A base of random weights\n")
    texts = [" ".join(sentences(6, seed=number)) for number in range(20)]
    _lines(folder / "texts", [{"text": text, "license": "cc-by-4.0", "published": "2015-01-01"} for text in texts])
    _lines(folder / "past", [question(f"p{number}", 2015) for number in range(12)])
    _lines(folder / "world", [question(f"w{number}", 2020) for number in range(10)])
    shutil.copy(RECIPE, folder / "tiny.yaml")


def question(name: str, year: int) -> dict[str, object]:
    """An invented question, the same for the same name."""
    draw = random.Random(name)
    return {
        "question_id": name,
        "text": "患者の" + "".join(draw.choices("発熱咳嗽腎肝診断治療胸部痛み心電図", k=18)) + "はどれか。",
        "choices": ["".join(draw.choices("急性慢性投与正解解説", k=6)) for _ in range(5)],
        "answer": draw.choice("abcde"),
        "exam_date": f"{year}-02-01",
        "year": year,
        "explanation": "".join(draw.choices("発熱咳嗽腎肝診断治療胸部痛み", k=30)),
    }


def _lines(folder: Path, rows: list[dict[str, object]]) -> None:
    folder.mkdir()
    (folder / "all.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


ROUNDS = {
    "exams: {": "exams: {mock: {source: ./mock, first: 2019-01-01}, ",
    "held_out: [world]": "held_out: [world, mock]",
    "merge: {model: rpo,": "rounds: {exam: mock, max_rounds: 2, rpo: {learning_rate: 0.001}}\nmerge: {model: rounds,",
    "final: rpo}": "final: rounds}",
}
"""What makes a recipe with rounds of the small one."""


def lay_out_rounds(folder: Path) -> None:
    """Write everything, with a development exam and rounds on it."""
    lay_out(folder)
    _lines(folder / "mock", [question(f"m{number}", 2019) for number in range(10)])
    text = (folder / "tiny.yaml").read_text("utf-8")
    for old, new in ROUNDS.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "tiny.yaml").write_text(text, "utf-8")


if __name__ == "__main__":
    lay_out(Path(sys.argv[1]))
