"""The verdict matrix and the models' columns: one value and one template, so that one component has all streams."""

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from medllm.exam.record import PROMPTS, PromptStyle, Record
from medllm.page.difference import difference_fold
from medllm.page.html import both, hidden, safe, shortened
from medllm.page.live import LiveAnswers, clock
from medllm.page.markdown import raw_link, reply_html, thinking_html
from medllm.page.results import key_of
from medllm.side_by_side import Cell, Flip, State, flip_between

# The template only joins strings that the server has escaped. It must never hold double braces: Gradio would
# expand them first.
TEMPLATE = """<div class="matrix-box">${value.matrix}</div><div class="folds">${value.chips}${value.differ}</div>
<div class="columns ${value.mode}" data-key="${value.key}"
 style="--lines:${value.lines}">${value.columns.map(column => `<section class="card model ${column.kind}"
 data-m="${column.at}" aria-labelledby="${column.id}"><h2 id="${column.id}">${column.head}</h2
>${column.cells.map(cell => `<div class="answer-of"><div class="line ${cell.kind}">${cell.line}</div>
<div class="reply ${cell.kind}" tabindex="0" role="region" aria-labelledby="${cell.id}"><span class="sr" id="${cell.id}"
>${cell.label}</span>${cell.body}</div><div class="below">${value.more}${cell.notes}</div>
</div>`).join('')}</section>`).join('')}</div>
<div class="prompts">${value.prompts}</div>"""

MORE = (
    f'<p class="more"><button type="button" class="linkish" data-switch="whole" aria-expanded="false">'
    f'{both("whole_reply")}</button><button type="button" class="linkish" data-end>{both("reply_end")}</button></p>'
)
"""The buttons below a reply that is longer than its box: all replies whole, and the end of this one."""

STAGES = ("base", "cpt", "cpt-rpo", "final", "cpt-dpo", "rpo-only")

READING: tuple[PromptStyle, ...] = ("explain", "think", "plain")
"""The order of replies in a column: the explanation is what is read, the matrix shows a plain answer."""

Cells = Mapping[tuple[str, PromptStyle], Cell | Record]
"""What the grid shows, by model and prompt: recorded replies, or live ones as far as they have come."""


def grid_value(
    cells: Cells,
    *,
    key: str | None,
    models: Sequence[str],
    notes: Mapping[str, str],
    now: LiveAnswers | None = None,
    held: Sequence[PromptStyle] = (),
) -> dict[str, object]:
    """Return the template's value; replies are the only strings that grow, so streams are sent as appends.

    A prompt has a row where the results (`held`) or these answers have replies under it.

    `cells` are recorded replies, and each live answer of `now` gets a row below the recorded one. To a reader's own
    question, whose `key` is None, there are live answers alone. The value names its question: the browser shows it
    under no other.
    """
    own = now if key is None else None
    if own is not None:
        cells, now = own.cells, None
    answers: Cells = now.cells if now else {}
    models = [*models, *dict.fromkeys(model for model, _ in answers if model not in models)]
    asked = {*held, *(style for _, style in {**cells, **answers})}
    prompts = tuple(prompt for prompt in PROMPTS if prompt in asked)
    flips: Flips = {
        (model, prompt): flip_between(cells.get((model, "plain")), cells.get((model, prompt)))
        for model in models
        for prompt in prompts
    }
    matrix = _matrix(cells, models, prompts, flips, now) if models else ""
    columns: list[dict[str, object]] = [
        {"at": place}
        | _column(f"{'' if key else 'own-'}{place}", model, cells, prompts, flips, notes.get(model, ""), now, own)
        for place, model in enumerate(models)
    ]
    boxes = "".join(_prompt_box(key, prompt, now is not None) for prompt in prompts) if key else ""
    live = own or now
    writing = live is not None and any(cell.state in ("waiting", "running") for cell in live.cells.values())
    mode = ("writing " if writing else "") + ("own " if own else "") + ("many" if len(models) > MANY else "")
    lines = 1 + 3 * max((len(_list(column["cells"])) for column in columns), default=0)
    chips = model_chips(models) if key and len(models) > 1 else ""
    recorded = [cell for cell in cells.values() if isinstance(cell, Record)]
    return {"mode": mode, "lines": lines, "chips": chips, "matrix": matrix, "columns": columns} | {
        "key": safe(key or ""),
        "more": MORE,
        "prompts": boxes,
        "differ": difference_fold(key or "", recorded, live) if key or own else "",
    }


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


MANY = 4
"""Models above which columns and the matrix scroll sideways."""


