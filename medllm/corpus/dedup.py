"""Duplicates and replay: MinHash signatures over characters, their clusters, and the choice of the texts to keep."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datatrove.data import Document as Passing
from datatrove.io import get_datafolder
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.hashing import HashConfig
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from medllm.corpus.decontaminate.ngrams import Hashes, fold, hash_grams
from medllm.corpus.steps import kept_texts, part

GRAM = 5
"""Characters of a shingle."""
# 20 buckets of 5 hashes bring together what is 70% alike in 97 of 100 cases, what is 80% alike in all but one of 2,000;
# a comparison of all 100 hashes removes the wrong pairs.
CONFIG = MinhashConfig(n_grams=GRAM, num_buckets=20, hashes_per_bucket=5, hash_config=HashConfig(precision=32))
_HASHES = CONFIG.num_buckets * CONFIG.hashes_per_bucket
_CHUNK = 512


class Signatures(MinhashDedupSignature):  # type: ignore[misc]
    """datatrove's signatures over shingles of folded characters, because Japanese does not separate words.

    datatrove's normaliser would also turn がん into かん and 12.5mg into 0mg.
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
        """Return the hashed shingles of a text, at least one."""
        codes = fold(text)
        hashed = hash_grams(codes, min(GRAM, max(len(codes), 1)))
        return hashed.reshape(-1, 1) if len(hashed) else np.zeros((1, 1), np.uint64)

    def get_signature(self, shingles: Hashes) -> list[list[int]]:
        """Return the smallest value of each of a hundred hashes, a block of shingles at a time."""
        smallest = np.full(_HASHES, np.iinfo(np.uint64).max, np.uint64)
        row = shingles.reshape(1, -1)
        with np.errstate(over="ignore"):
            for begin in range(0, len(shingles), _CHUNK):
                block = row[:, begin : begin + _CHUNK]
                mixed = self._mixed[:, : block.shape[1]]
                np.multiply(block, self._factors, out=mixed)
                mixed += self._offsets
                np.minimum(smallest, mixed.min(axis=1), out=smallest)
        # The upper half of the smallest hash is the smallest upper half.
        least = (smallest >> np.uint64(32)).astype(np.uint32)
        self._drawn.append(least)
        return [bucket.tolist() for bucket in np.split(least, CONFIG.num_buckets)]

    def run(self, data: Iterable[Passing], rank: int = 0, world_size: int = 1) -> None:
        """Write sorted buckets for datatrove's next step, and whole signatures for the check of its pairs."""
        self._drawn = []  # a job of several tasks runs them all with one step
        super().run(data, rank, world_size)
        drawn = np.array(self._drawn, np.uint32).reshape(-1, _HASHES)
        np.save(part(self.work, "hashes", rank, "npy"), drawn)


class Buckets(MinhashDedupBuckets):  # type: ignore[misc]
    """datatrove's merge of all tasks' signatures, which keeps a file of each task open."""

    def __init__(self, work: Path) -> None:
        # A hundred signatures are read at a time; datatrove's five make its merge wait for the disk.
        super().__init__(str(work / "signatures"), str(work / "pairs"), config=CONFIG, lines_to_buffer=100)

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> None:  # noqa: ANN401
        """Raise the limit on open files: many systems allow a thousand, and 32 GB of text are a thousand tasks."""
        with suppress(ImportError, ValueError, OSError):
            import resource

            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        super().run(data, rank, world_size)


EXACT, NEAR, NOT_DRAWN = 1, 2, 3
GONE = np.dtype([("place", "<i8"), ("why", "u1"), ("alike", "<f4"), ("older", "S16")])
"""A removed text: the reason, and of a duplicate its similarity to the older text and the id of that text."""
OPEN = 16
"""Tables that are mapped at once: pages read from a mapped file count as this process's memory."""
BLOCK = 50_000
"""Texts that are turned into Python values at once."""
_PAIR = np.dtype([("task", "<u4"), ("place", "<u4"), ("other_task", "<u4"), ("other_place", "<u4")])
_GENERAL = np.dtype([("id", "S16"), ("number", "<i8"), ("length", "<i8")])
Numbers = npt.NDArray[np.int64]
Table = npt.NDArray[Any]


class KeptTexts:
    """The kept texts of all tasks, numbered together and read from disk on demand."""

    def __init__(self, work: Path, tasks: int) -> None:
        self.work = work
        self.tasks = tasks
        sizes = [kept_texts(work, task) for task in range(tasks)]
        self.offsets: Numbers = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.size = int(self.offsets[-1])
        self.table = lru_cache(OPEN)(self._table)

    def _table(self, what: str, task: int) -> Table:
        return np.load(part(self.work, what, task, "npy"), mmap_mode="r")  # type: ignore[no-any-return]

    def facts(self, numbers: Numbers) -> Table:
        """Read the facts of these texts, which are in ascending order."""
        ends = np.searchsorted(numbers, self.offsets)
        columns = [
            self.table("facts", task)[numbers[ends[task] : ends[task + 1]] - self.offsets[task]]
            for task in range(self.tasks)
        ]
        return np.concatenate(columns)

    def signature(self, number: int) -> Table:
        """Read the MinHash signature of one text."""
        task = int(np.searchsorted(self.offsets, number, "right")) - 1
        return self.table("hashes", task)[number - int(self.offsets[task])]  # type: ignore[no-any-return]


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
        """Write for each task a table of its texts that are removed as duplicates or not drawn, in order of place."""
        kept = KeptTexts(self.work, self.tasks)
        duplicates = np.fromiter(_duplicates(kept, self.alike), GONE)
        spare = np.fromiter(_not_drawn(kept, duplicates["place"], self.replay), GONE)
        gone = np.concatenate([duplicates, spare])
        gone = gone[np.argsort(gone["place"])]
        ends = np.searchsorted(gone["place"], kept.offsets)
        for task in range(self.tasks):
            rows = gone[ends[task] : ends[task + 1]].copy()
            rows["place"] -= kept.offsets[task]
            np.save(part(self.work, "gone", task, "npy"), rows)


