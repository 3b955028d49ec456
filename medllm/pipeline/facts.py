"""The facts that a stage records of its own output: as facts.json, as one sentence, and as a run's table."""

import json
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medllm.exam.record import Record, read_records
from medllm.exam.score_report import p_text
from medllm.exam.stability.report import (
    ScoreRow,
    StabilityReport,
    columns,
    describe_comparison,
    score_table,
)
from medllm.exam.statistics import INTERVALS
from medllm.hub import Artifact, Hub
from medllm.pipeline.plan import BuildPlan
from medllm.pipeline.progress import format_bytes
from medllm.pipeline.results import results_of
from medllm.recipe import Recipe
from medllm.recipe.base import Stage
from medllm.wording import describe_amount, describe_counts, number_of


def facts_of(hub: Hub, artifact: Artifact) -> dict[str, Any]:
    """Read the facts of a stage whose output is on the Hub."""
    path = hub.file(artifact, "facts.json")
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path else {}
    return facts


def read_facts(folder: Path) -> dict[str, Any]:
    """Read the facts that a stage recorded of its own output."""
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return facts


def describe_facts(stage: Stage, facts: Mapping[str, Any]) -> str:
    """Sum up in one sentence what a stage did; empty where its facts do not hold what the sentence needs.

    >>> describe_facts("evaluate", {"replies": 60, "questions": 10, "settings": {"models": {"base": "base"}}})
    '60 replies of 1 model to 10 questions'
    """
    try:
        return SENTENCES[stage](facts)
    except (KeyError, TypeError):
        return ""


def _corpus(facts: Mapping[str, Any]) -> str:
    kept, dropped = facts["documents"], facts["dropped"]
    why = f" ({describe_counts(facts['reasons'])})" if dropped else ""
    size = f"{describe_amount(facts['tokens'])} tokens" if facts["tokens"] else ""
    size = size or f"{describe_amount(facts['characters'])} characters"
    return f"kept {kept:,} of {kept + dropped:,} documents{why}, {size}"


def _cpt(facts: Mapping[str, Any]) -> str:
    return (
        f"trained on {describe_amount(facts['tokens_trained'])} tokens in {number_of(facts['steps'], 'update')} "
        f"({facts['epochs']:.3g} epochs){_loss(facts['first_loss'], facts['last_loss'])}"
    )


def _teach(facts: Mapping[str, Any]) -> str:
    kept, replies = number_of(facts["explanations"], "explanation"), number_of(facts["samples"], "reply")
    cost = f", {facts['cost_in_dollars']:.2f} dollars" if facts.get("cost_in_dollars") else ""
    counts = describe_counts({name: count for name, count in facts["verdicts"].items() if name != "kept"})
    share = f"{facts['questions_explained']:,} of {number_of(facts['questions'], 'question')}"
    return f"kept {kept} of {share}, from {replies} of {facts['teacher']['model']} (not kept: {counts}){cost}"


def _sft(facts: Mapping[str, Any]) -> str:
    return (
        f"trained on {facts['trained']:,} of {facts['conversations_read']:,} conversations "
        f"({describe_amount(facts['tokens_learnt'])} tokens learnt) in {number_of(facts['steps'], 'update')} "
        f"({facts['epochs']:.3g} epochs){_loss(facts['first_loss'], facts['last_loss'])}"
    )


def _preferences(facts: Mapping[str, Any]) -> str:
    pairs, samples, questions = (number_of(facts[f"{noun}s"], noun) for noun in ("pair", "sample", "question"))
    return f"{pairs} from {samples} of {questions} ({describe_counts(facts['labels'])})"


def _rpo(facts: Mapping[str, Any]) -> str:
    first, last = facts["first"] or {}, facts["last"] or {}
    return (
        f"trained on {facts['trained']:,} of {facts['pairs']:,} pairs in {number_of(facts['steps'], 'update')} "
        f"({facts['epochs']:.3g} epochs){_loss(first.get('loss'), last.get('loss'))}"
    )


