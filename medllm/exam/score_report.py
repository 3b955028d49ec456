"""Score reports: as text for people and as JSON for programs."""

from collections.abc import Iterator
from typing import Any

from medllm.exam.benchmarks import CATALOGUE
from medllm.exam.scoring import Score, ScoreTally
from medllm.exam.statistics import Interval


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


def score_lines(score: Score) -> Iterator[str]:
    """Yield a score as a table: every number with its denominator and its 95 % interval."""
    prompt = f", {score.prompt}" if score.prompt else ""
    yield f"{score.model}{prompt} on {score.benchmark}, {score.rules} rules"
    yield f"  score     {score.score.value:.4f}  95 % interval {score.score.interval}   (points; {_over(score)})"
    yield f"  accuracy  {score.accuracy.value:.4f}  95 % interval {score.accuracy.interval}   (questions, unweighted)"
    yield f"  {'':24}{'points':>12}{'score':>9}  {'95 % interval':<16}{'correct':>12}{'unparsed':>10}"
    yield _row("all", score.whole)
    for name, tally in score.years.items():
        yield _row(name, tally)
    for part, tallies in score.parts.items():
        for name, tally in tallies.items():
            yield _row(f"section {name}" if part == "section" else name, tally)
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


def warnings(score: Score) -> Iterator[str]:
    """Yield the warnings that a reader needs before quoting the number."""
    if score.missing:
        tried = score.attempted
        yield (
            f"{score.model}: only {tried.count} of {score.whole.count} questions of {', '.join(score.years)} have a"
            f" prediction. The {score.missing} others count as unanswered, with zero points;"
            f" on the {tried.count} alone it is {tried.points:g} of {tried.total:g} points."
        )


def score_json(score: Score) -> dict[str, Any]:
    """Return a score as JSON values."""
    return {
        "benchmark": score.benchmark,
        "rules": score.rules,
        "model": score.model,
        "prompt": score.prompt,
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
            }
            for verdict in score.verdicts
        },
        "missing": score.missing,
        "attempted": _tally(score.attempted),
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
