"""Read predictions of any origin, of any number of models and prompts, for one exam."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from medllm.errors import DataError
from medllm.exam.prediction_files import files_of, rows_of
from medllm.exam.prediction_rows import Prediction, RowReader
from medllm.exam.question import Question
from medllm.exam.record import PROMPTS, PromptStyle

__all__ = ["Prediction", "Source", "System", "parse_source", "read_predictions"]

_SECTION_FILE = re.compile(r"\d{3}-[A-F]_(?P<model>.+)")
_STAMP = re.compile(r"[_-]?\d{4}-?\d{2}-?\d{2}(?:[T_ -]\d{2}[-:.]?\d{2}(?:[-:.]?\d{2})?(?:[.]\d+)?)?")
_ROW = re.compile(r" (?:line|row|sample)\b.*\Z", re.S)
"""The end of a place, behind its file."""
_PROMPT_WORD = re.compile(rf"[_\-. ]*(?:^|[_\-. ])({'|'.join(PROMPTS)})(?:ed)?(?=$|[_\-. ])", re.I)


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder of predictions, and the model and prompt that a person names for it."""

    path: Path
    model: str | None = None
    prompt: PromptStyle | None = None


@dataclass(frozen=True, slots=True)
class System:
    """The predictions of one model under one prompt."""

    model: str
    prompt: PromptStyle | None
    predictions: dict[str, Prediction]


@dataclass(frozen=True, slots=True)
class _Part:
    """The predictions of one model under one prompt in one file."""

    system: System
    file: Path
    guessed: bool
    """Whether the model's name is the file's."""


def parse_source(text: str) -> Source:
    """Return the source that `FILE`, `NAME=FILE` or `NAME:PROMPT=FILE` names.

    >>> parse_source("gpt:explain=replies.csv")
    Source(path=PosixPath('replies.csv'), model='gpt', prompt='explain')
    """
    name, equals, path = text.partition("=")
    if not (equals and name and path) or Path(text).exists():
        return Source(Path(text))
    model, colon, prompt = name.rpartition(":")
    known = next((style for style in PROMPTS if style == prompt), None)
    return Source(Path(path), model, known) if colon and known else Source(Path(path), name)


