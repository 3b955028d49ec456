"""Texts that were there before, exactly or nearly, by datatrove's MinHash over characters; the oldest is kept."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.data import Document as Passing
from datatrove.io import get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.hashing import HashConfig

from medllm.corpus.grams import Hashes, fold, hash_grams
from medllm.corpus.keeping import FACTS, part

GRAM = 5
"""Characters of a shingle."""
# 20 buckets of 5 hashes bring together what is 70% alike in 97 of 100 cases, what is 80% alike in all but one of 2,000;
# what they bring together wrongly is weeded out by comparing all 100 hashes.
CONFIG = MinhashConfig(n_grams=GRAM, num_buckets=20, hashes_per_bucket=5, hash_config=HashConfig(precision=32))
_HASHES = CONFIG.num_buckets * CONFIG.hashes_per_bucket
_CHUNK = 512

EXACT, NEAR, NOT_DRAWN = 1, 2, 3
GONE = np.dtype([("place", "<i8"), ("why", "u1"), ("alike", "<f4"), ("older", "S16")])
"""A kept text that goes after all: why, how much it is like the older one, and which that is."""
_GENERAL = np.dtype([("id", "S16"), ("task", "<i4"), ("place", "<i8"), ("length", "<i8")])
"""A general text that the replay may draw: 36 bytes, because there are millions of them."""


class Signatures(MinhashDedupSignature):  # type: ignore[misc]
    """datatrove's signatures over shingles of folded characters, because Japanese does not part its words.

    Its normaliser would also make かん of がん and 0mg of 12.5mg.
    """

    def __init__(self, work: Path) -> None:
        PipelineStep.__init__(self)
        self.work = work
        self.config = CONFIG
        self.skip_existing_sigs = False
        self.output_folder = get_datafolder(str(work / "signatures"))
        draw = np.random.default_rng(CONFIG.seed)
        # Odd multipliers modulo 2^64 spread as well as a prime and cost a fifth of it.
        self._factors = draw.integers(0, 2**63, (_HASHES, 1), np.uint64) * np.uint64(2) + np.uint64(1)
        self._offsets = draw.integers(0, 2**63, (_HASHES, 1), np.uint64)
        self._mixed = np.empty((_HASHES, _CHUNK), np.uint64)
        self._drawn: list[npt.NDArray[np.uint32]] = []

    def get_shingles(self, text: str) -> Hashes:
        """The hashed shingles of a text, at least one."""
        codes = fold(text)
        hashed = hash_grams(codes, min(GRAM, max(len(codes), 1)))
        return hashed.reshape(-1, 1) if len(hashed) else np.zeros((1, 1), np.uint64)

    def get_signature(self, shingles: Hashes) -> list[list[int]]:
        """The smallest value of each of a hundred hashes, a block of shingles at a time."""
        smallest = np.full(_HASHES, np.iinfo(np.uint64).max, np.uint64)
        row = shingles.reshape(1, -1)
        with np.errstate(over="ignore"):
            for begin in range(0, len(shingles), _CHUNK):
                block = row[:, begin : begin + _CHUNK]
                mixed = self._mixed[:, : block.shape[1]]
                np.multiply(block, self._factors, out=mixed)
                mixed += self._offsets
                np.minimum(smallest, mixed.min(axis=1), out=smallest)
        # The upper half of the smallest is the smallest upper half.
        least = (smallest >> np.uint64(32)).astype(np.uint32)
        self._drawn.append(least)
        return [bucket.tolist() for bucket in np.split(least, CONFIG.num_buckets)]

    def run(self, data: Iterable[Passing], rank: int = 0, world_size: int = 1) -> None:
        """Sorted buckets for datatrove's next step, and whole signatures for weeding out what it brings together."""
        self._drawn = []  # a job of several tasks runs them all with one step
        super().run(data, rank, world_size)
        drawn = np.array(self._drawn, np.uint32).reshape(-1, _HASHES)
        np.save(part(self.work, "hashes", rank, "npy"), drawn)


