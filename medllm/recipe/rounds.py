"""The recipe's block `rounds`: preferences and rpo once more on the model they made, as long as a test shows a gain."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field

from medllm.exam.record import PromptStyle
from medllm.recipe.answers import Evaluate
from medllm.recipe.base import Settings
from medllm.recipe.data import DataList, Preferences, Share
from medllm.recipe.servers import ApiModel
from medllm.recipe.training import Rpo

SET_BY_ROUNDS: Mapping[str, frozenset[str]] = {
    "preferences": frozenset({"model", "run_on"}),
    "rpo": frozenset({"model", "data", "reference", "run_on"}),
    "evaluate": frozenset(
        {"models", "benchmarks", "prompts", "years", "exam_years", "samples", "temperature", "seed", "prices", "run_on"}
    ),
}
"""Keys that a round sets itself, by the part of it that has them."""
ENDS = ("num_train_epochs", "max_steps")
"""The two ends that a training can have, of which it has one."""


class RoundPreferences(Preferences):
    """What differs from `preferences` in a round; every key has that block's value when left out."""

    model: str = "rounds"
    """The model of the round before."""
    data: DataList = ()
    """Exam sets with verified explanations, none younger than the cutoff."""
    leaks_reviewed: tuple[str, ...] = ()
    """Questions (`own/100A1`) or samples of a round (`round-2/own/100A1#2`) that a person has reviewed and found free
    of leaks."""

    def of_round(self, number: int, model: str, seed: int) -> "RoundPreferences":
        """Return the settings of one round: samples that are reviewed in another round are other samples."""
        mark = f"round-{number}/"
        names = [name.removeprefix(mark) for name in self.leaks_reviewed if name.startswith(mark) or "#" not in name]
        return self.model_copy(update={"model": model, "seed": seed, "leaks_reviewed": tuple(names)})


class RoundRpo(Rpo):
    """What differs from `rpo` in a round; every key has that block's value when left out."""

    model: str = "rounds"
    """The model of the round before."""
    rpo_alpha: float = Field(default=10.0, ge=0)
    """Weight of the chosen answer's negative log-likelihood; 0 is plain DPO, the paper uses 10."""


class RoundEvaluate(Evaluate):
    """How the development exam is asked where that differs from `evaluate`."""

    models: dict[str, str | ApiModel] = Field(default_factory=dict)
    """The models of the rounds."""
    benchmarks: tuple[str, ...] = ()
    """The development exam."""


class Rounds(Settings):
    """Further rounds of `preferences` and `rpo`: each samples from the model of the round before and trains it on."""

    excluded_from_digest: ClassVar[frozenset[str]] = frozenset({"run_on"})

    model: str = "rpo"
    """The model that the first of these rounds samples from and trains."""
    exam: str
    """The development exam, on which each round is tested: held out of all training, and none of `evaluate`."""
    max_rounds: int = Field(default=3, ge=0, le=100)
    """Maximum number of further rounds; 0 keeps `model` as it is."""
    reference: Literal["previous", "first"] = "previous"
    """The reference of each training: the model of the round before, or `model` in every round."""
    prompt: PromptStyle = "explain"
    """The prompt whose answers must gain from a round; those to `plain` must not lose."""
    level: Share = 0.2
    """Largest p (exact McNemar, two-sided) at which a difference on the development exam counts as a gain or a loss."""
    preferences: RoundPreferences = RoundPreferences()
    """Keys of `preferences` with other values in these rounds; its `seed` grows by one each round."""
    rpo: RoundRpo = RoundRpo()
    """Keys of `rpo` with other values in these rounds; its `seed` grows by one each round."""
    evaluate: RoundEvaluate = RoundEvaluate()
    """Keys of `evaluate` with other values on the development exam."""
    run_on: str | None = None
    """The machine; that of `rpo` when left out, and left out of the digest."""

    @property
    def prompts(self) -> tuple[PromptStyle, ...]:
        """The prompts under which the development exam is asked: plain, and the one that must gain."""
        return ("plain",) if self.prompt == "plain" else ("plain", self.prompt)


def inherit(rounds: Rounds, preferences: Preferences | None, rpo: Rpo | None, evaluate: Evaluate | None) -> Rounds:
    """Fill in what a round takes from the recipe's other blocks, so that its settings are complete.

    A training has one end: `max_steps` given for the rounds puts out the epochs of `rpo`, and the other way round.
    """
    run_on = rounds.run_on or (rpo.run_on if rpo else None)
    given = {key for key in ENDS if key in rounds.rpo.model_fields_set}
    without = {key: None for key in ENDS if given and key not in given}
    asked: dict[str, Any] = {"models": {}, "benchmarks": (rounds.exam,), "prompts": rounds.prompts, "prices": {}}
    asked |= {"years": None, "exam_years": {}, "samples": 1, "temperature": 0.0, "seed": 0}
    if preferences:  # of the samples that were reviewed there, none is one of a round
        reviewed = tuple(name for name in preferences.leaks_reviewed if "#" not in name)
        preferences = preferences.model_copy(update={"leaks_reviewed": reviewed})
    return rounds.model_copy(
        update={
            "run_on": run_on,
            "preferences": _over(preferences, rounds.preferences, {"model": "rounds", "run_on": run_on}),
            "rpo": _over(rpo, rounds.rpo, {**without, "model": "rounds", "data": "preferences", "run_on": run_on}),
            "evaluate": _over(evaluate, rounds.evaluate, {**asked, "run_on": run_on}, but=("limit",)),
        }
    )


Block = TypeVar("Block", bound=Settings)


def _over(below: Settings | None, own: Block, set_here: Mapping[str, Any], but: tuple[str, ...] = ()) -> Block:
    """Lay the keys that are given in `own` over another block of the same keys, and what is set here over both."""
    given = {key: getattr(own, key) for key in own.model_fields_set}
    values = {key: value for key, value in below or () if key not in but}
    whole = {**dict(own), **values, **given, **set_here}
    return type(own).model_construct({*given, *values}, **whole)  # type: ignore[return-value]  # of the same class


def parts_of(settings: object) -> tuple[object, ...]:
    """Return the blocks that decide how a stage computes: `rounds` has three, every other stage is its own."""
    return (settings.preferences, settings.rpo, settings.evaluate) if isinstance(settings, Rounds) else (settings,)
