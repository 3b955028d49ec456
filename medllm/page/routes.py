"""Addresses beside the page: functions for programs, prompts and replies as written, lists as files."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import gradio as gr
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from medllm.errors import MedllmError
from medllm.exam.extract.reply import split_thinking
from medllm.exam.question import Question
from medllm.exam.record import PROMPTS, PromptStyle, Record
from medllm.page.context import PageContext
from medllm.page.difference import difference
from medllm.page.html import LANGUAGES, word
from medllm.page.live import LiveAnswers
from medllm.page.scores import score_lines
from medllm.page.selection import OUTCOMES, Filter, Wanted, options, records_of
from medllm.side_by_side import Cell, Cells

Function = Callable[..., Any]

LONGEST = 200
"""Characters of an argument; keys, names and years are far shorter."""


def functions(page: PageContext) -> dict[str, Function]:
    """Return the functions by the name under which gradio_client calls them."""
    results = page.results

    def question(q: str) -> dict[str, Any]:
        """Return one question by its key (EXAM/ID) or id: text, choices, key and metadata; empty if there is none."""
        key = results.find(_text("q", q))
        if key is None:
            return {}
        recorded = results.question(key)
        fields = {
            name: getattr(recorded, name) for name in ("question_id", "benchmark", "text", "choices", "year", "section")
        }
        return fields | {"choices": list(recorded.choices), "answer": recorded.gold_answer, "points": recorded.points}

    def comparison(q: str) -> list[dict[str, Any]]:
        """Return every model's reply to one question under both prompts, with its verdict."""
        key = results.find(_text("q", q))
        return [] if key is None else [asdict(record) for record in results.replies(key).values()]

    def scores(exam: str = "", year: str = "", section: str = "", category: str = "") -> list[dict[str, Any]]:
        """Return every model's accuracy, plain and explained, with 95 % intervals, the paired change and its counts."""
        mask = _narrow(page, exam=exam, year=year, section=section, category=category).mask(results)
        rows = [row.to_json() for row in score_lines(results, mask, "accuracy")]
        return [{name: value for name, value in row.items() if name != "exam"} for row in rows]

    def flips(model: str, outcome: str = "lost", exam: str = "", year: str = "") -> list[str]:
        """Return the keys of the questions with this outcome for a model: lost, gained, kept, never, plain_right ..."""
        asked = {"model": _one_of("model", model, results.models), "outcome": _one_of("outcome", outcome, OUTCOMES)}
        narrow = _narrow(page, exam=exam, year=year)
        return Wanted.read(asked | {"exam": narrow.exam, "year": narrow.year}, results).keys(results)

    return {"question": question, "comparison": comparison, "scores": scores, "flips": flips}


def _narrow(page: PageContext, **asked: object) -> Filter:
    """Build a filter by values that exist; an empty text means all."""
    fields = {"exam": "benchmark"}
    values = {
        name: "" if value == "" else _one_of(name, value, options(page.results, fields.get(name, name)))
        for name, value in asked.items()
    }
    return Filter(values["exam"], values["year"], values.get("section", ""), values.get("category", ""))


def _one_of(name: str, value: object, offered: Sequence[str]) -> str:
    text = _text(name, value)
    if text not in offered:
        shown = ", ".join(list(offered)[:20]) + (", ..." if len(offered) > 20 else "")
        raise _fault(f"{name}: there is no `{text}`. There is: {shown or 'none'}.")
    return text


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _fault(f"{name}: text is wanted, in quotation marks; this is {_kind(value)}.")
    if len(value) > LONGEST:
        raise _fault(f"{name}: at most {LONGEST} letters; {len(value):,} came.")
    return value


def _kind(value: object) -> str:
    kinds = {"NoneType": "null", "bool": "true or false", "int": "a number", "float": "a number", "list": "a list"}
    return kinds.get(type(value).__name__, "an object")


def _fault(text: str) -> gr.Error:
    """Return an error for the caller; it is expected, so no traceback is logged."""
    return gr.Error(text, print_exception=False)


INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"}
"""Model output leaves as a file that no browser renders."""