def _loss(first: object, last: object) -> str:
    return (
        ""
        if first is None or last is None
        else f", loss {float(str(first)):.3f} at first and {float(str(last)):.3f} at last"
    )


def _rounds(facts: Mapping[str, Any]) -> str:
    made = facts["rounds"][1:]
    kept = sum(row["outcome"] == "kept" for row in made)
    ends = {
        "max_rounds": "as many as the recipe allows",
        "no_gain": "the last one shows no gain",
        "worse": "the last one is worse",
        "no_pairs": "no pairs are left",
    }
    result = f"the result is the model of round {facts['round']}"
    if not made:
        return f"no round; {result}"
    prompt, last = facts["settings"]["prompt"], made[-1]
    change = 100 * last[f"{prompt}_difference"]
    tested = f"{last['exam']}, {prompt}: {change:+.1f} points, p {p_text(last[f'{prompt}_p'])}"
    return f"kept {kept} of {number_of(len(made), 'round')}, {ends[facts['stop']]} ({tested}); {result}"


def _grpo(facts: Mapping[str, Any]) -> str:
    watch = facts["watch"]
    first, last = watch["first"], watch["last"]
    return (
        f"trained on {number_of(watch['completions'], 'completion')} to {number_of(facts['questions'], 'question')} in "
        f"{number_of(facts['steps'], 'update')}: reward {first['reward']:.2f} at first and {last['reward']:.2f} at "
        f"last, {100 * first['rewards/answer']:.0f} % and {100 * last['rewards/answer']:.0f} % right answers, "
        f"{100 * last['cut_off']:.0f} % cut off at last"
    )


def _merge(facts: Mapping[str, Any]) -> str:
    certificate = facts.get("certificate")
    size = f"a model of {format_bytes(facts['bytes'])}"
    if certificate is None:
        return f"{size}, without a certificate"
    name = "(merged against adapter)"
    same, answers = certificate.get(f"same answers {name}"), certificate.get(f"answers {name}")
    equal = f": {same} of {answers} answers are the adapter's" if answers else ""
    return f"{size}, whose certificate {certificate['verdict']}{equal}"


def _evaluate(facts: Mapping[str, Any]) -> str:
    models = len(facts["settings"]["models"])
    cost = f", {facts['cost_in_dollars']:.2f} dollars" if facts.get("cost_in_dollars") else ""
    asked = f"{number_of(models, 'model')} to {number_of(facts['questions'], 'question')}"
    return f"{number_of(facts['replies'], 'reply')} of {asked}{cost}"


def _space(facts: Mapping[str, Any]) -> str:
    return f"a page of {', '.join(facts['models_shown'])}, {facts['files']:,} files of results"


SENTENCES: dict[Stage, Callable[[Mapping[str, Any]], str]] = {
    "corpus": _corpus,
    "cpt": _cpt,
    "teach": _teach,
    "sft": _sft,
    "preferences": _preferences,
    "rpo": _rpo,
    "rounds": _rounds,
    "grpo": _grpo,
    "merge": _merge,
    "evaluate": _evaluate,
    "space": _space,
}
"""What each stage did, from its facts."""


SUSPICIOUS = 0.1
"""Share of a model's replies under one prompt from which a reason is named."""

REMEDIES = {
    "truncated": "were cut off: raise evaluate.max_new_tokens.{prompt}",
    "thinking": "were cut off inside their thinking: raise evaluate.max_new_tokens.{prompt}",
    "too_long": "have prompts that do not fit the model: lower evaluate.shots",
    "refused": "were declined by the server or the model: look at some with `medllm app`",
    "unparsed": "hold no answer that can be read: look at some with `medllm app`",
    "loop": "end in a loop: look at some with `medllm app`; a larger max_new_tokens does not help",
    "run_on": "run on into a question of their own without an answer",
    "wrong_count": "name another number of choices than asked for",
}
"""What a rate means and what to do about it, by status."""


