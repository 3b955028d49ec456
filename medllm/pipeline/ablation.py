"""The rows of the ablation table: each a recipe of its own, what they share made once, all asked the same questions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medllm.errors import RecipeError
from medllm.exam.record import Record, read_records
from medllm.exam.stability.paired import Comparison
from medllm.exam.stability.report import (
    ScoreRow,
    StabilityReport,
    columns,
    format_estimate,
    score_table,
    stability_report,
)
from medllm.exam.stability.text import report_json
from medllm.exam.stability.trainings import trainings_lines
from medllm.exam.statistics import Estimate, Interval
from medllm.pipeline.build import BuildContext, Launcher, run
from medllm.pipeline.plan import BuildPlan, make_plan
from medllm.recipe import Recipe, with_overrides

ORDER = ("base", "rpo-only", "cpt", "cpt-dpo", "final")
"""The paper's order; rows of other names go between `cpt-dpo` and `final`."""


WIDTH = 26
"""Letters of a column of the table."""


@dataclass(frozen=True)
class Ablation:
    """The finished table, one row a model."""

    report: StabilityReport
    rows: tuple[str, ...]

    @classmethod
    def of_records(cls, records: list[Record]) -> "Ablation":
        """The table of these replies: each model in them is a row."""
        names = {record.model for record in records}
        own = sorted(names - set(ORDER))
        rows = (name for name in (*ORDER[:-1], *own, ORDER[-1]) if name in names)
        return cls(stability_report(records), tuple(rows))

    def of(self, exam: str) -> list[ScoreRow]:
        """The rows of one exam, in order."""
        rows = {row.model: row for row in score_table(self.report) if row.exam == exam}
        return [rows[name] for name in self.rows if name in rows]

    @property
    def exams(self) -> list[str]:
        """The exams, as they were asked."""
        return list(dict.fromkeys(model.benchmark for model in self.report.models))

    def as_json(self) -> dict[str, Any]:
        """For programs: `rows` is the first exam's, `exams` holds them all with the tests between rows."""
        exams: dict[str, dict[str, Any]] = {
            exam: {"rows": {row.model: _row_json(row) for row in self.of(exam)}, "comparisons": self._comparisons(exam)}
            for exam in self.exams
        }
        written = report_json(self.report)
        for exam, table in exams.items():
            table |= {name: [row for row in written[name] if row["benchmark"] == exam] for name in _OVER_TRAININGS}
        return {"rows": exams[self.exams[0]]["rows"], "exams": exams, "of": " ".join(OF_TRAINED_MODELS)}

    def _comparisons(self, exam: str) -> list[dict[str, Any]]:
        return [
            {
                "prompt": comparison.prompt,
                "first": comparison.first,
                "second": comparison.second,
                "questions": comparison.questions,
                "difference": comparison.difference.value,
                "interval": _ends(comparison.difference),
                "only_first": comparison.only_first,
                "only_second": comparison.only_second,
                "p": comparison.p,
                "p_holm": comparison.p_holm,
            }
            for comparison in self.report.comparisons
            if comparison.benchmark == exam
        ]

    def lines(self) -> list[str]:
        """The table as lines of text."""
        lines = []
        for exam in self.exams:
            shown = columns(self.of(exam))
            lines += [
                f"{exam}: points of 100, with 95 % intervals",
                f"  {'row':<12}{''.join(f'{column.heading:<{WIDTH}}' for column in shown)}".rstrip(),
            ]
            for text in (row.as_text() for row in self.of(exam)):
                cells = "".join(f"{text.get(column.key, '-'):<{WIDTH}}" for column in shown)
                lines.append(f"  {text['model']:<12}{cells}".rstrip())
            lines += _tests([pair for pair in self.report.comparisons if pair.benchmark == exam])
        return [*lines, *trainings_lines(self.report, _shown), *(f"  {line}" for line in OF_TRAINED_MODELS)]


