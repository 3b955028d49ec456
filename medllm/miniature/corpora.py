"""The texts of the invented medicine, planted leaks among them, and the folders of its world that a recipe reads."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from medllm.files import atomic_folder
from medllm.miniature import exams
from medllm.miniature.exams import (
    FORMS,
    LAST_TAUGHT,
    LETTERS,
    MiniatureExam,
    MiniatureItem,
    Style,
    Topic,
    explain,
    make_item,
    reason,
    topics,
)
from medllm.miniature.world import JAPANESE, RELATIONS, Relation, World, make_world

ONE_FACT = (
    "{d}の{r}は{v}である。",
    "{d}では{r}として{v}が知られている。",
    "{r}が{v}である疾患に{d}がある。",
    "{v}は{d}の{r}である。",
)
"""The first two go from disease to value, as questions do, and are the most frequent."""
CASE = (
    "{c}による{s}は{d}である。",
    "{s}があり{c}が見つかる疾患に{d}がある。",
)
DAYS = ("{d}の治療日数は{n}である。", "{d}では治療を{n}日行う。")


def fact(disease: str, relation: Relation, value: str, source: random.Random) -> str:
    """One fact as a sentence."""
    return source.choices(ONE_FACT, (3, 3, 1, 1))[0].format(d=disease, r=JAPANESE[relation], v=value)


def sentence(world: World, disease: str, source: random.Random) -> str:
    """A sentence on a disease: mostly one fact, sometimes its picture (cause and symptom) or its days of treatment."""
    draw, facts = source.random(), world.facts[disease]
    if draw < 0.08:
        return source.choice(DAYS).format(d=disease, n=world.days[disease])
    if draw < 0.27 and disease in world.recognisable:
        return source.choice(CASE).format(d=disease, c=facts["cause"], s=facts["symptom"])
    relation = source.choice(RELATIONS)
    return fact(disease, relation, facts[relation], source)


def paragraph(world: World, diseases: tuple[str, ...], source: random.Random, sentences: int = 6) -> str:
    """Sentences on diseases drawn at random."""
    return "".join(sentence(world, disease, source) for disease in source.choices(diseases, k=sentences)) + "\n\n"


class WebText:
    """Documents on what the base shall know; the new diseases occur in them as names only."""

    def __init__(self, world: World, seed: int, style: Style | None = None) -> None:
        self._world = world
        self._style = style
        self._source = random.Random(f"web {seed}")
        self._topics = {form: topics(world, "known", form) for form in FORMS}

    def documents(self, shares: dict[str, float]) -> Iterator[str]:
        """Documents without end, drawn by their shares."""
        makers: dict[str, Callable[[], str]] = {
            "glossary": self._glossary,
            "open_book": self._open_book,
            "short": lambda: "".join(exams.named(self._item(), choices=False) for _ in range(6)),
            "named": lambda: "".join(exams.named(self._item(), choices=True) for _ in range(4)),
            "prose": lambda: paragraph(self._world, self._world.of_kind("known"), self._source),
            "answered": lambda: "".join(exams.answer_line(self._item()) for _ in range(4)),
            "explained_after": lambda: "".join(self._explained_after() for _ in range(3)),
            "explained": lambda: "".join(self._explained() for _ in range(self._source.randint(1, 4))),
        }
        while True:
            yield makers[self._source.choices(list(shares), list(shares.values()))[0]]()

    def _item(self) -> MiniatureItem:
        form = self._source.choices(list(FORMS), list(FORMS.values()))[0]
        return make_item(self._world, self._source.choice(self._topics[form]), self._source, style=self._style)

    def _explained(self) -> str:
        item = self._item()
        return exams.explained(item, explain(self._world, item))

    def _explained_after(self) -> str:
        item = self._item()
        return exams.explained_after(item, reason(self._world, item))

    def _glossary(self) -> str:
        """Lettered names, some lines again, then names with their letter: where the look-up of a choice is learnt."""
        text = ""
        for _ in range(4):
            relation = self._source.choice(RELATIONS)
            names = self._source.sample(self._world.pools[relation], self._source.randint(2, len(LETTERS)))
            lines = list(zip(LETTERS, names, strict=False))
            again, labelled_names = self._source.choices(lines, k=5), self._source.choices(lines, k=5)
            text += "".join(f"{letter}. {name}\n" for letter, name in lines + again)
            text += "".join(f"{name}は{letter}である。" for letter, name in labelled_names) + exams.END
        return text

    def _open_book(self) -> str:
        """A fact, then a question on it; names that the base shall not know occur here only, with made-up facts."""
        text = ""
        for _ in range(4):
            disease, relation = self._source.choice(self._world.diseases), self._source.choice(RELATIONS)
            known = self._world.kinds[disease] == "known"
            value = self._world.facts[disease][relation] if known else self._source.choice(self._world.pools[relation])
            item = make_item(self._world, Topic(disease, "fact", (relation,)), self._source, false_value=value)
            text += fact(disease, relation, value, self._source) + "\n"
            text += (
                exams.explained_after(item, reason(self._world, item))
                if self._source.random() < 0.5
                else exams.answer_line(item)
            )
        return text


Row = dict[str, object]
LICENSE = "CC-BY-4.0"
NOTICE = "架空の医学(実在しない)"
"""The notice in every row, so that no page is mistaken for real medicine."""
NEW = 0.5
"""How much of textbook and workbook is about diseases that the base does not know."""
PLANTED_LEAKS, PLANTED_YOUNG, PLANTED_UNLICENSED = 6, 5, 3


class Library:
    """All texts of a world, drawn from one seed; `documents` is how many each shelf holds."""

    def __init__(self, world: World, seed: int, past: list[MiniatureExam]) -> None:
        self._world = world
        self._source = random.Random(f"library {world.seed} {seed}")
        self._seed = seed
        self._new, self._known = world.of_kind("exam", "text"), world.of_kind("known")
        self._past = [item for exam in past for item in exam.items]

    def textbook(self, documents: int) -> list[Row]:
        """Prose on old and new diseases, each paragraph in other words: the only source of some facts."""
        return self._shelf("textbook", documents, lambda: paragraph(self._world, self._some(), self._source, 12))

    def workbook(self, documents: int) -> list[Row]:
        """End-of-chapter questions: a fact as the textbook puts it, then a question on that fact."""

        def page() -> str:
            text = ""
            for _ in range(2):
                disease, relation = self._source.choice(self._some()), self._source.choice(RELATIONS)
                sentence = fact(disease, relation, self._world.facts[disease][relation], self._source)
                text += sentence + "\n" + exams.answer_line(self._asked(Topic(disease, "fact", (relation,))))
            return text

        return self._shelf("workbook", documents, page)

    def answer_book(self, documents: int) -> list[Row]:
        """Past exams as publishers print them: the answer, then the verified explanation."""

        def page() -> str:
            return "".join(self._below(self._source.choice(self._past)) for _ in range(3))

        return self._shelf("answer-book", documents, page)

    def forum(self, documents: int) -> list[Row]:
        """What the base has read of explaining before answering, on known facts: a little replay keeps it alive."""
        pages = WebText(self._world, seed=self._seed + 77, style="old").documents({"explained": 1.0})
        return self._shelf("forum", documents, lambda: next(pages))

    def web(self, asked: list[MiniatureExam]) -> list[Row]:
        """Pages that must not be learnt: later exams under an early date, too young pages, pages of unknown terms."""
        later = self._source.sample([item for exam in asked for item in exam.items if item.choices], PLANTED_LEAKS)
        leaked = [self._row("web", f"leak-{n}", exams.answer_line(item)) for n, item in enumerate(later)]
        young = self._shelf("young", PLANTED_YOUNG, self._page)
        for row in young:
            row["published"] = date(LAST_TAUGHT + 2, 5, 1).isoformat()
        unlicensed = self._shelf("unlicensed", PLANTED_UNLICENSED, self._page)
        for row in unlicensed:
            row["license"] = None
        return [*leaked, *young, *unlicensed]

    def _page(self) -> str:
        return paragraph(self._world, self._known, self._source, 12)

    def _some(self) -> tuple[str, ...]:
        return self._new if self._source.random() < NEW else self._known

    def _asked(self, topic: Topic) -> MiniatureItem:
        return make_item(self._world, topic, self._source, style="old")

    def _below(self, item: MiniatureItem) -> str:
        return exams.explained_after(item, reason(self._world, item))

    def _shelf(self, name: str, documents: int, page: Callable[[], str]) -> list[Row]:
        return [self._row(name, f"{name}-{number}", page()) for number in range(documents)]

    def _row(self, shelf: str, name: str, text: str) -> Row:
        published = date(2006, 1, 1) + timedelta(days=self._source.randrange(365 * (LAST_TAUGHT - 2006)))
        return {
            "id": name,
            "text": text.strip(),
            "published": published.isoformat(),
            "license": LICENSE,
            "notice": NOTICE,
        }


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
