"""What every executor that spreads a pass over a cluster shares: how it is begun, and when its tasks are done."""

import time
from collections.abc import Callable
from typing import Any, Literal

from medllm.corpus.passes import Pass
from medllm.errors import DataError

POLL = 10.0
"""Seconds between two looks at a cluster's jobs."""
Kind = Literal["local", "slurm", "ray", "jobs"]


def started(kind: Kind, make: Callable[[], Any]) -> Any:  # noqa: ANN401  one of datatrove's executors
    """The executor that `make` makes, unless the recipe gives it options that it does not know."""
    try:
        return make()
    except TypeError as fault:
        raise DataError(f"corpus.executor: {kind} does not know these options: {fault}.") from None


def whole(one: Pass, job: Any, left: list[int]) -> None:  # noqa: ANN401  one of datatrove's executors
    """Wait a little for marks that a shared disk shows late; then what has none has failed."""
    for _ in range(3):
        if left:
            time.sleep(min(POLL, 5))
            left = job.get_incomplete_ranks()
    if left:
        raise DataError(
            f"corpus: {len(left)} of {one.tasks} tasks of the pass `{one.name}` did not end, the first is {left[0]}. "
            f"Their logs lie in {job.logging_dir.path}. The same command goes on from here."
        )
