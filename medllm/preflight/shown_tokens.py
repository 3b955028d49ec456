"""Rows of a recipe as the model reads them: tokens of its corpus, pairs and questions, with those that it learns."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from datasets import Dataset

from medllm.corpus.read.files import read_exam
from medllm.evaluation import build_exam_runs
from medllm.generation.engine.batching import PromptReader
from medllm.generation.identity import asked_as
from medllm.generation.types import BASE, Request
from medllm.preferences.questions import select_questions
from medllm.recipe import Recipe
from medllm.recipe.servers import OPENAI_PREFIX, ApiModel, for_prompt, is_address
from medllm.recipe.settings import Cpt, Evaluate, Instructions, Preferences, Rpo, Sft, Teach
from medllm.stages.corpus import text_source
from medllm.stages.preferences import prompts_of
from medllm.stages.teach import prompts_to_teacher
from medllm.training.conversations import writer_of
from medllm.training.cpt import ITEM, Talk, make_rows, read_texts
from medllm.training.instructions import read_conversations
from medllm.training.load import chat_template_for, tokenizer_folder
from medllm.training.pair_batches import VALUES, encode_pairs, read_pairs
from medllm.weights.load import load_tokenizer
from medllm.weights.loadable import has_tokenizer, refuse_without_tokenizer

ROWS = 2
"""Rows that are shown of a kind."""
ADAPTERS = ("cpt", "sft", "rpo", "rounds", "grpo", "merge")
"""Stages whose model has the tokenizer and the chat template of the base while it does not exist yet."""


@dataclass(frozen=True)
class ShownRow:
    """A row in the parts that are learnt and not learnt."""

    title: str
    tokens: int
    parts: tuple[tuple[str, bool], ...]
    """Each part's text, and whether its tokens are learnt."""


def shown_rows(recipe: Recipe, sources: Mapping[str, Path]) -> Iterator[ShownRow | str]:
    """Yield some rows of each stage, or a sentence for a stage of which none can be shown yet.

    `sources` are the folders within reach, by the names that the recipe gives them. Of models only the small files are
    read.
    """
    within = dict(sources)
    if "base" in within:
        within |= {name: within["base"] for name in ADAPTERS if name not in within}
    with tempfile.TemporaryDirectory() as folder:
        if recipe.cpt:
            yield from _of_cpt(recipe, recipe.cpt, within, Path(folder))
        if recipe.sft:
            yield from _of_conversations("sft", recipe.sft, recipe.sft, within)
        if recipe.teach:
            yield from _of_teach(recipe.teach, within)
        if recipe.preferences:
            yield from _of_preferences(recipe.preferences, within)
        if recipe.rpo:
            yield from _of_rpo(recipe.rpo, within, Path(folder))
            if recipe.rpo.mix:
                yield from _of_conversations("rpo.mix", recipe.rpo.mix, recipe.rpo, within)
        if recipe.evaluate:
            yield from _of_evaluate(recipe.evaluate, within)


def _of_cpt(recipe: Recipe, settings: Cpt, sources: dict[str, Path], cache: Path) -> Iterator[ShownRow | str]:
    if (missing := _missing("cpt", settings.model, sources)) is not None:
        yield missing
        return
    tokenizer = load_tokenizer(tokenizer_folder(settings, sources))
    chat = chat_template_for(settings, sources, tokenizer)
    if settings.data in sources:
        texts = read_texts(sources[settings.data], cache, items=True)
    else:
        texts = _coming_items(recipe, sources)
    if not len(texts):
        yield f"cpt: `{settings.data}` does not exist yet, and no past exam of it is within reach."
        return
    talk = Talk(chat, settings.system_prompt, settings.chat_template_kwargs) if chat else None
    for kind, some in _kinds(texts):
        rows, _ = make_rows(
            some,
            tokenizer,
            settings.max_length,
            packing=False,
            talk=talk if set(ITEM) <= set(some.column_names) else None,
        )
        for number, row in enumerate(rows.select(range(min(ROWS, len(rows)))), 1):
            ids = row["input_ids"]
            yield _row(f"cpt, {kind} {number}", tokenizer, ids, [False, *[True] * (len(ids) - 1)])


