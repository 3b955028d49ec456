"""Checks of an event's values against the page's own controls, so that a wrong value gives a message, not a crash."""

import inspect
import re
from typing import Any

import gradio as gr

DEEPEST = 16
LONGEST = 4_000
"""Characters of a value whose control sets no length."""

Json = Any


def json_fault(body: Json) -> str | None:
    """Return why a body is not a valid event of any kind; None if it is valid."""
    if not isinstance(body, dict):
        return "the body is no JSON object."
    if _depth(body) > DEEPEST:
        return f"the body is nested more than {DEEPEST} deep."
    if _odd_number(body):
        return "the body holds NaN or an infinite number."
    if _broken_text(body):
        return "the body holds half a character (a lone surrogate)."
    session = body.get("session_hash")
    if session is not None and not _is_name(session):
        return "`session_hash` is at most 64 letters, digits, _ and -."
    return None


def event_fault(demo: gr.Blocks, name: str | None, body: dict[str, Json]) -> str | None:
    """Return why the page has no such event, or why values do not fit its controls; None if all is valid."""
    fn = _function(demo, name, body.get("fn_index"))
    if fn is None:
        public = sorted({one.api_name for one in demo.fns.values() if one.api_visibility == "public"})
        return f"there is no function of that name or number. Functions: {', '.join(public) or 'none'}."
    data, inputs = body.get("data"), fn.inputs
    if not isinstance(data, list):
        return "`data` is a list of values."
    labels = list(inspect.signature(fn.fn).parameters) if fn.api_visibility == "public" else []
    if len(data) != len(inputs):
        wanted = f": {', '.join(labels)}" if labels else ""
        return f"`{fn.api_name}` takes {len(inputs)} values{wanted}; {len(data)} came."
    session = body.get("session_hash")
    for place, (value, control) in enumerate(zip(data, inputs, strict=True)):
        if fault := _value_fault(demo, session, control, value):
            return f"value {place + 1}{f' ({labels[place]})' if labels else ''}: {fault}"
    return _rest_fault(fn, body)


def _function(demo: gr.Blocks, name: str | None, index: Json) -> Any:  # noqa: ANN401  (gradio's function)
    if index is not None:
        found = demo.fns.get(index) if isinstance(index, int) and not isinstance(index, bool) else None
        return found if found is not None and found.fn is not None else None
    public = (fn for fn in demo.fns.values() if fn.api_visibility == "public" and fn.api_name == name)
    return next(public, None)


def _value_fault(demo: gr.Blocks, session: str | None, control: Any, value: Json) -> str | None:  # noqa: ANN401
    """Return why a value cannot come from a control; public functions check their own values."""
    if value is None:
        return None
    longest = getattr(control, "max_length", None) or LONGEST
    if isinstance(value, str) and len(value) > longest:
        return f"at most {longest:,} letters; {len(value):,} came."
    if isinstance(control, gr.Checkbox):
        return None if isinstance(value, bool) else "true or false is wanted."
    if isinstance(control, gr.Textbox | gr.Dropdown | gr.Radio | gr.Button) and not isinstance(value, str):
        return "text is wanted."
    if isinstance(control, gr.Dropdown | gr.Radio):
        state = demo.state_holder.session_data.get(session or "")
        now = state.blocks_config.blocks.get(control._id, control) if state else control
        offered = [one[1] if isinstance(one, tuple | list) else one for one in now.choices]
        return None if value in offered else f"`{value[:80]}` is not among what is offered."
    return None


def _rest_fault(fn: Any, body: dict[str, Json]) -> str | None:  # noqa: ANN401
    trigger, event = body.get("trigger_id"), body.get("event_data")
    if trigger is not None and not isinstance(trigger, int):
        return "`trigger_id` is a number."
    wants = any(
        isinstance(one.annotation, type) and issubclass(one.annotation, gr.EventData)
        for one in inspect.signature(fn.fn).parameters.values()
    )
    if not wants:
        return None
    if not isinstance(event, dict) or not all(isinstance(one, str | int | None) for one in event.values()):
        return "`event_data` is an object of texts."
    if any(isinstance(one, str) and len(one) > LONGEST for one in event.values()):
        return f"`event_data` holds at most {LONGEST:,} letters a text."
    return None


def _is_name(value: Json) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w-]{1,64}", value, re.ASCII) is not None


def _depth(value: Json) -> int:
    deepest, level = 0, [value]
    while level and deepest <= DEEPEST:
        deepest += 1
        level = [
            inner
            for one in level
            for inner in (one.values() if isinstance(one, dict) else one if isinstance(one, list) else ())
        ]
    return deepest


def _broken_text(value: Json) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return any(map(_broken_text, value)) or any(map(_broken_text, value.values()))
    return isinstance(value, list) and any(map(_broken_text, value))


def _odd_number(value: Json) -> bool:
    if isinstance(value, float):
        return value != value or value in (float("inf"), float("-inf"))
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(map(_odd_number, inner))