def routes(page: PageContext) -> list[BaseRoute]:
    """Return the addresses of one page."""

    def markdown(request: Request) -> Response:
        query = request.query_params
        key = page.results.find(query.get("q"))
        answers = page.answers.of(query.get("live", ""), key or "")
        if key is None and (answers is None or answers.question is None):
            return PlainTextResponse("no such question", status_code=404)
        language = query.get("lang", "ja")
        text = comparison(page, key, language if language in LANGUAGES else "ja", answers)
        return attachment(text, f"{(key or 'question').replace('/', '-')}.md", "text/markdown")

    def listed(request: Request) -> Response:
        form = request.path_params["form"]
        if form not in ("csv", "jsonl"):
            return PlainTextResponse("lists are .csv and .jsonl", status_code=404)
        wanted = Wanted.read(dict(request.query_params), page.results)
        kind = "text/csv" if form == "csv" else "application/jsonl"
        records = records_of(page.results, wanted, only=request.query_params.get("only") == "1")
        columns = columns_of(request.query_params.get("columns", ""))
        return attachment(lines(records, form, columns), f"{wanted.model}-{wanted.outcome}.{form}", kind)

    def prompt(request: Request) -> Response:
        query = request.query_params
        key = page.results.find(query.get("q"))
        style: PromptStyle = next((style for style in PROMPTS if style == query.get("prompt")), "plain")
        if key is None:
            return PlainTextResponse("no such question", status_code=404)
        if query.get("live") and page.live is not None:
            return PlainTextResponse(page.live.prompt(page.results.question(key), style), headers=INERT)
        language = "en" if query.get("lang") == "en" else "ja"
        return PlainTextResponse(exact_prompt(page, key, style, language), headers=INERT)

    def reply(request: Request) -> Response:
        query = request.query_params
        key = page.results.find(query.get("q"))
        record = _reply(page, key, f"{query.get('prompt', '')} {query.get('model', '')}")
        if record is None:
            return PlainTextResponse("no such reply", status_code=404)
        thought = (record.reasoning or "") + split_thinking(record.completion)[0]
        return PlainTextResponse(thought if query.get("part") == "thinking" else record.completion, headers=INERT)

    def differing(request: Request) -> Response:
        query = request.query_params
        key = page.results.find(query.get("q"))
        now = page.answers.of(query.get("live", ""), key or "")
        first, second = (_shown_reply(page, key, query.get(side, ""), now) for side in "ab")
        question = page.results.question(key) if key is not None else now.question if now else None
        if question is None or first is None or second is None:
            return PlainTextResponse("no such reply", status_code=404)
        return HTMLResponse(difference(question, first, second), headers=INERT)

    return [
        _get("/medllm/difference", differing),
        _get("/medllm/prompt", prompt),
        _get("/medllm/reply", reply),
        _get("/medllm/comparison.md", markdown),
        _get("/medllm/list.{form:str}", listed),
    ]


def _reply(page: PageContext, key: str | None, name: str) -> Record | None:
    """Return the recorded reply named by its prompt and its model; None if there is none."""
    prompt, _, model = name.partition(" ")
    style = next((style for style in page.results.prompts if style == prompt), None)
    return page.results.record(key, model, style) if key and style else None


def _shown_reply(page: PageContext, key: str | None, name: str, now: LiveAnswers | None) -> Record | Cell | None:
    """Return the reply that a list names: a recorded one, or (`live PROMPT MODEL`) one of the live answers."""
    if not name.startswith("live "):
        return _reply(page, key, name)
    prompt, _, model = name.removeprefix("live ").partition(" ")
    cells = now.cells.items() if now else ()
    return next((cell for (of, style), cell in cells if (of, style) == (model, prompt)), None)


def attachment(text: str | Iterable[str], name: str, kind: str) -> Response:
    """Return text as a download; pieces are sent as they come, so that a long list is never whole in memory."""
    safe_name = "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "_" for letter in name
    )
    headers = INERT | {"Content-Disposition": f'attachment; filename="{safe_name}"'}
    if isinstance(text, str):
        return Response(text.encode(), media_type=f"{kind}; charset=utf-8", headers=headers)
    return StreamingResponse(text, media_type=f"{kind}; charset=utf-8", headers=headers)


def _get(path: str, call: Callable[[Request], Response]) -> BaseRoute:
    return Route(path, call, methods=["GET"])


def exact_prompt(page: PageContext, key: str, style: PromptStyle, language: str) -> str:
    """Return the prompt of a question as text, after a line that states whether it equals the recorded one exactly."""
    results = page.results
    records = (results.record(key, model, style) for model in results.models)
    record = next((candidate for candidate in records if candidate), None)
    if record is None:
        return word("absent", language)
    try:
        prompt = results.prompt_of(record)
    except MedllmError as fault:
        return f"{word('prompt_unsure', language)}\n\n{fault}"
    matched = record.prompt_hash is not None and prompt.hash == record.prompt_hash
    note = word("prompt_exact" if matched else "prompt_unsure", language)
    if results.run_of(record).get("format") == "chat":
        return f"[{note} {word('prompt_chat', language)}]\n\n{prompt.conversation}"
    return f"[{note}]\n\n{prompt.text}"


