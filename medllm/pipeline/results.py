"""Results of a model's evaluation, for its card: plain against explained with intervals, and as metadata."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from medllm.exam.record import read_records
from medllm.exam.stability.report import score_table, stability_report
from medllm.exam.stability.table import ScoreRow
from medllm.files import write_text
from medllm.hub import Artifact, Hub
from medllm.pipeline.plan import BuildPlan
from medllm.recipe.reference import Stage

_FIGURES = 3
"""The number of the way in which figures are computed: what another way left in the work folder does not count."""


@dataclass(frozen=True)
class EvaluationResults:
    """All rows of an evaluation, and where its answers are."""

    artifact: Artifact
    rows: tuple[ScoreRow, ...]

    @property
    def worst_delta(self) -> float | None:
        """The far end of the final model's interval, over all exams; None when one was not asked both ways."""
        ends = [row.change.low if row.change else None for row in self.rows if row.model == "final"]
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
            "rows": [row.as_text() for row in compared],
            "index": [{"name": plan.recipe.name, "results": [self._indexed(row) for row in own]}],
            "eval_results": yaml.safe_dump([one for row in own for one in self._entries(row)], sort_keys=False),
        }

    def _indexed(self, row: ScoreRow) -> dict[str, Any]:
        """One entry of `model-index`, which all readers of cards know."""
        columns = {"plain": row.plain, "explain": row.explain, "explained minus plain": row.change}
        return {
            "task": {"type": "question-answering"},
            "dataset": {"name": row.exam, "type": self.artifact.repo_id, "revision": self.artifact.revision},
            "metrics": [
                {"type": "accuracy", "name": f"score, {name}", "value": round(part.value, 4)}
                for name, part in columns.items()
                if part is not None
            ],
        }

    def _entries(self, row: ScoreRow) -> list[dict[str, Any]]:
        """Entries of `.eval_results`, one for each way of asking."""
        return [
            {
                "dataset": {
                    "id": self.artifact.repo_id,
                    "task_id": f"{row.exam}-{prompt}",
                    "revision": self.artifact.revision,
                },
                "value": round(share.value, 4),
                "notes": f"{row.questions} questions, prompt: {prompt}",
            }
            for prompt, share in row.shares.items()
            if share is not None
        ]


def results_of(plan: BuildPlan, made: Mapping[Stage, Artifact], hub: Hub, work: Path) -> EvaluationResults | None:
    """The evaluation of this plan, or None when there is none; read once for each of its commits."""
    artifact = made.get("evaluate")
    if artifact is None or plan.recipe.evaluate is None:
        return None
    known = work / plan.recipe.name / f"results-{artifact.revision[:12]}-{_FIGURES}.json"
    if known.is_file():
        rows = json.loads(known.read_text(encoding="utf-8"))
        return EvaluationResults(artifact, tuple(ScoreRow.from_json(row) for row in rows))
    folder = hub.pull(artifact)
    if not (folder / "records").is_dir():
        return None
    table = score_table(stability_report(read_records(folder)))
    write_text(known, json.dumps([row.to_json() for row in table]))
    return EvaluationResults(artifact, tuple(table))


def _asked_as(stage: Stage, plan: BuildPlan) -> str | None:
    """The name under which a stage's model was asked; the merged model answers as what it was merged from."""
    recipe = plan.recipe
    if recipe.evaluate is None:
        return None
    names = {source: name for name, source in recipe.evaluate.references.items()}
    if stage in names:
        return names[stage]
    return names.get(recipe.merge.model) if stage == "merge" and recipe.merge else None
