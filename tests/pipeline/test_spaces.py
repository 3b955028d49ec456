"""A Space's settings: what the recipe names is set; what cannot be set is said; a missing secret stops before that."""

from datetime import date
from types import SimpleNamespace

import pytest

from medllm.errors import HubError
from medllm.hub import Hub
from medllm.localhub import serve
from medllm.pipeline.spaces import furnish
from medllm.recipe.settings import Space


def recipe(**space: object) -> SimpleNamespace:
    """As much of a recipe as a Space's settings ask for."""
    return SimpleNamespace(name="m", namespace="clinic", cutoff=date(2017, 12, 31), space=Space(**space))


class Noted:
    """A Hub that notes what is set."""

    def __init__(self) -> None:
        self.set: list[tuple[str, ...]] = []

    def ask(self, _place, call):
        """Let the call speak to this instead of to a server."""
        return call(self)

    def add_space_variable(self, repo_id, key, value):
        """Note a variable."""
        self.set.append(("variable", repo_id, key, value))

    def add_space_secret(self, repo_id, key, value):
        """Note a secret."""
        self.set.append(("secret", repo_id, key, value))

    def request_space_hardware(self, repo_id, hardware):
        """Note the hardware."""
        self.set.append(("hardware", repo_id, hardware.value))


def test_variables_secrets_votes_and_hardware_are_set(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    hub, told = Noted(), []
    furnish(
        hub, "clinic/m-space", recipe(variables={"A": "1"}, secrets=("HF_TOKEN",), hardware="t4-small"), told.append
    )
    assert hub.set == [
        ("variable", "clinic/m-space", "A", "1"),
        ("variable", "clinic/m-space", "MEDLLM_VOTES", "clinic/m-votes"),
        ("variable", "clinic/m-space", "MEDLLM_CUTOFF", "2017-12-31"),
        ("secret", "clinic/m-space", "HF_TOKEN", "hf_x"),
        ("hardware", "clinic/m-space", "t4-small"),
    ]
    assert told == []


def test_a_secret_that_is_not_here_is_named(monkeypatch):
    monkeypatch.delenv("KEY_OF_OURS", raising=False)
    with pytest.raises(HubError, match="KEY_OF_OURS"):
        furnish(Noted(), "clinic/m-space", recipe(secrets=("KEY_OF_OURS",)), print)


def test_a_space_that_only_shows_needs_no_settings():
    hub = Noted()
    furnish(hub, "clinic/m-space", recipe(), print)
    assert hub.set == []


def test_a_hub_without_such_settings_is_told_of_and_nothing_stops(tmp_path):
    told: list[str] = []
    with serve(tmp_path) as served:
        hub = Hub(served.url, served.token, tmp_path / "cache", "test", waits=())
        furnish(hub, "clinic/m-space", recipe(variables={"A": "1"}), told.append)
    assert len(told) == 1
    assert "A, cpu-basic could not be set" in told[0]
