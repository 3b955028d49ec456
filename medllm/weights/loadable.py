"""Whether a model or an adapter can be loaded, read from its small files and headers: no torch, no value loaded."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medllm.errors import MedllmError, ModelError
from medllm.recipe.hardware import refuse_unsupported
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint, read_json

TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("tokenizer.model",))
"""The files that may hold a tokenizer: one of these groups is enough."""
SMALL = ("*.json", "*.jinja", "*.txt", "*.model")
"""Patterns of the files of a repository that are enough for `model_errors`."""
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")
"""transformers' own marks around a reply in a chat template; plain Jinja does not know them."""


def model_errors(folder: Path, listed: frozenset[str] | None = None, *, any_type: bool = False) -> list[MedllmError]:
    """Return what keeps a full model from being loaded; empty when nothing does.

    `listed` has the names of all its files where the weights are still on the Hub. With `any_type` a model may be of a
    type that the installed transformers does not know: vLLM decides whether it can be asked.
    """
    checks: list[Callable[[], None]] = [lambda: _check_weights(folder, listed)]
    if (folder / "config.json").is_file():
        checks += [] if any_type else [lambda: _check_type(folder)]
        checks += [lambda: _check_tokenizer(folder), lambda: _check_template(folder)]
    return list(_errors(checks))


def adapter_errors(folder: Path, base: Path | None) -> list[MedllmError]:
    """Return what keeps an adapter from being loaded on its base; without a base only its own files are checked."""

    def check() -> None:
        adapter = Adapter(folder)
        adapter.modules  # noqa: B018  reads the header
        if base is not None:
            adapter.fits(Checkpoint(base))

    return list(_errors([check]))


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds a tokenizer in any of the forms that are read here."""
    return any(all((folder / name).is_file() for name in names) for names in TOKENIZERS)


def refuse_without_tokenizer(folder: Path) -> None:
    """Raise ModelError where a folder has no tokenizer files."""
    if not has_tokenizer(folder):
        raise ModelError(
            "weights.no-tokenizer",
            f"{folder}: no tokenizer (none of {', '.join(' + '.join(names) for names in TOKENIZERS)}). Download the "
            "model's tokenizer files into that folder.",
        )


def _errors(checks: list[Callable[[], None]]) -> Iterator[MedllmError]:
    for check in checks:
        try:
            check()
        except MedllmError as error:
            yield error


def _check_weights(folder: Path, listed: frozenset[str] | None) -> None:
    if listed is None:
        Checkpoint(folder).tensors  # noqa: B018  reads every header: a shard that is cut off or missing is named
    elif "config.json" not in listed or not any(name.endswith(".safetensors") for name in listed):
        what = "config.json" if "config.json" not in listed else "*.safetensors weights"
        raise ModelError(
            "weights.incomplete-repository",
            f"{folder}: the repository has no {what}, so it is no model that can be loaded. Name another revision, or "
            "convert it to safetensors where it comes from.",
        )


def _check_type(folder: Path) -> None:
    config = read_json(folder / "config.json")
    refuse_unsupported(folder / "config.json")
    if config.get("model_type") is None:
        raise ModelError(
            "weights.no-model-type",
            f"{folder}: config.json names no `model_type`. Download the model again.",
        )


def _check_tokenizer(folder: Path) -> None:
    """The tokenizer's files are whole, name an end of text, and name no token that the model has no row for."""
    refuse_without_tokenizer(folder)
    settings = folder / "tokenizer_config.json"
    stated = read_json(settings) if settings.is_file() else {}
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    written = read_json(path)
    highest = max(_token_ids(written, path), default=-1)
    rows = _vocabulary(read_json(folder / "config.json"))
    if rows is not None and highest >= rows:
        raise ModelError(
            "weights.tokenizer-too-large",
            f"{folder}: the tokenizer's highest token is {highest}, but the model has only {rows} rows of embedding. "
            "Use the tokenizer that came with the model, or the model that was resized with this tokenizer.",
        )
    marks = folder / "special_tokens_map.json"
    if not stated.get("eos_token") and not (marks.is_file() and read_json(marks).get("eos_token")):
        raise ModelError(
            "weights.no-end-of-text",
            f"{folder}: the tokenizer has no end-of-text token. Set `eos_token` in tokenizer_config.json.",
        )


def _token_ids(written: dict[str, Any], path: Path) -> Iterator[int]:
    try:
        words = written["model"]["vocab"]
        yield from words.values() if isinstance(words, dict) else range(len(words))
        yield from (token["id"] for token in written.get("added_tokens") or ())
    except (KeyError, TypeError) as fault:
        raise ModelError(
            "weights.broken-tokenizer",
            f"{path}: holds no vocabulary ({fault}). Download the tokenizer again.",
        ) from fault


def _vocabulary(config: dict[str, Any]) -> int | None:
    text = config.get("text_config")
    size = (text if isinstance(text, dict) else config).get("vocab_size")
    return size if isinstance(size, int) else None


def _check_template(folder: Path) -> None:
    """Where there is a chat template, it is one that Jinja can read."""
    for path, _, text in templates(folder):
        parse_template(str(path), text)


def parse_template(name: str, text: str) -> None:
    """Raise ModelError for a chat template that is no Jinja; `name` is what to call it."""
    from jinja2 import Environment, TemplateSyntaxError

    try:
        Environment(extensions=["jinja2.ext.loopcontrols"]).parse(_GENERATION.sub("", text))
    except TemplateSyntaxError as fault:
        raise ModelError(
            "weights.broken-template",
            f"{name}: the chat template is not valid Jinja (line {fault.lineno}: {fault.message}). Download it "
            "again, or remove it to ask the model as plain text.",
        ) from fault


def templates(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the chat templates of a folder: file, name (`default` for the one that is used) and text.

    A file of its own comes last: it wins over the tokenizer's settings.
    """
    file, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    stated = json.loads(settings.read_text("utf-8")).get("chat_template") if settings.is_file() else None
    named = stated if isinstance(stated, list) else [{"name": "default", "template": stated}]
    for name in named:
        if isinstance(name, dict) and isinstance(name.get("template"), str):
            yield settings, str(name.get("name")), name["template"]
    try:
        if file.is_file():
            yield file, "default", file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ModelError(
            "weights.unreadable-template", f"{file}: cannot be read ({fault}). Download it again as UTF-8."
        ) from fault
