"""Figures of votes: win rates, Bradley-Terry strengths, and how far raters agree; each with a 95 % interval.

The command line and the page print these figures and compute none of their own.
"""

import csv
import io
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from scipy.special import expit

from medllm.exam.statistics import ClusteredSample, Floats, codes, share_interval
from medllm.votes.agreement import DRAWS, Agreement, agreement, percentiles
from medllm.votes.vote import REASONS, Choice, Vote, counted

Cluster = Literal["question", "rater"]
TOLERANCE = 1e-9
MOST_STEPS = 100


@dataclass(frozen=True)
class WinRate:
    """How often a model's explanation was preferred; a tie and "both bad" are half a win for each side."""

    model: str
    votes: int
    """Judgements in which the model was one of the two."""
    wins: int
    losses: int
    ties: int
    bad: int
    share: float
    """(wins + half of ties and bad) / votes."""
    low: float
    high: float
    """The 95 % interval of the share; votes on one question count as a cluster."""
    reasons: dict[str, int]
    """How often each reason was ticked against the model."""


@dataclass(frozen=True)
class Strength:
    """A coefficient of a Bradley-Terry model, in log odds, with its 95 % bootstrap interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class VoteReport:
    """Every figure of a set of votes."""

    votes: int
    """Judgements that count: the last one of each rater on each pair, without skips."""
    corrected: int
    """Votes that a later one of the same rater on the same pair replaced."""
    skipped: int
    raters: int
    questions: int
    choices: dict[str, int]
    roles: dict[str, int]
    """Judgements by stated profession; an empty name is one who stated none."""
    win_rates: list[WinRate]
    by_reason: dict[str, list[WinRate]]
    """Among the judgements in which the reason was ticked on either side."""
    by_role: dict[str, list[WinRate]]
    cluster: Cluster
    """What the bootstrap of the strengths draws whole."""
    clusters: int
    strengths: list[Strength]
    """Bradley-Terry strengths, which sum to 0; the best model first."""
    at_equal_length: list[Strength]
    """The same with the difference in length as a further coefficient."""
    length_effect: Strength | None
    """Log odds of preferring a text for (own length - other's) / (sum of both) = 1."""
    agreement: Agreement

    def to_json(self) -> dict[str, Any]:
        """Return the report for JSON: nan, a figure that does not exist, becomes null."""
        values: dict[str, Any] = _without_nan(asdict(self))
        return values


def vote_report(votes: Sequence[Vote], cluster: Cluster = "question") -> VoteReport:
    """Compute every figure; `cluster` is what the bootstrap of the strengths draws whole."""
    last = counted(votes)
    judged = [vote for vote in last if vote.choice != "skip"]
    strengths, _ = bradley_terry(judged, cluster)
    controlled, effect = bradley_terry(judged, cluster, length=True)
    return VoteReport(
        votes=len(judged),
        corrected=len({vote.vote_id for vote in votes}) - len(last),
        skipped=len(last) - len(judged),
        raters=len({vote.rater for vote in judged}),
        questions=len({_question(vote) for vote in judged}),
        choices=dict(Counter(vote.choice for vote in judged)),
        roles=dict(Counter(vote.role for vote in judged)),
        win_rates=win_rates(judged),
        by_reason=_grouped(
            judged, lambda vote: [reason for reason in REASONS if reason in vote.reasons_a + vote.reasons_b]
        ),
        by_role=_grouped(judged, lambda vote: [vote.role] if vote.role else []),
        cluster=cluster,
        clusters=len({_cluster(vote, cluster) for vote in judged}),
        strengths=strengths,
        at_equal_length=controlled,
        length_effect=effect,
        agreement=agreement(judged),
    )


def win_rates(votes: Sequence[Vote]) -> list[WinRate]:
    """Return each model's rate, the highest first."""
    of_model: dict[str, list[tuple[float, Vote]]] = defaultdict(list)
    for vote in votes:
        for model, points in ((vote.model_a, _points(vote.choice)), (vote.model_b, 1 - _points(vote.choice))):
            of_model[model].append((points, vote))
    return sorted(
        (_win_rate(model, seen) for model, seen in of_model.items()), key=lambda figure: (-figure.share, figure.model)
    )


def _win_rate(model: str, seen: list[tuple[float, Vote]]) -> WinRate:
    points = np.array([value for value, _ in seen])
    clusters = codes([_question(vote) for _, vote in seen])
    interval = share_interval(
        points, ClusteredSample(np.ones(len(seen)), clusters, np.zeros(len(seen), dtype=np.int64))
    )
    choices = Counter(vote.choice for _, vote in seen)
    against = Counter(
        reason for _, vote in seen for reason in (vote.reasons_a if vote.model_a == model else vote.reasons_b)
    )
    return WinRate(
        model,
        len(seen),
        int((points == 1).sum()),
        int((points == 0).sum()),
        choices["tie"],
        choices["bad"],
        float(points.mean()),
        interval.low,
        interval.high,
        {reason: against[reason] for reason in REASONS if against[reason]},
    )


def report_lines(report: VoteReport) -> list[str]:
    """Return the report as text for a terminal."""
    choices = ", ".join(f"{name} {count}" for name, count in sorted(report.choices.items()))
    lines = [
        f"{report.votes} votes by {report.raters} raters on {report.questions} questions ({choices or 'none'}); "
        f"{report.corrected} corrected, {report.skipped} skipped",
        "",
        *_rate_lines("Win rates (a tie and both bad are half a win)", report.win_rates),
    ]
    for role, rates in report.by_role.items():
        lines += _rate_lines(f"Win rates by {role}", rates)
    for reason, rates in report.by_reason.items():
        lines += _rate_lines(f"Win rates where `{reason}` was ticked on either side", rates)
    drawn = f"bootstrap of {report.clusters} {report.cluster}s"
    lines += _strength_lines(f"Bradley-Terry strengths in log odds ({drawn})", report.strengths)
    effect = [report.length_effect] if report.length_effect else []
    lines += _strength_lines("The same at equal length, and the effect of length", [*report.at_equal_length, *effect])
    agreed = report.agreement
    lines.append(f"Agreement on {agreed.shared} shared pairs ({agreed.pairs} couples of judgements)")
    if agreed.pairs:
        lines.append(f"  equal choices      {100 * agreed.equal:.1f} %")
        named = (
            ("Cohen's kappa", agreed.cohen),
            ("Fleiss' kappa", agreed.fleiss),
            ("Krippendorff", agreed.krippendorff),
        )
        lines += [f"  {name:<18} {_figure(figure.value, figure.low, figure.high)}" for name, figure in named]
    return lines


def _rate_lines(title: str, rates: Sequence[WinRate]) -> list[str]:
    lines = [title]
    for rate in rates:
        ticked = ", ".join(f"{reason} {count}" for reason, count in rate.reasons.items())
        share = f"{100 * rate.share:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
        counts = f"{rate.wins} won, {rate.losses} lost, {rate.ties} ties, {rate.bad} both bad"
        lines.append(
            f"  {rate.model:<18} {share}  n = {rate.votes}: {counts}{f'; against it: {ticked}' if ticked else ''}"
        )
    return [*lines, ""]


def _strength_lines(title: str, strengths: Sequence[Strength]) -> list[str]:
    return [
        title,
        *(
            f"  {strength.name:<18} {_figure(strength.value, strength.low, strength.high, '+.2f')}"
            for strength in strengths
        ),
        "",
    ]


def _figure(value: float, low: float, high: float, form: str = ".2f") -> str:
    """Return a figure with its interval, or without it where there is none."""
    if math.isnan(value):
        return "not defined"
    return f"{value:{form}}" + (" (too few for an interval)" if math.isnan(low) else f" [{low:{form}}, {high:{form}}]")


def votes_csv(votes: Sequence[Vote]) -> str:
    """Return every vote as CSV, with a column for whether it counts; cells that a spreadsheet runs are quoted."""
    standing = {vote.vote_id for vote in counted(votes)}
    out = io.StringIO()
    writer = csv.DictWriter(out, [*(field.name for field in fields(Vote)), "counts"], lineterminator="\r\n")
    writer.writeheader()
    for vote in votes:
        cells = {name: _cell(value) for name, value in asdict(vote).items()}
        writer.writerow(cells | {"counts": vote.vote_id in standing})
    return "\ufeff" + out.getvalue()


def _cell(value: object) -> object:
    text = " | ".join(map(str, value)) if isinstance(value, tuple) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _grouped(votes: Sequence[Vote], groups: Callable[[Vote], Sequence[str]]) -> dict[str, list[WinRate]]:
    members: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        for group in groups(vote):
            members[group].append(vote)
    return {group: win_rates(members[group]) for group in sorted(members)}


def bradley_terry(
    votes: Sequence[Vote], cluster: Cluster = "question", *, length: bool = False
) -> tuple[list[Strength], Strength | None]:
    """Fit log odds(A preferred to B) = strength of A - strength of B, and with `length` + effect x relative length.

    A tie and "both bad" are half a win for each. Each coefficient has a log-F(1, 1) prior, which is one invented tie
    (Greenland and Mansournia 2015): a model that won every vote keeps a finite strength. Intervals are percentiles of
    a bootstrap that draws questions or raters whole; below two of these they are nan.
    """
    models = sorted({model for vote in votes for model in (vote.model_a, vote.model_b)})
    if not models:
        return [], None
    design, won = _rows(votes, models, length=length)
    members = codes([_cluster(vote, cluster) for vote in votes])
    point = _fit(design, won, np.ones(len(votes)), np.zeros(design.shape[1]))
    size, chance = int(members.max()) + 1, np.random.default_rng(0)
    drawn = [
        _fit(design, won, np.bincount(chance.integers(size, size=size), minlength=size)[members].astype(float), point)
        for _ in range(DRAWS if size > 1 else 0)
    ]
    low, high = percentiles(np.array([_centred(draw, len(models)) for draw in drawn]).reshape(len(drawn), len(point)))
    value = _centred(point, len(models))
    strengths = [
        Strength(*of) for of in zip([*models, "length"], value.tolist(), low.tolist(), high.tolist(), strict=False)
    ]
    return sorted(strengths[: len(models)], key=lambda figure: -figure.value), strengths[-1] if length else None


def _rows(votes: Sequence[Vote], models: list[str], *, length: bool) -> tuple[Floats, Floats]:
    """Return a row a vote, +1 for A and -1 for B (and the relative length of A), and A's share of the win."""
    design = np.zeros((len(votes), len(models) + length))
    place = {model: at for at, model in enumerate(models)}
    for row, vote in zip(design, votes, strict=True):
        row[place[vote.model_a]], row[place[vote.model_b]] = 1.0, -1.0
        if length:
            row[-1] = (vote.length_a - vote.length_b) / max(vote.length_a + vote.length_b, 1)
    return design, np.array([_points(vote.choice) for vote in votes])


def _fit(design: Floats, won: Floats, weights: Floats, start: Floats) -> Floats:
    """Maximise the penalised likelihood by Newton's method, halving a step that does not increase it."""
    strengths, best = start, _likelihood(design, won, weights, start)
    for _ in range(MOST_STEPS):
        chance, own = expit(design @ strengths), expit(strengths)
        slope = design.T @ (weights * (won - chance)) + 0.5 - own
        curve = (design.T * (weights * chance * (1 - chance))) @ design + np.diag(own * (1 - own))
        step = np.linalg.solve(curve, slope)
        while (reached := _likelihood(design, won, weights, strengths + step)) < best - TOLERANCE:
            step = step / 2
        strengths, best = strengths + step, reached
        if float(np.abs(step).max()) < TOLERANCE:
            break
    return strengths


def _likelihood(design: Floats, won: Floats, weights: Floats, at: Floats) -> float:
    """Return the log likelihood of the votes and of one tie for each coefficient."""
    odds = design @ at
    return float(weights @ (won * odds - np.logaddexp(0, odds)) + (0.5 * at - np.logaddexp(0, at)).sum())


def _centred(strengths: Floats, models: int) -> Floats:
    """Return the coefficients with strengths that sum to 0; only their differences count."""
    shifted = strengths.copy()
    shifted[:models] -= strengths[:models].mean()
    return shifted


def _points(choice: Choice) -> float:
    return {"a": 1.0, "b": 0.0}.get(choice, 0.5)


def _question(vote: Vote) -> tuple[str, str]:
    return vote.benchmark, vote.question_id


def _cluster(vote: Vote, cluster: Cluster) -> object:
    return vote.rater if cluster == "rater" else _question(vote)


def _without_nan(value: Any) -> Any:  # noqa: ANN401  (JSON)
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