OF_TRAINED_MODELS = (
    "intervals and p are of these trained models and the chance of the questions: p is evidence that these two",
    "trained models differ, not that the methods do. Another training moves a row too: train rows with several seeds",
    "(ROW-seed1, ROW-seed2 ...) for a mean and an interval over trainings.",
)
"""What the table's intervals and p values are of, in lines for people."""
_OVER_TRAININGS = ("trainings", "contrasts")


def _ends(estimate: Estimate | None) -> list[float] | None:
    return None if estimate is None or estimate.interval is None else [estimate.interval.low, estimate.interval.high]


def _shown(value: float, interval: Interval | None, signed: bool) -> str:
    return format_estimate(Estimate(value, interval), signed=signed)


def _tests(pairs: list[Comparison]) -> list[str]:
    """Two things side by side that must not be taken for one: the points between two rows, and a test that counts."""
    if not pairs:
        return []
    lines = [
        f"  {'these two trained models':<38}{'points, 95 %':<26}"
        "questions that only the one or the other got right; p of these"
    ]
    for pair in pairs:
        name = f"{pair.second} minus {pair.first}, {pair.prompt}{' (trial)' if pair.trial else ''}"
        counts = f"{pair.second} {pair.only_second}, {pair.first} {pair.only_first}"
        p = f"p {pair.p:.3g} (Holm {pair.p_holm:.3g})"
        lines.append(f"  {name:<38}{format_estimate(pair.difference, signed=True):<26}{counts}: {p}")
    return lines


def _row_json(row: ScoreRow) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, (_, part) in row.parts().items():
        interval = "interval" if name == "delta" else f"{name}_interval"
        values |= {name: part and part.value, interval: [part.low, part.high] if part else None}
    return values


def row_recipe(recipe: Recipe, name: str) -> Recipe:
    """The recipe of one row: its overrides, its own repositories, and only its own final model asked."""
    if recipe.evaluate is None or "final" not in recipe.evaluate.models:
        raise RecipeError(
            "recipe.no-final-model",
            "ablations: `evaluate.models` has no model `final`, whose variants the rows are. Add it.",
        )
    final = recipe.evaluate.models["final"]
    changes: dict[str, Any] = {"ablations": {}, "name": f"{recipe.name}-{name}", "evaluate.models": {name: final}}
    changes |= {stage: None for stage in ("merge", "space") if stage != final}
    return with_overrides(recipe, {**recipe.ablations[name], **changes})


def ablate(
    recipe: Recipe, bench: BuildContext, launch: Launcher, asked: Callable[[Mapping[str, BuildPlan]], None]
) -> Ablation:
    """Make the recipe and its rows, and compare them; `asked` shows all plans and may refuse."""
    if not recipe.ablations:
        raise RecipeError(
            "recipe.no-ablations", "ablations: the recipe has none. Write rows such as `cpt-dpo: {rpo.rpo_alpha: 0}`."
        )
    recipes = {name: row_recipe(recipe, name) for name in recipe.ablations}
    whole = make_plan(recipe, bench.hub)
    asked({recipe.name: whole, **{name: make_plan(row, bench.hub, shared=whole) for name, row in recipes.items()}})
    records = _records(whole, bench, launch)
    for name, row in recipes.items():
        bench.say(f"row {name}")
        whole = make_plan(recipe, bench.hub)
        records += [
            record
            for record in _records(make_plan(row, bench.hub, shared=whole), bench, launch)
            if record.model == name
        ]
    return Ablation.of_records(records)


def _records(plan: BuildPlan, bench: BuildContext, launch: Launcher) -> list[Record]:
    made = run(plan, bench, launch, lambda plan: None)
    return read_records(bench.hub.pull(made["evaluate"]))


def draw_rows(ablation: Ablation, path: Path) -> None:
    """One figure of all rows: dumbbells from plain to explained."""
    from medllm.exam.stability.plot import draw_stability

    order = {name: place for place, name in enumerate(ablation.rows)}
    models = sorted(ablation.report.models, key=lambda model: order.get(model.model, len(order)))
    draw_stability(replace(ablation.report, models=models), path)
