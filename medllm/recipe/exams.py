"""Exams that a recipe may name, and the first day of each."""

from datetime import date

from medllm.exam.benchmarks import CATALOGUE
from medllm.recipe.settings import Recipe


def known_exams(recipe: Recipe) -> list[str]:
    """List the exams that a recipe may name: those of the catalogue and its own."""
    return [*CATALOGUE, *(name for name in recipe.exams if name not in CATALOGUE)]


def first_day(recipe: Recipe, name: str) -> date | None:
    """Return the earliest day of an exam, or None when it is unknown."""
    own = recipe.exams.get(name)
    if own and own.first:
        return own.first
    return CATALOGUE[name].first if name in CATALOGUE else None
