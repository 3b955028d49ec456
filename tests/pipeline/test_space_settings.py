"""A Space's settings: what the recipe names is set; what cannot be set is said; a missing secret stops before that."""

import json
from datetime import date
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from medllm.hub import Artifact, Hub
from medllm.localhub import serve
from medllm.pipeline.space_settings import check_secrets, configure_space
from medllm.recipe.settings import Space
from tests.refusals import refused

SPACE = "clinic/m-space"


def recipe(**space: object) -> SimpleNamespace:
    """As much of a recipe as a Space's settings ask for."""
    models = {"base": "base", "cpt": "cpt", "final": "rpo"}
    evaluate = SimpleNamespace(models=models, references=models, quantization="none", format="completion")
    messages = {
        "name": "m",
        "namespace": "clinic",
        "owner": "clinic",
        "base": "org/base@v1",
        "cutoff": date(2017, 12, 31),
    }
    return SimpleNamespace(**messages, evaluate=evaluate, space=Space(**space))


@pytest.fixture
def hub(tmp_path):
    """An embedded Hub that holds the Space."""
    with serve(tmp_path / "hub", user="clinic") as served:
        api = HfApi(endpoint=served.url, token=served.token)
        api.create_repo(SPACE, repo_type="space", space_sdk="gradio")
        yield Hub(served.url, served.token, tmp_path / "cache", "test", waits=())


def set_there(hub) -> tuple[dict[str, str], list[str]]:
    """The variables and the names of the secrets that the Space has."""
    variables = {key: one.value for key, one in hub.api.get_space_variables(SPACE).items()}
    return variables, list(hub.api.get_space_secrets(SPACE))


def test_variables_secrets_votes_and_hardware_are_set(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    messages = []
    wanted = recipe(variables={"A": "1"}, secrets=("HF_TOKEN",), hardware="t4-small")
    configure_space(hub, SPACE, wanted, {}, messages.append, fresh=True)
    assert set_there(hub) == (
        {"A": "1", "MEDLLM_VOTES": "clinic/m-votes", "MEDLLM_CUTOFF": "2017-12-31"},
        ["HF_TOKEN"],
    )
    assert hub.api.get_space_runtime(SPACE).requested_hardware == "t4-small"
    assert messages == []


def test_raters_sign_in_only_where_the_recipe_says_so(hub):
    configure_space(hub, SPACE, recipe(), {}, print, fresh=True)
    assert "MEDLLM_SIGN_IN" not in set_there(hub)[0]
    configure_space(hub, SPACE, recipe(sign_in=True), {}, print, fresh=True)
    assert set_there(hub)[0]["MEDLLM_SIGN_IN"] == "1"


def test_a_secret_that_is_not_here_is_named_before_any_work(monkeypatch):
    monkeypatch.delenv("KEY_OF_OURS", raising=False)
    with refused("stage.no-secret", "space.secrets:", "KEY_OF_OURS"):
        check_secrets(recipe(secrets=("KEY_OF_OURS",)))


def test_a_standing_space_keeps_a_secret_that_is_not_here(hub, monkeypatch):
    monkeypatch.delenv("KEY_OF_OURS", raising=False)
    hub.api.add_space_secret(SPACE, "KEY_OF_OURS", "x")
    messages = []
    configure_space(hub, SPACE, recipe(secrets=("KEY_OF_OURS",)), {}, messages.append, fresh=False)
    assert set_there(hub)[1] == ["KEY_OF_OURS"]
    assert messages == []


@pytest.mark.parametrize(("live", "extra"), [("adapters", {}), ("zerogpu", {"kind": "zerogpu"})])
def test_live_adapters_are_the_evaluated_models_at_their_commits(hub, live, extra):
    made = {"cpt": Artifact("clinic/m-cpt", "model", "a" * 40), "rpo": Artifact("clinic/m-rpo", "model", "b" * 40)}
    configure_space(hub, SPACE, recipe(live=live), made, print, fresh=True)
    assert json.loads(set_there(hub)[0]["MEDLLM_LIVE"]) == {
        **extra,
        "base": "org/base@v1",
        "adapters": {"cpt": "clinic/m-cpt@" + "a" * 40, "final": "clinic/m-rpo@" + "b" * 40},
    }


def test_live_adapters_keep_the_4_bits_of_the_evaluation(hub):
    made = {"cpt": Artifact("clinic/m-cpt", "model", "a" * 40), "rpo": Artifact("clinic/m-rpo", "model", "b" * 40)}
    of = recipe(live="adapters")
    of.evaluate.quantization = "nf4"
    configure_space(hub, SPACE, of, made, print, fresh=True)
    assert json.loads(set_there(hub)[0]["MEDLLM_LIVE"])["quantization"] == "nf4"


def test_a_server_that_nobody_named_is_asked_for(hub):
    messages = []
    configure_space(hub, SPACE, recipe(live="endpoint"), {}, messages.append, fresh=True)
    assert "MEDLLM_LIVE" in messages[0]


@pytest.mark.parametrize("hardware", ["cpu-basic", "no-such-machine"])
def test_what_cannot_be_set_is_reported_and_nothing_stops(hub, tmp_path, hardware):
    messages = []
    place = "clinic/not-there" if hardware == "cpu-basic" else SPACE
    configure_space(hub, place, recipe(variables={"A": "1"}, hardware=hardware), {}, messages.append, fresh=True)
    assert len(messages) == 1
    assert hardware in messages[0]
