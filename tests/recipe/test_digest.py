"""A digest means the same in every version: an upgrade that changes no result remakes nothing."""

from pathlib import Path
from typing import ClassVar

import pytest

from medllm.hub import digest_of
from medllm.recipe import read_recipe, settings_for_digest
from medllm.recipe.settings import STAGES, Cpt, Lora

OF_0_1_0: dict[str, str] = {
    "corpus": "8cf6c23bf242",
    "cpt": "02d46355fb47",
    "preferences": "10d3edc527b5",
    "rpo": "97ad5be1c4c9",
    "merge": "27a3329b8283",
    "evaluate": "eba1b3627585",
    "space": "eaa47c3f9a80",
}
"""The digests that 0.1.0 gives to this folder's recipe.

A setting that is added later goes into its block's `as_before` with the value under which nothing changes, and these
stay as they are. Change one here only together with a default that really makes another thing, and say so in the
CHANGELOG: whoever upgrades will remake that stage.
"""


class Later(Cpt):
    """The block as a later version might have it."""

    as_before: ClassVar[dict[str, object]] = {"noise": 0.0}

    noise: float = 0.0
    """A setting that 0.1.0 did not have."""


@pytest.mark.parametrize("stage", STAGES)
def test_what_0_1_0_made_still_stands_after_an_upgrade(sound: Path, stage: str):
    recipe = read_recipe(sound, {"space": {}})
    assert digest_of(stage, settings_for_digest(getattr(recipe, stage)), ())[:12] == OF_0_1_0[stage]


def test_a_setting_that_came_later_is_told_only_where_it_changes_something():
    lora = Lora(r=4, lora_alpha=8)
    assert settings_for_digest(Later(lora=lora)) == settings_for_digest(Cpt(lora=lora))
    assert settings_for_digest(Later(lora=lora, noise=0.1)) == {**settings_for_digest(Cpt(lora=lora)), "noise": 0.1}


def test_a_default_written_out_is_the_default():
    lora = Lora(r=4, lora_alpha=8)
    assert settings_for_digest(Cpt(lora=lora, warmup=0.03)) == settings_for_digest(Cpt(lora=lora))


def test_a_server_at_another_address_is_the_same_artifact():
    from medllm.recipe.base import settings_for_digest
    from medllm.recipe.settings import Evaluate

    def of(**changed):
        return settings_for_digest(Evaluate(models={"base": "base"}, benchmarks=("igakuqa",), **changed))

    here, there = of(engine="http://10.0.0.1:8000/v1", at_once=256), of(engine="https://gpu.example/v1", processes=4)
    assert here == there != of(engine="local")
    assert of() == of(engine="local", at_once=3, processes=2)
