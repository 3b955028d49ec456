"""Files that the page offers: one comparison as Markdown, a filtered list as CSV or JSON lines."""

import csv
import io
import json
from collections.abc import Sequence

from medllm.exam.question import Question
from medllm.exam.record import Record
from medllm.page.context import PageContext
from medllm.page.html import word

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
)


def comparison(page: PageContext, key: str, language: str) -> str:
    """Return one question with all replies as Markdown; replies are in fences that they cannot close."""
    question = page.results.question(key)
    origin = page.results.origin
    source = origin.name + (f"@{origin.revision}" if origin.revision else "")
    parts = [
        f"# {question.benchmark} {question.question_id}",
        f"> {word('disclaimer', language)}\n>\n> {word(origin.marking + '_hint', language)} {source}",
        _asked(question, language),
    ]
    for (model, prompt), record in page.results.replies(key).items():
        parts.append(
            f"## {model} · {word(prompt, language)}\n\n{_verdict(record, language)}\n\n{fenced(record.completion)}"
        )
    return "\n\n".join(parts) + "\n"


def _asked(question: Question, language: str) -> str:
    choices = "\n".join(
        f"{letter.upper()}. {text}" for letter, text in zip(question.letters, question.choices, strict=True)
    )
    text = "\n\n".join(part for part in (question.context, question.text, choices) if part)
    return f"{fenced(text)}\n\n{word('key', language)}: {question.gold_answer.upper()}"


def _verdict(record: Record, language: str) -> str:
    verdict = word("unparsed" if record.answer is None else "right" if record.correct else "wrong", language)
    status = "" if record.status == "answered" else f" ({word(record.status, language)})"
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


def table(records: Sequence[Record], form: str) -> str:
    """Return records as CSV or as JSON lines; cells that a spreadsheet would run as a formula are quoted."""
    rows = [{name: getattr(record, name) for name in COLUMNS} for record in records]
    if form == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    return "\ufeff" + out.getvalue()


def _inert(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
