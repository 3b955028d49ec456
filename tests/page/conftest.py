"""What the page's tests show: a made-up evaluation, written once a session."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from medllm.page.context import PageContext, Shelf
from medllm.page.loading import read
from medllm.page.results import Origin, RecordedResults
from tests.page.simulated import write


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory) -> Path:
    """The folder of a made-up evaluation."""
    return write(tmp_path_factory.mktemp("evaluation"), per_section=20)


T = TypeVar("T")


def in_a_loop(build: Callable[[], T]) -> T:
    """Build something of Gradio's in a running event loop: without one it opens loops that it never closes."""

    async def built() -> T:
        return build()

    return asyncio.run(built())


@pytest.fixture(scope="session")
def results(evaluation) -> RecordedResults:
    """The same, read."""
    return read(evaluation, Origin("made-up"))


@pytest.fixture(scope="session")
def page(results) -> PageContext:
    """The same as a page would hold it."""
    return PageContext(results, Shelf(results))
