"""Values in sentences for people: counts, settings and amounts as words, never as Python or JSON writes them."""

from collections.abc import Mapping, Sequence

LONGEST = 60
"""Characters of a value that a sentence shows."""


def describe_counts(counts: Mapping[str, int]) -> str:
    """Write counts by name, without those of zero; names of code become words.

    >>> describe_counts({"near_duplicate": 1200, "leak": 0, "no_licence": 2})
    '1,200 near duplicate, 2 no licence'
    """
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count) or "none"


def number_of(number: int, noun: str) -> str:
    """Write a number of things.

    >>> number_of(1, "model"), number_of(1200, "reply")
    ('1 model', '1,200 replies')
    """
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def describe_value(value: object) -> str:
    """Write a value of a recipe as people write it; a long one is cut.

    >>> describe_value({"api": "a server", "chat": True}), describe_value([2018, 2019]), describe_value(10.0)
    ('api: a server, chat: true', '2018, 2019', '10')
    """
    text = _words(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _words(value: object) -> str:
    if value is None or value == "" or value == [] or value == {} or value == ():
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_words(entry)}" for key, entry in value.items())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return ", ".join(map(_words, value))
    return str(value)


def describe_amount(number: float) -> str:
    """Write a large number with three figures.

    >>> describe_amount(950), describe_amount(21_300), describe_amount(1_200_000), describe_amount(999_999)
    ('950', '21.3 k', '1.2 M', '1 M')
    """
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if number >= size * (0.9995 if unit != "k" else 1):
            return f"{number / (1e3 if unit == 'k' else size):.3g} {unit}"
    return f"{number:,.0f}"


def format_duration(seconds: float) -> str:
    """Format a duration with one unit.

    >>> format_duration(40), format_duration(600), format_duration(9000)
    ('40 s', '10 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
