"""The `evaluate` stage: every model answers every exam plainly and explained; each answer is stored and graded."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from medllm.evaluation import ExamRun, build_exam_runs, run_row
from medllm.exam.grading import grade
from medllm.exam.prompts import hash_of
from medllm.exam.question import write_questions
from medllm.exam.record import Record, write_records
from medllm.exam.score_report import p_text
from medllm.exam.stability.report import (
    StabilityReport,
    columns,
    describe_comparison,
    describe_row,
    score_table,
    stability_report,
)
from medllm.exam.stability.text import report_json
from medllm.files import write_text
from medllm.generation.endpoint import EndpointGenerator
from medllm.generation.identity import AskedAs
from medllm.generation.types import Generator, Reply, Request, release_model
from medllm.recipe.settings import ApiModel, Evaluate
from medllm.stages.workdir import move_into_place, say, work_folder, write_facts
from medllm.wording import number_of

REPLIES = "replies"
CHANGES = "changes.json"
"""Beside the replies: by model what its server refused, and what was sent instead."""


def make(settings: Evaluate, sources: dict[str, Path], out: Path) -> None:
    """Ask, grade and report; called again after an interruption, ask only the questions without a stored answer."""
    if (out / "facts.json").is_file():
        return
    work = work_folder(out)
    sittings = build_exam_runs(settings, sources)
    prompts = sum(len(sitting.requests) for sitting in sittings)
    say("evaluate", f"{number_of(prompts, 'prompt')} to {number_of(len(settings.models), 'model')}")
    forms = _forms(settings, sources)
    asked = Asked({}, {}, forms)
    judged: dict[tuple[str, str], list[Record]] = {}
    for sitting, model in _ask(settings, sources, sittings, work, asked):
        new = _judge(settings, sources, [sitting], asked, [model])
        for row in score_table(stability_report(record for records in new.values() for record in records)):
            say("evaluate", describe_row(row))
        judged |= new
        for line in _differences(sitting.name, model, list(settings.models), judged):
            say("evaluate", line)
    replies = asked.replies
    records = [record for sitting in sittings for model in settings.models for record in judged[sitting.name, model]]
    for model in settings.models:
        mine = [record for record in records if record.model == model]
        write_records(mine, work / "records" / f"{model}.parquet")
    _tables(settings, sources, sittings, replies, work, forms)
    report = stability_report(records)
    facts = json.dumps(report_json(report), ensure_ascii=False, indent=1, default=_plain)
    (work / "results.json").write_text(facts + "\n", "utf-8")
    audits = {sitting.name: sitting.watch.facts() for sitting in sittings if sitting.shots}
    write_facts(work, {**_facts(settings, sittings, records, replies, report), "few_shot_audit": audits})
    move_into_place(work, out, (REPLIES,))


@dataclass(frozen=True)
class Asked:
    """The replies of all models, and what each is kept under, by model and key of the prompt."""

    replies: dict[tuple[str, str], Reply]
    kept_under: dict[tuple[str, str], str]
    forms: dict[str, AskedAs]
    """The form in which each model is asked, by its name."""


def _differences(
    exam: str, model: str, models: list[str], judged: dict[tuple[str, str], list[Record]]
) -> Iterator[str]:
    """Describe how a model that is now judged differs from the first, or the others from it where it is the first."""
    first = models[0]
    others = [name for name in models[1:] if model in (first, name) and (exam, name) in judged]
    for other in others if (exam, first) in judged else ():
        for comparison in stability_report([*judged[exam, first], *judged[exam, other]]).comparisons:
            yield describe_comparison(comparison, p_text(comparison.p))


def _forms(settings: Evaluate, sources: dict[str, Path]) -> dict[str, AskedAs]:
    """Decide for each model whether it is asked by chat; one that cannot be asked so is refused before any work."""
    from medllm.generation.identity import asked_as, refuse_thinking_without_chat

    forms = asked_as(
        settings.models, sources, engine=settings.engine, form=settings.format, given=settings.chat_template
    )
    refuse_thinking_without_chat(forms, settings.prompts)
    return forms


def _ask(
    settings: Evaluate, sources: dict[str, Path], sittings: list[ExamRun], work: Path, asked: Asked
) -> Iterator[tuple[ExamRun, str]]:
    """Put every prompt to every model whose reply is not kept; yield an exam and a model once its replies are there."""
    from medllm.generation.answer_store import Answerer, AnswerStore
    from medllm.generation.factory import generators_for, processes_of
    from medllm.generation.identity import answerers
    from medllm.generation.reply_log import KeptGenerator, generate_watched

    makers = generators_for(settings, sources, num_processes=processes_of(settings))
    computing: dict[str, Any] = {name: getattr(settings, name) for name in ("engine", "dtype", "quantization")}
    who = answerers(settings.models, sources, form=settings.format, given=settings.chat_template, **computing)
    together: dict[int, list[str]] = defaultdict(list)
    for model, (maker, _) in makers.items():
        together[id(maker)].append(model)
    wanted: dict[int, dict[str, tuple[str, Request]]] = {}
    requests: dict[int, list[Request]] = {}
    answering: dict[str, Answerer] = {}
    for group, models in together.items():
        wanted[group] = {
            f"{model} {request.key}": (model, asked.forms[model].fit(request, settings.prompts))
            for sitting in sittings
            for request in sitting.requests.values()
            for model in models
        }
        own = wanted[group].items()
        requests[group] = [replace(asking, key=key, model=makers[model][1]) for key, (model, asking) in own]
        answering |= {key: who[model] for key, (model, _) in own}
    for number, (group, models) in enumerate(together.items()):
        kept = KeptGenerator(makers[models[0]][0], AnswerStore.here(), answering)
        put = {request.key: request for request in requests[group]}
        path, names = work / REPLIES / f"{number}.jsonl", ", ".join(models)
        parts = {key: f"{model}, {request.key.split('/')[0]}" for key, (model, request) in wanted[group].items()}
        left = {(sitting.name, model): len(sitting.requests) for sitting in sittings for model in models}
        of_name = {sitting.name: sitting for sitting in sittings}
        yield from ((of_name[name], model) for (name, model), count in left.items() if not count)
        for reply in generate_watched(kept, requests[group], path, names, "replies", parts):
            model, request = wanted[group][reply.key]
            asked.replies[model, request.key] = reply
            asked.kept_under[model, request.key] = str(kept.key_of(put[reply.key], reply))
            exam = request.key.split("/")[0]
            left[exam, model] -= 1
            if not left[exam, model]:
                _note_changes(work, model, *makers[model])
                yield of_name[exam], model
        if kept.kept:
            say("evaluate", f"{names}: {kept.kept} of {len(requests[group])} replies are kept from earlier runs")
        release_model(makers[models[0]][0])


def _changes(work: Path) -> dict[str, list[str]]:
    path = work / REPLIES / CHANGES
    changes: dict[str, list[str]] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return changes


def _note_changes(work: Path, model: str, maker: Generator, name: str) -> None:
    """Add what a model's server refused in this process to what is noted already."""
    if isinstance(maker, EndpointGenerator) and (new := maker.changes(name)):
        noted = _changes(work)
        noted[model] = sorted({*noted.get(model, ()), *new})
        write_text(work / REPLIES / CHANGES, json.dumps(noted))


