"""Turn a benchmark's folder into questions, or say where the set comes from when it is not there."""

from collections.abc import Callable
from pathlib import Path

from medllm.errors import DataError
from medllm.exam.benchmarks import igakuqa, jmle2026, medical, mmlu, own, yakugakuqa
from medllm.exam.benchmarks.catalogue import CATALOGUE
from medllm.exam.question import Question, index

Loader = Callable[[Path, str], list[Question]]

_LOADERS: dict[str, Loader] = {
    "igakuqa": igakuqa.read,
    "jmle2026": jmle2026.read,
    "yakugakuqa": yakugakuqa.read,
    "jmmlu-med": mmlu.read_jmmlu,
    "mmmlu-ja-med": mmlu.read_mmmlu,
    "medqa": medical.read_english,
    "medmcqa": medical.read_english,
    "pubmedqa": medical.read_english,
    "medqa-ja": medical.read_japanese,
    "medmcqa-ja": medical.read_japanese,
    "pubmedqa-ja": medical.read_japanese,
}


def load(name: str, folder: Path) -> list[Question]:
    """The questions of a benchmark, in their published order.

    A name outside the catalogue is an exam of your own: `folder` (or the file itself) holds it as JSON lines with
    the columns of docs/exam.md.
    """
    if name not in CATALOGUE:
        questions = own.read(folder, name)
    else:
        questions = _LOADERS[name](folder, name) if folder.exists() else []
        if not questions:
            raise DataError(absent(name, folder))
    index(questions)
    return questions


def absent(name: str, folder: Path) -> str:
    """What to do about a set whose files were not found."""
    benchmark = CATALOGUE[name]
    where, repository = benchmark.source.split(":", 1)
    command = (
        f"hf download {repository} --repo-type dataset --revision COMMIT --local-dir {folder}"
        if where == "hub"
        else f"git clone https://github.com/{repository} {folder}"
    )
    at = f" at commit {benchmark.revision}" if benchmark.revision else " (pin the commit you take)"
    return (
        f"{folder}: holds no {name}. Expected there: {benchmark.files}."
        f" The set is {repository}{at}, licence: {benchmark.licence}. Fetch it: {command}"
    )


def exemplars(name: str, folder: Path) -> list[Question]:
    """The worked examples that a benchmark brings with it: IgakuQA's prompt file, or exemplars.jsonl of your own."""
    found = igakuqa.exemplars(folder) if name == "igakuqa" else own.exemplars(folder, name)
    if not found:
        raise DataError(
            f"{folder}: {name} brings no worked examples. Ask with 0 shots, or take examples from a set that was sat"
            " before the cutoff."
        )
    return found