COLUMNS = (
    "benchmark",
    "question_id",
    "year",
    "section",
    "category",
    "model",
    "prompt",
    "status",
    "answer",
    "gold",
    "correct",
    "completion",
    "reasoning",
)


def comparison(page: PageContext, key: str | None, language: str, now: LiveAnswers | None = None) -> str:
    """Return one question with all replies, recorded and live, as Markdown; they cannot close their fences.

    Without a key it is the reader's own question, whose live answers are `now`.
    """
    if key is None:
        assert now is not None
        assert now.question is not None
        question, recorded, title = now.question, {}, word("own_question", language)
        source = word("live_hint", language)
    else:
        question, recorded = page.results.question(key), page.results.replies(key)
        title, origin = f"{question.benchmark} {question.question_id}", page.results.origin
        source = f"{word(origin.marking + '_hint', language)} {origin.name}"
        source += f"@{origin.revision}" if origin.revision else ""
    parts = [f"# {title}", f"> {word('disclaimer', language)}\n>\n> {source}", _asked(question, language)]
    live: Cells = now.cells if now else {}
    for model, prompt in dict.fromkeys((*recorded, *live)):
        head = f"## {model} · {word(prompt, language)}"
        if (model, prompt) in recorded:
            parts += [head, *_saved(recorded[model, prompt], language)]
        if now and (model, prompt) in live:
            at = now.asked_at((model, prompt))
            parts.append(f"{head} · {word('live', language)} {at:%Y-%m-%dT%H:%MZ} ({now.origin(model)})")
            parts += _saved(live[model, prompt], language)
    return "\n\n".join(parts) + "\n"


def _saved(cell: Record | Cell, language: str) -> list[str]:
    """Return one reply as Markdown: its verdict or state, its text, and what the model thought."""
    text = cell.completion if isinstance(cell, Record) else cell.text
    parts = [_verdict(cell, language), fenced(text)]
    if cell.reasoning:
        thinking = word("thinking_of", language, n=f"{len(cell.reasoning):,}")
        parts.append(f"{thinking}\n\n{fenced(cell.reasoning)}")
    return parts


def _asked(question: Question, language: str) -> str:
    choices = "\n".join(
        f"{letter.upper()}. {text}" for letter, text in zip(question.letters, question.choices, strict=True)
    )
    text = "\n\n".join(part for part in (question.context, question.text, choices) if part)
    key = f"\n\n{word('key', language)}: {question.gold_answer.upper()}" if question.has_key else ""
    return f"{fenced(text)}{key}"


def _verdict(record: Record | Cell, language: str) -> str:
    if isinstance(record, Cell) and record.state != "done":
        return word(record.state, language)
    if record.correct is None:  # a question of the reader's own
        return (record.answer or word("done", language)).upper()
    verdict = word("unparsed" if record.answer is None else "right" if record.correct else "wrong", language)
    status = "" if record.status in (None, "answered") else f" ({word(record.status, language)})"
    return f"{(record.answer or '–').upper()} {verdict}{status}"


def fenced(text: str) -> str:
    """Put text in a code fence longer than any run of backticks in it.

    >>> print(fenced("a ``` b").splitlines()[0])
    ````text
    """
    longest, run = 2, 0
    for letter in text:
        run = run + 1 if letter == "`" else 0
        longest = max(longest, run)
    fence = "`" * (longest + 1)
    return f"{fence}text\n{text}\n{fence}"


PIECE = 64_000
"""Characters of a download that are sent at once."""


TEXTS = ("completion", "reasoning")
"""The columns that make a download large."""


def columns_of(wanted: str) -> Sequence[str]:
    """Return the columns of a download: those that are named, `no-texts` for all but the replies' texts, else all."""
    if wanted == "no-texts":
        return [name for name in COLUMNS if name not in TEXTS]
    return [name for name in COLUMNS if name in wanted.split(",")] or COLUMNS


def lines(records: Iterable[Record], form: str, columns: Sequence[str] = COLUMNS) -> Iterator[str]:
    """Yield records as CSV or as JSON lines, in pieces; cells that a spreadsheet would run as a formula are quoted."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\r\n")
    if form == "csv":
        out.write("\ufeff")
        writer.writeheader()
    for record in records:
        row = {name: getattr(record, name) for name in columns}
        if form == "csv":
            writer.writerow({name: _inert(value) for name, value in row.items()})
        else:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
        if out.tell() > PIECE:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