def _kinds(texts: Dataset) -> Iterator[tuple[str, Dataset]]:
    """Yield the first texts and the first exam items of a corpus."""
    if not set(ITEM) <= set(texts.column_names):
        yield "text", texts.select(range(min(ROWS, len(texts))))
        return
    by_kind: dict[str, list[int]] = {"text": [], "exam item": []}
    for number, kind in enumerate(texts["kind"]):
        by_kind["exam item" if kind == json.dumps("exam") else "text"].append(number)
    yield from ((kind, texts.select(rows[:ROWS])) for kind, rows in by_kind.items() if rows)


def _coming_items(recipe: Recipe, sources: Mapping[str, Path]) -> Dataset:
    """Return the first exam items that the corpus stage will write, of the sources within reach."""
    settings = recipe.corpus
    exams = [source for source in settings.data if source.exam and source.source in sources] if settings else []
    drafts = (draft for exam in exams if settings for draft in read_exam(text_source(exam, settings, sources)))
    rows = [
        {"text": draft.text, "kind": json.dumps("exam"), "locator": json.dumps(draft.locator)}
        for draft in islice((draft for draft in drafts if not draft.fault), ROWS)
    ]
    return Dataset.from_list(rows)


def _of_conversations(
    place: str, block: Instructions, training: Sft | Rpo, sources: dict[str, Path]
) -> Iterator[ShownRow | str]:
    """Yield the first conversations of a training, each row with the assistant's tokens that are learnt."""
    if (missing := _missing(place, training.model, sources)) is not None:
        yield missing
        return
    tokenizer = load_tokenizer(tokenizer_folder(training, sources))
    for source in block.data:
        if source.source not in sources:
            yield f"{place}: `{source.source}` does not exist yet, so no conversation is shown."
            continue
        read = read_conversations(source, sources[source.source], block, block.system_prompt)
        some = [conversation for conversation, _ in islice(read, ROWS)]
        talks = any(conversation.messages for conversation in some)
        asked = training.model_copy(update={"format": block.format})
        writer = writer_of(tokenizer, chat_template_for(asked, sources, tokenizer, talks=talks), block)
        for number, conversation in enumerate(some, 1):
            for ids, learnt in writer.pieces(conversation):
                yield _row(f"{place}, {source.source}, conversation {number}", tokenizer, ids, [False, *learnt[1:]])


def _of_teach(settings: Teach, sources: dict[str, Path]) -> Iterator[ShownRow | str]:
    wanted = [*(source.source for source in settings.data), *(settings.held_out or ())]
    if absent := [name for name in wanted if name not in sources]:
        yield f"teach: {', '.join(absent)}: not within reach, so no question is shown."
        return
    asked = select_questions(settings, sources)
    requests = [
        Request(
            **prompts_to_teacher(question, asked, settings)[0].request_fields,
            key=question.question_id,
            max_new_tokens=settings.max_new_tokens,
            chat_template_kwargs=for_prompt(settings.chat_template_kwargs, settings.prompt),
        )
        for question in asked.questions[:ROWS]
    ]
    yield from _asked("teach", {settings.name: settings.model}, requests, sources, settings)


def _of_preferences(settings: Preferences, sources: dict[str, Path]) -> Iterator[ShownRow | str]:
    wanted = [*(source.source for source in settings.data), *(settings.held_out or ())]
    wanted += [settings.explanations] if settings.explanations else []
    if absent := [name for name in wanted if name not in sources]:
        yield f"preferences: {', '.join(absent)}: not within reach, so no question is shown."
        return
    asked = select_questions(settings, sources)
    requests = [
        Request(
            **prompts_of(question, asked, settings)[0].request_fields,
            key=question.question_id,
            max_new_tokens=settings.max_new_tokens,
            chat_template_kwargs=for_prompt(settings.chat_template_kwargs, settings.prompt),
        )
        for question in asked.questions[:ROWS]
    ]
    models = {settings.model: settings.model}
    yield from _asked("preferences", models, requests, sources, settings)


