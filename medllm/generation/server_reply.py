"""Reads a server's answer with OpenAI's protocol: the reply, the thinking before it, why it ended, tokens and cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medllm.exam.extract.reply import split_thinking
from medllm.generation.types import FinishReason, Reply, Request

REFUSED = ("content_filter", "refusal")
THINKING = ("reasoning_content", "reasoning", "thinking")
"""The names under which servers keep the thinking apart from the reply."""


@dataclass(frozen=True)
class Ending:
    """What a server has written, and why it ended."""

    text: str
    thinking: str
    """What it kept apart from the text."""
    reason: str | None


def text_of(choice: Mapping[str, Any]) -> str:
    """Return the text of a choice, whole or a piece of a stream; empty where there is none."""
    return str(choice.get("text") or _message(choice).get("content") or "")


def thinking_of(choice: Mapping[str, Any]) -> str:
    """Return the thinking that a choice keeps apart from its text."""
    found = (_message(choice).get(name) for name in THINKING)
    return next((text for text in found if isinstance(text, str) and text), "")


def reason_of(choice: Mapping[str, Any]) -> str | None:
    """Return why a reply ended; a refusal has several names."""
    if choice.get("finish_reason") in REFUSED or _message(choice).get("refusal"):
        return "refused"
    reason: str | None = choice.get("finish_reason")
    return reason


def read_reply(
    request: Request, ending: Ending, usage: Mapping[str, Any], *, chat: bool, price: tuple[float, float]
) -> Reply:
    """Build the reply with its cost, cut before the first stop string whether or not the server did so.

    A server without a parser of its own leaves the thinking in the text, with its marks; of a model that is to think, a
    text that was cut without them is thinking. `price` is in US dollars per million tokens asked and written.
    """
    text, thought = ending.text, ending.thinking
    if chat and not thought:
        thought, visible = split_thinking(text, thinks=request.thinks and ending.reason == "length")
        text = (visible or "").lstrip() if thought else text
    ends = [at for stop in request.stop if (at := text.find(stop)) >= 0]
    asked, written = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    details = usage.get("completion_tokens_details") or usage
    kept: FinishReason = "length" if ending.reason == "length" and not ends else "stop"
    return Reply(
        key=request.key,
        text=text[: min(ends)] if ends else text,
        finish_reason=ending.reason if ending.reason in ("too_long", "refused") else kept,  # type: ignore[arg-type]
        prompt_tokens=asked,
        completion_tokens=written,
        cost=(asked * price[0] + written * price[1]) / 1_000_000,
        reasoning=thought,
        reasoning_tokens=int(details.get("reasoning_tokens") or 0),
    )


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message: Mapping[str, Any] = choice.get("delta") or choice.get("message") or {}
    return message
