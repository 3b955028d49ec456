"""Sources of each stage, as written in the recipe, and the servers that its questions are sent to."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from medllm.recipe.base import base_of, parse_reference
from medllm.recipe.servers import OPENAI, OPENAI_PREFIX, ApiModel, is_address
from medllm.recipe.settings import (
    Corpus,
    Cpt,
    Evaluate,
    Grpo,
    Instructions,
    Lora,
    Merge,
    OwnExam,
    Preferences,
    Recipe,
    Rounds,
    Rpo,
    Sft,
    Space,
    Stage,
    Teach,
)

Wanted = Literal["model", "dataset", "exam"]


@dataclass(frozen=True)
class Use:
    """One source of one stage: its place in the recipe, its name and its kind."""

    place: str
    source: str
    wanted: Wanted
    only: tuple[str, ...] = ()
    """The files that the stage needs; every file when empty."""

    @property
    def held_out(self) -> bool:
        """Whether the stage only leaves the exam's questions out: its worked examples and notes do not matter."""
        return self.place.endswith(".held_out")


def uses(recipe: Recipe, stage: Stage) -> tuple[Use, ...]:
    """List the sources of a stage; `base` is one of them for every stage that loads a model."""
    settings = getattr(recipe, stage)
    collected: list[Use] = []
    match settings:
        case Corpus():
            collected += _texts(settings)
        case Teach():
            collected += [Use("teach.model", name, "model") for name in (settings.reference,) if name]
            collected += _past_exams("teach", settings)
        case Preferences():
            collected += [Use("preferences.model", settings.model, "model"), *_past_exams("preferences", settings)]
        case Rounds():
            collected += [
                Use("rounds.model", settings.model, "model"),
                *_past_exams("rounds.preferences", settings.preferences),
                Use("rounds.exam", settings.exam, "exam"),
                *_beside_pairs("rounds.rpo", settings.rpo),
            ]
        case Grpo():
            collected += [Use("grpo.model", settings.model, "model"), *_past_exams("grpo", settings)]
        case Cpt() | Rpo():
            collected += [
                Use(f"{stage}.model", settings.model, "model"),
                Use(f"{stage}.data", settings.data, "dataset"),
            ]
            collected += _beside_pairs("rpo", settings)
        case Sft():
            collected += [Use("sft.model", settings.model, "model"), *_conversations("sft", settings)]
        case Merge():
            collected.append(Use("merge.model", settings.model, "model"))
        case Evaluate():
            collected += [
                Use(f"evaluate.models.{name}", source, "model") for name, source in settings.references.items()
            ]
            collected += [
                Use(f"evaluate.models.{name}", base_of(source), "model")
                for name, source in settings.references.items()
                if base_of(source) in recipe.adapter_bases
            ]
            collected += [Use("evaluate.benchmarks", name, "exam") for name in settings.benchmarks]
        case Space():
            collected.append(Use("space.results", settings.results, "dataset"))
    loads = isinstance(settings, Cpt | Sft | Preferences | Rpo | Rounds | Grpo | Merge | Evaluate)
    if (loads or (isinstance(settings, Teach) and settings.reference)) and recipe.base is not None:
        collected.append(Use("base", "base", "model"))
    return tuple(collected)


def _texts(settings: Corpus) -> Iterator[Use]:
    """Yield what the corpus reads."""
    yield from _data("corpus.data", settings)
    yield from (Use("corpus.held_out", name, "exam") for name in settings.held_out)
    if settings.tokenizer:
        yield Use("corpus.tokenizer", settings.tokenizer, "model", only=("tokenizer.json",))
    if settings.replay:
        yield Use("corpus.replay.source", settings.replay.source, "dataset")


def _past_exams(place: str, settings: Teach | Preferences | Grpo) -> Iterator[Use]:
    """Yield what an asking of past exams reads beside its model."""
    yield from _data(f"{place}.data", settings)
    yield from (Use(f"{place}.held_out", name, "exam") for name in settings.held_out or ())
    votes = settings.votes if isinstance(settings, Preferences) else ()
    if isinstance(settings, Preferences) and settings.explanations:
        yield Use(f"{place}.explanations", settings.explanations, "dataset")
    yield from (Use(f"{place}.votes[{i}]", vote.source, "dataset") for i, vote in enumerate(votes))
    if settings.exemplars:
        yield Use(f"{place}.exemplars", settings.exemplars, "dataset")


def _beside_pairs(place: str, settings: Cpt | Rpo) -> Iterator[Use]:
    """Yield what RPO reads beside its model and its pairs."""
    if isinstance(settings, Rpo) and settings.reference and place == "rpo":
        yield Use("rpo.reference", settings.reference, "model")
    if isinstance(settings, Rpo) and settings.mix:
        yield from _conversations(f"{place}.mix", settings.mix)


