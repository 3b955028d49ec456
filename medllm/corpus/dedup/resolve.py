"""Choice of the duplicates to keep and of the replay texts, by external sorting, so that any number fits."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.pipeline.base import PipelineStep

from medllm.corpus.dedup.components import DisjointSets, Numbers, pairs
from medllm.corpus.dedup.external_sort import Record, Sorter
from medllm.corpus.intermediate import part

EXACT, NEAR, NOT_DRAWN = 1, 2, 3
GONE = np.dtype([("place", "<i8"), ("why", "u1"), ("alike", "<f4"), ("older", "S16")])
"""A removed duplicate: the reason, its similarity to the older text, and the id of that text."""
OPEN = 16
"""Tables that are mapped at once: pages read from a mapped file count as this process's memory."""
_JUDGED = ("replay", "published", "exam")
# A text on the subject is kept before general text; then the older one, by publication and by exam.
_CANDIDATE = np.dtype(
    [
        ("root", "<i8"),
        ("replay", "?"),
        ("published", "<i4"),
        ("exam", "<i4"),
        ("number", "<i8"),
        ("text", "<u8"),
        ("group", "<u8"),
        ("id", "S16"),
    ]
)
_GENERAL = np.dtype([("id", "S16"), ("number", "<i8"), ("length", "<i8")])
_NUMBERED = np.dtype([("number", "<i8"), *((name, GONE[name]) for name in ("why", "alike", "older"))])


class KeptTexts:
    """The kept texts of all tasks, numbered together and read from disk on demand."""

    def __init__(self, work: Path, tasks: int) -> None:
        self._work = work
        self.tasks = tasks
        sizes = [len(np.load(part(work, "facts", task, "npy"), mmap_mode="r")) for task in range(tasks)]
        self.offsets: Numbers = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.size = int(self.offsets[-1])
        self.table = lru_cache(OPEN)(self._table)

    def _table(self, what: str, task: int) -> npt.NDArray[Any]:
        return np.load(part(self._work, what, task, "npy"), mmap_mode="r")  # type: ignore[no-any-return]

    def rows(self, what: str, numbers: Numbers) -> Iterator[tuple[Numbers, npt.NDArray[Any]]]:
        """Yield the rows of these texts, task by task, each with their positions among the numbers."""
        tasks = np.searchsorted(self.offsets, numbers, "right") - 1
        for task in np.unique(tasks).tolist():
            which = np.flatnonzero(tasks == task)
            yield which, self.table(what, task)[numbers[which] - self.offsets[task]]


class Resolve(PipelineStep):  # type: ignore[misc]
    """Chooses the texts to keep in each cluster: the oldest, and each text not similar to a kept one."""

    type, name = "dedup", "resolve"

    def __init__(self, work: Path, tasks: int, alike: float, replay: float) -> None:
        super().__init__()
        self.work = work
        self.tasks = tasks
        self.alike = alike
        self.replay = replay

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:  # noqa: ANN401
        """Write for each task a table of its texts that are removed as duplicates or not drawn."""
        kept, aside = KeptTexts(self.work, self.tasks), self.work / "sorting"
        with Sorter(aside / "gone", _NUMBERED) as gone:
            with Sorter(aside / "candidates", _CANDIDATE) as candidates:
                self._bring_together(kept, candidates)
                gone.fill(_judged(candidates, kept, self.alike))
            for task, rows in _parted(gone, kept):
                np.save(part(self.work, "gone", task, "npy"), rows)
        with Sorter(aside / "spare", _NUMBERED) as spare:
            with Sorter(aside / "general", _GENERAL) as general:
                room = self._room(kept, general)
                spare.fill(_not_drawn(general, room))
            for task, rows in _parted(spare, kept):
                path = part(self.work, "gone", task, "npy")
                if len(rows):
                    both = np.concatenate([np.load(path), rows])
                    np.save(path, both[np.argsort(both["place"])])

    def _bring_together(self, kept: KeptTexts, candidates: Sorter) -> None:
        with DisjointSets(self.work / "sorting" / "forest", kept.size) as forest:
            for found in pairs(self.work / "pairs", kept.offsets):
                forest.join(found)
            for found in forest.joined():
                roots = np.unique(found[:, 0])
                # A root comes once for each stretch of its cluster; the second copy of a record is skipped later.
                both = np.concatenate([found, np.column_stack([roots, roots])])
                for which, facts in kept.rows("facts", both[:, 1]):
                    rows = np.empty(len(which), _CANDIDATE)
                    rows["root"], rows["number"] = both[which].T
                    for name in (*_JUDGED, "text", "group", "id"):
                        rows[name] = facts[name]
                    candidates.add(rows)

    def _room(self, kept: KeptTexts, general: Sorter) -> float:
        """Pass on the general texts that are left; return how many of their characters the recipe has room for."""
        held = 0
        for task in range(self.tasks):
            table = kept.table("facts", task)
            stays = np.ones(len(table), np.bool_)
            stays[np.load(part(self.work, "gone", task, "npy"))["place"]] = False
            held += int(table["length"][stays & ~table["replay"]].sum())
            places = np.flatnonzero(stays & table["replay"])
            rows = np.empty(len(places), _GENERAL)
            rows["number"] = places + kept.offsets[task]
            rows["id"], rows["length"] = table["id"][places], table["length"][places]
            general.add(rows)
        return held * self.replay / (1 - self.replay)


