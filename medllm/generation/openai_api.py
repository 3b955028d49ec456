"""OpenAI's protocols: a request as `/responses` takes it, keys that servers refuse, and answers read as a reply."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medllm.exam.extract.reply import split_thinking
from medllm.generation.types import FinishReason, Reply, Request

TOO_LONG = ("context length", "context window", "maximum context", "too long", "max_model_len", "longer than")
"""What servers write of a prompt that does not fit."""
LATER_NAMES = {"max_tokens": "max_completion_tokens"}
"""Keys that newer servers know under another name."""
OPTIONAL = ("temperature", "top_p", "seed", "stop", "chat_template_kwargs", "store")
"""Keys without which a question can be asked, though by the server's own defaults."""
NO_TEMPLATE = re.compile(r"chat[ _-]?template", re.I)
"""What a server writes of a model that has none."""
NOT_TAKEN = ("unsupported", "not supported", "not support", "unrecognized", "unknown", "not permitted", "extra inputs")
"""What servers write of a key that they do not take."""
RESPONSE_NAMES = {"messages": "input", "max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
"""Keys of a chat completion that the Responses API has under another name."""
NOT_IN_RESPONSES = ("stop", "seed")
"""Keys of a chat completion that the Responses API lacks: a reply is cut at its stop string here."""
STREAMED = {
    "response.output_text.delta": "content",
    "response.reasoning_text.delta": "reasoning_content",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.refusal.delta": "refusal",
}
"""The events of a streamed response that hold text, each with its name in a chat completion."""
ENDS = {"max_output_tokens": "length", "content_filter": "content_filter"}
"""Why a response is incomplete, as a chat completion names it."""
REFUSED = ("content_filter", "refusal")
THINKING = ("reasoning_content", "reasoning", "thinking")
"""The names under which servers keep the thinking apart from the reply."""


def refused_key(sent: Mapping[str, Any], answer: str) -> str | None:
    """Return the key of a request that a server's answer of status 400 refuses, and that can be renamed or left out.

    >>> refused_key({"max_tokens": 8}, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
    'max_tokens'
    >>> refused_key({"temperature": 0.0}, "Unsupported value: 'temperature' does not support 0 with this model.")
    'temperature'
    >>> refused_key({"temperature": 0.0}, "The model `temperature-1` does not exist.")
    """
    lower = answer.lower()
    if "max_tokens" in sent and "max_completion_tokens" in lower:
        return "max_tokens"
    if not any(words in lower for words in NOT_TAKEN):
        return None
    return next((key for key in OPTIONAL if key in sent and re.search(rf"[\"'`]{key}[\"'`]", lower)), None)


def wants_responses(code: int, answer: str) -> bool:
    """Return whether a server that refuses a chat completion may answer at `/responses` instead.

    >>> wants_responses(404, "Not Found"), wants_responses(400, "Use v1/responses."), wants_responses(400, "no key")
    (True, True, False)
    """
    return code == 404 or (code == 400 and "/responses" in answer)


def response_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Write the body of a chat completion as the Responses API takes it; the server is asked to store nothing.

    >>> response_request({"messages": [], "max_tokens": 8, "stop": ["."], "reasoning_effort": "low"})
    {'store': False, 'input': [], 'max_output_tokens': 8, 'reasoning': {'effort': 'low'}}
    """
    renamed = {RESPONSE_NAMES.get(key, key): value for key, value in body.items() if key not in NOT_IN_RESPONSES}
    if effort := renamed.pop("reasoning_effort", None):
        renamed["reasoning"] = {"effort": effort, **renamed.get("reasoning", {})}
    return {"store": False, **renamed}


def choice_of(answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return the choice and the usage of a whole answer; those of a response as a chat completion has them.

    Raises ValueError, LookupError, TypeError or AttributeError for what is no answer.
    """
    usage = answer.get("usage") or {}
    if "output" not in answer:
        return answer["choices"][0], usage
    choice = {"message": _message_of_response(answer), "finish_reason": _end_of_response(answer)}
    return choice, _usage_of_response(answer)


def choice_of_event(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what an event of a streamed answer adds, as a chat completion has it; ValueError for a reported fault."""
    kind = str(event.get("type") or "")
    if kind in STREAMED:
        return {"delta": {STREAMED[kind]: event["delta"]}}
    if kind == "error":
        raise ValueError(f"the server reports {event.get('code') or 'a fault'}")
    if kind in ("response.completed", "response.incomplete", "response.failed"):
        whole = event["response"]
        delta = {"refusal": _message_of_response(whole)["refusal"]}
        return {"delta": delta, "finish_reason": _end_of_response(whole), "usage": _usage_of_response(whole)}
    choice: Mapping[str, Any] = (event.get("choices") or [{}])[0]
    return choice


def _message_of_response(answer: Mapping[str, Any]) -> dict[str, str]:
    """Join the items of a response to one message: a model's thinking, or a summary of it, is in items of its own."""
    parts = list(_parts(answer))
    joined = {kind: "".join(text for part_kind, text in parts if part_kind == kind) for kind, _ in parts}
    thinking = joined.get("reasoning_text") or joined.get("summary_text", "")
    return {"content": joined.get("output_text", ""), "reasoning": thinking, "refusal": joined.get("refusal", "")}


def _parts(answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for item in answer["output"]:
        for part in [*(item.get("summary") or ()), *(item.get("content") or ())]:
            yield part["type"], str(part.get("text") or part.get("refusal") or "")


def _usage_of_response(answer: Mapping[str, Any]) -> dict[str, Any]:
    usage = answer.get("usage") or {}
    counts = {"prompt_tokens": usage.get("input_tokens"), "completion_tokens": usage.get("output_tokens")}
    return {**counts, "completion_tokens_details": usage.get("output_tokens_details")}


def _end_of_response(answer: Mapping[str, Any]) -> str:
    if answer.get("status") == "incomplete":
        return ENDS.get(str((answer.get("incomplete_details") or {}).get("reason")), "length")
    if answer.get("status") not in ("completed", None):
        raise ValueError(f"the server reports {(answer.get('error') or {}).get('code') or answer.get('status')}")
    return "stop"


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
    texts = (_message(choice).get(name) for name in THINKING)
    return next((text for text in texts if isinstance(text, str) and text), "")


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
    text that was cut without them is thinking, unless the server counts thinking that it does not show. `price` is in
    US dollars per million tokens asked and written.
    """
    text, thought = ending.text, ending.thinking
    details = usage.get("completion_tokens_details") or usage
    hidden = int(details.get("reasoning_tokens") or 0)
    if chat and not thought:
        thought, visible = split_thinking(text, thinks=request.thinks and ending.reason == "length" and not hidden)
        text = (visible or "").lstrip() if thought else text
    ends = [at for stop in request.stop if (at := text.find(stop)) >= 0]
    asked, written = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    cut = ending.reason in ("length", "repetition") and not ends
    kept: FinishReason = ending.reason if cut else "stop"  # type: ignore[assignment]
    return Reply(
        key=request.key,
        text=text[: min(ends)] if ends else text,
        finish_reason=ending.reason if ending.reason in ("too_long", "refused") else kept,  # type: ignore[arg-type]
        prompt_tokens=asked,
        completion_tokens=written,
        cost=(asked * price[0] + written * price[1]) / 1_000_000,
        reasoning=thought,
        reasoning_tokens=hidden,
    )


def _message(choice: Mapping[str, Any]) -> Mapping[str, Any]:
    message: Mapping[str, Any] = choice.get("delta") or choice.get("message") or {}
    return message
