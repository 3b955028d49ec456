"""A running hub of its own for every test that asks for one, and a client that speaks to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from medllm.localhub import LocalHub, serve


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    with serve(tmp_path / "hub", user="alice") as running:
        yield running


@pytest.fixture
def api(hub: LocalHub) -> HfApi:
    return HfApi(endpoint=hub.url, token=hub.token)
