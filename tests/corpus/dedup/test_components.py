"""Texts that hang together over any number of pairs get one root, on disk, whatever the order of the pairs."""

import random

import numpy as np
import pytest

from medllm.corpus.dedup import components
from medllm.corpus.dedup.components import DisjointSets, pairs


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(components, "STEP", 13)


def plainly(size: int, joined: list[tuple[int, int]]) -> dict[int, int]:
    """The root of every text that is not its own, found by painting over and over."""
    colour = list(range(size))
    while True:
        before = list(colour)
        for one, other in joined:
            colour[one] = colour[other] = min(colour[one], colour[other])
        if colour == before:
            return {number: root for number, root in enumerate(colour) if root != number}


@pytest.mark.parametrize("seed", range(5))
def test_the_roots_are_those_that_painting_over_finds(seed, tmp_path):
    draw = random.Random(seed)
    joined = [(draw.randrange(200), draw.randrange(200)) for _ in range(draw.choice((0, 40, 120, 400)))]
    with DisjointSets(tmp_path / "forest", 200) as forest:
        forest.join(np.array(joined, np.int64).reshape(-1, 2))
        found = {number: root for block in forest.joined() for root, number in block.tolist()}
    assert found == plainly(200, joined)
    assert not (tmp_path / "forest").exists()


def test_a_long_chain_has_its_first_text_as_root(tmp_path):
    with DisjointSets(tmp_path / "forest", 5000) as forest:
        forest.join(np.array([(number + 1, number) for number in reversed(range(4999))]))
        assert all((block[:, 0] == 0).all() for block in forest.joined())


def test_a_forest_of_unlike_texts_takes_no_room_on_disk(tmp_path):
    with DisjointSets(tmp_path / "forest", 100_000_000) as forest:
        forest.join(np.array([(1, 99_999_999)]))
        assert (tmp_path / "forest").stat().st_blocks * 512 < 1_000_000


def test_an_empty_corpus_has_no_clusters(tmp_path):
    with DisjointSets(tmp_path / "forest", 0) as forest:
        assert list(forest.joined()) == []


def test_the_pairs_that_datatrove_wrote_are_counted_through_all_tasks(tmp_path):
    written = np.array([[0, 3, 2, 1], [1, 0, 1, 4]] * 20, "<u4")
    written.tofile(tmp_path / "00000_00.dups")
    (tmp_path / "00001_00.dups").touch()
    found = np.concatenate(list(pairs(tmp_path, np.array([0, 10, 20, 30]))))
    assert found.tolist() == [[3, 21], [10, 14]] * 20
