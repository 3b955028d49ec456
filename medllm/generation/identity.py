"""Which model answers and in which form it is asked: what decides its replies, under which they are kept."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from medllm.errors import ModelError
from medllm.generation.answer_store import Answerer
from medllm.generation.types import BASE, Request
from medllm.recipe.base import base_of
from medllm.recipe.servers import OPENAI, OPENAI_PREFIX, ApiModel, is_address, switches
from medllm.weights.adapter import is_adapter
from medllm.weights.chat_template import given_template, no_template, open_template, template_of
from medllm.weights.checkpoint import model_name
from medllm.weights.loadable import has_tokenizer

DECIDING = (
    "*.safetensors",
    "*config.json",
    "tokenizer*",
    "vocab*",
    "merges.txt",
    "*.model",
    "*_tokens*.json",
    "chat_template*",
)
"""The files of a model's folder that decide its replies."""
KEY = "OPENAI_API_KEY"
"""The environment variable of the key for `engine` and `openai:` models."""
ADDRESS = "OPENAI_BASE_URL"
"""The variable by which OpenAI's own client is sent elsewhere; the recipe alone decides it here."""


@dataclass(frozen=True)
class AskedAs:
    """The form in which a model is asked."""

    chat: bool
    template: str | None = None
    """The chat template of a model whose files are here."""

    def fit(self, request: Request, prompts: Collection[str]) -> Request:
        """Return a request as this model gets it, of an evaluation with these prompts.

        A server is asked to think, or not to, only where the prompts differ in that: not all servers take the switch.
        """
        if not self.chat or self.template or "think" not in prompts:
            return request
        return replace(request, chat_template_kwargs={**switches(request.thinks), **request.chat_template_kwargs})

    def identity(self) -> dict[str, str]:
        """Return what it adds to a model that answers here, for the key of its replies; nothing for completion."""
        return {"template": hashlib.sha256(self.template.encode()).hexdigest()[:16]} if self.template else {}


def asked_as(
    models: Mapping[str, str | ApiModel],
    sources: Mapping[str, Path],
    *,
    engine: str,
    form: str,
    given: str | None = None,
) -> dict[str, AskedAs]:
    """For each name in the tables: whether it is asked by chat, and by which template where its files are here.

    `form` is a recipe's `format`. An adapter is asked by its own template, or else by its base's, and a model that has
    none by the recipe's, which is `given`. Raises ModelError where `chat` is wanted of a model without any, and where
    a template raises, or does not write the question.
    """
    forms: dict[str, AskedAs] = {}
    for name, source in models.items():
        if isinstance(source, ApiModel):
            forms[name] = AskedAs(source.chat)
        elif source.startswith(OPENAI_PREFIX):
            forms[name] = AskedAs(chat=True)
        elif is_address(engine):
            forms[name] = AskedAs(form != "completion")
        elif form == "completion":
            forms[name] = AskedAs(chat=False)
        else:
            base = base_under(source, sources)
            template = template_of(sources[source], base)
            if template is None and given is not None:
                template = given_template(sources[source], base, given)
            if template is None and form == "chat":
                raise no_template(name, sources[source])
            if template is not None and has_tokenizer(sources[source] if base is None else base):
                open_template(sources[source], base, template, name)
            forms[name] = AskedAs(template is not None, template)
    return forms


def refuse_thinking_without_chat(forms: Mapping[str, AskedAs], prompts: Collection[str]) -> None:
    """Raise ModelError where a model is to think that is not asked by chat, and so has no channel for it."""
    silent = next((name for name, form in forms.items() if not form.chat), None)
    if "think" in prompts and silent is not None:
        raise ModelError(
            "generation.think-needs-chat",
            f"{silent}: the prompt `think` needs a chat template, and this model is asked to complete text. Write "
            "`format: chat`, or take `think` out of `prompts`.",
        )


def answerers(
    models: Mapping[str, str | ApiModel],
    sources: dict[str, Path],
    *,
    form: str = "completion",
    given: str | None = None,
    engine: str,
    dtype: str,
    quantization: str,
) -> dict[str, Answerer]:
    """For each name in the tables: what decides its replies besides the request, under which they are kept.

    A model here is its files, whatever its folder or commit. A server's model is its name, its options and, where the
    recipe names one, its source: a server that loads other weights under the same name is not noticed.
    """
    by_model: dict[str, Answerer] = {}
    forms = asked_as(models, sources, engine=engine, form=form, given=given)
    for name, source in models.items():
        if isinstance(source, ApiModel):
            asked = {"chat": source.chat, "model": source.model, "request": source.request}
            by_model[name] = Answerer.behind(source.api, {**asked, "revision": source.revision})
        elif source.startswith(OPENAI_PREFIX):
            served = source.removeprefix(OPENAI_PREFIX)
            asked = {"chat": True, "model": served, "request": {}, "revision": None}
            by_model[name] = Answerer.behind(openai_address(engine, f"evaluate.models.{name}", source), asked)
        elif is_address(engine):
            folder = sources.get(source)
            own = {"name": name, "files": files_digest(folder) if folder else source}
            by_model[name] = Answerer.behind(engine, own if form == "completion" else {**own, "format": form})
        else:
            base = base_under(source, sources) if is_adapter(sources[source]) else None
            files = [files_digest(folder) for folder in (base, sources[source]) if folder is not None]
            here: dict[str, Any] = {"engine": engine, "dtype": dtype, "quantization": quantization, "files": files}
            by_model[name] = Answerer({**here, **forms[name].identity()})
    return by_model


@lru_cache(maxsize=64)
def files_digest(folder: Path) -> str:
    """Hash the files of a model that decide its replies; in the Hub's cache, files are named by their content."""
    whole = hashlib.sha256()
    for path in sorted(path for pattern in DECIDING for path in folder.glob(pattern) if path.is_file()):
        target = path.resolve()
        content = target.name
        if target.parent.name != "blobs":
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.name}\0{content}\n".encode())
    return whole.hexdigest()


def base_under(source: str, sources: Mapping[str, Path]) -> Path | None:
    """Return the base of an adapter: the one that it names itself, else the recipe's."""
    return sources.get(base_of(source), sources.get(BASE))


def openai_address(engine: str, place: str, source: str) -> str:
    """The engine's address, or OpenAI's own; refused where the environment names one that the recipe does not."""
    if is_address(engine):
        return engine
    other = os.environ.get(ADDRESS, OPENAI).rstrip("/")
    if other != OPENAI:
        raise ModelError(
            "generation.address-from-environment",
            f"{place}: {ADDRESS} is {other}, but `{source}` is asked at {OPENAI}. Write "
            f"`{{api: {other}, model: {source.removeprefix(OPENAI_PREFIX)}, key: {KEY}}}` to ask the other server, or "
            f"unset {ADDRESS}.",
        )
    return OPENAI


def source_of(folder: Path | None) -> tuple[str | None, str | None]:
    """Read the name of a model, and its commit where the folder is a Hub snapshot, from the folder's path."""
    if folder is None:
        return None, None
    parent = folder.absolute().parent
    return model_name(folder), folder.name if parent.name == "snapshots" else None