def _of_rpo(settings: Rpo, sources: dict[str, Path], cache: Path) -> Iterator[ShownRow | str]:
    if (missing := _missing("rpo", settings.model, sources)) is not None:
        yield missing
        return
    if settings.data not in sources:
        yield f"rpo: `{settings.data}` does not exist yet, so no pair is shown."
        return
    tokenizer = load_tokenizer(tokenizer_folder(settings, sources))
    table = read_pairs(sources[settings.data], cache, keep_exemplars=settings.keep_exemplars)
    chat = chat_template_for(settings, sources, tokenizer, talks=VALUES in table.column_names)
    pairs, _ = encode_pairs(table, tokenizer, settings.max_length, chat)
    for number, pair in enumerate(pairs.select(range(min(ROWS, len(pairs)))), 1):
        for side in ("chosen", "rejected"):
            asked, answer = pair["prompt_ids"], pair[f"{side}_ids"]
            learnt = [False] * len(asked) + [True] * len(answer)
            yield _row(f"rpo, pair {number}, {side}", tokenizer, [*asked, *answer], learnt)


def _of_evaluate(settings: Evaluate, sources: dict[str, Path]) -> Iterator[ShownRow | str]:
    if absent := [name for name in settings.benchmarks if name not in sources]:
        yield f"evaluate: {', '.join(absent)}: not within reach, so no question is shown."
        return
    few = settings.model_copy(update={"limit": 1, "samples": 1})
    requests = [request for run in build_exam_runs(few, sources) for request in run.requests.values()]
    yield from _asked("evaluate", settings.models, requests, sources, settings)


def _asked(
    stage: str,
    models: Mapping[str, str | ApiModel],
    requests: Sequence[Request],
    sources: dict[str, Path],
    settings: Teach | Preferences | Evaluate,
) -> Iterator[ShownRow | str]:
    """Yield the prompts as the models get them, those that get the same tokens once."""
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for name, source in models.items():
        if isinstance(source, ApiModel) or is_address(settings.engine) or source.startswith(OPENAI_PREFIX):
            yield f"{stage}, {name}: its server makes the tokens."
            continue
        if (missing := _missing(f"{stage}, {name}", source, sources)) is not None:
            yield missing
            continue
        folder = sources[source]
        tokenizer = load_tokenizer(folder if has_tokenizer(folder) else sources["base"])
        form = asked_as(
            {name: source}, sources, engine=settings.engine, form=settings.format, given=settings.chat_template
        )[name]
        reader = PromptReader(tokenizer, {BASE: form.template} if form.template else {})
        for request in requests:
            ids = reader.tokens(replace(request, model=BASE))
            if (request.key, tuple(ids)) not in seen:
                seen.add((request.key, tuple(ids)))
                yield _row(f"{stage}, {name}, {request.key} ({request.style})", tokenizer, ids, [False] * len(ids))


def _missing(place: str, model: str, sources: Mapping[str, Path]) -> str | None:
    """Return the sentence for a model whose tokenizer is not within reach."""
    folder = sources.get(model)
    if folder is None:
        return f"{place}: the tokenizer of `{model}` is not on this machine."
    if not has_tokenizer(folder):
        refuse_without_tokenizer(sources.get("base", folder))
    return None


def _row(title: str, tokenizer: Any, ids: Sequence[int], learnt: Sequence[bool]) -> ShownRow:  # noqa: ANN401
    """Cut a row where learning begins or ends; a character that is cut goes to the part where it ends."""
    ends = [0, *(at for at, (left, other) in enumerate(pairwise(learnt), 1) if left != other), len(ids)]
    texts = ["" if end == 0 else tokenizer.decode(ids[:end]) for end in ends]
    texts = [*(text.rstrip("\N{REPLACEMENT CHARACTER}") for text in texts[:-1]), texts[-1]]
    parts = tuple(
        (after[len(before) :], learnt[begin]) for (before, after), begin in zip(pairwise(texts), ends, strict=False)
    )
    return ShownRow(title, len(ids), tuple(part for part in parts if part[0]))
