"""The stability report: as text for people and as JSON for programs."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from medllm.exam.stability.condition import Condition
from medllm.exam.stability.paired import EXPLAINING, Comparison, PairedChange, margin_claims
from medllm.exam.stability.report import ModelStability, StabilityReport
from medllm.exam.stability.trainings import contrasts, trainings, trainings_lines
from medllm.exam.statistics import INTERVALS, Estimate, Interval

TRIAL = " (a trial: only a part of the exam was asked)"
"""The mark of a line whose numbers are not those of the exam."""
_PROMPTS = {"plain": "asked plainly", "explain": "asked to explain", "think": "asked to think"}
_EFFECTS = {
    EXPLAINING: "explaining changes the score",
    ("plain", "think"): "thinking changes the score of plain answers",
    ("explain", "think"): "thinking instead of explaining changes the score",
}
"""What each paired change is the effect of."""


def report_lines(report: StabilityReport, margin: float | None = None) -> Iterator[str]:
    """Yield the report, model by model, then the comparisons; every number with its denominator and interval.

    `margin` is the loss that would not matter, as a share of the points; each change states whether it is excluded.
    """
    for stability in report.models:
        yield from _model(stability, margin)
        yield ""
    yield from comparison_lines(report, margin)
    seeded = trainings_lines(report, _with_ends)
    yield from (["trained several times", *seeded, ""] if seeded else [])
    yield from OF_WHAT


OF_WHAT = (
    *INTERVALS,
    "Questions are weighted by their points, and those of one vignette count together. p: exact McNemar, two-sided,",
    "of the questions counted beside it, whatever their points. A pass verdict counts that one paper; it is no",
    "estimate and has no interval.",
)
"""The meaning of a report's intervals and p values, in lines for people."""


def _model(stability: ModelStability, margin: float | None) -> Iterator[str]:
    yield f"{stability.model} on {stability.benchmark}{TRIAL if stability.trial else ''}"
    for prompt, condition in stability.conditions.items():
        yield from _condition(_PROMPTS[prompt], condition)
    if not stability.changes:
        asked = next(iter(stability.conditions))
        missing = "explain" if asked == "plain" else "plain"
        yield f"  stability: not measured, there is no reply with prompt `{missing}`"
    for pair, change in stability.changes.items():
        yield from _change(_EFFECTS[pair], change, margin)


def _condition(name: str, condition: Condition) -> Iterator[str]:
    yield (
        f"  {name:<18}score {_number(condition.score)}   {condition.points:g} of {condition.points_total:g} points,"
        f" {condition.questions} questions; accuracy {_number(condition.accuracy)}"
    )
    statuses = [(status, count) for status, count in condition.statuses.items() if status != "answered" and count]
    failed = [f"{count} {status.replace('_', ' ')}" for status, count in statuses]
    facts = [f"no countable answer: {', '.join(failed) or 'none'}"]
    facts += [f"ran on {condition.run_on}"] if condition.run_on else []
    facts += [f"cut off {condition.truncated}"] if condition.truncated else []
    facts += [f"prohibited choices {condition.prohibited}"] if condition.prohibited else []
    facts += [_thinking(condition)] if condition.thought else []
    facts += [f"Japanese {condition.japanese} of {condition.worded} worded replies"] if condition.worded else []
    yield f"  {'':<18}{'; '.join(facts)}; median {condition.characters:g} characters"
    if condition.consistency:
        same = condition.consistency
        yield (
            f"  {'':<18}{same.questions} questions with at least {same.samples} samples: agreement"
            f" {same.agreement:.3f}, unanimous {same.unanimous:.3f}, entropy {same.entropy:.2f} bits, majority right"
            f" {same.majority_accuracy:.3f}"
        )
    if condition.calibration:
        sure = condition.calibration
        yield (
            f"  {'':<18}calibration by {sure.source}, {sure.questions} questions: Brier {sure.brier:.3f},"
            f" expected calibration error {sure.ece:.3f}"
        )
    yield from (f"  {'':<18}{verdict}" for verdict in condition.verdicts)


def _thinking(condition: Condition) -> str:
    tokens = condition.reasoning_tokens
    length = "" if tokens is None else f", median {tokens:g} tokens"
    return f"thought before {condition.thought} of {condition.questions} replies{length}"


def _claims(change: Estimate, margin: float | None) -> Iterator[str]:
    """Yield what the interval of a change proves for a margin."""
    claims = margin_claims(change, margin)
    if claims is not None:
        points = f"{100 * claims.margin:g} points"
        yield f"    the loss is smaller than {points}: {'shown' if claims.not_worse else 'not shown'} (non-inferiority)"
        yield f"    the change is within ±{points}: {'shown' if claims.equivalent else 'not shown'} (equivalence)"