def component_labels(folder: Path, offsets: Numbers) -> npt.NDArray[np.int32]:
    """Number the connected components of the pairs that datatrove's buckets found: the label of each text.

    `offsets` are the numbers of the first text of each task, and the number of all texts at the end.
    """
    blocks = []
    for path in sorted(folder.glob("*.dups")):
        rows = np.fromfile(path, _PAIR)
        first, other = offsets[rows["task"]] + rows["place"], offsets[rows["other_task"]] + rows["other_place"]
        blocks.append(np.stack([first, other]).astype(np.int32))
    size = int(offsets[-1])
    pairs = np.concatenate(blocks, axis=1) if blocks else np.empty((2, 0), np.int32)
    graph = coo_array((np.ones(pairs.shape[1], np.float32), (pairs[0], pairs[1])), shape=(size, size))
    labels: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return labels


def clusters(kept: KeptTexts) -> tuple[npt.NDArray[np.int32], Numbers, Table, Numbers]:
    """Find the texts that share a cluster: label, number and facts of each, and their order.

    In that order a text on the subject comes before general text, then the older one, by publication and by exam.
    """
    labels = component_labels(kept.work / "pairs", kept.offsets)
    numbers = np.flatnonzero(np.bincount(labels)[labels] > 1)
    labels, facts = labels[numbers], kept.facts(numbers)
    return labels, numbers, facts, np.lexsort([facts["exam"], facts["published"], facts["replay"], labels])


def _duplicates(kept: KeptTexts, alike: float) -> Iterator[tuple[int, int, float, bytes]]:
    """Yield the texts to remove: each is similar to an older kept text of its cluster; chains are not followed."""
    labels, numbers, facts, order = clusters(kept)
    staying, before = _Staying(0), -1
    for begin in range(0, len(order), BLOCK):
        block = order[begin : begin + BLOCK]
        record = facts[["text", "group", "id"]][block].tolist()
        for label, number, facts_of_one in zip(labels[block].tolist(), numbers[block].tolist(), record, strict=True):
            hashes = kept.signature(number)
            if label != before:
                staying, before = _Staying(len(hashes)), label
            if older := staying.older(facts_of_one, hashes, alike):
                yield (number, *older)
            else:
                staying.add(facts_of_one, hashes)


class _Staying:
    """The kept texts of one cluster, with their signatures as rows of a matrix that grows by doubling."""

    def __init__(self, width: int) -> None:
        self._rows = np.empty((4, width), np.uint32)
        self._records = np.empty(4, [("text", "<u8"), ("group", "<u8"), ("id", "S16")])
        self._count = 0

    def older(self, record: tuple[int, int, bytes], hashes: Table, alike: float) -> tuple[int, float, bytes] | None:
        """Find the first kept text similar to this one; return the reason, the similarity and the kept text's id."""
        text, group, _ = record
        theirs = self._records[: self._count]
        share = (self._rows[: self._count] == hashes).mean(axis=1)
        same = theirs["text"] == text
        # The plain and the explained form of one question are no duplicates of each other.
        like = (same | (share >= alike)) & ~((theirs["group"] == group) & (group != 0))
        if not like.any():
            return None
        at = int(like.argmax())
        return EXACT if same[at] else NEAR, float(share[at]), bytes(theirs["id"][at])

    def add(self, record: tuple[int, int, bytes], hashes: Table) -> None:
        """Add a text that is kept."""
        if self._count == len(self._records):
            self._rows = np.concatenate([self._rows, np.empty_like(self._rows)])
            self._records = np.concatenate([self._records, np.empty_like(self._records)])
        self._rows[self._count], self._records[self._count] = hashes, record
        self._count += 1


def _not_drawn(kept: KeptTexts, gone: Numbers, replay: float) -> Iterator[tuple[int, int, float, bytes]]:
    """Yield the general texts that do not fit into their share of the corpus, in characters.

    The draw is by id, so it is the same on every machine.
    """
    stays = np.ones(kept.size, np.bool_)
    stays[gone] = False
    specific, others = 0, [np.empty(0, _GENERAL)]
    for task in range(kept.tasks):
        table, begin = kept.table("facts", task), int(kept.offsets[task])
        mine = stays[begin : begin + len(table)]
        specific += int(table["length"][mine & ~table["replay"]].sum())
        places = np.flatnonzero(mine & table["replay"])
        rows = np.empty(len(places), _GENERAL)
        rows["number"], rows["id"], rows["length"] = places + begin, table["id"][places], table["length"][places]
        others.append(rows)
    general = np.concatenate(others)
    order = np.lexsort([general["number"], general["id"]])
    room = specific * replay / (1 - replay)
    for begin in range(0, len(order), BLOCK):
        for _, number, length in general[order[begin : begin + BLOCK]].tolist():
            if length <= room:
                room -= length
            else:
                yield number, NOT_DRAWN, 0.0, b""
