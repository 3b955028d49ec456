"""Several trainings of one row, one per seed: their mean, and the interval that another training may move it by."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import mean, stdev

from medllm.exam.record import PROMPTS, PromptStyle
from medllm.exam.stability.paired import EXPLAINING, PAIRS, Pair
from medllm.exam.stability.report import ModelStability, StabilityReport, column_of
from medllm.exam.statistics import Estimate, Interval

_SEEDED = re.compile(r"(?P<row>.+?)[-_. @]*seed[-_= ]*(?P<seed>\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class OverTrainings:
    """A number's mean over several trainings."""

    mean: float
    interval: Interval | None
    """The 95 % interval of the mean over trainings and questions: both errors, added as squares."""
    over_trainings: Interval | None
    """The t interval over the trainings alone, on these questions; its width is 0 if all trainings give the same."""
    values: tuple[float, ...]
    """The number of each training, in the order of their seeds."""


@dataclass(frozen=True, slots=True)
class Trainings:
    """One row of a table that was trained several times."""

    benchmark: str
    row: str
    models: tuple[str, ...]
    """The trained models, in the order of their seeds; the one without a seed in its name comes first."""
    scores: dict[PromptStyle, OverTrainings]
    delta: OverTrainings | None
    """Explained minus plain."""
    thinking: dict[str, OverTrainings]
    """The changes that thinking brings, by the key of their column in the table."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """The difference of two rows that were trained with the same seeds, training by training."""

    benchmark: str
    prompt: PromptStyle
    first: str
    second: str
    difference: OverTrainings
    """Score of the second row minus score of the first, paired by seed."""


def row_and_seed(model: str) -> tuple[str, int | None]:
    """Return the row of a model's name, and the seed of its training.

    >>> row_and_seed("final-seed2"), row_and_seed("final")
    (('final', 2), ('final', None))
    """
    match = _SEEDED.fullmatch(model)
    return (match["row"], int(match["seed"])) if match else (model, None)


def trainings(report: StabilityReport) -> list[Trainings]:
    """Return every row of the report that has at least two trainings, exam by exam."""
    groups = []
    for (benchmark, row), models in _rows(report).items():
        kinds: dict[PromptStyle, OverTrainings] = {}
        for prompt in PROMPTS:
            estimates = [model.conditions[prompt].score for model in models if prompt in model.conditions]
            over = over_trainings(estimates)
            if over is not None and len(estimates) == len(models):
                kinds[prompt] = over
        deltas = {column_of(pair): over for pair in PAIRS if (over := _change_over(models, pair)) is not None}
        delta = deltas.pop(column_of(EXPLAINING), None)
        groups.append(Trainings(benchmark, row, tuple(model.model for model in models), kinds, delta, deltas))
    return groups


def _change_over(models: Sequence[ModelStability], pair: Pair) -> OverTrainings | None:
    """Return a paired change over trainings that were all asked both ways."""
    changes = [model.changes[pair].delta for model in models if pair in model.changes]
    return over_trainings(changes) if len(changes) == len(models) else None


def contrasts(report: StabilityReport) -> list[Contrast]:
    """Return every two rows of the report that share at least two seeds, exam by exam and prompt by prompt."""
    pairs: dict[tuple[str, PromptStyle, str, str], dict[int | None, Estimate]] = {}
    for comparison in report.comparisons:
        (first, seed), (second, same) = row_and_seed(comparison.first), row_and_seed(comparison.second)
        if seed == same and first != second:
            pairs.setdefault((comparison.benchmark, comparison.prompt, first, second), {})[seed] = comparison.difference
    results = []
    for (benchmark, prompt, first, second), by_seed in pairs.items():
        over = over_trainings([by_seed[seed] for seed in sorted(by_seed, key=_order)])
        if over is not None:
            results.append(Contrast(benchmark, prompt, first, second, over))
    return results


def over_trainings(estimates: Sequence[Estimate]) -> OverTrainings | None:
    """Return the mean of several trainings' numbers with its intervals; None for fewer than two."""
    values = [estimate.value for estimate in estimates if estimate.value is not None]
    if len(values) < 2 or len(values) < len(estimates):
        return None
    middle, half = mean(values), t_half_width(values)
    alone = Interval(middle - half, middle + half)
    ends = [estimate.interval for estimate in estimates if estimate.interval is not None]
    if len(ends) < len(values):
        return OverTrainings(middle, None, alone, tuple(values))
    below = mean(value - end.low for value, end in zip(values, ends, strict=True))
    above = mean(end.high - value for value, end in zip(values, ends, strict=True))
    both = Interval(middle - sqrt(half**2 + below**2), middle + sqrt(half**2 + above**2))
    return OverTrainings(middle, both, alone, tuple(values))


def t_half_width(values: Sequence[float]) -> float:
    """Return half the width of the 95 % t interval of a mean of at least two values.

    >>> round(t_half_width([-5.0, -6.1, -2.5]), 2)
    4.58
    """
    # Here, not above: `medllm --help` must not wait 0.1 s for scipy.
    from scipy.special import stdtrit

    return float(stdtrit(len(values) - 1, 0.975)) * stdev(values) / sqrt(len(values))


def trainings_lines(report: StabilityReport, show: Callable[[float, Interval | None, bool], str]) -> list[str]:
    """Return the rows with several trainings as text; `show` writes a number with its interval, signed or not."""
    lines = []
    for training in trainings(report):
        lines.append(
            f"  {training.row}, {len(training.models)} trainings ({', '.join(training.models)}), {training.benchmark}:"
        )
        scores = [(prompt, over, False) for prompt, over in training.scores.items()]
        kinds = [*scores, *([("explained minus plain", training.delta, True)] if training.delta else [])]
        kinds += [(name.replace("_", " "), over, True) for name, over in training.thinking.items()]
        lines += [_line(f"    mean {name}", over, show, signed=signed) for name, over, signed in kinds]
    for pair in contrasts(report):
        name = (
            f"  {pair.second} minus {pair.first}, {pair.prompt}, {len(pair.difference.values)} seeds, {pair.benchmark}"
        )
        lines.append(_line(name, pair.difference, show, signed=True))
    return lines


def _line(name: str, over: OverTrainings, show: Callable[[float, Interval | None, bool], str], *, signed: bool) -> str:
    both = show(over.mean, over.interval, signed)
    return f"{name}: {both} over trainings and questions; {show(over.mean, over.over_trainings, signed)} over trainings"


def _rows(report: StabilityReport) -> dict[tuple[str, str], list[ModelStability]]:
    """Return the models of each exam and row that has several trainings, in the order of their seeds."""
    rows: dict[tuple[str, str], list[ModelStability]] = {}
    for model in report.models:
        rows.setdefault((model.benchmark, row_and_seed(model.model)[0]), []).append(model)
    return {
        key: sorted(models, key=lambda model: _order(row_and_seed(model.model)[1]))
        for key, models in rows.items()
        if len(models) > 1
    }


def _order(seed: int | None) -> int:
    return -1 if seed is None else seed