def model_chips(models: Sequence[str]) -> str:
    """Return the fold in which a reader chooses, pins and orders the models; the browser keeps the choice."""
    chips = "".join(
        f'<li data-m="{place}" data-name="{safe(model)}"><button type="button" data-hide aria-pressed="true">'
        f"{safe(model)}</button>"
        + "".join(
            f'<button type="button" data-{action}><span aria-hidden="true">{sign}</span>'
            f"{hidden(f'chip_{action}', model=model)}</button>"
            for action, sign in (("pin", "★"), ("earlier", "‹"), ("later", "›"))
        )
        + "</li>"
        for place, model in enumerate(models)
    )
    return (
        f'<details class="chips"><summary>{both("chips")} <b data-shown-models>{len(models)}</b> / {len(models)}'
        f'</summary><ul>{chips}</ul><button type="button" class="linkish" data-all-models>{both("chips_all")}</button>'
        "</details>"
    )


Flips = Mapping[tuple[str, PromptStyle], Flip | None]
"""What each prompt did to a model's plain verdict."""


def _matrix(
    cells: Cells, models: Sequence[str], prompts: Sequence[PromptStyle], flips: Flips, now: LiveAnswers | None
) -> str:
    places = {model: f'data-m="{place}"' for place, model in enumerate(models)}
    head = "".join(
        f'<th scope="col" role="columnheader" {places[model]} title="{safe(model)}">'
        f'<span class="name">{safe(model)}</span></th>'
        for model in models
    )
    rows = ""
    for prompt in prompts:
        row = "".join(_verdict(places[model], cells.get((model, prompt)), flips[model, prompt]) for model in models)
        rows += f'<tr role="row"><th scope="row" role="rowheader">{both(prompt)}</th>{row}</tr>'
        if now and any(style == prompt for _, style in now.cells):
            row = "".join(
                _verdict(places[model], now.cells.get((model, prompt)), None, cells.get((model, prompt)))
                for model in models
            )
            rows += (
                f'<tr class="now" role="row"><th scope="row" role="rowheader">{both("live")} {safe(now.time)}</th>'
                f"{row}</tr>"
            )
    return (
        f'<table class="matrix{" many" if len(models) > MANY else ""}" role="table" style="--models:{len(models)}">'
        f'<caption class="sr">{both("verdicts")}</caption><thead role="rowgroup"><tr role="row"><td role="cell"></td>'
        f'{head}</tr></thead><tbody role="rowgroup">{rows}</tbody></table>'
    )


def _verdict(place: str, cell: Cell | Record | None, flip: Flip | None, before: Cell | Record | None = None) -> str:
    state = _state(cell)
    if cell is None or state == "absent":
        return f'<td role="cell" {place} class="none">·{hidden("absent")}</td>'
    if state != "done":
        return f'<td role="cell" {place} class="{state}">{both(state)}</td>'
    mark, kind = _mark(cell)
    # On a phone there is no room for words beside four models or more; the mark shows the same there.
    unread = f'<span class="word">{both("done" if cell.correct is None else "unparsed")}</span>'
    answer = safe(cell.answer.upper()) if cell.answer else unread
    sign = {"lost": "▼", "harmed": "▼", "gained": "▲"}.get(flip or "", "")
    turned = f'<span class="turned" aria-hidden="true">{sign}</span>{hidden(flip)}' if flip else ""
    harm = f'<span class="harm">⚠{hidden("prohibited")}</span>' if cell.prohibited else ""
    other = f'<span class="other">≠{hidden("differs")}</span>' if _differs(cell, before) else ""
    return f'<td role="cell" {place} class="{kind} {flip or ""}">{answer} {mark}{harm}{turned}{other}</td>'


def _differs(cell: Cell | Record, before: Cell | Record | None) -> bool:
    """Return whether a finished live answer is another than the recorded one."""
    return before is not None and _state(cell) == "done" and cell.answer != before.answer


def _state(cell: Cell | Record | None) -> State:
    if cell is None:
        return "absent"
    return "done" if isinstance(cell, Record) else cell.state


def _mark(cell: Cell | Record) -> tuple[str, str]:
    if cell.correct is None:
        return hidden("unscored"), "unscored"
    if cell.answer is None:
        return f'<span aria-hidden="true">?</span>{hidden("unparsed")}', "unparsed"
    word = "right" if cell.correct else "wrong"
    return f'<span aria-hidden="true">{"✓" if cell.correct else "✗"}</span>{hidden(word)}', word


def _column(
    place: str,
    model: str,
    cells: Cells,
    prompts: Sequence[PromptStyle],
    flips: Flips,
    note: str,
    now: LiveAnswers | None,
    own: LiveAnswers | None,
) -> dict[str, object]:
    flip = flips.get((model, "explain"))
    shown = []
    for prompt in filter(prompts.__contains__, READING):
        cell = cells.get((model, prompt)) or Cell(model, prompt, "absent")
        shown.append(_cell(place, prompt, cell, flips[model, prompt], both("recorded") if now else "", own))
        if now and (model, prompt) in now.cells:
            shown.append(_live_cell(place, prompt, now, model, cell))
    return {
        "id": f"model-{place}",
        "kind": flip or "",
        "head": f'{safe(model)} {_stage(model)}<small title="{safe(note)}">{safe(note)}</small>',
        "cells": shown,
    }


