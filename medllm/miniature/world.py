"""The invented medicine: diseases, their facts, and who teaches which fact (the base, old exams, the textbook)."""

import random
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

KANA = (
    "アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモラリルレロ"
    "ガギグゲゴザジズゼゾダデドバビブベボパピプペポ"
)


class Names:
    """Gives out names that were never given out before, from one seeded source."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._given: set[str] = set()

    def new(self, kana: int, endings: tuple[str, ...]) -> str:
        """A name of so many kana and one of the endings.

        >>> Names(random.Random(0)).new(3, ("症",))
        'ビノゼ症'
        """
        while True:
            name = "".join(self._source.choice(KANA) for _ in range(kana)) + self._source.choice(endings)
            if name not in self._given:
                self._given.add(name)
                return name

    def pool(self, size: int, kana: int, endings: tuple[str, ...]) -> tuple[str, ...]:
        """So many different names of one sort: the values one relation can take."""
        return tuple(self.new(kana, endings) for _ in range(size))


Relation = Literal["cause", "symptom", "test", "drug", "contra"]
Kind = Literal["known", "exam", "text"]

JAPANESE: dict[Relation, str] = {
    "cause": "原因",
    "symptom": "主症状",
    "test": "確定検査",
    "drug": "治療薬",
    "contra": "禁忌薬",
}
RELATIONS: tuple[Relation, ...] = tuple(JAPANESE)
ASKED_OF_CASES: tuple[Relation, ...] = ("test", "drug", "contra")
"""What a case question asks; cause and symptom are what its patient presents with."""
DAYS = ("5", "7", "10", "14", "21", "28", "35", "42", "56", "70", "84", "90")
"""The lengths of treatment, the one fact that is a number."""
POOL = 24
COUNTS: dict[Kind, int] = {"known": 96, "exam": 16, "text": 6}
"""Diseases of each kind: known to the base; taught by exams up to 2017; in the textbook only."""


@dataclass(frozen=True)
class World:
    """One invented medicine; the same seed gives the same world."""

    seed: int
    pools: dict[Relation, tuple[str, ...]]
    facts: dict[str, dict[Relation, str]]
    days: dict[str, str]
    kinds: dict[str, Kind]
    towns: tuple[str, ...]
    people: tuple[str, ...]

    @cached_property
    def diseases(self) -> tuple[str, ...]:
        """Every disease, known ones first."""
        return tuple(self.kinds)

    def of_kind(self, *kinds: Kind) -> tuple[str, ...]:
        """Return the diseases of these kinds."""
        return tuple(disease for disease, kind in self.kinds.items() if kind in kinds)

    @cached_property
    def recognisable(self) -> frozenset[str]:
        """Diseases that cause and symptom together identify: only these are the subject of case questions."""
        pairs = Counter((fact["cause"], fact["symptom"]) for fact in self.facts.values())
        return frozenset(d for d, fact in self.facts.items() if pairs[fact["cause"], fact["symptom"]] == 1)


def make_world(seed: int = 0) -> World:
    """Invent a medicine from a seed."""
    source = random.Random(f"world {seed}")
    names = Names(source)
    pools: dict[Relation, tuple[str, ...]] = {
        "cause": names.pool(POOL, 3, ("菌", "毒")),
        "symptom": names.pool(POOL, 2, ("痛", "斑")),
        "test": names.pool(POOL, 2, ("試験", "造影")),
        "drug": names.pool(POOL, 3, ("マブ", "ニブ")),
        "contra": names.pool(POOL, 3, ("シン",)),
    }
    kinds: dict[str, Kind] = {}
    for kind, count in COUNTS.items():
        kinds |= dict.fromkeys(names.pool(count, 3, ("症", "病", "炎")), kind)
    towns, people = names.pool(POOL, 4, ("町", "村")), names.pool(POOL, 3, ("氏",))
    facts = {d: {relation: source.choice(pools[relation]) for relation in RELATIONS} for d in kinds}
    return World(seed, pools, facts, {d: source.choice(DAYS) for d in kinds}, kinds, towns, people)
