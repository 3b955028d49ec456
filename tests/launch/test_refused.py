"""What could not be made there is refused before the first stage, by the little that has to be read for it."""

import json

import pytest

from medllm.hub import connect
from medllm.launch import refuse_unfit
from medllm.pipeline import make_plan
from medllm.recipe import read_recipe, with_overrides
from tests.pipeline import toy
from tests.refusals import refused


@pytest.fixture
def hub(tmp_path):
    with connect(str(tmp_path / "hub"), "clinic") as there:
        yield there


def pushed_base(hub, folder, kind):
    """A repository whose config.json says a type, and whose weights are large."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    (folder / "model.safetensors").write_bytes(b"x" * 1000)
    hub.api.create_repo("clinic/base", private=True)
    return hub.api.upload_folder(repo_id="clinic/base", folder_path=folder).oid


@pytest.mark.parametrize(("kind", "sound"), [("qwen2", True), ("qwen3_moe", True), ("t5", False)])
def test_a_base_on_the_hub_is_judged_by_its_config_alone_before_the_corpus_is_made(tmp_path, hub, kind, sound):
    toy.lay_out(tmp_path)
    commit = pushed_base(hub, tmp_path / "pushed", kind)
    recipe = with_overrides(read_recipe(tmp_path / "toy.yaml"), {"base": f"clinic/base@{commit}"})
    plan = make_plan(recipe, hub, ("cpt",))
    if sound:
        refuse_unfit("local", plan, hub)
    else:
        with refused("weights.unsupported-type", "`t5`"):
            refuse_unfit("local", plan, hub)
    assert not list(hub.cache.rglob("*.safetensors"))
    refuse_unfit("local", make_plan(recipe, hub, ("corpus",)), hub)
