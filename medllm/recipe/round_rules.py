"""Rules about `rounds`: its development exam is no test exam and no training data, and its parts are complete."""

from collections.abc import Iterator

from medllm.exam.benchmarks import CATALOGUE
from medllm.recipe.dependencies import askings_of
from medllm.recipe.errors import RecipeFault
from medllm.recipe.rounds import SET_BY_ROUNDS
from medllm.recipe.servers import is_address
from medllm.recipe.settings import Corpus, Grpo, Preferences, Recipe, Sft, Teach


def development_exam_is_no_test(recipe: Recipe) -> Iterator[RecipeFault]:
    """The exam that decides about rounds is none that `evaluate` asks, and none that is for tests only."""
    rounds, asked = recipe.rounds, recipe.evaluate.benchmarks if recipe.evaluate else ()
    if rounds is None:
        return
    twin = next((name for name in asked if name == rounds.exam or _overlap(recipe, name, rounds.exam)), None)
    if twin is not None:
        also = f" (as `{twin}`)" if twin != rounds.exam else ""
        text = (
            f"`evaluate` asks `{rounds.exam}`{also}: chosen on it, the last round would be tested on its own choice. "
        )
        text += "Name an exam that is not asked, or other years of it under another name in `exams`."
        yield RecipeFault("recipe.development-exam-asked", "rounds.exam", text)
    known = CATALOGUE.get(rounds.exam)
    if known is not None and known.test_only:
        text = f"`{rounds.exam}` is for tests only, never for choosing a model. Name another exam, or one of your own."
        yield RecipeFault("recipe.development-exam-test-only", "rounds.exam", text)


def development_exam_is_not_trained(recipe: Recipe) -> Iterator[RecipeFault]:
    """The exam that decides about rounds is held out of all training."""
    rounds = recipe.rounds
    if rounds is None:
        return
    learning: list[tuple[str, Corpus | Sft | Preferences | Teach | Grpo]] = (
        [("corpus", recipe.corpus)] if recipe.corpus else []
    )
    learning += [("sft", recipe.sft)] if recipe.sft else []
    learning += askings_of(recipe)
    seen: list[tuple[str, ...]] = []
    for place, settings in learning:
        if settings.held_out not in seen and rounds.exam not in (settings.held_out or ()):
            text = f"`rounds` develops on `{rounds.exam}`, which is not held out. Add it here."
            yield RecipeFault("recipe.exam-not-held-out", f"{place}.held_out", text)
        seen.append(settings.held_out or ())
    own = recipe.exams.get(rounds.exam)
    for place, settings in learning:
        for number, source in enumerate(settings.data):
            if own and source.source == own.source and _share(source.years, own.years):
                text = f"{source.source} is also the development exam `{rounds.exam}`: a model that trains on its "
                text += "questions cannot be tested on them. Divide it by `years` in both, or take another exam."
                yield RecipeFault("recipe.development-exam-trained", f"{place}.data[{number}]", text)


def _overlap(recipe: Recipe, name: str, other: str) -> bool:
    """Whether two exams are read from one source, with years in common."""
    first, second = recipe.exams.get(name), recipe.exams.get(other)
    if first is None or second is None or first.source != second.source:
        return False
    asked = recipe.evaluate.years if recipe.evaluate else None
    return _share(asked or first.years, second.years)


def _share(years: tuple[int, ...] | None, others: tuple[int, ...] | None) -> bool:
    """Whether two choices of years have one in common; none stated is all."""
    return years is None or others is None or bool(set(years) & set(others))


def rounds_are_complete(recipe: Recipe) -> Iterator[RecipeFault]:
    """A round has what no other block gives it, and no key that it sets itself; its models are on this machine."""
    rounds = recipe.rounds
    if rounds is None:
        return
    if rounds.model == "base":
        text = "rounds go on from a trained model. Name `rpo` or `cpt`, or a model of an earlier recipe."
        yield RecipeFault("recipe.rounds-of-base", "rounds.model", text)
    written = recipe.tree.get("rounds")
    parts = (
        {name: part for name, part in written.items() if isinstance(part, dict)} if isinstance(written, dict) else {}
    )
    for name, keys in SET_BY_ROUNDS.items():
        for key in sorted(keys & set(parts.get(name, ()))):
            text = f"a round sets `{key}` itself. Remove it here."
            yield RecipeFault("recipe.set-by-rounds", f"rounds.{name}.{key}", text)
    if not rounds.preferences.data:
        yield RecipeFault(
            "recipe.missing-key", "rounds.preferences.data", "is missing: there is no `preferences` block."
        )
    if recipe.rpo is None and "rpo_alpha" not in parts.get("rpo", ()):
        yield RecipeFault("recipe.missing-key", "rounds.rpo.rpo_alpha", "is missing: there is no `rpo` block.")
    for name in ("preferences", "evaluate"):
        if is_address(engine := getattr(rounds, name).engine):
            text = f"{engine} does not have the model that a round trains. Write `engine: local` or `vllm` here."
            yield RecipeFault("recipe.rounds-need-weights", f"rounds.{name}.engine", text)
    if rounds.prompt == "think" and rounds.evaluate.format == "completion":
        text = "`think` asks the model by its chat template. Write `format: chat` under rounds.evaluate."
        yield RecipeFault("recipe.think-needs-chat", "rounds.prompt", text)


ROUND_RULES = (development_exam_is_no_test, development_exam_is_not_trained, rounds_are_complete)
