"""The exact prompt behind a recorded reply: built by the exam's own code and checked against the recorded hash."""

from medllm.errors import MedllmError
from medllm.exam.record import PromptStyle
from medllm.page.context import PageContext
from medllm.page.html import word


def exact_prompt(page: PageContext, key: str, style: PromptStyle, language: str) -> str:
    """Return the prompt of a question as text, after a line that states whether it equals the recorded one exactly."""
    results = page.results
    record = next((found for found in (results.record(key, model, style) for model in results.models) if found), None)
    if record is None:
        return word("absent", language)
    try:
        prompt = results.prompt_of(record)
    except MedllmError as fault:
        return f"{word('prompt_unsure', language)}\n\n{fault}"
    matched = record.prompt_hash is not None and prompt.hash == record.prompt_hash
    return f"[{word('prompt_exact' if matched else 'prompt_unsure', language)}]\n\n{prompt.text}"
