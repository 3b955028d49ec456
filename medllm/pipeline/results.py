"""Results of evaluations: a model's figures for its card, what older versions answered, and what a new one keeps."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from medllm.errors import MedllmError
from medllm.exam.record import read_records
from medllm.exam.stability.report import ScoreChange, ScoreRow, columns, score_table, stability_report
from medllm.files import write_text
from medllm.generation.answer_store import AnswerStore
from medllm.hub import Artifact, Hub
from medllm.pipeline.plan import BuildPlan, StagePlan
from medllm.recipe.base import Stage

_FIGURES = 4
"""The number of the way in which figures are computed: what another way left in the work folder does not count."""

_GROWING = ("models", "benchmarks", "prompts", "shots", "years", "limit", "samples")
"""Keys of an evaluation that can grow without a change to what was asked before."""


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
            "columns": [asdict(column) for column in columns(compared)],
            "rows": [row.as_text() for row in compared],
            "losses": [line for row in compared if (line := row.losses())],
            "index": [{"name": plan.recipe.name, "results": [self._indexed(row) for row in own]}],
            "eval_results": yaml.safe_dump([entry for row in own for entry in self._entries(row)], sort_keys=False),
        }

    def _indexed(self, row: ScoreRow) -> dict[str, Any]:
        """One entry of `model-index`, which all readers of cards know."""
        trial = f" (a trial of {row.questions} questions)" if row.trial else ""
        shown = {
            heading if isinstance(part, ScoreChange) else key: part for key, (heading, part) in row.parts().items()
        }
        return {
            "task": {"type": "question-answering"},
            "dataset": {"name": row.exam, "type": self.artifact.repo_id, "revision": self.artifact.revision},
            "metrics": [
                {"type": "accuracy", "name": f"score, {name}{trial}", "value": round(part.value, 4)}
                for name, part in shown.items()
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
                "notes": f"{row.questions} questions, prompt: {prompt}{', a trial' if row.trial else ''}",
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


def restore_answers(item: StagePlan, hub: Hub, say: Callable[[str], None]) -> None:
    """Take over the replies in every version of this stage's output, so that a fresh machine asks nothing twice."""
    store = AnswerStore.here()
    if item.stage not in ("evaluate", "preferences", "rounds", "teach") or store.folder is None:
        return
    seen = store.folder / "restored.txt"
    known = set(seen.read_text("utf-8").split()) if seen.is_file() else set()
    for version in hub.versions(item.repo_id, item.kind):
        if version.artifact.revision in known:
            continue
        try:
            count = store.restore(hub.pull(version.artifact, ("records/*", "samples/*", "runs/*")))
        except (MedllmError, OSError, ValueError) as fault:  # pyarrow's faults are ValueErrors
            say(f"{item.stage}: the replies of {version.artifact} cannot be read, so they may be asked again ({fault})")
            continue
        if count:
            say(f"{item.stage}: {count:,} replies of {version.artifact} are kept on this machine")
        store.folder.mkdir(parents=True, exist_ok=True)
        with seen.open("a", encoding="utf-8") as file:
            file.write(f"{version.artifact.revision}\n")


def extends(item: StagePlan) -> bool:
    """Whether a rebuilt evaluation holds every model, question and prompt of the one before, asked equally."""
    before = item.head.provenance if item.head else None
    if item.stage != "evaluate" or before is None or before.stage != "evaluate":
        return False
    old, new = before.settings, item.digest_settings
    if any(old.get(key) != new.get(key) for key in {*old, *new} - set(_GROWING)):
        return False
    after = {source.reference: source.identity for source in item.inputs}
    return (
        all(after.get(source.reference) == source.identity for source in before.inputs)
        and all(new["models"].get(name) == asked for name, asked in old["models"].items())
        and set(old["benchmarks"]) <= set(new["benchmarks"])
        and set(old["prompts"]) <= set(new["prompts"])
        and all(_shots(old, exam) == _shots(new, exam) for exam in old["benchmarks"])
        and old["samples"] <= new["samples"]
        and _asks_more(old, new)
    )


def _shots(settings: Mapping[str, Any], exam: str) -> int:
    shots: int | dict[str, int] = settings["shots"]
    return shots.get(exam, 0) if isinstance(shots, dict) else shots


def _asks_more(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether all questions of the old years and limit are among the new ones: a limit chooses among the years'."""
    if old["limit"] is not None and old["years"] != new["years"]:
        return False
    years = new["years"] is None or (old["years"] is not None and set(old["years"]) <= set(new["years"]))
    return years and (new["limit"] is None or (old["limit"] is not None and old["limit"] <= new["limit"]))


def replaced_outputs(plan: BuildPlan) -> Iterator[StagePlan]:
    """Yield the stages whose rebuilding puts another outcome in the place of one that exists.

    An evaluation that is extended loses nothing, nor does a Space that differs only in showing it.
    """
    extended = {item.stage for item in plan.missing if item.remade and extends(item)}
    for item in (item for item in plan.missing if item.remade and item.stage not in extended):
        before = item.head.provenance if item.head else None
        identities = {source.reference: source.identity for source in item.inputs if source.reference not in extended}
        if (
            item.stage == "space"
            and before is not None
            and before.settings == item.digest_settings
            and identities
            == {source.reference: source.identity for source in before.inputs if source.reference not in extended}
        ):
            continue
        yield item