def _change(effect: str, change: PairedChange, margin: float | None) -> Iterator[str]:
    unpaired = f" ({change.unpaired} asked only one way are left out)" if change.unpaired else ""
    delta = _number(change.delta, sign=True)
    yield f"  {effect} by {delta} over {change.questions} questions{unpaired}"
    yield from _claims(change.delta, margin)
    kinds = [f"{change.lost_unread} of them without an answer"] if change.lost_unread else []
    kinds += [f"{change.lost_cut} of these cut off"] if change.lost_cut else []
    kinds += [f"{change.lost_prohibited} to a prohibited choice"] if change.lost_prohibited else []
    unread = f" ({', '.join(kinds)})" if kinds else ""
    yield f"    lost {change.lost}{unread}, gained {change.gained}, p {_p(change.p)}"
    shown = ", ".join(f"{name.replace('_', '-')} {count}" for name, count in change.transitions.items())
    yield f"    transitions: {shown}"
    yield from _beyond_chance(change)
    yield f"    retention {_number(change.retention)} of {change.transitions['right_right'] + change.lost} right ones"
    yield f"    churn {_number(change.churn)} of {change.questions}"
    losses = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in change.losses.items() if count)
    yield f"    the {change.lost} lost ones: {losses or 'none'}"
    yield (
        f"    where both replies could be read ({change.readable} questions) it changes by"
        f" {_number(change.delta_readable, sign=True)}"
    )
    if change.judged:
        agreed = f"{change.agreeing} of {change.judged} that give some"
        yield f"    the answer agrees with the explanation's own verdicts in {agreed}"


def _beyond_chance(change: PairedChange | Comparison) -> Iterator[str]:
    """Yield how many answers are lost and gained beyond those that guesses lose and gain."""
    if change.by_chance is not None and change.lost_beyond_chance and change.gained_beyond_chance:
        yield f"    by chance {change.by_chance:.1f} would be lost and as many gained (guesses on what is not known):"
        lost, gained = (_questions(estimate) for estimate in (change.lost_beyond_chance, change.gained_beyond_chance))
        yield f"    beyond that {lost} lost, {gained} gained"


def comparison_lines(report: StabilityReport, margin: float | None = None) -> Iterator[str]:
    """Yield every comparison of two models, prompt by prompt, each prompt with an empty line at its end."""
    for prompt in dict.fromkeys(comparison.prompt for comparison in report.comparisons):
        yield f"models compared, {_PROMPTS[prompt]} (score of the second minus score of the first)"
        for comparison in report.comparisons:
            if comparison.prompt == prompt:
                yield _comparison(comparison)
                yield from _beyond_chance(comparison)
                yield from _claims(comparison.difference, margin)
        yield ""


def _comparison(comparison: Comparison) -> str:
    first, second, without = comparison.first, comparison.second, comparison.only_first_unread
    unread = f" ({without} of them since {second} gave no answer)" if without else ""
    return (
        f"  {second} minus {first} on {comparison.benchmark}: {_number(comparison.difference, sign=True)},"
        f" {comparison.questions} questions, only {first} right {comparison.only_first}{unread}, only {second} right"
        f" {comparison.only_second}, p {_p(comparison.p)}, Holm {_p(comparison.p_holm)}"
        f"{TRIAL if comparison.trial else ''}"
    )


def _number(estimate: Estimate, *, sign: bool = False) -> str:
    if estimate.value is None:
        return "undefined"
    form = "+z.3f" if sign else "z.3f"
    if estimate.interval is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} [{estimate.interval.low:{form}}, {estimate.interval.high:{form}}]"


def _questions(estimate: Estimate) -> str:
    """Write a number of questions with its interval, as +6.2 [+1.0, +13.5]."""
    value = f"{estimate.value:+z.1f}"
    return f"{value} [{estimate.interval.low:+z.1f}, {estimate.interval.high:+z.1f}]" if estimate.interval else value


def _with_ends(value: float, interval: Interval | None, signed: bool) -> str:
    return _number(Estimate(value, interval), sign=signed)


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.4f}"


def report_json(report: StabilityReport, margin: float | None = None) -> dict[str, Any]:
    """Return the report as JSON values: the dataclasses of the report, names as in docs/evaluation.md."""
    return {
        "models": [_stability_json(stability, margin) for stability in report.models],
        "comparisons": [
            asdict(comparison) | _claims_json(comparison.difference, margin) for comparison in report.comparisons
        ],
        "trainings": [asdict(training) for training in trainings(report)],
        "contrasts": [asdict(contrast) for contrast in contrasts(report)],
    }


def _claims_json(change: Estimate, margin: float | None) -> dict[str, Any]:
    claims = margin_claims(change, margin)
    return {} if claims is None else {"claims": asdict(claims)}


def _stability_json(stability: ModelStability, margin: float | None) -> dict[str, Any]:
    conditions = {}
    for prompt, condition in stability.conditions.items():
        conditions[prompt] = asdict(condition)
        passed = {str(verdict.year): verdict.passed for verdict in condition.verdicts}
        conditions[prompt]["verdicts"] = {
            str(verdict["year"]): verdict | {"passed": passed[str(verdict["year"])]}
            for verdict in conditions[prompt]["verdicts"]
        }
    return {
        "benchmark": stability.benchmark,
        "model": stability.model,
        "trial": stability.trial,
        "conditions": conditions,
        "change": _change_json(stability.change, margin) if stability.change else None,
        "changes": [_change_json(change, margin) for change in stability.changes.values()],
    }


def _change_json(change: PairedChange, margin: float | None) -> dict[str, Any]:
    return asdict(change) | _claims_json(change.delta, margin)