def _judge(
    settings: Evaluate, sources: dict[str, Path], sittings: list[ExamRun], asked: Asked, models: list[str]
) -> dict[tuple[str, str], list[Record]]:
    """By exam and model: a record for every reply, in the order of prompt and question."""
    from medllm.generation.identity import source_of

    graded: dict[tuple[str, str], list[Record]] = {}
    for sitting in sittings:
        questions = {question.question_id: question for question in sitting.questions}
        for model in models:
            records = graded[sitting.name, model] = []
            revision = source_of(sources.get(settings.references.get(model, "")))[1]
            for (question_id, style, sample), request in sitting.requests.items():
                reply = asked.replies[model, request.key]
                records.append(
                    grade(
                        questions[question_id],
                        reply.text,
                        model=model,
                        prompt=style,
                        finish_reason=reply.finish_reason,
                        reasoning=reply.reasoning,
                        model_revision=revision,
                        template=settings.template,
                        shots=sitting.shots,
                        context=settings.context,
                        sample=sample,
                        seed=request.seed if settings.temperature else None,
                        tokens=reply.completion_tokens,
                        reasoning_tokens=reply.reasoning_tokens if reply.reasoning else None,
                        prompt_hash=hash_of(request.text),
                        answer_key=asked.kept_under[model, request.key],
                        prompt_tokens=reply.prompt_tokens,
                        cost=reply.cost,
                        trial=sitting.trial,
                    )
                )
    return graded


def _tables(
    settings: Evaluate,
    sources: dict[str, Path],
    sittings: list[ExamRun],
    replies: dict[tuple[str, str], Reply],
    work: Path,
    forms: dict[str, AskedAs],
) -> None:
    """Write the tables of the questions asked, their worked examples, and the settings of each run."""
    from medllm.generation.identity import source_of

    runs, changes = [], _changes(work)
    for sitting in sittings:
        write_questions(sitting.questions, work / "questions" / f"{sitting.name}.parquet")
        if sitting.examples:
            write_questions(sitting.examples, work / "exemplars" / f"{sitting.name}.parquet")
        for model, written in settings.models.items():
            own = written if isinstance(written, ApiModel) else None
            name, revision = source_of(sources.get(settings.references.get(model, "")))
            facts = {"model": model, "source": name or (own.model if own else written), "revision": revision}
            facts |= {"api": own.api if own else None, "request": json.dumps(own.request) if own else None}
            facts["request_changes"] = ", ".join(changes[model]) if model in changes else None
            for style in settings.prompts:
                mine = [replies[model, request.key] for asked, request in sitting.requests.items() if asked[1] == style]
                row = {**facts, "prompt": style, **run_row(settings, sitting, mine, forms[model])}
                runs.append({**row, "engine": own.api} if own else row)
    _write(work / "runs" / "runs.parquet", runs)


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, compression="zstd")


def _facts(
    settings: Evaluate,
    sittings: list[ExamRun],
    records: list[Record],
    replies: dict[tuple[str, str], Reply],
    report: StabilityReport,
) -> dict[str, Any]:
    table = score_table(report)
    return {
        "stage": "evaluate",
        "exemplars": sum(len(sitting.examples) for sitting in sittings),
        "replies": len(replies),
        "questions": len({(record.benchmark, record.question_id) for record in records}),
        "too_long": sum(reply.finish_reason == "too_long" for reply in replies.values()),
        "cost_in_dollars": sum(reply.cost for reply in replies.values()),
        "prompts": list(settings.prompts),
        "columns": [asdict(column) for column in columns(table)],
        "rows": [row.as_text() for row in table],
        "losses": [line for row in table if (line := row.losses())],
        "settings": settings.model_dump(mode="json"),
    }


def _plain(value: object) -> object:
    """Numbers of numpy, and keys that are no text, as JSON has them."""
    return value.item() if hasattr(value, "item") else str(value)
