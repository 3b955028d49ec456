"""What a Space is given besides its files: hardware, variables and secrets, as the recipe names them."""

import json
import os
from collections.abc import Callable, Mapping

from huggingface_hub import SpaceHardware

from medllm.errors import HubError
from medllm.hub import Artifact, Hub
from medllm.recipe import Recipe
from medllm.recipe.base import Stage, parse_reference

Made = Mapping[Stage, Artifact]
Say = Callable[[str], None]


def check_secrets(recipe: Recipe) -> None:
    """Raise when a secret of the Space has no value here: before days of training, not after."""
    named = recipe.space.secrets if recipe.space else ()
    missing = [name for name in named if name not in os.environ]
    if missing:
        raise HubError(
            "stage.no-secret",
            f"space.secrets: {', '.join(missing)} has no value in this shell. Export it, or remove it from the recipe.",
        )


def configure_space(hub: Hub, repo_id: str, recipe: Recipe, made: Made, say: Say, *, fresh: bool) -> None:
    """Set what the Space lacks of its variables, secrets and hardware; report what cannot be set.

    A `fresh` Space was pushed just now: then its secrets are set again, since secrets cannot be read and checked.
    """
    wanted = recipe.space
    if wanted is None:
        return
    variables = _variables(recipe, made, say)
    named = ", ".join([*variables, *wanted.secrets, wanted.hardware])
    try:
        _set(hub, repo_id, variables, wanted.secrets, fresh=fresh)
        if fresh and wanted.hardware != "cpu-basic":
            hub.call(repo_id, lambda api: api.request_space_hardware(repo_id, SpaceHardware(wanted.hardware)))
    except HubError as fault:
        say(f"space: {named} could not be set ({fault}). Set them on the Space's own page.")
    except ValueError:
        known = ", ".join(flavor.value for flavor in SpaceHardware)
        say(
            f"space: {wanted.hardware} is no hardware that this client knows ({known}). Ask for it on the Space's page."
        )


def _set(hub: Hub, repo_id: str, variables: dict[str, str], secrets: tuple[str, ...], *, fresh: bool) -> None:
    """Set those that are not there yet; a secret without a value here stays as it is."""
    there = hub.call(repo_id, lambda api: api.get_space_variables(repo_id)) if variables else {}
    for key, value in variables.items():
        if key not in there or there[key].value != value:
            hub.call(repo_id, lambda api, key=key, value=value: api.add_space_variable(repo_id, key, value))  # type: ignore[misc]
    hidden = hub.call(repo_id, lambda api: api.get_space_secrets(repo_id)) if secrets else {}
    for key in secrets:
        if key in os.environ and (fresh or key not in hidden):
            hub.call(repo_id, lambda api, key=key: api.add_space_secret(repo_id, key, os.environ[key]))  # type: ignore[misc]


def _variables(recipe: Recipe, made: Made, say: Say) -> dict[str, str]:
    """The recipe's own, the place of votes, and the adapters that answer live."""
    wanted = recipe.space
    assert wanted is not None
    variables = dict(wanted.variables)
    if wanted.votes or "HF_TOKEN" in wanted.secrets:
        name = wanted.votes or f"{recipe.name}-votes"
        variables.setdefault("MEDLLM_VOTES", name if "/" in name else f"{recipe.owner}/{name}")
        if recipe.cutoff:
            variables.setdefault("MEDLLM_CUTOFF", recipe.cutoff.isoformat())
    if wanted.sign_in:
        variables.setdefault("MEDLLM_SIGN_IN", "1")
    if wanted.live != "none" and "MEDLLM_LIVE" not in variables:
        live = _adapters(recipe, made) if wanted.live in ("adapters", "zerogpu") else None
        if live is None:
            say(f"space.live: {wanted.live} needs the variable MEDLLM_LIVE (docs/space.md); the page shows recordings.")
        else:
            variables["MEDLLM_LIVE"] = json.dumps(live if wanted.live == "adapters" else {"kind": "zerogpu", **live})
    return variables


def _adapters(recipe: Recipe, made: Made) -> dict[str, object] | None:
    """The evaluated models as base and adapters on the Hub; None when one of them cannot be had from there."""
    if recipe.evaluate is None or recipe.base is None or parse_reference(recipe.base).where != "hub":
        return None
    adapters: dict[str, str] = {}
    if len(recipe.evaluate.references) < len(recipe.evaluate.models):
        return None
    for name, source in recipe.evaluate.references.items():
        if source == "merge":  # a whole model, not an adapter
            return None
        place = parse_reference(source)
        artifact = next((made_there for stage, made_there in made.items() if stage == source), None)
        if artifact is not None:
            adapters[name] = f"{artifact.repo_id}@{artifact.revision}"
        elif place.where == "hub":
            adapters[name] = source
        elif place.where != "base":
            return None
    live: dict[str, object] = {"base": recipe.base, "adapters": adapters}
    if recipe.evaluate.format != "completion":
        keys = {"format", "system_prompt", "chat_template", "chat_template_kwargs"}
        asked = recipe.evaluate.model_dump(mode="json", include=keys)
        live |= {**asked, "prompts": list(recipe.evaluate.prompts)}
    return live | ({"quantization": "nf4"} if recipe.evaluate.quantization == "nf4" else {})
