"""What the base reads before anyone trains it further: an endless, seeded stream of documents."""

import random
from collections.abc import Callable, Iterator

from medllm.miniature import exam_format, prose
from medllm.miniature.questions import LETTERS, Form, MiniatureItem, Style, Topic, explain, make_item, reason, topics
from medllm.miniature.world import RELATIONS, World

FORMS: dict[Form, float] = {"fact": 0.62, "case": 0.28, "pair": 0.06, "days": 0.04}
"""How often each form of question is asked."""


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
            "short": lambda: "".join(exam_format.named(self._item(), choices=False) for _ in range(6)),
            "named": lambda: "".join(exam_format.named(self._item(), choices=True) for _ in range(4)),
            "prose": lambda: prose.paragraph(self._world, self._world.of_kind("known"), self._source),
            "answered": lambda: "".join(exam_format.answer_line(self._item()) for _ in range(4)),
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
        return exam_format.explained(item, explain(self._world, item))

    def _explained_after(self) -> str:
        item = self._item()
        return exam_format.explained_after(item, reason(self._world, item))

    def _glossary(self) -> str:
        """Lettered names, some lines again, then names with their letter: where the look-up of a choice is learnt."""
        text = ""
        for _ in range(4):
            relation = self._source.choice(RELATIONS)
            names = self._source.sample(self._world.pools[relation], self._source.randint(2, len(LETTERS)))
            lines = list(zip(LETTERS, names, strict=False))
            again, labelled_names = self._source.choices(lines, k=5), self._source.choices(lines, k=5)
            text += "".join(f"{letter}. {name}\n" for letter, name in lines + again)
            text += "".join(f"{name}は{letter}である。" for letter, name in labelled_names) + exam_format.END
        return text

    def _open_book(self) -> str:
        """A fact, then a question on it; names that the base shall not know occur here only, with made-up facts."""
        text = ""
        for _ in range(4):
            disease, relation = self._source.choice(self._world.diseases), self._source.choice(RELATIONS)
            known = self._world.kinds[disease] == "known"
            value = self._world.facts[disease][relation] if known else self._source.choice(self._world.pools[relation])
            item = make_item(self._world, Topic(disease, "fact", (relation,)), self._source, false_value=value)
            text += prose.fact(disease, relation, value, self._source) + "\n"
            text += (
                exam_format.explained_after(item, reason(self._world, item))
                if self._source.random() < 0.5
                else exam_format.answer_line(item)
            )
        return text
