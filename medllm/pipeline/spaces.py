"""What a pushed Space is given besides its files: hardware, variables and secrets, as the recipe names them."""

import os
from collections.abc import Callable

from huggingface_hub import SpaceHardware

from medllm.errors import HubError
from medllm.hub import Hub
from medllm.recipe import Recipe


def furnish(hub: Hub, repo_id: str, recipe: Recipe, say: Callable[[str], None]) -> None:
    """Set the Space's variables and secrets and ask for its hardware; a Hub without these says so and goes on."""
    wanted = recipe.space
    if wanted is None:
        return
    missing = [name for name in wanted.secrets if name not in os.environ]
    if missing:
        raise HubError(
            f"space.secrets: {', '.join(missing)} is not set here. Export it, or leave it out of the recipe."
        )
    variables = dict(wanted.variables)
    if wanted.votes or "HF_TOKEN" in wanted.secrets:
        name = wanted.votes or f"{recipe.name}-votes"
        variables.setdefault("MEDLLM_VOTES", name if "/" in name else f"{recipe.namespace}/{name}")
        variables.setdefault("MEDLLM_CUTOFF", recipe.cutoff.isoformat())
    try:
        for key, value in variables.items():
            hub.ask(repo_id, lambda api, key=key, value=value: api.add_space_variable(repo_id, key, value))  # type: ignore[misc]
        for key in wanted.secrets:
            hub.ask(repo_id, lambda api, key=key: api.add_space_secret(repo_id, key, os.environ[key]))  # type: ignore[misc]
        if wanted.hardware != "cpu-basic":
            hub.ask(repo_id, lambda api: api.request_space_hardware(repo_id, SpaceHardware(wanted.hardware)))
    except HubError as fault:
        named = ", ".join([*variables, *wanted.secrets, wanted.hardware])
        say(f"space: {named} could not be set ({fault}). Set them on the Space's own page.")
