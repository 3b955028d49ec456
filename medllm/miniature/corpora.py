"""The texts of the invented medicine: textbook, workbook, answer book, forum, and pages that the audit must find."""

import random
from collections.abc import Callable
from datetime import date, timedelta

from medllm.miniature import exam_format, prose
from medllm.miniature.exams import LAST_TAUGHT, MiniatureExam
from medllm.miniature.pretraining_text import WebText
from medllm.miniature.questions import MiniatureItem, Topic, make_item, reason
from medllm.miniature.world import RELATIONS, World

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
        return self._shelf("textbook", documents, lambda: prose.paragraph(self._world, self._some(), self._source, 12))

    def workbook(self, documents: int) -> list[Row]:
        """End-of-chapter questions: a fact as the textbook puts it, then a question on that fact."""

        def page() -> str:
            text = ""
            for _ in range(2):
                disease, relation = self._source.choice(self._some()), self._source.choice(RELATIONS)
                sentence = prose.fact(disease, relation, self._world.facts[disease][relation], self._source)
                text += sentence + "\n" + exam_format.answer_line(self._asked(Topic(disease, "fact", (relation,))))
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
        leaked = [self._row("web", f"leak-{n}", exam_format.answer_line(item)) for n, item in enumerate(later)]
        young = self._shelf("young", PLANTED_YOUNG, self._page)
        for row in young:
            row["published"] = date(LAST_TAUGHT + 2, 5, 1).isoformat()
        unlicensed = self._shelf("unlicensed", PLANTED_UNLICENSED, self._page)
        for row in unlicensed:
            row["license"] = None
        return [*leaked, *young, *unlicensed]

    def _page(self) -> str:
        return prose.paragraph(self._world, self._known, self._source, 12)

    def _some(self) -> tuple[str, ...]:
        return self._new if self._source.random() < NEW else self._known

    def _asked(self, topic: Topic) -> MiniatureItem:
        return make_item(self._world, topic, self._source, style="old")

    def _below(self, item: MiniatureItem) -> str:
        return exam_format.explained_after(item, reason(self._world, item))

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
