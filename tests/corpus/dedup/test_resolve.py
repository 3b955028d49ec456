"""Of texts that are alike the right one stays, by a plain reckoning too, and their number costs no memory."""

import random
import tracemalloc
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from medllm.corpus.dedup import components, external_sort
from medllm.corpus.dedup.resolve import EXACT, NEAR, NOT_DRAWN, Resolve
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
    monkeypatch.setattr(external_sort, "HELD", 50)
    monkeypatch.setattr(components, "STEP", 17)
    families = [1, 1, 2, 3, 5, 8, 30] * 6
    texts = lay_out(tmp_path, families, seed, replay=0.3)
    expected = plainly(texts, 0.8, 0.05)
    assert resolved(tmp_path, 0.8, 0.05) == expected
    assert set(expected.values()) == {EXACT, NEAR, NOT_DRAWN}
    assert not list((tmp_path / "sorting").iterdir()), "nothing is left aside"


def test_a_pass_that_was_killed_half_way_is_done_anew_with_the_same_result(tmp_path):
    texts = lay_out(tmp_path, [4] * 20)
    (tmp_path / "sorting" / "gone").mkdir(parents=True)
    (tmp_path / "sorting" / "gone" / "000000").write_bytes(b"half")
    (tmp_path / "sorting" / "forest").write_bytes(b"x" * 800)
    np.save(part(tmp_path, "gone", 0, "npy"), np.ones(3))
    assert resolved(tmp_path, 0.8, 0.0) == plainly(texts, 0.8, 0.0)


def test_four_times_as_many_alike_texts_need_no_more_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(external_sort, "HELD", 500)
    monkeypatch.setattr(external_sort, "READ", 8)
    monkeypatch.setattr(components, "STEP", 500)

    def peak(families: int) -> int:
        work = tmp_path / str(families)
        lay_out(work, [4] * families, replay=0.5)
        tracemalloc.start()
        try:
            Resolve(work, 3, 0.8, 0.25).run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(10)  # what is imported and compiled once counts for neither
    assert peak(4000) < 2 * peak(1000)
