"""Opens all sources of a recipe that are within reach: exams, texts, models and adapters."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from medllm.errors import ModelError, RecipeError
from medllm.preflight.exams import Findings, check_exams, check_past_questions, check_rounds
from medllm.preflight.texts import check_conversations, check_texts
from medllm.recipe import Recipe, Use, uses
from medllm.recipe.base import Stage, base_of, parse_reference
from medllm.recipe.errors import RecipeFault
from medllm.recipe.rounds import Rounds
from medllm.recipe.servers import for_prompt, is_address, switches, takes_any_type
from medllm.recipe.training import Training
from medllm.stages.merge import find_converter
from medllm.training.devices import missing_tracker
from medllm.weights.adapter import is_adapter
from medllm.weights.chat_template import no_template, open_template, own_template, template_of
from medllm.weights.checkpoint import read_json
from medllm.weights.loadable import adapter_errors, has_tokenizer, model_errors, parse_template


def adapter_bases(recipe: Recipe, config_of: Callable[[Use], Mapping[str, Any] | None]) -> dict[str, str]:
    """Return where the base of each adapter of the evaluation is, by `base_of` the adapter; empty with a `base`.

    `config_of` returns the adapter_config.json of a model, None for a full model. A folder is looked for as it is
    written there, and beside the adapter.

    Raises:
        ModelError: An adapter names no base that can be found.
    """
    bases = {}
    for use in uses(recipe, "evaluate") if recipe.base is None and recipe.evaluate else ():
        config = config_of(use) if use.wanted == "model" else None
        if config is None:
            continue
        name = str(config.get("base_model_name_or_path") or "")
        place = parse_reference(use.source)
        beside = [recipe.folder / place.text] * (place.where == "folder")
        folders = [Path(name), *(folder.resolve().parent / name for folder in beside)] if name else []
        here = next((str(folder.resolve()) for folder in folders if (folder / "config.json").is_file()), None)
        there = f"{name}@{config.get('revision') or 'main'}"
        if here is None and parse_reference(there).where != "hub":
            raise ModelError(
                "generation.no-base",
                f"{use.place}: {use.source} is an adapter, and the base that it names ({name or 'none'}) is not found. "
                "Give it: `base: ORG/NAME@REVISION` or `base: ./folder` in a recipe, `--base` on the command line.",
            )
        bases[base_of(use.source)] = here or there
    return bases


def folder_config(recipe: Recipe, use: Use) -> Mapping[str, Any] | None:
    """Return the adapter_config.json of a model in a folder; None for a full model, or one elsewhere."""
    place = parse_reference(use.source)
    path = recipe.folder / place.text / "adapter_config.json"
    return read_json(path) if place.where == "folder" and path.is_file() else None


def check_models(
    recipe: Recipe,
    stages: Collection[Stage],
    sources: Mapping[str, Path],
    listed: Mapping[str, frozenset[str]],
    findings: Findings,
) -> None:
    """Check each model once, at the first place that names it."""
    base = sources.get("base")
    seen: set[Path] = set()
    loading = defaultdict(list)
    for stage in stages:
        for use in uses(recipe, stage):
            loading[use.source].append(stage)
    for stage in stages:
        for use in sorted(uses(recipe, stage), key=lambda needed: needed.place != "base"):
            folder = sources.get(use.source)
            if use.wanted != "model" or use.only or folder is None or folder in seen:
                continue
            seen.add(folder)
            adapter = is_adapter(folder) and parse_reference(use.source).where != "base"
            own = "base" if base is not None else base_of(use.source)
            here = sources.get(own) if use.source not in listed and own not in listed else None
            if adapter:
                errors = adapter_errors(folder, here)
            else:
                any_type = all(takes_any_type(getattr(recipe, stage)) for stage in loading[use.source])
                errors = model_errors(folder, listed.get(use.source), any_type=any_type)
            for error in errors:
                findings.add(use.place, error)


def check_templates(recipe: Recipe, stages: Collection[Stage], sources: Mapping[str, Path], findings: Findings) -> None:
    """Check that each model that a stage trains or asks by `format: chat` has a chat template, where it is in reach."""
    for stage in stages:
        settings = getattr(recipe, stage)
        if given := getattr(settings, "chat_template", None):
            _check_given_template(recipe, stage, given, sources, findings)
            continue
        if getattr(settings, "format", None) != "chat" or is_address(getattr(settings, "engine", "")):
            continue
        for use in uses(recipe, stage):
            folder = sources.get(use.source)
            if use.wanted != "model" or use.only or folder is None or not (folder / "tokenizer_config.json").is_file():
                continue
            if template_of(folder, sources.get("base") or sources.get(base_of(use.source))) is None:
                findings.add(f"{stage}.format", no_template(stage, folder))


def _check_given_template(
    recipe: Recipe, stage: Stage, given: str, sources: Mapping[str, Path], findings: Findings
) -> None:
    """Check that the recipe's chat template is Jinja, and that the base, or one of the models asked, has none."""
    with findings.collect("chat_template"):
        parse_template("chat_template", given)
    base = sources.get("base")
    asked = [use.source for use in uses(recipe, stage) if use.wanted == "model" and not use.only]
    if base is None and asked and all(source in sources and own_template(sources[source]) for source in asked):
        base = sources[asked[0]]
    if base is not None and own_template(base) is not None:
        text = (
            f"{base} has a chat template of its own, by which it would be asked. Remove `chat_template` (and write "
            "`chat_template_kwargs` for its values), or change the template in the base's files."
        )
        findings.add("chat_template", RecipeError("recipe.two-chat-templates", text))