def read_predictions(
    files: Sequence[Path | Source],
    questions: Mapping[str, Question],
    benchmark: str,
    *,
    filter: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> list[System]:
    """Read all files' predictions, by model and prompt; a repeated id or one of another exam raises with its place.

    Args:
        files: Files or folders, of any of the formats of docs/evaluation.md, mixed.
        questions: The exam, by id.
        benchmark: The exam's name.
        filter: The filter of lm-evaluation-harness whose replies count; None takes the raw replies.
        columns: Names of the columns `id` and `answer`, where they have no usual name.
    """
    sources = [file if isinstance(file, Source) else Source(file) for file in files]
    reader = RowReader(questions, benchmark, filter, columns or {})
    parts = [part for source in sources for file in files_of(source.path) for part in _parts(source, file, reader)]
    if not parts and filter is not None and reader.filters:
        raise DataError(
            "exam.unknown-filter",
            f"--filter {filter}: no row has it. The filters are {', '.join(sorted(reader.filters))}.",
        )
    if not parts:
        others = f", only for {', '.join(sorted(reader.others))}" if reader.others else ""
        raise DataError(
            "exam.no-predictions",
            f"{', '.join(str(source.path) for source in sources)}: has no predictions for {benchmark}{others}. Give"
            " files with predictions for that exam.",
        )
    return _merged(_named_apart(parts))


def _parts(source: Source, file: Path, reader: RowReader) -> list[_Part]:
    """Read one file, by model and prompt."""
    by_system: dict[tuple[str | None, PromptStyle | None], dict[str, Prediction]] = {}
    for place, row in rows_of(file):
        named = reader.read(row, place)
        if named is not None:
            into = by_system.setdefault((named.model, source.prompt or named.prompt), {})
            _add(into, named.prediction, source.model or named.model or _name_of(file)[0])
    _name_failed(by_system)
    if source.model is not None and len({model for model, _ in by_system}) > 1:
        raise DataError(
            "exam.one-name-for-several",
            f"{source.model}={file}: holds {len(by_system)} models: {', '.join(str(model) for model, _ in by_system)}."
            " Give the file without a name; each row names its model.",
        )
    default, prompt = _name_of(file)
    return [
        _Part(System(source.model or model or default, asked or prompt, its), file, not (source.model or model))
        for (model, asked), its in by_system.items()
    ]


def _name_failed(by_system: dict[tuple[str | None, PromptStyle | None], dict[str, Prediction]]) -> None:
    """Give requests that failed, which name no model, to the one model of their file; a reply to a retry counts first.

    Rows without a model that hold a reply stay apart: whose they are is not known.
    """
    models = {model for model, _ in by_system if model is not None}
    for model, prompt in list(by_system):
        failed = by_system[model, prompt]
        if model is None and len(models) == 1 and not any(prediction.text for prediction in failed.values()):
            into = by_system.setdefault((*models, prompt), {})  # type: ignore[arg-type]
            into |= {name: prediction for name, prediction in failed.items() if name not in into}
            del by_system[model, prompt]


def _add(into: dict[str, Prediction], prediction: Prediction, model: str) -> None:
    """Add a prediction; a second one for its question raises, unless it is the same under another filter."""
    earlier = into.get(prediction.question_id)
    if earlier is None:
        into[prediction.question_id] = prediction
    elif not prediction.repeats(earlier):
        raise DataError(
            "exam.predicted-twice",
            f"{prediction.place}: question {prediction.question_id} is predicted twice for {model}, first at"
            f" {earlier.place}. Give one reply per question and model{_remedy(prediction, earlier)}.",
        )


def _remedy(prediction: Prediction, earlier: Prediction) -> str:
    """Return the remedy for two filters that changed a reply and left no raw one, or for two models of one name."""
    if prediction.filter is not None and prediction.filter != earlier.filter:
        return f": choose one filter, {earlier.filter} or {prediction.filter}, with --filter"
    if _ROW.sub("", prediction.place) == _ROW.sub("", earlier.place):
        return ": leave one out, or give the table a column `model` if two models replied"
    return (
        "; if these are two models, name the files: ONE=FILE OTHER=FILE; if two prompts:"
        " ONE:plain=FILE ONE:explain=FILE"
    )


def _name_of(file: Path) -> tuple[str, PromptStyle | None]:
    """Return the model and the prompt that a file's place and name show; a time stamp is no part of a name."""
    folders = file.resolve().parts[:-1]
    if "details" in folders and file.name.startswith("details_"):
        inner = folders[folders.index("details") + 1 :]
        model = "/".join(part for part in inner if not _STAMP.fullmatch(part))
        return model or file.stem, _prompt_in(re.sub(r"[:|]", " ", file.stem))
    if file.name.startswith("samples_") and _STAMP.search(file.stem):
        return _harness_model(file) or folders[-1].replace("__", "/"), _prompt_in(file.stem)
    stem = file.stem
    if named := _SECTION_FILE.fullmatch(stem):
        stem = named["model"]
    prompt = _prompt_in(stem)
    short = _STAMP.sub("", _PROMPT_WORD.sub("", stem) if prompt else stem).strip("_-. ")
    return short or folders[-1], prompt


def _prompt_in(name: str) -> PromptStyle | None:
    """Return the prompt that a name holds as a word of its own."""
    word = _PROMPT_WORD.search(name)
    return next((style for style in PROMPTS if word and word[1].lower() == style), None)


def _harness_model(file: Path) -> str | None:
    """Return the model that lm-evaluation-harness names in the results file of the same run, beside the samples."""
    stamp = _STAMP.findall(file.stem)[-1].lstrip("_-")
    results = file.parent / f"results_{stamp}.json"
    try:
        name = json.loads(results.read_text("utf-8")).get("model_name")
    except (OSError, ValueError, AttributeError):
        return None
    return name if isinstance(name, str) and name else None


def _named_apart(parts: list[_Part]) -> list[_Part]:
    """Name models by their folders where files of one name in several folders reply to the same questions."""
    groups: dict[tuple[str, PromptStyle | None], list[_Part]] = {}
    for part in parts:
        groups.setdefault((part.system.model, part.system.prompt), []).append(part)
    renamed = {}
    for group in groups.values():
        folders = {part.file.resolve().parent for part in group}
        counts = Counter(name for part in group for name in part.system.predictions)
        if len(folders) == len(group) > 1 and max(counts.values()) > 1 and all(part.guessed for part in group):
            for part in group:
                renamed[id(part)] = part.file.resolve().parent.name
    return [
        replace(part, system=replace(part.system, model=renamed.get(id(part), part.system.model))) for part in parts
    ]


def _merged(parts: list[_Part]) -> list[System]:
    """Join the parts of each model and prompt."""
    systems: dict[tuple[str, PromptStyle | None], System] = {}
    for part in parts:
        read = part.system
        system = systems.setdefault((read.model, read.prompt), replace(read, predictions={}))
        for prediction in read.predictions.values():
            _add(system.predictions, prediction, read.model)
    return list(systems.values())