def _stage(model: str) -> str:
    """Return the meaning of the method's own names, for readers who do not know them."""
    return f'<span class="stage">{both(f"stage_{model}")}</span>' if model in STAGES else ""


def _live_cell(
    place: str, prompt: PromptStyle, now: LiveAnswers, model: str, before: Cell | Record
) -> dict[str, object]:
    """Return the row of a live answer: when and by whom it was given, and whether it differs from the recorded one."""
    cell = now.cells[model, prompt]
    source = f"{both('live')} {safe(clock(now.asked_at((model, prompt))))} <small>{safe(now.origin(model))}</small>"
    shown = _cell(f"{place}-now", prompt, cell, None, source, now)
    other = f'<span class="badge odd">≠ {both("differs")}</span>' if _differs(cell, before) else ""
    return shown | {"kind": f"{prompt} now", "line": f"{shown['line']}{other}"}


def _cell(
    place: str,
    prompt: PromptStyle,
    cell: Cell | Record,
    flip: Flip | None,
    source: str = "",
    now: LiveAnswers | None = None,
) -> dict[str, object]:
    again = "" if now is None else _again(now, cell)
    return {
        "id": f"reply-{place}-{prompt}",
        "kind": prompt,
        "label": both("reply_of", model=cell.model) + both(prompt),
        "line": f'<span class="asked">{both(prompt)}{f" · {source}" if source else ""}</span>{_badges(cell, flip)}',
        "body": _body(cell),
        "notes": _notes(cell) + again,
    }


def _again(now: LiveAnswers, cell: Cell | Record) -> str:
    """Return the button that asks one cell again; none while it is being written, or where it was not asked."""
    if _state(cell) not in ("done", "failed", "stopped"):
        return ""
    return (
        f'<p class="again"><button type="button" class="linkish" data-again="{cell.prompt} {safe(cell.model)}" '
        f'data-live="{now.name}">{both("ask_again")}</button></p>'
    )


def _badges(cell: Cell | Record, flip: Flip | None) -> str:
    state = _state(cell)
    if state != "done":
        return f'<span class="badge {state}">{both(state)}</span>'
    parts = [f'<b class="answer">{safe(cell.answer.upper())}</b>'] if cell.answer else []
    if cell.answer is None and cell.correct is not None and cell.status in (None, "answered", "unparsed", "refused"):
        parts.append(f'<span class="badge unparsed">? {both("unparsed")}</span>')
    elif cell.answer is not None and cell.correct is not None:
        word = "right" if cell.correct else "wrong"
        parts.append(
            f'<span class="badge {word}"><span aria-hidden="true">'
            f"{'✓' if cell.correct else '✗'}</span> {both(word)}</span>"
        )
    if cell.status not in (None, "answered", "unparsed"):
        parts.append(f'<span class="badge odd">{both(cell.status)}</span>')
    if flip:
        parts.append(f'<span class="badge {flip}">{both(flip)}</span>')
    if cell.prohibited:
        parts.append(f'<span class="badge harm">⚠ {both("prohibited")} {safe(cell.prohibited.upper())}</span>')
    return "".join(parts)


def _body(cell: Cell | Record) -> str:
    text = cell.completion if isinstance(cell, Record) else cell.text
    thought = cell.reasoning or ""
    if _state(cell) != "done":
        return thinking_html(thought) + shortened(text.lstrip())
    if text.strip() or thought.strip():
        return reply_html(text, thought, _reply_address(cell) if isinstance(cell, Record) else "")
    return f'<em class="quiet">{both("empty_reply")}</em>'


def _notes(cell: Cell | Record) -> str:
    notes = []
    if isinstance(cell, Cell) and cell.fault:
        notes.append(
            f'<p class="note failed" role="alert">{both("fault_" + cell.fault.kind, detail=cell.fault.detail)}</p>'
        )
    if _state(cell) == "done" and cell.status and cell.status != "answered":
        notes.append(f'<p class="note">{both(cell.status + "_long")}</p>')
    if cell.prohibited:
        notes.append(f'<p class="note harm">{both("prohibited_long")}</p>')
    if isinstance(cell, Record) and cell.completion.strip():
        notes.append(raw_link(_reply_address(cell)))
    return "".join(notes)


def _reply_address(record: Record) -> str:
    key = quote(key_of(record.benchmark, record.question_id), safe="")
    return f"medllm/reply?q={key}&model={quote(record.model, safe='')}&prompt={record.prompt}"


def _prompt_box(key: str, prompt: PromptStyle, live: bool) -> str:
    source = f"medllm/prompt?q={quote(key, safe='')}&prompt={prompt}{'&live=1' if live else ''}"
    return (
        f'<details class="prompt" data-src="{safe(source)}"><summary>{both("show_prompt")}: {both(prompt)}</summary>'
        f'<pre tabindex="0">{both("fetching")}</pre></details>'
    )
