"""An evaluation as it is typed, without a file: models and exams become a recipe that only evaluates."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medllm.errors import RecipeError
from medllm.exam.benchmarks import CATALOGUE, worked_examples
from medllm.recipe.base import parse_reference
from medllm.recipe.errors import did_you_mean
from medllm.recipe.read import recipe_of
from medllm.recipe.servers import OPENAI_PREFIX
from medllm.recipe.settings import Recipe

NAME = "evaluation"
"""The recipe's name, with which the folders of results begin."""
MOST_SHOTS = 3
"""Worked examples that an exam shows by default, if it has as many."""
_EXAM_FILES = (".jsonl", ".parquet")
"""The endings of files that may be an exam as they are."""
_NAMED = re.compile(r"(?P<name>[\w.-]+)=(?P<rest>.+)", re.S)
_YEARS = re.compile(r"(?P<first>\d{4})(?:-(?P<last>\d{4}))?")


def evaluation_recipe(
    models: Sequence[str],
    exams: Sequence[str],
    *,
    data: Sequence[str] = (),
    base: str | None = None,
    key: str | None = None,
    chat_template: str | None = None,
    changes: Mapping[str, Any] | None = None,
    **settings: Any,  # noqa: ANN401  keys of `evaluate`; None leaves one out
) -> Recipe:
    """Build the recipe that asks these models these exams; it has no namespace, so its results are a folder.

    Args:
        models: Each `ORG/NAME[@REVISION]`, a folder of a model or an adapter, `URL#NAME` or `openai:NAME`; a name for
            the tables may come before it, as `mine=./folder`.
        exams: Each a name of the catalogue, or the folder (or file) of an own exam, or `NAME=FOLDER`.
        data: The folder of the catalogue's exams, or one with a folder for each, or `NAME=FOLDER`.
        base: The base of the adapters that do not name theirs.
        key: The environment variable with the key of the servers behind `URL#NAME`.
        chat_template: The chat template (its file, or its text) of models here that have none; all are asked by chat.
        changes: Keys of the recipe and their values, as `--set` has them.
        settings: Values of the `evaluate` block.

    Raises:
        RecipeError: A model or an exam is of no known form, two have one name, or a setting cannot be.
    """
    named = _named_apart([_model(text, key) for text in models])
    sources = dict(_exams(exams, data))
    given = {name: value for name, value in settings.items() if value is not None}
    shots = {name: _shots(name, place) for name, place in sources.items()}
    block = {"models": named, "benchmarks": list(sources), "shots": shots}
    tree: dict[str, Any] = {"name": NAME, "evaluate": {**block, **given}}
    tree["exams"] = {name: {"source": place} for name, place in sources.items() if place is not None}
    if base is not None:
        tree["base"] = _model(base, None)[1]
    if chat_template is not None:
        if all(isinstance(model, dict) or model.startswith(OPENAI_PREFIX) for model in named.values()):
            raise RecipeError(
                "command.template-for-servers",
                "--chat-template: all models are asked at servers, which use templates of their own. Leave it out, or "
                "start the server with it (`vllm serve --chat-template FILE`).",
            )
        tree["chat_template"] = chat_template
        tree["evaluate"].setdefault("format", "chat")
    return recipe_of(tree, Path("medllm evaluate"), changes or {})


def years_of(text: str) -> list[int]:
    """Read years as people type them.

    >>> years_of("2018-2020,2022")
    [2018, 2019, 2020, 2022]
    """
    years: list[int] = []
    for part in text.split(","):
        match = _YEARS.fullmatch(part.strip())
        first, last = (int(match["first"]), int(match["last"] or match["first"])) if match else (1, 0)
        if not first <= last <= first + 200:
            raise RecipeError("command.unknown-value", f"--years {text}: write years, as 2018,2022 or 2018-2022.")
        years += range(first, last + 1)
    return years


def _model(text: str, key: str | None) -> tuple[list[str], str | dict[str, Any]]:
    """Return the names that a model may have in the tables, the shortest first, and its source in a recipe."""
    match = None if Path(text).exists() else _NAMED.fullmatch(text)
    if match:
        return [match["name"]], _model(match["rest"], key)[1]
    if text.startswith(("http://", "https://")):
        address, _, model = text.rpartition("#")
        host = urlsplit(address or text).hostname or "the server"
        if not address or not model:
            raise RecipeError(
                "command.no-model-at-address",
                f"{host}: which of its models is asked? Write the address, # and the server's name for it, as "
                "http://localhost:8000/v1#NAME.",
            )
        asked = {"api": address, "model": model} | ({"key": key} if key else {})
        return [_short(model.rsplit("/", 1)[-1]), _short(model), _short(f"{host}-{model}")], asked
    if text.startswith(OPENAI_PREFIX):
        return [_short(text.removeprefix(OPENAI_PREFIX))], text
    return _weights(text)


