"""The faults that the preflight finds, each with its place in the recipe and the error the work would end with."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from medllm.errors import MedllmError
from medllm.recipe import Recipe
from medllm.recipe.errors import RecipeFault, error_of
from medllm.recipe.yaml_reader import Lines, parse_yaml


@dataclass
class Findings:
    """The faults so far; a check that raises adds its error, and the next check runs all the same."""

    found: list[RecipeFault] = field(default_factory=list)

    def add(self, place: str, error: MedllmError) -> None:
        """Add a fault, unless the same one was found at another place."""
        if all(one.text != str(error) for one in self.found):
            self.found.append(RecipeFault(error.code, place, str(error)))

    @contextmanager
    def collect(self, place: str) -> Iterator[None]:
        """Run one check; an expected error becomes a fault at this place."""
        try:
            yield
        except MedllmError as error:
            self.add(place, error)


def refuse_all(recipe: Recipe, faults: Sequence[RecipeFault]) -> None:
    """Raise one RecipeError that lists all faults in the order of the recipe, each with its line, place and code."""
    if faults:
        raise error_of(list(faults), str(recipe.path), _lines(recipe))


def _lines(recipe: Recipe) -> Lines:
    """Number the lines of the recipe's keys; none where the file is gone or was never one."""
    try:
        return parse_yaml(recipe.path.read_text("utf-8"), str(recipe.path))[1]
    except (OSError, MedllmError):
        return {}
