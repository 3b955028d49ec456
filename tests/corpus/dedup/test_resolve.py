"""Of similar texts the right one stays, as a plain loop finds too; components are those of the graph of pairs."""

import random
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medllm.corpus.dedup import resolve
from medllm.corpus.dedup.resolve import EXACT, NEAR, NOT_DRAWN, Resolve, component_labels
from medllm.corpus.intermediate import FACTS, part

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
    monkeypatch.setattr(resolve, "BLOCK", 17)
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
