"""Load a benchmark's folder as questions; an error names the set's source when its files are missing."""

from collections.abc import Callable
from pathlib import Path

from medllm.errors import DataError
from medllm.exam.benchmarks import custom, igakuqa, jmle2026, medical, yakugakuqa
from medllm.exam.benchmarks.catalogue import CATALOGUE
from medllm.exam.question import Question, Translation, index

Loader = Callable[[Path, str], list[Question]]

_LOADERS: dict[str, Loader] = {
    "igakuqa": igakuqa.read,
    "jmle2026": jmle2026.read,
    "yakugakuqa": yakugakuqa.read,
    "jmmlu-med": medical.read_jmmlu,
    "mmmlu-ja-med": medical.read_mmmlu,
    "medqa": medical.read_english,
    "medmcqa": medical.read_english,
    "pubmedqa": medical.read_english,
    "medqa-ja": medical.read_japanese,
    "medmcqa-ja": medical.read_japanese,
    "pubmedqa-ja": medical.read_japanese,
}


def load(name: str, folder: Path) -> list[Question]:
    """Load the questions of a benchmark, in their published order.

    A name outside the catalogue is a custom exam: `folder` (or the file itself) holds it as JSON lines with
    the columns of docs/evaluation.md.
    """
    if name not in CATALOGUE:
        questions = custom.read(folder, name)
    else:
        questions = _LOADERS[name](folder, name) if folder.exists() else []
        if not questions:
            raise DataError("exam.not-in-folder", f"{folder}: holds no {name}. {how_to_fetch(name, folder)}")
    index(questions)
    return questions


TRANSLATED = {
    "medqa": "medqa-ja",
    "medmcqa": "medmcqa-ja",
    "pubmedqa": "pubmedqa-ja",
    "medqa-ja": "medqa",
    "medmcqa-ja": "medmcqa",
    "pubmedqa-ja": "pubmedqa",
}
"""Sets that are each other's translation, where one folder has both."""


def translations(name: str, folder: Path) -> list[Translation]:
    """Load the published translations of a benchmark's questions from its folder, for the leakage audit.

    IgakuQA publishes `*_translate.jsonl`; a set and its translated twin are each other's translation; a
    custom exam has them in columns `text_LANGUAGE` and `choices_LANGUAGE`, or as rows of `translations/*.jsonl`.
    """
    if name == "igakuqa":
        return igakuqa.translations(folder)
    if name not in CATALOGUE:
        return custom.translations(folder)
    twin = TRANSLATED.get(name)
    found = _LOADERS[twin](folder, twin) if twin and folder.is_dir() else []
    return [Translation(one.question_id, one.language, _whole(one), one.choices) for one in found]


def _whole(question: Question) -> str:
    return f"{question.context}\n{question.text}" if question.context else question.text


def how_to_fetch(name: str, folder: Path) -> str:
    """Name the files of a set that are expected in a folder, its licence and the command that fetches them."""
    benchmark = CATALOGUE[name]
    where, repository = benchmark.source.split(":", 1)
    command = (
        f"hf download {repository} --repo-type dataset --revision COMMIT --local-dir {folder}"
        if where == "hub"
        else f"git clone https://github.com/{repository} {folder}"
    )
    at = f" at commit {benchmark.revision}" if benchmark.revision else " (pin the commit you take)"
    return (
        f"Expected there: {benchmark.files}."
        f" The set is {repository}{at}, licence: {benchmark.license}. Fetch it: {command}"
    )


def worked_examples(name: str, folder: Path) -> list[Question]:
    """Load the worked examples of a benchmark, none where it has none: IgakuQA's prompt file, or exemplars.jsonl."""
    return igakuqa.exemplars(folder) if name == "igakuqa" else custom.exemplars(folder, name)


def exemplars(name: str, folder: Path) -> list[Question]:
    """Load the worked examples of a benchmark, or raise DataError where it has none."""
    found = worked_examples(name, folder)
    if not found:
        raise DataError(
            "exam.no-exemplars",
            f"{folder}: {name} has no worked examples. Set `shots: 0`, or write questions of an exam that was held"
            f" before the cutoff, with explanations, into {folder / 'exemplars.jsonl'}.",
        )
    return found
