"""Results of a model's evaluation, for its card: plain against explained with intervals, and as metadata."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from medllm.exam.estimates import Estimate
from medllm.exam.records import read_records
from medllm.exam.stability.report import Stability, stability_report
from medllm.files import write_text
from medllm.hub import Artifact, Hub
from medllm.pipeline.plan import BuildPlan
from medllm.recipe.reference import Stage

_FIGURES = 2
"""The number of the way in which figures are computed: what another way left in the work folder does not count."""


@dataclass(frozen=True)
class ResultRow:
    """One model on one exam, in values that a card prints."""

    model: str
    exam: str
    questions: int
    plain: float | None
    plain_text: str
    explain: float | None
    explain_text: str
    delta: float | None
    delta_low: float | None
    delta_text: str


@dataclass(frozen=True)
class EvaluationResults:
    """All rows of an evaluation, and where its answers are."""

    artifact: Artifact
    rows: tuple[ResultRow, ...]

    @property
    def worst_delta(self) -> float | None:
        """The far end of the final model's interval, over all exams; None when one was not asked both ways."""
        ends = [row.delta_low for row in self.rows if row.model == "final"]
        return min((end for end in ends if end is not None), default=None) if None not in ends else None

    def of(self, stage: Stage, plan: BuildPlan) -> dict[str, Any] | None:
        """Select the results for the card of this stage's model; None when the evaluation did not ask that model."""
        name = _asked_as(stage, plan)
        own = [row for row in self.rows if row.model == name]
        if not own:
            return None
        compared = [row for row in self.rows if row.model == name or row.model in ("base", "cpt")]
        return {
            "repo_id": self.artifact.repo_id,
            "commit": self.artifact.revision,
            "rows": [asdict(row) for row in compared],
            "index": [{"name": plan.recipe.name, "results": [self._indexed(row) for row in own]}],
            "eval_results": yaml.safe_dump([one for row in own for one in self._entries(row)], sort_keys=False),
        }

    def _indexed(self, row: ResultRow) -> dict[str, Any]:
        """One entry of `model-index`, which all readers of cards know."""
        told = {"plain": row.plain, "explain": row.explain, "explained minus plain": row.delta}
        return {
            "task": {"type": "question-answering"},
            "dataset": {"name": row.exam, "type": self.artifact.repo_id, "revision": self.artifact.revision},
            "metrics": [
                {"type": "accuracy", "name": f"score, {name}", "value": round(value, 4)}
                for name, value in told.items()
                if value is not None
            ],
        }

    def _entries(self, row: ResultRow) -> list[dict[str, Any]]:
        """Entries of `.eval_results`, one for each way of asking."""
        return [
            {
                "dataset": {
                    "id": self.artifact.repo_id,
                    "task_id": f"{row.exam}-{prompt}",
                    "revision": self.artifact.revision,
                },
                "value": round(value, 4),
                "notes": f"{row.questions} questions, prompt: {prompt}",
            }
            for prompt, value in (("plain", row.plain), ("explain", row.explain))
            if value is not None
        ]


def results_of(plan: BuildPlan, made: Mapping[Stage, Artifact], hub: Hub, work: Path) -> EvaluationResults | None:
    """The evaluation of this plan, or None when there is none; read once for each of its commits."""
    artifact = made.get("evaluate")
    if artifact is None or plan.recipe.evaluate is None:
        return None
    known = work / plan.recipe.name / f"results-{artifact.revision[:12]}-{_FIGURES}.json"
    if known.is_file():
        return EvaluationResults(
            artifact, tuple(ResultRow(**row) for row in json.loads(known.read_text(encoding="utf-8")))
        )
    folder = hub.pull(artifact)
    if not (folder / "records").is_dir():
        return None
    rows = tuple(row_of(one) for one in stability_report(read_records(folder)).models)
    write_text(known, json.dumps([asdict(row) for row in rows]))
    return EvaluationResults(artifact, rows)


def _asked_as(stage: Stage, plan: BuildPlan) -> str | None:
    """The name under which a stage's model was asked; the merged model answers as what it was merged from."""
    recipe = plan.recipe
    if recipe.evaluate is None:
        return None
    names = {source: name for name, source in recipe.evaluate.models.items()}
    if stage in names:
        return names[stage]
    return names.get(recipe.merge.model) if stage == "merge" and recipe.merge else None


def row_of(one: Stability) -> ResultRow:
    """The values that a card prints of one model on one exam."""
    plain, explain = one.conditions.get("plain"), one.conditions.get("explain")
    delta = one.change.delta if one.change else None
    return ResultRow(
        model=one.model,
        exam=one.benchmark,
        questions=max(condition.questions for condition in one.conditions.values()),
        plain=plain.score.value if plain else None,
        plain_text=format_estimate(plain.score if plain else None),
        explain=explain.score.value if explain else None,
        explain_text=format_estimate(explain.score if explain else None),
        delta=delta.value if delta else None,
        delta_low=delta.interval.low if delta and delta.interval else None,
        delta_text=format_estimate(delta, signed=True),
    )


def format_estimate(estimate: Estimate | None, *, signed: bool = False) -> str:
    """A score as people read it: 67.9 (60.1 to 74.0), or a dash for what was not asked."""
    if estimate is None or estimate.value is None:
        return "-"
    sign = "+" if signed else ""
    value = f"{100 * estimate.value:{sign}.1f}"
    if estimate.interval is None:
        return value
    return f"{value} ({100 * estimate.interval.low:{sign}.1f} to {100 * estimate.interval.high:{sign}.1f})"
