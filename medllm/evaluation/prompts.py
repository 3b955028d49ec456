"""The prompts of an evaluation: each exam's questions, rendered both ways, with worked examples from elsewhere."""

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medllm.corpus.decontaminate.exam_items import translated_items
from medllm.exam.benchmarks import exemplars, load
from medllm.exam.prompts import Prompt, refuse_test_items, render
from medllm.exam.question import Question
from medllm.exam.record import PromptStyle
from medllm.generation.types import Reply, Request, shared_length
from medllm.preferences.contamination import AuditTrail, question_texts
from medllm.recipe.settings import Evaluate


@dataclass(frozen=True)
class PromptInstance:
    """One prompt of one question."""

    question: Question
    style: PromptStyle
    sample: int
    seed: int
    prompt: Prompt
    shared: int
    room: int
    temperature: float

    def request(self, key: str, model: str) -> Request:
        """Build the request that puts the prompt to a model."""
        return Request.of_prompt(
            self.prompt,
            key=key,
            model=model,
            shared=self.shared,
            max_new_tokens=self.room,
            temperature=self.temperature,
            seed=self.seed,
        )


@dataclass(frozen=True)
class ExamRun:
    """One exam with its rendered prompts."""

    name: str
    questions: list[Question]
    shots: int
    examples: list[Question]
    """The worked examples before every question, so that a reader can be shown the exact prompt."""
    prompts: dict[str, PromptInstance]
    """Each prompt by a key of exam, question, prompt and sample."""
    watch: AuditTrail
    """The leakage audit of the worked examples; empty where there are none."""


def build_exam_runs(settings: Evaluate, sources: dict[str, Path]) -> list[ExamRun]:
    """Read the exams and render what will be asked."""
    return [_sitting(settings, name, sources[name]) for name in settings.benchmarks]


def find_question(
    settings: Evaluate, sources: dict[str, Path], question_id: str
) -> tuple[Question, dict[PromptStyle, Prompt]] | None:
    """Return the question of that id in the recipe's exams, whole, with its prompts; None if no exam has it."""
    everything = settings.model_copy(update={"limit": None, "years": None})
    for sitting in build_exam_runs(everything, sources):
        found = [one for one in sitting.prompts.values() if one.question.question_id == question_id and not one.sample]
        if found:
            return found[0].question, {one.style: one.prompt for one in found}
    return None


def _sitting(settings: Evaluate, name: str, folder: Path) -> ExamRun:
    questions = load(name, folder)
    if settings.years is not None:
        questions = [question for question in questions if question.year is None or question.year in settings.years]
    if settings.limit is not None and settings.limit < len(questions):
        chosen = set(random.Random(settings.seed).sample(range(len(questions)), settings.limit))
        questions = [question for number, question in enumerate(questions) if number in chosen]
    shots = settings.shots if isinstance(settings.shots, int) else settings.shots.get(name, 0)
    examples = exemplars(name, folder)[:shots] if shots else []
    refuse_test_items(examples, questions)
    watch = AuditTrail(())
    if shots:  # else there is nothing to audit, and the index of an exam takes seconds
        watch = AuditTrail.over(questions, translated=translated_items(name, folder))
        watch.refuse("few-shot", f"evaluate.benchmarks: {name}", question_texts(examples))
    prompts: dict[str, PromptInstance] = {}
    for style in settings.prompts:
        rendered = [
            render(
                question,
                prompt=style,
                template=settings.template,
                exemplars=examples,
                shots=shots,
                context=settings.context,
            )
            for question in questions
        ]
        shared = shared_length([prompt.text for prompt in rendered]) if examples and rendered else 0
        for question, prompt in zip(questions, rendered, strict=True):
            for sample in range(settings.samples):
                key = f"{name}/{question.question_id} {style} {sample}"
                room = getattr(settings.max_new_tokens, style)
                seed = _seed(settings.seed, key)
                asked = PromptInstance(question, style, sample, seed, prompt, shared, room, settings.temperature)
                prompts[key] = asked
    return ExamRun(name, questions, shots, examples, prompts, watch)


def _seed(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:6], "big")


def run_row(settings: Evaluate, sitting: ExamRun, replies: list[Reply]) -> dict[str, Any]:
    """Record how one model was asked one exam under one prompt, with the tokens and the cost."""
    return {
        "benchmark": sitting.name,
        "template": settings.template,
        "shots": sitting.shots,
        "context": settings.context,
        "engine": settings.engine,
        "dtype": settings.dtype,
        "quantization": settings.quantization,
        "temperature": settings.temperature,
        "samples": settings.samples,
        "seed": settings.seed,
        "replies": len(replies),
        "too_long": sum(reply.finish_reason == "too_long" for reply in replies),
        "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
        "completion_tokens": sum(reply.completion_tokens for reply in replies),
        "cost": sum(reply.cost for reply in replies),
    }