class _Staying:
    """The kept texts of one cluster, with their signatures as rows of a matrix that grows by doubling."""

    def __init__(self, width: int) -> None:
        self._rows = np.empty((4, width), np.uint32)
        self._told = np.empty(4, [("text", "<u8"), ("group", "<u8"), ("id", "S16")])
        self._count = 0

    def older(self, told: Record, hashes: npt.NDArray[Any], alike: float) -> tuple[int, float, bytes] | None:
        """Find the first kept text similar to this one; return the reason, the similarity and the kept text's id."""
        text, group, _ = told
        theirs = self._told[: self._count]
        share = (self._rows[: self._count] == hashes).mean(axis=1)
        same = theirs["text"] == text
        # The plain and the explained form of one question are no duplicates of each other.
        like = (same | (share >= alike)) & ~((theirs["group"] == group) & (group != 0))
        if not like.any():
            return None
        at = int(like.argmax())
        return EXACT if same[at] else NEAR, float(share[at]), bytes(theirs["id"][at])

    def add(self, told: Record, hashes: npt.NDArray[Any]) -> None:
        """Add a text that is kept."""
        if self._count == len(self._told):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
            self._told = np.concatenate([self._told, np.empty_like(self._told)])
        self._rows[self._count], self._told[self._count] = hashes, told
        self._count += 1


def _judged(candidates: Iterable[Record], kept: KeptTexts, alike: float) -> Iterator[Record]:
    """Yield the texts to remove: each is similar to an older kept text of its cluster; chains are not followed."""
    before: tuple[int, int] = (-1, -1)
    staying = _Staying(0)
    for root, _, _, _, number, *told in candidates:
        if (root, number) == before:
            continue
        ((_, hashes),) = kept.rows("hashes", np.array([number]))
        if root != before[0]:
            staying = _Staying(hashes.shape[1])
        before = (root, number)
        if older := staying.older(tuple(told), hashes[0], alike):
            yield (number, *older)
        else:
            staying.add(tuple(told), hashes[0])


def _not_drawn(general: Iterable[Record], room: float) -> Iterator[Record]:
    """Yield the general texts that do not fit; the draw is by id, so it is the same on every machine."""
    for _, number, length in general:
        if length <= room:
            room -= length
        else:
            yield number, NOT_DRAWN, 0.0, b""


def _parted(gone: Iterable[Record], kept: KeptTexts) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield every task with its removed texts, in order of place."""
    coming = iter(gone)
    ahead = next(coming, None)
    for task in range(kept.tasks):
        begin, end = kept.offsets[task : task + 2].tolist()
        rows = []
        while ahead is not None and ahead[0] < end:
            rows.append((ahead[0] - begin, *ahead[1:]))
            ahead = next(coming, None)
        yield task, np.array(rows, GONE)


__all__ = ["EXACT", "GONE", "NEAR", "NOT_DRAWN", "Resolve"]
