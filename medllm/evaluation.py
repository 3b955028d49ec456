"""The prompts of an evaluation: each exam's questions, rendered both ways, with worked examples from elsewhere."""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from medllm.corpus.decontaminate import exam_items
from medllm.corpus.decontaminate.audit import AuditReport
from medllm.corpus.decontaminate.exam_items import translated_items
from medllm.exam.benchmarks import exemplars, load
from medllm.exam.prompts import Prompt, refuse_test_items, render
from medllm.exam.question import Question, of_years
from medllm.exam.record import PromptStyle
from medllm.files import write_text
from medllm.generation.answer_store import AnswerStore, hash_of_value
from medllm.generation.identity import AskedAs
from medllm.generation.types import Reply, Request, shared_length
from medllm.preferences.questions import AuditTrail, question_texts
from medllm.recipe.servers import for_prompt
from medllm.recipe.settings import Evaluate

Asked = tuple[str, PromptStyle, int]
"""A question's id, the prompt, and the number of the sample."""


@dataclass(frozen=True)
class ExamRun:
    """One exam with its rendered prompts."""

    name: str
    questions: list[Question]
    shots: int
    examples: list[Question]
    """The worked examples before every question, so that a reader can be shown the exact prompt."""
    requests: dict[Asked, Request]
    """What is asked of every model; a request's key names exam, question, prompt and sample."""
    watch: AuditTrail
    """The leakage audit of the worked examples; empty where there are none."""
    trial: bool = False
    """Whether the limit left questions of the exam out."""


def build_exam_runs(settings: Evaluate, sources: dict[str, Path]) -> list[ExamRun]:
    """Read the exams and render what will be asked."""
    return [_sitting(settings, name, sources[name]) for name in settings.benchmarks]


def write_prompts(settings: Evaluate, sources: dict[str, Path], out: Path) -> Iterator[tuple[Path, int]]:
    """Write what would be asked, a file `EXAM-MODE.jsonl` for each; yield each file with its number of prompts."""
    out.mkdir(parents=True, exist_ok=True)
    for run in build_exam_runs(settings, sources):
        for style in settings.prompts:
            rows = []
            for question in run.questions:
                prompt = _prompt(settings, run, question, style)
                row: dict[str, Any] = {"question_id": question.question_id, "mode": style, "text": prompt.text}
                row |= {"messages": prompt.messages, "stop": prompt.stop, "target": question.gold_answer}
                rows.append(json.dumps(row, ensure_ascii=False) + "\n")
            path = out / f"{run.name}-{style}.jsonl"
            write_text(path, "".join(rows))
            yield path, len(rows)


def find_question(
    settings: Evaluate, sources: dict[str, Path], question_id: str
) -> tuple[Question, dict[PromptStyle, Prompt]] | None:
    """Return the question of that id in the recipe's exams, whole, with its prompts; None if no exam has it."""
    everything = settings.model_copy(update={"limit": None, "years": None, "exam_years": {}})
    for run in build_exam_runs(everything, sources):
        for question in run.questions:
            if question.question_id == question_id:
                return question, {style: _prompt(settings, run, question, style) for style in settings.prompts}
    return None


def _prompt(settings: Evaluate, run: ExamRun, question: Question, style: PromptStyle) -> Prompt:
    return render(
        question,
        prompt=style,
        template=settings.template,
        exemplars=run.examples,
        shots=run.shots,
        context=settings.context,
        system=settings.system_prompt,
    )


def _sitting(settings: Evaluate, name: str, folder: Path) -> ExamRun:
    questions = of_years(of_years(load(name, folder), settings.exam_years.get(name)), settings.years)
    trial = settings.limit is not None and settings.limit < len(questions)
    if settings.limit is not None and trial:
        # The first of one order of all, so that a larger limit asks what a smaller one asked, and more.
        order = random.Random(settings.seed).sample(range(len(questions)), len(questions))
        chosen = set(order[: settings.limit])
        questions = [question for number, question in enumerate(questions) if number in chosen]
    shots = settings.shots if isinstance(settings.shots, int) else settings.shots.get(name, 0)
    examples = exemplars(name, folder)[:shots] if shots else []
    refuse_test_items(examples, questions)
    watch = _audit(name, folder, questions, examples) if shots else AuditTrail(())
    run = ExamRun(name, questions, shots, examples, {}, watch, trial)
    for style in settings.prompts:
        prompts = [_prompt(settings, run, question, style) for question in questions]
        shared = shared_length([prompt.text for prompt in prompts]) if examples and prompts else 0
        for question, prompt in zip(questions, prompts, strict=True):
            for sample in range(settings.samples):
                key = f"{name}/{question.question_id} {style} {sample}"
                run.requests[question.question_id, style, sample] = Request(
                    **prompt.request_fields,
                    key=key,
                    shared=shared,
                    max_new_tokens=getattr(settings.max_new_tokens, style),
                    temperature=settings.temperature,
                    seed=_seed(settings.seed, key),
                    chat_template_kwargs=for_prompt(settings.chat_template_kwargs, style),
                )
    return run


def _audit(name: str, folder: Path, questions: list[Question], examples: list[Question]) -> AuditTrail:
    """Refuse worked examples that hold a question of the exam; return the audit.

    Examples that the same code has found clean of the same questions are not searched again: the index of an exam takes
    seconds.
    """
    watch = AuditTrail.over(questions, translated=translated_items(name, folder))
    texts = question_texts(examples)
    store, about = AnswerStore.here(), hash_of_value([_audit_code(), [asdict(item) for item in watch.items], texts])
    if clean := store.clean_audit(about):
        watch.report = AuditReport(**{**clean, "largest": {item: tuple(at) for item, at in clean["largest"].items()}})
        return watch
    watch.refuse("few-shot", f"evaluate.benchmarks: {name}", texts)
    if not watch.report.findings:
        store.keep_clean_audit(about, asdict(watch.report))
    return watch


@cache
def _audit_code() -> str:
    """Hash the code of the audit: what another version of it has found clean is searched again."""
    files = sorted(Path(exam_items.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _seed(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {key}".encode()).digest()[:6], "big")


def run_row(settings: Evaluate, sitting: ExamRun, replies: list[Reply], form: AskedAs) -> dict[str, Any]:
    """Record how one model was asked one exam under one prompt, by which engine, with the tokens and the cost.

    A server that somebody else runs is named by its address, without a version.
    """
    engines = sorted({reply.by for reply in replies if reply.by})
    return {
        "benchmark": sitting.name,
        "template": settings.template,
        "format": "chat" if form.chat else "completion",
        "system_prompt": settings.system_prompt,
        "chat_template_kwargs": json.dumps(settings.chat_template_kwargs, sort_keys=True),
        "shots": sitting.shots,
        "context": settings.context,
        "engine": ", ".join(sorted({engine.split()[0] for engine in engines})) or settings.engine,
        "engine_version": ", ".join(engine.split()[1] for engine in engines) or None,
        "dtype": settings.dtype,
        "quantization": settings.quantization,
        "temperature": settings.temperature,
        "samples": settings.samples,
        "seed": settings.seed,
        "replies": len(replies),
        "too_long": sum(reply.finish_reason == "too_long" for reply in replies),
        "prompt_tokens": sum(reply.prompt_tokens for reply in replies),
        "completion_tokens": sum(reply.completion_tokens for reply in replies),
        "reasoning_tokens": sum(reply.reasoning_tokens for reply in replies),
        "cost": sum(reply.cost for reply in replies),
    }
