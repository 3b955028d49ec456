"""Near-duplicates are found in Japanese at every rate of edits, the oldest stays, and unlike texts are let be."""

import json
import random
from datetime import date
from pathlib import Path

import pytest

from medllm.recipe.data import Corpus
from medllm.stages.corpus import make

EDITS = "一二三四五六七八九十百千万上下左右中大小"


def edited(text: str, rate: float, draw: random.Random) -> str:
    """Each character becomes another with this probability."""
    return "".join(draw.choice(EDITS) if draw.random() < rate else one for one in text)


def corpus(texts: dict[str, list[tuple[str, str]]], folder: Path, **changed) -> dict[str, dict[str, str]]:
    """Locator id to reason for every dropped text of a corpus made of these (id, text) by year."""
    path = folder / "texts" / "rows.jsonl"
    path.parent.mkdir(parents=True)
    rows = [
        {"id": name, "text": text, "published": year, "license": "cc0"}
        for year, found in texts.items()
        for name, text in found
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    exam = folder / "exam" / "questions.jsonl"
    exam.parent.mkdir()
    question = {
        "question_id": "1",
        "text": "この欄に当てはまる語として誤っているものはどれか。",
        "choices": ["甲の欄", "乙の欄"],
    }
    exam.write_text(json.dumps({**question, "answer": "a", "exam_date": "2020-01-01"}, ensure_ascii=False), "utf-8")
    values = {"data": ["./texts"], "held_out": ["exam"], "cutoff": date(2017, 12, 31), **changed}
    make(Corpus.model_validate(values), {"./texts": path.parent, "exam": exam.parent}, folder / "out")
    import pyarrow.parquet as pq

    found = pq.read_table(folder / "out" / "dropped").to_pylist()
    return {row["locator"].partition("#")[2]: row for row in found}


@pytest.fixture(scope="module")
def paragraphs(shared_data) -> list[str]:
    """Encyclopedia paragraphs that have nothing to do with each other."""
    rows = [
        json.loads(line)
        for line in (shared_data / "text/jaquad_contexts_medical.jsonl").read_text("utf-8").splitlines()
    ]
    titles = {row["title"]: row["text"] for row in rows if len(row["text"]) > 200}
    return list(titles.values())


def test_recall_and_precision_at_several_rates_of_edits(paragraphs, tmp_path):
    draw = random.Random(3)
    rates = (0.0, 0.005, 0.01, 0.02, 0.04, 0.10)
    originals = paragraphs[:80]
    copies = [(f"{number}-{rate}", edited(text, rate, draw)) for number, text in enumerate(originals) for rate in rates]
    texts = {"2010": [(f"o{number}", text) for number, text in enumerate(originals)], "2015": copies}
    dropped = corpus(texts, tmp_path)
    recall = {rate: sum(f"{number}-{rate}" in dropped for number in range(80)) for rate in rates}
    assert recall[0.0] == recall[0.005] == 80
    assert recall[0.01] >= 75
    # Two edits in a hundred characters leave about eight in ten shingles, which is where the line is drawn.
    assert 30 <= recall[0.02] <= 70
    assert recall[0.10] == 0
    assert [name for name in dropped if name.startswith("o")] == [], "an original was dropped"
    wrong = [name for name, row in dropped.items() if not row["detail"].startswith("of ")]
    assert wrong == []


def test_the_oldest_stays_wherever_it_is_read(paragraphs, tmp_path):
    text = paragraphs[0]
    found = {
        "2015": [("young", text)],
        "2009": [("old", text.replace("、", "，"))],
        "2012": [("middle", text + "以上。")],
    }
    dropped = corpus(found, tmp_path)
    assert {name: row["reason"] for name, row in dropped.items()} == {"young": "duplicate", "middle": "near_duplicate"}


def test_a_chain_of_small_changes_does_not_drop_its_far_end(paragraphs, tmp_path):
    """Each is like the one before, but the last is unlike the first, which is the one that stays."""
    draw = random.Random(5)
    chain, text = [], paragraphs[1]
    for number in range(30):
        chain.append((f"c{number:02}", text))
        text = edited(text, 0.01, draw)
    dropped = corpus({"2010": chain}, tmp_path)
    assert "c01" in dropped
    assert "c00" not in dropped
    assert len(dropped) < 28, "more than one has to stay, because the ends have little in common"


def test_without_a_similarity_only_exact_duplicates_go(paragraphs, tmp_path):
    text = paragraphs[2]
    found = {"2010": [("first", text)], "2011": [("wrapped", text.replace("。", "。\n")), ("changed", text + "追記。")]}
    assert {name: row["reason"] for name, row in corpus(found, tmp_path, near_duplicate=None).items()} == {
        "wrapped": "duplicate"
    }
