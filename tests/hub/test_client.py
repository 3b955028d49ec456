"""How a Hub is reached: the client's own bars stay away where somebody else tells how far a run has come."""

import sys

import pytest
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from medllm.hub import connect


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    enable_progress_bars()
    yield
    disable_progress_bars()


def test_on_a_terminal_the_client_draws_bars_unless_a_run_tells_of_its_progress_itself(terminal):
    with connect("http://127.0.0.1:9"):
        assert not are_progress_bars_disabled()
    with connect("http://127.0.0.1:9", bars=False):
        assert are_progress_bars_disabled()