def instructions_of(recipe: Recipe) -> Iterator[tuple[str, Instructions]]:
    """Yield the blocks of conversations, by their key in the recipe."""
    if recipe.sft:
        yield "sft", recipe.sft
    for place, settings in trainings_of(recipe):
        if isinstance(settings, Rpo) and settings.mix:
            yield f"{place}.mix", settings.mix


def _conversations(place: str, block: Instructions) -> Iterator[Use]:
    """Yield what a block of conversations reads."""
    yield from _data(f"{place}.data", block)
    yield from (Use(f"{place}.held_out", name, "exam") for name in block.held_out or ())


def _data(place: str, settings: Corpus | Preferences | Teach | Instructions | Grpo) -> Iterator[Use]:
    for index, source in enumerate(settings.data):
        yield Use(f"{place}[{index}]", source.source, "dataset")


def missing_folders(recipe: Recipe) -> tuple[str, ...]:
    """List the `./folder` sources that do not exist, each once, in the order of the recipe."""
    named = [*([recipe.base] if recipe.base else []), *(exam.source for exam in recipe.exams.values())]
    named += [use.source for stage in stages_of(recipe) for use in uses(recipe, stage)]
    folders = [text for text in dict.fromkeys(named) if parse_reference(text).where == "folder"]
    return tuple(text for text in folders if not (recipe.folder / text).exists())


def source_text(recipe: Recipe, use: Use) -> str:
    """Return where a source is: `base`, exams and bases of adapters are names for what another line states."""
    if use.source == "base":
        return recipe.base or ""
    own = recipe.exams.get(use.source)
    return own.source if own else recipe.adapter_bases.get(use.source, use.source)


def local_sources(recipe: Recipe, stages: Iterable[Stage]) -> dict[str, Path]:
    """Find the sources of these stages that are folders on this machine and exist, by the names the recipe uses."""
    folders: dict[str, Path] = {}
    for use in (use for stage in stages for use in uses(recipe, stage)):
        text = source_text(recipe, use)
        if parse_reference(text).where == "folder" and (folder := (recipe.folder / text).resolve()).exists():
            folders[use.source] = folder
    return folders


def repo_id(recipe: Recipe, stage: Stage) -> str:
    """Name a stage's repository: the merged model has the recipe's name, every other the stage's suffix.

    Without a namespace there is no repository, and the name is that of a folder.

    >>> from datetime import date
    >>> recipe = Recipe(name="medllm-7b", base="./base", namespace="me", cutoff=date(2017, 12, 31))
    >>> repo_id(recipe, "rpo"), repo_id(recipe, "merge")
    ('me/medllm-7b-rpo', 'me/medllm-7b')
    """
    name = f"{recipe.namespace}/{recipe.name}" if recipe.namespace else recipe.name
    return name if stage == "merge" else f"{name}-{stage}"


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """List the stages of a recipe, in order: `sft` comes behind the training whose model it trains further."""
    from medllm.recipe.settings import STAGES

    there = [stage for stage in STAGES if getattr(recipe, stage) is not None]
    before = next((stage for stage in there if recipe.sft and stage == recipe.sft.model), None)
    if before and there.index(before) > there.index("sft"):
        there.remove("sft")
        there.insert(there.index(before) + 1, "sft")
    return tuple(there)


def is_full(recipe: Recipe, stage: str) -> bool:
    """Whether a stage trains all weights of a full model, as far as the recipe shows: its start may be an adapter."""
    settings = _training_of(recipe, stage)
    if settings is None or settings.lora is not None:
        return False
    return settings.model == "base" or is_full(_before(recipe, stage), settings.model)


def _before(recipe: Recipe, stage: str) -> Recipe:
    """Return the recipe without a training, whose start is looked up: a faulty recipe may name a circle."""
    return recipe.model_copy(update={stage.partition(".")[0]: None})


def trainings_of(recipe: Recipe) -> Iterator[tuple[str, Cpt | Sft | Rpo | Grpo]]:
    """Yield the settings of each training, by their key in the recipe; those of the rounds are `rounds.rpo`."""
    given: dict[str, Cpt | Sft | Rpo | Grpo | None] = {"cpt": recipe.cpt, "sft": recipe.sft, "rpo": recipe.rpo}
    given |= {"rounds.rpo": recipe.rounds.rpo} if recipe.rounds else {}
    given |= {"grpo": recipe.grpo}
    yield from ((place, settings) for place, settings in given.items() if settings is not None)


