"""The functions of `import medllm`: what the commands do, with tables and figures as results."""

import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medllm.errors import DataError
from medllm.exam.grading import Rules
from medllm.exam.record import read_records
from medllm.library.results import Audit, Comparisons, Results, Scores, Stability

if TYPE_CHECKING:
    from medllm.exam.predictions import System
    from medllm.exam.question import Question
    from medllm.exam.record import Record
    from medllm.exam.scoring import Scope
    from medllm.recipe import Recipe

Files = str | Path | Mapping[str, str | Path] | Sequence[str | Path]
"""One file or folder, several, or a mapping of names to them: `MODEL`, or `MODEL:plain` and `MODEL:explain`.

Of records, a name renames the one model in them."""
PROGRESS_EVERY = 10.0
"""Seconds between two lines of progress on stderr."""


def evaluate(  # noqa: PLR0913  an argument for each option of the command
    models: str | Sequence[str],
    on: str | Sequence[str],
    *,
    data: str | Path | Mapping[str, str | Path] | None = None,
    modes: Sequence[str] | None = None,
    shots: int | None = None,
    years: Sequence[int] | None = None,
    limit: int | None = None,
    engine: str = "auto",
    out: str | Path | None = None,
    base: str | None = None,
    key: str | None = None,
    chat_template: str | Path | None = None,
    hub: str | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Results:
    """Ask models exams, as `medllm evaluate` does; called again after an interruption, it goes on.

    Args:
        models: Each `ORG/NAME[@REVISION]`, a folder of a model or an adapter, `URL#NAME` or `openai:NAME`; `NAME=`
            before it names it in the tables.
        on: Exams: names of `medllm score --list`, folders of exams of your own, or `NAME=FOLDER`.
        data: The folder of the named exams, or one with a folder for each, or a mapping of names to folders.
        modes: Ways of asking; plain and explained when left out.
        shots: Worked examples; else what each exam has, up to three.
        years: Only these years.
        limit: Only so many questions of each exam, for a trial.
        engine: What answers for weights: `auto`, `local`, `transformers`, `vllm`, or the address of a server.
        out: The folder of the results; else one in `runs/` that is named by all that decides the answers.
        base: The base of adapters that name none that is found here.
        key: The environment variable with the key of the servers behind `URL#NAME`.
        chat_template: The chat template (its file, or its text) of models here that have none; all are asked by chat.
        hub: The Hub that models are read from, as an address or a folder.
        changes: Keys of a recipe and their values, as `{"evaluate.max_new_tokens.plain": 256}`.

    Raises:
        MedllmError: A model, an exam or a setting is refused; the text names the cause and the remedy.
    """
    from medllm.recipe.evaluation import evaluation_recipe

    recipe = evaluation_recipe(
        [models] if isinstance(models, str) else models,
        [on] if isinstance(on, str) else on,
        data=_data(data),
        base=base,
        key=key,
        chat_template=None if chat_template is None else str(chat_template),
        changes=changes,
        prompts=modes,
        shots=shots,
        years=years,
        limit=limit,
        engine=engine,
    )
    return evaluate_recipe(fitted(recipe, changes or {}), hub=hub, out=None if out is None else Path(out))


def _data(data: str | Path | Mapping[str, str | Path] | None) -> list[str]:
    if isinstance(data, Mapping):
        return [f"{name}={folder}" for name, folder in data.items()]
    return [] if data is None else [str(data)]


def fitted(recipe: "Recipe", changes: Mapping[str, Any]) -> "Recipe":
    """Return the recipe in float32 where models answer on this machine and it has no GPU: bfloat16 is slow there.

    A number format among the `changes` stays.
    """
    from medllm.recipe import with_overrides
    from medllm.recipe.servers import OPENAI_PREFIX, is_address

    settings = recipe.evaluate
    here = settings and any(not reference.startswith(OPENAI_PREFIX) for reference in settings.references.values())
    if settings is None or "evaluate.dtype" in changes or not here or is_address(settings.engine):
        return recipe
    from medllm.weights.resources import visible_gpus

    return recipe if visible_gpus() else with_overrides(recipe, {"evaluate.dtype": "float32"})


def evaluate_recipe(
    recipe: "Recipe",
    *,
    hub: str | None = None,
    work: Path = Path("runs"),
    out: Path | None = None,
    say: Callable[[str], None] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Results:
    """Make the results of a recipe that only evaluates and has no namespace, in a folder; models keep their order.

    The two functions take what happens and how far the work is; both are lines on stderr when left out.
    """
    from medllm.hub import connect
    from medllm.launch.local import maker_of
    from medllm.pipeline import BuildContext
    from medllm.pipeline.evaluation_folder import make_folder, plan_folder
    from medllm.recipe.dependencies import hosts_of

    say = say or _on_stderr(0)
    with connect(hub, None, bars=False, say=say) as there:
        planned = plan_folder(recipe, there, work, out)
        for name in dict.fromkeys(host.name for host in hosts_of(recipe) if host.outside):
            say(f"evaluate: questions are sent to {name}")
        bench = BuildContext(there, work, say, progress or _on_stderr(PROGRESS_EVERY))
        folder = make_folder(planned, bench, maker_of("evaluate", recipe.folder))
    order = list(recipe.evaluate.models) if recipe.evaluate else []
    return Results(sorted(read_records(folder), key=lambda record: order.index(record.model)), folder)


def _on_stderr(every: float) -> Callable[[str], None]:
    """Return a function that writes a line on stderr, at most once in so many seconds."""
    last = [-every]

    def write(text: str) -> None:
        if time.monotonic() - last[0] >= every:
            last[0] = time.monotonic()
            sys.stderr.write(f"{text}\n")

    return write


def load_results(
    files: Files, exam: str | None = None, *, data: str | Path | None = None, rules: Rules = "normalised"
) -> Results:
    """Read results: of medllm, or with `exam` of any tool (docs/evaluation.md lists the formats).

    Args:
        files: Records, the folder of an evaluation, or files and folders of replies.
        exam: The exam that any tool's replies are to; records of medllm name theirs.
        data: The folder of that exam.
        rules: How replies are graded: by the parser, or by IgakuQA's `official` rules.

    Raises:
        DataError: A file cannot be read, or a reply belongs to another exam; the text names the place.
    """
    if exam is None:
        names = _written(files)
        records = [record for name in names for record in named_records(name)]
        whole = Path(names[0]) if len(names) == 1 else None
        return Results(records, whole if whole and whole.is_dir() else None)
    from medllm.exam.scoring import graded_records

    questions, systems = read_systems(exam, _written(files), _folder(exam, data))
    return Results(graded_records(questions, systems, rules=rules))


def named_records(written: str) -> "list[Record]":
    """Read records of a file or folder; of `NAME=PATH` the one model in it gets that name.

    Raises:
        DataError: A name is given to records of several models.
    """
    name, equals, path = written.partition("=")
    if not equals or Path(written).exists():
        return list(read_records(Path(written)))
    records = list(read_records(Path(path)))
    if len(models := sorted({record.model for record in records})) > 1:
        raise DataError(
            "exam.one-name-for-several",
            f"{written}: holds replies of {len(models)} models ({', '.join(models)}), and {name} is one name. Give the "
            "file without a name.",
        )
    return [replace(record, model=name) for record in records]


def score(
    files: Files,
    exam: str,
    *,
    data: str | Path | None = None,
    rules: Rules = "normalised",
    scope: "Scope | None" = None,
    against: str | None = None,
    filter: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Scores:
    """Score replies to an exam, of any model and any tool, and compare each system with the first.

    Args:
        files: Files and folders of replies, in any of the formats of docs/evaluation.md.
        exam: A name of `medllm score --list`, or any name for an exam of your own in `data`.
        data: The folder of the exam.
        rules: `normalised` reads the answer out of a reply; `official` compares as IgakuQA's own scorer does.
        scope: `year` counts missing replies of a year as unanswered, `asked` leaves them out.
        against: The system that the others are compared with, `MODEL` or `MODEL:PROMPT`.
        filter: The filter of lm-evaluation-harness whose replies count.
        columns: The names of the columns `id` and `answer`, where they are not usual ones.

    Raises:
        DataError: A file cannot be read, or a reply belongs to another exam; the text names the place.
    """
    from medllm.exam.scoring import score as score_systems

    questions, systems = read_systems(exam, _written(files), _folder(exam, data), filter, columns)
    return Scores(score_systems(questions, systems, rules=rules, scope=scope, against=against))


def stability(results: Results | Files, *, margin: float | None = None) -> Stability:
    """Report what explaining does to each model: both scores, the paired change, kept and lost answers.

    Args:
        results: What `evaluate` or `load_results` returned, or files of records.
        margin: A loss in points of 100 that would not matter: the report states what the intervals show about it.
    """
    return _results(results).stability(margin=margin)


def compare(results: Results | Files, *others: Results | Files) -> Comparisons:
    """Compare every two models on the questions that both answered: paired difference, McNemar's test, Holm.

    Args:
        results: What `evaluate` or `load_results` returned, or files of records.
        others: More of them; a model that occurs in two must not answer a question twice.
    """
    return Results([record for part in (results, *others) for record in _results(part).records]).compare()


def audit(
    texts: str | Path | Iterable[str],
    against: str | Sequence[str],
    *,
    data: str | Path | Mapping[str, str | Path] | None = None,
    workers: int = 1,
) -> Audit:
    """Find questions of exams in texts, in any order of their options and behind markup and other spellings.

    Args:
        texts: A path of a file or folder, or texts themselves.
        against: The exams, each `NAME` or `NAME=FOLDER`.
        data: The folder of one exam, or one with a folder for each, or a mapping of names to folders.
        workers: Processes that read a folder.
    """
    from medllm.corpus.decontaminate.audit import AuditRequest, audit_source
    from medllm.corpus.decontaminate.audit import audit as audit_texts
    from medllm.corpus.decontaminate.exam_items import distinct, held_out
    from medllm.corpus.read.sources import TextSource

    names = [against] if isinstance(against, str) else list(against)
    if isinstance(data, Mapping):
        names = [f"{name}={data[name]}" if name in data else name for name in names]
        data = None
    folders = exam_folders(names, None if data is None else Path(data))
    asked = AuditRequest(tuple(distinct(held_out(list(folders.items())))))
    if isinstance(texts, str | Path):
        return Audit(audit_source(TextSource(str(texts), Path(texts)), asked, workers=workers))
    return Audit(audit_texts(((f"text {number}", text) for number, text in enumerate(texts, 1)), asked))


def exam_folders(against: Sequence[str], data: Path | None) -> dict[str, Path]:
    """Return the folder of each exam: after the `=`, else as it is written, else in `data` by its name, else `data`.

    An exam that is written as a folder, `./ward` or without `data` also `ward`, has the folder's name.
    """
    from medllm.corpus.decontaminate.exam_items import exam_folder

    folders: dict[str, Path] = {}
    for written in against:
        name, equals, folder = written.partition("=")
        if not equals and ("/" in written or data is None) and Path(written).is_dir():
            name, equals, folder = Path(written).resolve().name, "=", written
        if not re.fullmatch(r"[\w.-]+", name) or (equals and not folder):
            raise DataError(
                "corpus.audit-exam-name",
                f"--against {written}: write NAME, as igakuqa, a folder that is there, as ./ward, or NAME=DIR, as "
                "ward=./ward-exam. A name has letters, digits, - and _.",
            )
        if name in folders:
            raise DataError("corpus.audit-exam-twice", f"--against {name}: is given twice. Give each exam one name.")
        if not equals and data is None:
            raise DataError(
                "corpus.audit-no-folder",
                f"--against {name}: no folder is given for this exam. Add --data DIR, or write --against {name}=DIR.",
            )
        folders[name] = Path(folder) if equals or data is None else exam_folder(data, name)
    return folders


def _results(results: Results | Files) -> Results:
    return results if isinstance(results, Results) else load_results(results)


def _written(files: Files) -> list[str]:
    """Write files as the command line has them: `FILE`, `NAME=FILE` or `NAME:PROMPT=FILE`."""
    if isinstance(files, str | Path):
        return [str(files)]
    if isinstance(files, Mapping):
        return [f"{name}={path}" for name, path in files.items()]
    return [str(file) for file in files]


def _folder(exam: str, data: str | Path | None) -> Path:
    if data is None:
        raise DataError("command.no-data", f"{exam}: its folder is missing. Give `data`, the folder of the exam.")
    return Path(data)


def read_systems(
    exam: str,
    files: Sequence[str],
    folder: Path,
    filter: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> "tuple[list[Question], list[System]]":
    """Read an exam and the predictions of files, each `FILE`, `NAME=FILE` or `NAME:PROMPT=FILE`."""
    from medllm.exam.benchmarks import load
    from medllm.exam.predictions import parse_source, read_predictions
    from medllm.exam.question import index

    questions = load(exam, folder)
    sources = [parse_source(file) for file in files]
    return questions, read_predictions(sources, index(questions), exam, filter=filter, columns=columns or {})
