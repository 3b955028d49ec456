"""One question to every model of a recipe, plainly and explained, written out as it comes."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medllm.errors import RecipeError
from medllm.exam.extract.answer import is_right, parse
from medllm.exam.prompts import Prompt
from medllm.exam.question import Question
from medllm.exam.record import PromptStyle
from medllm.generation.types import Request
from medllm.pipeline.inputs import stage_input
from medllm.pipeline.plan import BuildPlan
from medllm.recipe.reference import STAGES
from medllm.recipe.settings import Evaluate


@dataclass
class Cell:
    """One model's reply under one prompt, as far as it has come."""

    model: str
    prompt: PromptStyle
    text: str = ""
    done: bool = False
    answer: str | None = None
    correct: bool | None = None
    """None where there is no key to compare with."""


@dataclass(frozen=True)
class Asked:
    """A question, who can answer it now, and who cannot and why."""

    text: str
    question: Question | None
    """The exam's question of that id, with choices and key; None for a question of the asker's own."""
    prompts: dict[PromptStyle, Prompt]
    settings: Evaluate
    sources: dict[str, Path]
    missing: dict[str, str] = field(default_factory=dict)


def ask(plan: BuildPlan, text: str) -> Asked:
    """Find the question by its id, or take the text as it is; a model whose stage is not built cannot answer."""
    settings = plan.recipe.evaluate
    if settings is None:
        raise RecipeError("evaluate: the recipe has none, so it names no models to ask.")
    if not text.strip():
        raise RecipeError(
            "ask: there is no question. Write an exam's question id, or a question of your own in quotes."
        )
    standing = {item.stage for item in plan.items if item.standing}
    missing = {
        name: str(source) for name, source in settings.models.items() if source in STAGES and source not in standing
    }
    models = {name: source for name, source in settings.models.items() if name not in missing}
    if not models:
        raise RecipeError("ask: none of the recipe's models is built yet. Run `medllm run` first.")
    asked = settings.model_copy(update={"models": models, "limit": None, "years": None})
    sources = _sources(plan)
    found = _of_an_exam(asked, sources, text)
    question, prompts = found or (None, {style: own_prompt(text, style, asked) for style in asked.prompts})
    return Asked(text, question, prompts, asked, sources, missing)


def _sources(plan: BuildPlan) -> dict[str, Path]:
    """Find the evaluation's inputs, as far as they are built."""
    above = {}
    for item in plan.items:
        commit = item.standing.artifact.revision if item.standing else None
        above[item.stage] = stage_input(item.stage, item.repo_id, item.digest, commit)
    return plan.resolver.pulled("evaluate", plan.resolver.inputs("evaluate", above), standing_only=True)


def _of_an_exam(
    settings: Evaluate, sources: dict[str, Path], name: str
) -> tuple[Question, dict[PromptStyle, Prompt]] | None:
    """The question of that id in the recipe's exams, rendered as the evaluation renders it."""
    from medllm.evaluation.prompts import build_exam_runs

    for sitting in build_exam_runs(settings, sources):
        asked = [one for one in sitting.prompts.values() if one.question.question_id == name and one.sample == 0]
        if asked:
            return asked[0].question, {one.style: one.prompt for one in asked}
    return None


def own_prompt(text: str, style: PromptStyle, settings: Evaluate) -> Prompt:
    """A question of one's own, in the wording of the exams but without choices."""
    paper = settings.template == "paper"
    asked = f"Question: {text}" if paper else f"問題: {text}"
    ending = {"plain": "Answer:" if paper else "答え:", "explain": "Explanation:" if paper else "解説:"}[style]
    stop = ("\nQuestion:",) if paper else ("\n問題:", "\n問題：")
    whole = f"{asked}\n{ending}"
    return Prompt(whole, ({"role": "user", "content": whole},), stop, " " if paper else "\n")


def replies(asked: Asked) -> Iterator[tuple[Cell, str]]:
    """Every piece as it is written, with its cell; the last piece of a cell comes with `done`."""
    from medllm.generation.factory import make_generators

    settings = asked.settings
    makers = make_generators(
        settings.models,
        asked.sources,
        engine=settings.engine,
        dtype=settings.dtype,
        quantization=settings.quantization,
        batch_size=settings.batch_size,
    )
    cells = {f"{model} {style}": Cell(model, style) for model in settings.models for style in asked.prompts}
    for maker in {id(maker): maker for maker, _ in makers.values()}.values():
        mine = {key: cell for key, cell in cells.items() if makers[cell.model][0] is maker}
        requests = [_request(key, cell, makers[cell.model][1], asked) for key, cell in mine.items()]
        for delta in maker.stream(requests):
            cell = cells[delta.key]
            cell.text += delta.text
            if delta.reply is not None:
                cell.text, cell.done = delta.reply.text, True
                if asked.question:
                    cell.answer = parse(cell.text, asked.question, finish_reason=delta.reply.finish_reason).answer
                    cell.correct = is_right(asked.question, cell.answer)
            yield cell, delta.text


def _request(key: str, cell: Cell, model: str, asked: Asked) -> Request:
    prompt = asked.prompts[cell.prompt]
    return Request(
        key=key,
        model=model,
        text=prompt.text,
        messages=prompt.messages,
        max_new_tokens=getattr(asked.settings.max_new_tokens, cell.prompt),
        stop=prompt.stop,
    )
