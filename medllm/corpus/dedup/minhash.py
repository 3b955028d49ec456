"""datatrove's MinHash over characters: the signatures of kept texts, and the pairs that share a bucket of them."""

from collections.abc import Iterable
from contextlib import suppress
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

from medllm.corpus.decontaminate.ngrams import Hashes, fold, hash_grams
from medllm.corpus.intermediate import part

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
