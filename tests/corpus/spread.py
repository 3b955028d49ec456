"""A small corpus of several tasks, for the executors that spread it over machines: its folders, settings and bytes."""

import json
from datetime import date
from pathlib import Path

from medllm.recipe.data import Corpus

ORGANS = ("肝臓", "腎臓", "肺", "脾臓", "骨髄")
QUESTION = {"question_id": "1", "text": "誤っている語はどれか。", "choices": ["甲の語", "乙の語"], "answer": "a"}


def lay_out(folder: Path) -> dict[str, Path]:
    """Ninety texts, some of them alike, and an exam of one question."""
    texts = [
        {
            "text": f"{ORGANS[n % 5]}の働きを{n * n}回にわたり調べた。"
            + "所見は前の回と変わらない。" * (n % 3)
            + "以上。" * 9,
            "published": str(2000 + n % 17),
            "license": "cc0",
        }
        for n in range(90)
    ]
    for name, rows in (("texts", texts), ("exam", [QUESTION])):
        (folder / name).mkdir()
        written = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name / "rows.jsonl").write_text(written, "utf-8")
    return {"./texts": folder / "texts", "exam": folder / "exam"}


def settings(executor: object) -> Corpus:
    """The corpus of these folders, made by that executor."""
    values = {"data": ["./texts"], "held_out": ["exam"], "cutoff": date(2017, 12, 31), "workers": 2}
    return Corpus.model_validate({**values, "executor": executor})


def files(out: Path) -> dict[str, bytes]:
    """Every file that was made, by its name."""
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