class Resolve(PipelineStep):  # type: ignore[misc]
    """Decides in each cluster who stays: the oldest, and whoever is not like anyone that stays."""

    type, name = "dedup", "resolve"

    def __init__(self, work: Path, tasks: int, alike: float, replay: float) -> None:
        super().__init__()
        self.work = work
        self.tasks = tasks
        self.alike = alike
        self.replay = replay

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:  # noqa: ANN401
        """For each task a table of those of its kept texts that go after all."""
        facts = [np.load(part(self.work, "facts", task, "npy"), mmap_mode="r") for task in range(self.tasks)]
        hashes = [np.load(part(self.work, "hashes", task, "npy"), mmap_mode="r") for task in range(self.tasks)]
        gone: list[dict[int, tuple[int, float, bytes]]] = [{} for _ in range(self.tasks)]
        for members in self._clusters():
            for place, why, alike, older in _judge(members, facts, hashes, self.alike):
                gone[place[0]][place[1]] = (why, alike, older)
        spare = self._not_drawn(facts, gone)
        for task, found in enumerate(gone):
            rows = np.array([(place, *found[place]) for place in found], GONE)
            places = spare["place"][spare["task"] == task]
            more = np.zeros(len(places), GONE)
            more["place"], more["why"] = places, NOT_DRAWN
            rows = np.concatenate([rows, more])
            np.save(part(self.work, "gone", task, "npy"), rows[np.argsort(rows["place"])])

    def _clusters(self) -> Iterator[list[tuple[int, int]]]:
        """Tasks and places of the texts that datatrove brought together."""
        tables = []
        for task in range(self.tasks):
            path = self.work / "clusters" / f"{task:06d}.clusters"
            pairs = np.fromfile(path, "<u4").reshape(-1, 2) if path.exists() else np.empty((0, 2), "<u4")
            tables.append(np.column_stack([pairs[:, 1], np.full(len(pairs), task), pairs[:, 0]]).astype(np.int64))
        table = np.concatenate(tables) if tables else np.empty((0, 3), np.int64)
        table = table[np.lexsort((table[:, 2], table[:, 1], table[:, 0]))]
        for cluster in np.split(table, np.flatnonzero(np.diff(table[:, 0])) + 1):
            if len(cluster):
                yield [(task, place) for task, place in cluster[:, 1:].tolist()]

    def _not_drawn(self, facts: list[Any], gone: list[dict[int, tuple[int, float, bytes]]]) -> npt.NDArray[Any]:
        """The general texts that the recipe's share has no room for; drawn by id, it is the same on every machine."""
        held, general = 0, [np.empty(0, _GENERAL)]
        for task, table in enumerate(facts):
            stays = np.ones(len(table), np.bool_)
            stays[list(gone[task])] = False
            held += int(table["length"][stays & ~table["replay"]].sum())
            places = np.flatnonzero(stays & table["replay"])
            rows = np.empty(len(places), _GENERAL)
            rows["task"], rows["place"] = task, places
            rows["id"], rows["length"] = table["id"][places], table["length"][places]
            general.append(rows)
        drawn = np.concatenate(general)
        drawn = drawn[np.lexsort((drawn["place"], drawn["task"], drawn["id"]))]
        room, kept = held * self.replay / (1 - self.replay), np.zeros(len(drawn), np.bool_)
        for at, length in enumerate(drawn["length"]):
            if length <= room:
                room -= length
                kept[at] = True
        return drawn[~kept]


Place = tuple[int, int]


def _judge(
    members: list[Place], facts: list[Any], hashes: list[Any], alike: float
) -> Iterator[tuple[Place, int, float, bytes]]:
    """The members of a cluster that go. Chains are not followed: each is held against an older one that stays."""
    told = {place: facts[place[0]][place[1]] for place in members}
    # General text gives way to the texts the corpus is about; then the older stays, by publication and by exam.
    ordered = sorted(
        members, key=lambda at: (bool(told[at]["replay"]), int(told[at]["published"]), int(told[at]["exam"]), at)
    )
    staying: list[Place] = []
    for place in ordered:
        for older in staying:
            mine, theirs = told[place], told[older]
            if mine["group"] and mine["group"] == theirs["group"]:
                continue
            share = float((hashes[place[0]][place[1]] == hashes[older[0]][older[1]]).mean())
            if mine["text"] == theirs["text"] or share >= alike:
                yield place, EXACT if mine["text"] == theirs["text"] else NEAR, share, bytes(theirs["id"])
                break
        else:
            staying.append(place)


__all__ = ["CONFIG", "EXACT", "FACTS", "GONE", "NEAR", "NOT_DRAWN", "Resolve", "Signatures"]
