"""Score reports: as text for people and as JSON for programs."""

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

from medllm.exam.benchmarks import CATALOGUE
from medllm.exam.scoring import Difference, Score, ScoreTally
from medllm.exam.statistics import INTERVALS, Estimate, Interval


def catalogue_lines() -> Iterator[str]:
    """Yield the catalogue as text: each benchmark's source, date of sitting and permitted use."""
    for benchmark in CATALOGUE.values():
        where = benchmark.source.split(":", 1)
        revision = f"@{benchmark.revision[:8]}" if benchmark.revision else "@COMMIT (pin the one you take)"
        yield f"{benchmark.name}: {benchmark.title}"
        yield f"    from      {'Hugging Face dataset' if where[0] == 'hub' else 'GitHub'} {where[1]}{revision}"
        yield f"    files     {benchmark.files}"
        sat = f"from {benchmark.first}" if benchmark.first else f"no sitting; published {benchmark.published}"
        yield f"    sat       {sat}"
        use = "test only: never learn from it" if benchmark.test_only else "test, or train when not held out"
        yield f"    use       {use}"
        yield f"    licence   {benchmark.license}"
        yield f"    cite      {benchmark.citation}"
        left_out = f" (left out: {benchmark.left_out})" if benchmark.left_out else ""
        yield f"    questions {benchmark.questions}{left_out}"


def catalogue_json() -> list[dict[str, Any]]:
    """Return the catalogue as JSON values."""
    return [
        {
            "name": benchmark.name,
            "title": benchmark.title,
            "source": benchmark.source,
            "revision": benchmark.revision or None,
            "files": benchmark.files,
            "license": benchmark.license,
            "citation": benchmark.citation,
            "first": str(benchmark.first) if benchmark.first else None,
            "published": str(benchmark.published),
            "test_only": benchmark.test_only,
            "language": benchmark.language,
            "questions": benchmark.questions,
            "left_out": benchmark.left_out or None,
        }
        for benchmark in CATALOGUE.values()
    ]


PARTS = ("year", "section", "part", "category", "material", "pass", "all")
"""The divisions of an exam that a report can show, and everything."""


