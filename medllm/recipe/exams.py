"""Which exams a recipe may name, and from which day each could leak."""

from datetime import date

from medllm.exam.benchmarks import CATALOGUE
from medllm.recipe.settings import Recipe


def known_exams(recipe: Recipe) -> list[str]:
    """Names that may stand in this recipe: the catalogue's and its own."""
    return [*CATALOGUE, *(name for name in recipe.exams if name not in CATALOGUE)]


def first_day(recipe: Recipe, name: str) -> date | None:
    """The earliest exam day, where one is known."""
    own = recipe.exams.get(name)
    if own and own.first:
        return own.first
    return CATALOGUE[name].first if name in CATALOGUE else None
