"""The exact prompt behind a recorded reply: built by the exam's own code and checked against the recorded hash."""

from typing import get_args

from medllm.errors import MedllmError
from medllm.exam.prompts import Context, Template, render
from medllm.exam.question import Question
from medllm.exam.record import PromptStyle, Record
from medllm.page.context import PageContext
from medllm.page.html import word
from medllm.page.results import RecordedResults


def exact_prompt(page: PageContext, key: str, style: PromptStyle, language: str) -> str:
    """Return the prompt of a question as text, after a line that states whether it equals the recorded one exactly."""
    results = page.results
    record = next((found for found in (results.record(key, model, style) for model in results.models) if found), None)
    if record is None:
        return word("absent", language)
    try:
        prompt = _rendered(results, record, results.question(key), style)
    except MedllmError as fault:
        return f"{word('prompt_unsure', language)}\n\n{fault}"
    matched = record.prompt_hash is not None and prompt[1] == record.prompt_hash
    return f"[{word('prompt_exact' if matched else 'prompt_unsure', language)}]\n\n{prompt[0]}"


def _rendered(results: RecordedResults, record: Record, question: Question, style: PromptStyle) -> tuple[str, str]:
    template: Template = next((name for name in get_args(Template) if name == record.template), "paper")
    exemplars = results.exemplars.get(record.benchmark, ())
    shots = min(record.shots, len(exemplars))
    context: Context = "linked" if record.context == "linked" else "original"
    prompt = render(question, prompt=style, template=template, exemplars=exemplars, shots=shots, context=context)
    return prompt.text, prompt.hash
