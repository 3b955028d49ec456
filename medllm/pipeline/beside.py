"""Look again and again, beside the work of this process, until that work ends."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(look: Callable[[], None], every: float, name: str) -> Iterator[None]:
    """Look every so many seconds while the block is at work; when it ends, a look that has begun is waited for."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every):
            look()

    watcher = threading.Thread(target=watch, name=name, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