def table_lines(scores: Sequence[Score]) -> Iterator[str]:
    """Yield the table that begins a report: each system's score, and its paired difference to the reference."""
    compared = next((row.difference for row in scores if row.difference is not None), None)
    head = ["model", "exam", "prompt", "score [95 % interval]", "points"]
    if compared:
        name = _name(compared.against, compared.against_prompt)
        head += [f"minus {name} [95 % interval]", "questions", "p", "Holm"]
    rows = [head, *(_cells(row, len(head)) for row in scores)]
    widths = [max(_width(row[column]) for row in rows) for column in range(len(head))]
    for row in rows:
        cells = (cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
    notes = [note for row in scores if (note := scope_note(row)) is not None]
    yield from notes
    yield f"{scores[0].rules} rules; score: points earned / points available, {_over(scores[0])}"
    yield from INTERVALS
    if compared:
        yield "p: exact McNemar, two-sided, of the questions that only one of the two has right; Holm: for all rows."


def _cells(score: Score, columns: int) -> list[str]:
    mark = " (trial)" if score.trial else ""
    cells = [score.model + mark, score.benchmark, score.prompt or "–", _estimate(score.score, ".3f")]
    cells.append(f"{score.whole.points:g} of {score.whole.total:g}")
    difference = score.difference
    if columns > len(cells) and difference is not None:
        cells += [
            _estimate(difference.estimate, "+z.3f"),
            str(difference.questions),
            p_text(difference.p),
            p_text(difference.p_holm),
        ]
    return cells + ["–"] * (columns - len(cells))


def _estimate(estimate: Estimate, form: str) -> str:
    if estimate.value is None or estimate.interval is None:
        return "–"
    return f"{estimate.value:{form}} [{estimate.interval.low:{form}}, {estimate.interval.high:{form}}]"


def p_text(value: float) -> str:
    """Return a p value with four digits, or `< 0.0001`."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _name(model: str, prompt: str | None) -> str:
    return f"{model}, {prompt}" if prompt else model


def _width(text: str) -> int:
    """Return the columns of a terminal that a text takes; full-width characters take two."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def scope_note(score: Score) -> str | None:
    """Return what a reader has to know before quoting a number of a part of an exam; None for whole years."""
    if not score.missing:
        return None
    name, tried = _name(score.model, score.prompt), score.attempted
    of = f"{tried.points:g} of {tried.total:g} points of the questions asked"
    if score.scope == "year":
        return (
            f"{name}: only {tried.count} of {score.whole.count} questions of {', '.join(score.years)} have a"
            f" prediction. The {score.missing} others count as unanswered, with zero points; {of}."
        )
    years = "the year" if len(score.years) == 1 else "the years"
    note = f"{name}: {of}; {score.missing} questions of {years} have no prediction."
    if score.trial:
        return f"{note} A trial: {tried.count} of {tried.count + score.missing} questions, no section or year whole."
    return note


def score_lines(score: Score, by: Sequence[str] = ("all",)) -> Iterator[str]:
    """Yield a score's parts as a table: every number with its denominator and its 95 % interval."""
    prompt = f", {score.prompt}" if score.prompt else ""
    trial = ", a trial" if score.trial else ""
    yield f"{score.model}{prompt} on {score.benchmark}, {score.rules} rules{trial}"
    yield f"  score     {score.score.value:.4f}  95 % interval {score.score.interval}   (points; {_over(score)})"
    yield f"  accuracy  {score.accuracy.value:.4f}  95 % interval {score.accuracy.interval}   (questions, unweighted)"
    yield f"  {'':24}{'points':>12}{'score':>9}  {'95 % interval':<16}{'correct':>12}{'unparsed':>10}"
    yield _row("all", score.whole)
    if {"year", "all"} & set(by):
        for name, tally in score.years.items():
            yield _row(name, tally)
    for part, tallies in score.parts.items():
        for name, tally in tallies.items() if {part, "all"} & set(by) else ():
            yield _row(f"section {name}" if part == "section" else name, tally)
    if not {"pass", "all"} & set(by):
        return
    if score.prohibited_of:
        yield f"  prohibited choices picked: {score.prohibited} of {score.prohibited_of} questions that have some"
    for verdict in score.verdicts:
        yield f"  {verdict}"
    if score.verdicts:
        yield "  pass and fail count that one paper: they are no estimates and have no interval"
    if len(score.years) > 1:
        yield (
            f"  the intervals are of questions like these in these {len(score.years)} years: so few years do not show"
            " how far another year would differ"
        )


def _over(score: Score) -> str:
    return f"the mean of {len(score.years)} years" if len(score.years) > 1 else "one year"


def _row(name: str, tally: ScoreTally) -> str:
    """Format one line of the table; full-width characters count double, so that columns align."""
    wide = sum(ord(letter) > 0x2E80 for letter in name)
    points = f"{tally.points:g}/{tally.total:g}"
    share = "–" if tally.score is None else f"{tally.score:.3f}"
    return (
        f"  {name}{' ' * (24 - len(name) - wide)}{points:>12}{share:>9}  {tally.interval or ''!s:<16}"
        f"{f'{tally.correct}/{tally.count}':>12}{tally.unparsed:>10}"
    )


def score_json(score: Score) -> dict[str, Any]:
    """Return a score as JSON values."""
    return {
        "benchmark": score.benchmark,
        "rules": score.rules,
        "model": score.model,
        "prompt": score.prompt,
        "scope": score.scope,
        "trial": score.trial,
        "note": scope_note(score),
        "score": score.score.value,
        "interval": _ends(score.score.interval),
        "pooled": score.whole.score,
        "accuracy": score.accuracy.value,
        "accuracy_interval": _ends(score.accuracy.interval),
        "all": _tally(score.whole),
        "years": {name: _tally(tally) for name, tally in score.years.items()},
        **{part: {name: _tally(tally) for name, tally in tallies.items()} for part, tallies in score.parts.items()},
        "prohibited": {"picked": score.prohibited, "questions": score.prohibited_of},
        "pass": {
            str(verdict.year): {
                "passed": verdict.passed,
                "required": {
                    "points": verdict.required,
                    "line": verdict.required_line,
                    "total": verdict.required_total,
                },
                "general": {"points": verdict.general, "line": verdict.general_line, "total": verdict.general_total},
                "prohibited": verdict.prohibited,
                "allowed": verdict.allowed,
                "source": verdict.source,
            }
            for verdict in score.verdicts
        },
        "difference": _difference(score.difference),
        "missing": score.missing,
        "attempted": _tally(score.attempted),
    }


def _difference(difference: Difference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    return {
        "against": difference.against,
        "against_prompt": difference.against_prompt,
        "questions": difference.questions,
        "value": difference.estimate.value,
        "interval": _ends(difference.estimate.interval),
        "only_reference": difference.only_reference,
        "only_this": difference.only_this,
        "p": difference.p,
        "p_holm": difference.p_holm,
    }


def _tally(tally: ScoreTally) -> dict[str, Any]:
    return {
        "points": _whole(tally.points),
        "total": _whole(tally.total),
        "correct": tally.correct,
        "count": tally.count,
        "unparsed": tally.unparsed,
        "score": tally.score,
        "interval": _ends(tally.interval),
    }


def _whole(number: float) -> float | int:
    return int(number) if number == int(number) else number


def _ends(interval: Interval | None) -> list[float] | None:
    return None if interval is None else [interval.low, interval.high]
