"""The `rounds` stage: sampling and preference training once more on the model they made, while a test shows a gain."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.errors import MedllmError
from medllm.exam.record import PromptStyle, Record, read_records
from medllm.exam.score_report import p_text
from medllm.exam.stability.paired import Comparison
from medllm.exam.stability.report import describe_comparison, format_estimate, stability_report
from medllm.exam.statistics import Estimate, Interval
from medllm.preferences.development import refuse_trained_exam
from medllm.recipe.base import Settings, Stage
from medllm.recipe.settings import Rounds
from medllm.stages.workdir import finish_interrupted_move, move_into_place, round_of, say, work_folder, write_facts

Maker = Callable[[Settings, dict[str, Path], Path], None]
"""A stage: folders in, one folder out."""
ON_THE_WAY = ("steps",)
NOT_WEIGHTS = ("README.md", "provenance.json", "facts.json", "rounds.parquet", "reference.parquet", ".gitattributes")
"""Files of a model's folder that are about the model and no part of it."""
FROM_TRAINING = ("base", "fingerprint", "method", "quantization")
"""Facts of a training that stay true of the adapter that `rounds` hands on."""
KEPT_BACK = "kept_back"
TABLES = {"preferences": {"data": "pairs", "samples": "samples", "audit": "audit"}, "evaluate": {"records": "records"}}
"""The tables of the stages within a round, and the folders in which the output has them."""
Stop = Literal["max_rounds", "no_gain", "worse", "no_pairs"]


@dataclass(frozen=True)
class RoundModel:
    """The model after a round, with its answers to the development exam."""

    number: int
    source: str
    """The name of its folder among the sources of the next round."""
    folder: Path
    records: list[Record]


@dataclass(frozen=True)
class Verdict:
    """What the paired test decides about a round."""

    outcome: Literal["kept", "no_gain", "worse"]
    comparisons: dict[PromptStyle, Comparison]
    """The new model against the former one, by prompt."""


def make(settings: Rounds, sources: dict[str, Path], out: Path, stages: Callable[[Stage], Maker]) -> None:
    """Go on in rounds until a test shows no gain; the model of the last round that gained is the output.

    `stages` returns the stages within a round as the pipeline runs them. Each writes a folder of its own below the
    work folder, so an interrupted run goes on inside the round that it was in.
    """
    if (out / "facts.json").is_file() or finish_interrupted_move(out, ON_THE_WAY):
        return
    work = work_folder(out)
    refuse_trained_exam(settings, sources)
    number = round_of(sources[settings.model])
    first = _asked(settings, sources, work, RoundModel(number, settings.model, sources[settings.model], []), stages)
    rows = [_row(settings, first, "start", None, None)]
    best, stop = first, "max_rounds"
    for number in range(first.number + 1, first.number + settings.max_rounds + 1):
        made = _train(settings, sources, work, (first, best), number, stages)
        if made is None:
            stop = "no_pairs"
            say("rounds", f"round {number}: the samples give no pair any more, so the rounds end here")
            break
        verdict = judge(best.records, made.records, settings.prompt, settings.level)
        for comparison in verdict.comparisons.values():
            say("rounds", describe_comparison(comparison, p_text(comparison.p)))
        rows.append(_row(settings, made, verdict.outcome, verdict, _pairs_of(_step(work, number) / "preferences")))
        if verdict.outcome != "kept":
            stop = verdict.outcome
            kept = f"the result is the model of round {best.number}"
            say("rounds", f"round {number} is kept back ({REASONS[verdict.outcome]}): {kept}")
            break
        say("rounds", f"round {number} is kept")
        best = made
    _write(settings, work, rows, best, stop)
    move_into_place(work, out, ON_THE_WAY)


REASONS = {"no_gain": "it shows no gain", "worse": "it is worse"}
WHY: dict[str, str] = {
    "max_rounds": "the recipe allows no more",
    "no_gain": "the last one shows no gain, and is kept back",
    "worse": "the last one is worse, and is kept back",
    "no_pairs": "the samples give no pair any more",
}
"""Why rounds end, for the card."""
OUTCOMES = {"start": "the start", "kept": "kept", "no_gain": "kept back: no gain", "worse": "kept back: worse"}