def _weights(text: str) -> tuple[list[str], str]:
    """The same for a folder, or a repository of the Hub."""
    path = Path(text).expanduser()
    if path.is_dir():
        whole = path.resolve()
        cached = whole.parents[1].name.removeprefix("models--").split("--") if whole.parent.name == "snapshots" else []
        names = [*cached[-1:], whole.name, f"{whole.parent.name}-{whole.name}"]
        return [_short(name) for name in names], str(whole)
    place = parse_reference(text)
    if place.where == "hub" and place.repo_id:
        names = [place.repo_id.split("/")[1], place.repo_id, text]
        return [_short(name) for name in names], text if place.revision else f"{text}@main"
    what = "is a file" if path.is_file() else "there is no such folder" if place.where == "folder" else "is no model"
    raise RecipeError(
        "command.no-such-model",
        f"{text}: {what}. Write ORG/NAME or ORG/NAME@REVISION of the Hub, a folder of a model or an adapter, URL#NAME, "
        "or openai:NAME; exams come after --on.",
    )


def _short(name: str) -> str:
    """Write a name with the characters that a file's name can have everywhere."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"


def _named_apart(models: Sequence[tuple[list[str], str | dict[str, Any]]]) -> dict[str, Any]:
    """Give each model the shortest of its names that no other has."""
    by_name: dict[str, Any] = {}
    for number, (names, source) in enumerate(models):
        others = [other for place, (other, _) in enumerate(models) if place != number]
        name = next((candidate for candidate in names if all(candidate not in other for other in others)), names[-1])
        if name in by_name:
            text = "is given twice" if by_name[name] == source else "is the name of two models"
            raise RecipeError(
                "command.two-models-one-name", f"{name}: {text}. Name them apart, as one={name} other=./folder."
            )
        by_name[name] = source
    return by_name


def _exams(exams: Sequence[str], data: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each exam's name with the place of its questions; None is the catalogue's own place on the Hub."""
    folders = {match["name"]: match["rest"] for source in data if (match := _NAMED.fullmatch(source))}
    shared = [source for source in data if not _NAMED.fullmatch(source)]
    seen: set[str] = set()
    for text in exams:
        name, place = _exam(text, folders, shared)
        if name in seen:
            raise RecipeError(
                "command.exam-twice", f"--on {name}: is given twice. Give each exam one name, NAME=FOLDER."
            )
        seen.add(name)
        yield name, place


def _exam(text: str, folders: Mapping[str, str], shared: Sequence[str]) -> tuple[str, str | None]:
    match = _NAMED.fullmatch(text)
    path = Path(match["rest"] if match else text).expanduser()
    reference = parse_reference(text)
    if match or (path.exists() and text not in CATALOGUE and text not in folders):
        if not path.exists():
            raise RecipeError("command.no-such-exam", f"--on {text}: {path} does not exist. Give the exam's folder.")
        if path.is_file() and path.suffix.lower() not in _EXAM_FILES:
            raise RecipeError(
                "command.table-is-no-exam",
                f"--on {text}: is a table, and no exam yet. Make one: medllm exam import {path} --out {path.stem}",
            )
        return match["name"] if match else _short(path.resolve().stem), str(path.resolve())
    if reference.where == "hub" and reference.revision:
        return _short(str(reference.repo_id).split("/")[1]), text
    for folder in [folders[text]] if text in folders else shared:
        inner = Path(folder).expanduser() / text
        return text, str((inner if inner.is_dir() else Path(folder).expanduser()).resolve())
    if text not in CATALOGUE:
        raise RecipeError(
            "command.no-such-exam",
            f"--on {text}: is no exam of the catalogue and no folder here. {did_you_mean(text, list(CATALOGUE))} For "
            "an exam of your own give its folder, which `medllm exam import` makes of a table.",
        )
    return text, None


def _shots(name: str, place: str | None) -> int:
    """How many worked examples an exam shows: those at its start that are explained, up to three."""
    examples = worked_examples(name, Path(place)) if place and Path(place).exists() else []
    return len(list(takewhile(lambda example: example.explanation, examples[:MOST_SHOTS])))
