"""Near-duplicates are detected in Japanese at every rate of edits; the right one of similar texts stays."""

import json
import random
from datetime import date
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medllm.corpus import dedup
from medllm.corpus.dedup import EXACT, NEAR, NOT_DRAWN, Resolve, component_labels
from medllm.corpus.steps import FACTS, part
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


WIDTH = 20


def lay_out(work: Path, families: list[int], seed: int = 0, replay: float = 0.0) -> list[SimpleNamespace]:
    """What the passes before leave behind: texts in families of these sizes, over three tasks, and their pairs."""
    draw = random.Random(seed)
    texts = []
    for family, size in enumerate(families):
        base = [draw.randrange(1 << 32) for _ in range(WIDTH)]
        for _ in range(size):
            hashes = [draw.randrange(1 << 32) if draw.random() < draw.choice((0, 0.1, 0.4)) else h for h in base]
            text, group = draw.choice((family, draw.randrange(1, 1 << 60))), draw.choice((0, 0, 0, family + 1))
            dates = (draw.randrange(5), draw.randrange(2))
            texts.append(SimpleNamespace(family=family, hashes=hashes, text=text, group=group, dates=dates))
    draw.shuffle(texts)
    found: dict[int, list[tuple[int, int]]] = {}
    for task in range(3):
        mine = texts[task::3]
        rows = []
        for place, one in enumerate(mine):
            one.at, one.id, one.replay = (task, place), b"%d.%d" % (task, place), draw.random() < replay
            one.length = draw.randrange(100, 200)
            rows.append((*one.dates, one.text, one.group, one.length, one.replay, one.id))
            found.setdefault(one.family, []).append(one.at)
        np.save(part(work, "facts", task, "npy"), np.array(rows, FACTS))
        np.save(part(work, "hashes", task, "npy"), np.array([one.hashes for one in mine], np.uint32).reshape(-1, WIDTH))
    written = [(*one, *other) for members in found.values() for one, other in pairwise(members)]
    draw.shuffle(written)
    np.array(written, "<u4").reshape(-1, 4).tofile(part(work, "pairs", 0, "dups"))
    return texts


def plainly(texts: list[SimpleNamespace], alike: float, share: float) -> dict[tuple[int, int], int]:
    """The same decisions as a loop over everything in memory."""
    gone, staying = {}, {}
    for one in sorted(texts, key=lambda one: (one.replay, *one.dates, one.at)):
        for older in staying.setdefault(one.family, []):
            like = sum(a == b for a, b in zip(one.hashes, older.hashes, strict=True)) / WIDTH
            if (like >= alike or one.text == older.text) and not (one.group and one.group == older.group):
                gone[one.at] = EXACT if one.text == older.text else NEAR
                break
        else:
            staying[one.family].append(one)
    left = [one for one in texts if one.at not in gone]
    room = sum(one.length for one in left if not one.replay) * share / (1 - share)
    for one in sorted((one for one in left if one.replay), key=lambda one: (one.id, one.at)):
        if one.length <= room:
            room -= one.length
        else:
            gone[one.at] = NOT_DRAWN
    return gone


def resolved(work: Path, alike: float, share: float) -> dict[tuple[int, int], int]:
    Resolve(work, 3, alike, share).run()
    tables = [np.load(part(work, "gone", task, "npy")) for task in range(3)]
    assert all((np.diff(table["place"]) > 0).all() for table in tables), "in order of place, each once"
    return {(task, int(row["place"])): int(row["why"]) for task, table in enumerate(tables) for row in table}


@pytest.mark.parametrize("seed", range(6))
def test_who_goes_is_who_goes_by_a_plain_loop(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(dedup, "BLOCK", 17)
    families = [1, 1, 2, 3, 5, 8, 30] * 6
    texts = lay_out(tmp_path, families, seed, replay=0.3)
    expected = plainly(texts, 0.8, 0.05)
    assert resolved(tmp_path, 0.8, 0.05) == expected
    assert set(expected.values()) == {EXACT, NEAR, NOT_DRAWN}


def test_a_pass_that_was_killed_half_way_gives_the_same_result_when_it_is_repeated(tmp_path):
    texts = lay_out(tmp_path, [4] * 20)
    np.save(part(tmp_path, "gone", 0, "npy"), np.ones(3))
    assert resolved(tmp_path, 0.8, 0.0) == plainly(texts, 0.8, 0.0)


def test_an_empty_corpus_has_nothing_to_remove(tmp_path):
    lay_out(tmp_path, [])
    assert resolved(tmp_path, 0.8, 0.05) == {}


def painted(size: int, joined: list[tuple[int, int]]) -> list[int]:
    """The smallest text of each text's component, found by painting over and over."""
    colour = list(range(size))
    while True:
        before = list(colour)
        for one, other in joined:
            colour[one] = colour[other] = min(colour[one], colour[other])
        if colour == before:
            return colour


def write_pairs(folder: Path, pairs: list[tuple[int, int]], tasks: int) -> None:
    """Write pairs as datatrove's buckets do: text n is text n // tasks of task n % tasks."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(one % tasks, one // tasks, other % tasks, other // tasks) for one, other in pairs]
    np.array(rows[::2], "<u4").reshape(-1, 4).tofile(folder / "00000_00.dups")
    np.array(rows[1::2], "<u4").reshape(-1, 4).tofile(folder / "00001_00.dups")


@pytest.mark.parametrize("seed", range(8))
def test_texts_have_one_label_exactly_where_painting_over_joins_them(seed, tmp_path):
    draw, tasks, size = random.Random(seed), 4, 200
    pairs = [(draw.randrange(size), draw.randrange(size)) for _ in range(draw.choice((0, 40, 120, 400)))]
    write_pairs(tmp_path, pairs, tasks)
    labels = component_labels(tmp_path, np.arange(tasks + 1) * (size // tasks))
    by_task = [labels[number % tasks * (size // tasks) + number // tasks] for number in range(size)]
    roots = painted(size, pairs)
    assert len(set(by_task)) == len(set(roots)) == len(set(zip(by_task, roots, strict=True)))


def test_a_long_chain_is_one_component(tmp_path):
    write_pairs(tmp_path, [(number + 1, number) for number in reversed(range(49_999))], 1)
    assert set(component_labels(tmp_path, np.array([0, 50_000]))) == {0}