def judge(former: list[Record], new: list[Record], prompt: PromptStyle, level: float) -> Verdict:
    """Compare two models on the same questions, by McNemar's exact test under each prompt.

    The new one is `worse` where it loses under some prompt, `kept` where it gains under `prompt` and loses under none.
    """
    comparisons = {comparison.prompt: comparison for comparison in stability_report([*former, *new]).comparisons}
    if any(change.only_second < change.only_first and change.p <= level for change in comparisons.values()):
        return Verdict("worse", comparisons)
    tested = comparisons[prompt]
    gains = tested.only_second > tested.only_first and tested.p <= level
    return Verdict("kept" if gains else "no_gain", comparisons)


def _step(work: Path, number: int) -> Path:
    return work / "steps" / f"round-{number}"


def _within(settings: Rounds, sources: dict[str, Path], *models: RoundModel) -> dict[str, Path]:
    """Return the sources of a stage within a round: those of the rounds, and the models that earlier rounds made."""
    return {**sources, **{model.source: model.folder for model in models}}


def _asked(
    settings: Rounds, sources: dict[str, Path], work: Path, model: RoundModel, stages: Callable[[Stage], Maker]
) -> RoundModel:
    """Ask a model the development exam."""
    out = _step(work, model.number) / "evaluate"
    asked = settings.evaluate.model_copy(update={"models": {f"round-{model.number}": model.source}})
    out.parent.mkdir(parents=True, exist_ok=True)
    stages("evaluate")(asked, _within(settings, sources, model), out)
    return RoundModel(model.number, model.source, model.folder, read_records(out))


def _train(
    settings: Rounds,
    sources: dict[str, Path],
    work: Path,
    models: tuple[RoundModel, RoundModel],
    number: int,
    stages: Callable[[Stage], Maker],
) -> RoundModel | None:
    """Sample from the model of the round before, train it on the pairs, and ask it; None where there is no pair."""
    first, before = models
    step = _step(work, number)
    step.mkdir(parents=True, exist_ok=True)
    later, within = number - first.number, _within(settings, sources, first, before)
    sampling = settings.preferences.of_round(number, before.source, settings.preferences.seed + later)
    say("rounds", f"round {number}: samples from {before.source}, the model of round {before.number}")
    try:
        stages("preferences")(sampling, within, step / "preferences")
    except MedllmError as fault:
        if fault.code != "preferences.no-pair" or later == 1:
            raise
        return None
    reference = first.source if settings.reference == "first" and before is not first else None
    training = settings.rpo.model_copy(
        update={"model": before.source, "seed": settings.rpo.seed + later, "reference": reference}
    )
    stages("rpo")(training, {**within, training.data: step / "preferences"}, step / "rpo")
    made = RoundModel(number, f"round-{number}", step / "rpo", [])
    return _asked(settings, sources, work, made, stages)


def _pairs_of(preferences: Path) -> dict[str, Any]:
    """Return what a round's sampling yielded."""
    facts = json.loads((preferences / "facts.json").read_text("utf-8"))
    counts = {name: facts[name] for name in ("questions", "samples", "pairs")}
    return counts | {"unreviewed": facts["audit"]["unreviewed"]}


def _row(
    settings: Rounds, model: RoundModel, outcome: str, verdict: Verdict | None, sampled: dict[str, Any] | None
) -> dict[str, Any]:
    """Describe a round as a row of rounds.parquet; scores and differences are shares of the exam's points."""
    (own,) = stability_report(model.records).models
    row: dict[str, Any] = {"round": model.number, "outcome": outcome, "exam": settings.exam}
    row["asked"] = max(condition.questions for condition in own.conditions.values())
    row |= sampled or dict.fromkeys(("questions", "samples", "pairs", "unreviewed"))
    for prompt in settings.prompts:
        row |= _ends(prompt, own.conditions[prompt].score)
        compared = verdict.comparisons[prompt] if verdict else None
        row |= _ends(f"{prompt}_difference", compared.difference if compared else None)
        row[f"{prompt}_only_former"] = compared.only_first if compared else None
        row[f"{prompt}_only_new"] = compared.only_second if compared else None
        row[f"{prompt}_p"] = compared.p if compared else None
    cost = next((change for pair, change in own.changes.items() if pair == ("plain", settings.prompt)), None)
    return row | _ends("cost", cost.delta if cost else None) | {"cost_p": cost.p if cost else None}


