"""Invented names: katakana that cannot be mistaken for medicine, each used for one thing only."""

import random

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
