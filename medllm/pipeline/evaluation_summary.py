"""What a run prints of its evaluation: the card's table, where the answers are, and rates that a person should see."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from medllm.exam.record import Record, read_records
from medllm.hub import Artifact, Hub
from medllm.pipeline.plan import BuildPlan
from medllm.pipeline.results import results_of
from medllm.recipe.reference import Stage

SUSPICIOUS = 0.1
"""Share of a model's replies under one prompt from which a reason is named."""

REMEDIES = {
    "truncated": "were cut off: raise evaluate.max_new_tokens",
    "too_long": "have prompts that do not fit the model: lower evaluate.shots",
    "refused": "were refused by the server for their content",
    "unparsed": "hold no answer that can be read: look at some with `medllm app`",
    "loop": "end in a repetition",
    "run_on": "run on into a question of their own without an answer",
    "wrong_count": "name another number of choices than asked for",
}
"""What a rate means, by status (`too_long` and `refused` by the reason why the reply ended)."""


def evaluation_summary(plan: BuildPlan, made: Mapping[Stage, Artifact], hub: Hub, work: Path) -> list[str]:
    """Return the table of the evaluation, its folder and suspicious rates; empty where nothing was evaluated."""
    results = results_of(plan, made, hub, work)
    if results is None:
        return []
    names = ("model", "exam", "questions", "plain", "explain", "delta")
    rows = [dict(zip(names, names, strict=True)), *(row.as_text() for row in results.rows)]
    widths = {name: max(len(str(row[name])) for row in rows) for name in names}
    lines = ["  ".join(f"{row[name]!s:<{widths[name]}}" for name in names).rstrip() for row in rows]
    folder = hub.pull(results.artifact)
    base = next((name for name, source in _references(plan).items() if source == "base"), None)
    return [*lines, *suspicious_rates(read_records(folder), base), f"Look at the answers: medllm app {folder}"]


def _references(plan: BuildPlan) -> dict[str, str]:
    return plan.recipe.evaluate.references if plan.recipe.evaluate else {}


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
                yield f"! {model}, {prompt}, {exam}: {counts[reason]} of {len(own)} replies {remedy}."
        theirs = {_asked(record): record.completion for record in groups.get((base or "", prompt, exam), [])}
        same = sum(theirs.get(_asked(record)) == record.completion for record in own)
        if base and model != base and same == len(own) and any(record.completion for record in own):
            yield (
                f"! {model}, {prompt}, {exam}: {base} and {model} gave the same reply in {same} of {len(own)}. Is it "
                "the model you mean, and is its adapter served?"
            )


def _asked(record: Record) -> tuple[str, int]:
    return record.question_id, record.sample