def samplings_of(recipe: Recipe) -> Iterator[tuple[str, Preferences]]:
    """Yield the settings of each sampling of past exams, by their key in the recipe."""
    if recipe.preferences:
        yield "preferences", recipe.preferences
    if recipe.rounds:
        yield "rounds.preferences", recipe.rounds.preferences


def askings_of(recipe: Recipe) -> Iterator[tuple[str, Teach | Preferences | Grpo]]:
    """Yield the settings of each asking of past exams, also of a teacher or by GRPO, by their key in the recipe."""
    if recipe.teach:
        yield "teach", recipe.teach
    yield from samplings_of(recipe)
    if recipe.grpo:
        yield "grpo", recipe.grpo


def _training_of(recipe: Recipe, stage: str) -> Cpt | Sft | Rpo | Grpo | None:
    """Return the settings of a stage's training, with the model it starts from; None for other stages."""
    stage = stage.partition(".")[0]
    if stage == "rounds" and recipe.rounds:
        return recipe.rounds.rpo.model_copy(update={"model": recipe.rounds.model})
    return dict(trainings_of(recipe)).get(stage)


def lora_of(recipe: Recipe, source: str) -> Lora | None:
    """Return the adapter settings of a stage of this recipe, or None."""
    settings = _training_of(recipe, source)
    return (settings.lora or lora_of(_before(recipe, source), settings.model)) if settings else None


def loaded_together(recipe: Recipe, asked: list[str]) -> list[list[str]]:
    """Group models that one copy of weights answers: a base with its adapters, or a model trained in full with its own.

    Whether a repository or a folder is an adapter of the base is unknown here; it is counted as one.
    """
    groups: dict[str, list[str]] = {}
    for source in asked:
        groups.setdefault(weights_of(recipe, source), []).append(source)
    return list(groups.values())


def weights_of(recipe: Recipe, source: str) -> str:
    """Name whose weights a model has: those of a stage that trains all of them, else the base's."""
    settings = _training_of(recipe, source)
    if settings is None or is_full(recipe, source):
        return source if settings else "base"
    return weights_of(_before(recipe, source), settings.model)


@dataclass(frozen=True)
class Host:
    """One server that a stage sends prompts to."""

    place: str
    """The key of the recipe that names it."""
    address: str

    @property
    def name(self) -> str:
        """The host's name, with its port where one is written."""
        return urlsplit(self.address).netloc

    @property
    def hostname(self) -> str:
        """The host's name alone."""
        return urlsplit(self.address).hostname or ""

    @property
    def port(self) -> int:
        """The port, or that of the scheme."""
        parts = urlsplit(self.address)
        return parts.port or (443 if parts.scheme == "https" else 80)

    @property
    def outside(self) -> bool:
        """Whether it is another machine than this one."""
        return is_outside(self.address)


def is_outside(address: str) -> bool:
    """Whether an address is another machine's.

    >>> [is_outside(f"http://{host}/v1") for host in ("localhost:8000", "127.0.0.1", "[::1]:80", "10.0.0.7", "x.org")]
    [False, False, False, True, True]
    """
    name = urlsplit(address).hostname or ""
    try:
        return not ip_address(name).is_loopback
    except ValueError:
        return name != "localhost"


def allows(exam: OwnExam, address: str) -> bool:
    """Whether an exam may be sent to this address: any for a published exam, else this machine and what it names."""
    return not exam.private or not is_outside(address) or urlsplit(address).hostname in exam.allowed_hosts


def _teachers(settings: Teach) -> Iterator[Host]:
    if isinstance(settings.model, ApiModel):
        yield Host("teach.model", settings.model.api)
    elif is_address(settings.engine):
        yield Host("teach.engine", settings.engine)
    elif settings.model.startswith(OPENAI_PREFIX):
        yield Host("teach.model", OPENAI)


def hosts_of(recipe: Recipe) -> Iterator[Host]:
    """List the servers that questions are sent to, each under the key that names it."""
    if recipe.teach:
        yield from _teachers(recipe.teach)
    if recipe.preferences and is_address(recipe.preferences.engine):
        yield Host("preferences.engine", recipe.preferences.engine)
    evaluate = recipe.evaluate
    if evaluate is None:
        return
    if is_address(evaluate.engine):
        yield Host("evaluate.engine", evaluate.engine)
    for name, model in evaluate.models.items():
        if isinstance(model, ApiModel):
            yield Host(f"evaluate.models.{name}", model.api)
        elif model.startswith(OPENAI_PREFIX) and not is_address(evaluate.engine):
            yield Host(f"evaluate.models.{name}", OPENAI)
