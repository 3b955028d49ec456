"""How closely an exam is looked for: lengths of grams and the least evidence that counts, for each kind of script."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """The numbers of the audit. They were chosen so that no YakugakuQA item is flagged and every planted one is."""

    length: int
    """Characters of a gram."""
    anchor: int
    """Characters of a run that finds a short item; a power of two."""
    near: int
    """Characters of the runs by which a short question is weighed."""
    question_apart: int = 30
    """Grams a question must have to be judged without its options; shorter ones are stock phrases."""
    options_apart: int = 60
    """Grams that the options must have to be judged without their question; fewer are a list of names."""
    options_held: int = 3
    """Of these options at least half must be there."""
    least: int = 20
    """Grams that an item must have to be judged by them at all."""
    both: float = 0.2
    """When question and options are judged together, each must be held at least so far."""
    short_question: float = 0.75
    """A short item is seen only where so much of its question stands."""
    short_options: float = 0.4
    """And so many of its options, word for word."""


JAPANESE = Measure(length=13, anchor=8, near=5)
ALPHABETIC = Measure(length=40, anchor=16, near=12)