def _ends(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    interval = estimate.interval if estimate else None
    ends = (interval.low, interval.high) if interval else (None, None)
    return {name: estimate.value if estimate else None, f"{name}_low": ends[0], f"{name}_high": ends[1]}


def _write(settings: Rounds, work: Path, rows: list[dict[str, Any]], best: RoundModel, stop: str) -> None:
    """Write the output: the best model, the table of the rounds, and the pairs and answers of each."""
    for path in sorted(best.folder.iterdir()):
        if path.is_file() and path.name not in NOT_WEIGHTS:
            shutil.copyfile(path, work / path.name)
    for row in rows:
        kept_back = row["outcome"] not in ("start", "kept")
        for stage, tables in TABLES.items():
            for name, place in tables.items():
                _collect(_step(work, row["round"]) / stage / name, work, f"{place}/round-{row['round']}", kept_back)
        log = _step(work, row["round"]) / "rpo" / "training"
        if log.is_dir():
            shutil.copytree(log, work / "training" / f"round-{row['round']}", dirs_exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, _schema(rows)), work / "rounds.parquet", compression="zstd")
    known = best.folder / "facts.json"
    trained = json.loads(known.read_text("utf-8")) if known.is_file() else {}
    facts = {key: trained[key] for key in FROM_TRAINING if key in trained}
    facts |= {"stage": "rounds", "round": best.number, "first_round": rows[0]["round"], "stop": stop, "rounds": rows}
    learnt = [row["unreviewed"] for row in rows if row["outcome"] == "kept"]
    facts |= {
        "audit": {"unreviewed": sum(learnt)},
        "why": WHY[stop],
        "table": [_cells(settings, row) for row in rows],
        "columns": _columns(settings),
    }
    write_facts(work, {**facts, "settings": settings.model_dump(mode="json")})


def _columns(settings: Rounds) -> list[str]:
    """Name the columns of the card's table."""
    changes = [
        name for prompt in settings.prompts for name in (f"{prompt} against the former", f"won, lost, p ({prompt})")
    ]
    cost = [f"{settings.prompt} minus plain"] if settings.prompt != "plain" else []
    return ["questions", "pairs", *settings.prompts, *cost, *changes]


def _cells(settings: Rounds, row: dict[str, Any]) -> dict[str, Any]:
    """Write a round as a row of the card's table, in points of 100."""

    def points(name: str, *, signed: bool = True) -> str:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        return format_estimate(Estimate(row[name], None if low is None else Interval(low, high)), signed=signed)

    values = [str(row["asked"]), "-" if row["pairs"] is None else f"{row['pairs']:,}"]
    values += [points(prompt, signed=False) for prompt in settings.prompts]
    values += [points("cost")] if settings.prompt != "plain" else []
    for prompt in settings.prompts:
        p = row[f"{prompt}_p"]
        counts = f"{row[f'{prompt}_only_new']}, {row[f'{prompt}_only_former']}, {p_text(p)}" if p is not None else "-"
        values += [points(f"{prompt}_difference"), counts]
    cells = dict(zip(_columns(settings), values, strict=True))
    return {"round": row["round"], "outcome": OUTCOMES[row["outcome"]], "cells": cells}


def _collect(folder: Path, work: Path, name: str, kept_back: bool) -> None:
    """Copy a table of a round into the output; what was kept back stays apart, for no model learnt it."""
    for number, path in enumerate(sorted(folder.glob("*.parquet"))):
        target = work / (KEPT_BACK if kept_back else "") / f"{name}{f'-{number}' if number else ''}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _schema(rows: list[dict[str, Any]]) -> pa.Schema:
    """Give columns that are empty in every row, as those of differences where no round was made, their types."""
    inferred = pa.Table.from_pylist(rows).schema
    whole = ("questions", "samples", "pairs", "unreviewed", "only_former", "only_new")
    empty = {field.name: pa.int64() if field.name.endswith(whole) else pa.float64() for field in inferred}
    return pa.schema(
        [pa.field(field.name, empty[field.name]) if pa.types.is_null(field.type) else field for field in inferred]
    )
