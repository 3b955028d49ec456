"""The invented world as folders that a recipe reads: shelves of texts, exams to learn from, exams to ask."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from medllm.files import atomic_folder
from medllm.miniature import exams
from medllm.miniature.corpora import Library
from medllm.miniature.world import make_world

README = """# An invented medicine

Every disease, cause, test and drug in these folders is made up by `medllm.miniature` from a seed. Nothing here exists,
nothing here is medicine. ここに書かれた医学はすべて架空であり、実在しない。
"""


@dataclass(frozen=True)
class Size:
    """How much of everything; the exams' share of the questions is what the table's intervals rest on."""

    past: int = 300
    """Questions in each exam of 2006-2017."""
    asked: int = 200
    """Questions in each exam of 2018-2022."""
    mock: int = 300
    """Questions in the development exam."""
    textbook: int = 1600
    workbook: int = 350
    answer_book: int = 80
    forum: int = 80


SHORT = Size(past=120, asked=40, mock=60, textbook=500, workbook=100, answer_book=25, forum=25)
"""What CI trains on: enough to see directions."""


def build(out: Path, *, world_seed: int = 0, seed: int = 0, size: Size | None = None) -> None:
    """Write the folders of a world; `seed` draws other texts and the same exams of the same medicine."""
    size = size or Size()
    world = make_world(world_seed)
    years = range(exams.FIRST_YEAR, exams.LAST_YEAR + 1)
    past = [exams.exam_of(world, year, size.past) for year in years if year <= exams.LAST_TAUGHT]
    asked = [exams.exam_of(world, year, size.asked) for year in years if year > exams.LAST_TAUGHT]
    mock, shots = exams.mock_exam(world, size.mock), exams.rows(world, exams.exemplars(world))
    for folder, sittings in (("past", past), ("asked", asked), ("mock", [mock])):
        for exam in sittings:
            exams.write(exams.rows(world, exam), out / "exams" / folder / f"{exam.sat.year}.jsonl")
        exams.write(shots, out / "exams" / folder / "exemplars.jsonl")
    library = Library(world, seed, past)
    shelves = {
        "textbook": library.textbook(size.textbook),
        "workbook": library.workbook(size.workbook),
        "answer-book": library.answer_book(size.answer_book),
        "forum": library.forum(size.forum),
        "web": library.web(asked),
    }
    for name, shelf in shelves.items():
        exams.write(shelf, out / name / f"{name}.jsonl")
    (out / "README.md").write_text(README, encoding="utf-8")


BASE, RESULTS = Path(__file__).parent / "base", Path(__file__).parent / "results"
"""The shipped base, and the recorded results of the shipped version."""
RECIPE = "quickstart.yaml"


def prepare(folder: Path, recipe: Path, *, world_seed: int = 0, seed: int = 0, size: Size | None = None) -> Path:
    """Write a copy of the recipe and every folder that the recipe names; existing ones stay unchanged."""
    if not (folder / "world").exists():
        with atomic_folder(folder / "world") as part:
            build(part, world_seed=world_seed, seed=seed, size=size)
    if not (folder / "base").exists():
        with atomic_folder(folder / "base") as part:
            shutil.copytree(BASE, part, dirs_exist_ok=True)
    written = recipe.read_text(encoding="utf-8").replace("seed: 0", f"seed: {seed}")
    (folder / RECIPE).write_text(written, encoding="utf-8")
    return folder / RECIPE
