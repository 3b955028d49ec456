"""Which exams a recipe may name, and from which day each could leak."""

from datetime import date

from medllm.recipe.settings import Recipe

CATALOGUE: dict[str, date | None] = {
    "igakuqa": date(2018, 2, 10),
    "jmle2026": date(2026, 2, 7),
    "yakugakuqa": date(2012, 3, 3),
    "jmmlu-med": None,
    "medqa": None,
    "medmcqa": None,
    "pubmedqa": None,
    "medqa-ja": None,
    "medmcqa-ja": None,
    "pubmedqa-ja": None,
    "mmmlu-ja-med": None,
}


def known_exams(recipe: Recipe) -> list[str]:
    """Names that may stand in this recipe: the catalogue's and its own."""
    return [*CATALOGUE, *recipe.exams]


def is_known(recipe: Recipe, name: str) -> bool:
    """Whether an exam of that name can be read."""
    return name in CATALOGUE or name in recipe.exams


def first_day(recipe: Recipe, name: str) -> date | None:
    """The earliest exam day, where one is known."""
    own = recipe.exams.get(name)
    return own.first if own and own.first else CATALOGUE.get(name)