def check_thinking_pairs(recipe: Recipe, sources: Mapping[str, Path], findings: Findings) -> None:
    """Check that the template by which pairs of `prompt: think` are to be trained writes the thinking of a reply."""
    settings, trained = recipe.preferences, recipe.rpo or recipe.preferences
    if settings is None or trained is None or settings.prompt != "think":
        return
    base = sources.get("base")
    folder = sources.get(trained.model, base)
    text = folder and (template_of(folder, base) or trained.chat_template)
    if not folder or not text or not has_tokenizer(folder if base is None else base):
        return
    values = {**switches(thinks=True), **for_prompt(settings.chat_template_kwargs, "think")}
    with findings.collect("preferences.prompt"):
        chat = open_template(folder, base, text, trained.model)
        chat.refuse_dropped_thinking("think", values, "preferences.prompt")


def check_trackers(recipe: Recipe, stages: Collection[Stage], findings: Findings) -> None:
    """Check that what draws the curves of a training is installed here, or with the recipe's Jobs."""
    for stage in stages:
        settings = getattr(recipe, stage)
        settings = settings.rpo if isinstance(settings, Rounds) else settings
        if isinstance(settings, Training):
            named = {re.split(r"[<>=!~\[ ;]", package)[0] for package in recipe.jobs.packages}
            here = settings.model_copy(update={"report_to": tuple(set(settings.report_to) - named)})
            if fault := missing_tracker(stage, here):
                findings.add(f"{stage}.report_to", fault)


def check_converter(recipe: Recipe, stages: Collection[Stage], findings: Findings) -> None:
    """Check that the converter of `merge.gguf` is installed, unless the merge runs on another machine."""
    merge = recipe.merge
    if "merge" in stages and merge and merge.gguf and merge.run_on is None:
        with findings.collect("merge.gguf"):
            find_converter(os.environ)


def inspect(
    recipe: Recipe,
    stages: Collection[Stage],
    sources: Mapping[str, Path],
    *,
    listed: Mapping[str, frozenset[str]] | None = None,
    thorough: bool = False,
) -> list[RecipeFault]:
    """Return every fault of what these stages read, in no particular order.

    `sources` are the folders within reach, by the names that the recipe gives them. `listed` has the names of all
    files of a model of the Hub whose weights are not pulled yet. `thorough` adds the audits that need up to a minute
    for a large exam: worked examples and past questions compared with the held-out exams.
    """
    findings = Findings()
    check_exams(recipe, stages, sources, findings, thorough=thorough)
    if "corpus" in stages and recipe.corpus:
        check_texts(recipe.corpus, sources, findings)
    if "teach" in stages and recipe.teach:
        check_past_questions(recipe.teach, sources, findings, thorough=thorough, place="teach")
    if "sft" in stages and recipe.sft:
        check_conversations("sft", recipe.sft, recipe.sft, sources, findings)
    if "rpo" in stages and recipe.rpo and recipe.rpo.mix:
        check_conversations("rpo.mix", recipe.rpo.mix, recipe.rpo, sources, findings)
    if "preferences" in stages and recipe.preferences:
        check_past_questions(recipe.preferences, sources, findings, thorough=thorough)
    if "rounds" in stages and recipe.rounds:
        check_rounds(recipe.rounds, sources, findings, thorough=thorough)
    if "grpo" in stages and recipe.grpo:
        check_past_questions(recipe.grpo, sources, findings, thorough=thorough, place="grpo")
    check_models(recipe, stages, sources, listed or {}, findings)
    check_templates(recipe, stages, sources, findings)
    if "preferences" in stages:
        check_thinking_pairs(recipe, sources, findings)
    check_trackers(recipe, stages, findings)
    check_converter(recipe, stages, findings)
    return findings.faults