def evaluation_summary(plan: BuildPlan, made: Mapping[Stage, Artifact], hub: Hub, work: Path) -> list[str]:
    """Return the table of the evaluation, its folder and suspicious rates; empty where nothing was evaluated."""
    results = results_of(plan, made, hub, work)
    if results is None:
        return []
    folder = hub.pull(results.artifact)
    return [*_table(results.rows), *warnings_of(read_records(folder), plan.recipe), _page_line(folder)]


def summary_lines(report: StabilityReport, folder: Path) -> Iterator[str]:
    """Yield the same table of a folder's results, each model compared with the first, and how to open the page."""
    yield from _table(score_table(report))
    first = {model.benchmark: model.model for model in reversed(report.models)}
    compared = [comparison for comparison in report.comparisons if comparison.first == first[comparison.benchmark]]
    if compared:
        yield ""
        yield "compared on the same questions, in points of 100"
    for row in compared:
        yield f"  {describe_comparison(row, f'{p_text(row.p)} (Holm {p_text(row.p_holm)})')}"
    yield ""
    yield "Points of 100 earned, the mean of the years; a difference is on the same questions."
    yield from INTERVALS
    yield _page_line(folder)


def summary_json(report: StabilityReport, folder: Path) -> dict[str, Any]:
    """Return a folder's results as JSON values: the rows of the table, and the comparisons of every two models."""
    return {
        "folder": str(folder),
        "rows": [row.as_facts() for row in score_table(report)],
        "comparisons": [asdict(comparison) for comparison in report.comparisons],
    }


def _table(rows: Iterable[ScoreRow]) -> list[str]:
    rows = list(rows)
    names = ["model", "exam", "questions", *(column.key for column in columns(rows))]
    cells = [{**dict.fromkeys(names, "-"), **row.as_text()} for row in rows]
    names = [name for name in names if any(row[name] != "-" for row in cells)]
    table = [dict(zip(names, names, strict=True)), *cells]
    widths = {name: max(len(str(row[name])) for row in table) for name in names}
    return ["  ".join(f"{row[name]!s:<{widths[name]}}" for name in names).rstrip() for row in table]


def _page_line(folder: Path) -> str:
    return f"Look at the answers: medllm app {shlex.quote(str(folder))}"


def warnings_of(records: Iterable[Record], recipe: Recipe) -> list[str]:
    """Return a line for each rate of the evaluation that a person should see."""
    references = recipe.evaluate.references if recipe.evaluate else {}
    return list(
        suspicious_rates(records, next((name for name, reference in references.items() if reference == "base"), None))
    )


def suspicious_rates(records: Iterable[Record], base: str | None = None) -> Iterator[str]:
    """Yield a line for each model and prompt with many replies that do not count, or that are the base's own."""
    groups: dict[tuple[str, str, str], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.model, record.prompt, record.benchmark].append(record)
    for (model, prompt, exam), own in groups.items():
        counts: dict[str, int] = defaultdict(int)
        for record in own:
            ended = record.finish_reason
            counts[ended if ended in ("too_long", "refused") else record.status] += 1
        for reason, remedy in REMEDIES.items():
            if counts[reason] and counts[reason] >= SUSPICIOUS * len(own):
                what = remedy.format(prompt=prompt)
                yield f"! {model}, {prompt}, {exam}: {counts[reason]} of {len(own)} replies {what}."
        theirs = {_asked(record): record.completion for record in groups.get((base or "", prompt, exam), [])}
        same = sum(theirs.get(_asked(record)) == record.completion for record in own)
        if base and model != base and same == len(own) and any(record.completion for record in own):
            yield (
                f"! {model}, {prompt}, {exam}: {base} and {model} gave the same reply in {same} of {len(own)}. Is it "
                "the model you mean, and is its adapter served?"
            )


def _asked(record: Record) -> tuple[str, int]:
    return record.question_id, record.sample
