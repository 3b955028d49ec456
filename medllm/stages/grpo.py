"""The `grpo` stage: past exam questions to an adapter, by rewards for what the model itself answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medllm.errors import DataError
from medllm.exam.prompts import render
from medllm.generation.types import Request
from medllm.preferences.questions import QuestionSelection, select_questions
from medllm.recipe.servers import for_prompt
from medllm.recipe.settings import Grpo
from medllm.stages.workdir import finish_interrupted_move, move_into_place, round_of, say, work_folder, write_facts
from medllm.wording import describe_counts

if TYPE_CHECKING:
    from medllm.generation.engine.batching import PromptReader
    from medllm.generation.identity import AskedAs
    from medllm.training.rewards import RolloutTask

ON_THE_WAY = ("checkpoints", "last_good", "cache", "above")


def make(settings: Grpo, sources: dict[str, Path], out: Path) -> None:
    """Let the model answer past questions and train its adapter on the rewards; the adapter is one with those below.

    Called again after an interruption, it resumes from the last whole checkpoint.
    """
    if (out / "facts.json").is_file() or finish_interrupted_move(out, ON_THE_WAY):
        return
    from medllm.training.callbacks import translate_resource_errors
    from medllm.training.devices import is_chief, set_up_trackers
    from medllm.training.grpo import make_trainer, refuse_small_data, refuse_without_gpu
    from medllm.training.launcher import launch_processes

    refuse_without_gpu(settings)
    set_up_trackers("grpo", settings)
    work = work_folder(out)
    with translate_resource_errors("grpo", work):
        asked = select_questions(settings, sources)
        form = _form(settings, sources)
        refuse_small_data(settings, len(asked.questions))
        if launch_processes("grpo", settings, sources, out):
            return
        from medllm.training.checkpointing import run, write_trained
        from medllm.training.load import load_start
        from medllm.training.rollout_watch import watch_facts, write_tables
        from medllm.training.targets import coverage
        from medllm.weights.adapter import refuse_unstored

        start = load_start(settings, sources)
        reader = _reader(start.tokenizer, form)
        tasks, too_long = _tasks(settings, asked, form, reader)
        refuse_small_data(settings, len(tasks))
        if is_chief():
            _write_questions(asked, tasks, work)
            long = f"; {too_long} prompts leave no room for a completion" if too_long else ""
            say("grpo", f"{describe_counts(asked.counts)}{long}")
        trainer = make_trainer(start, tasks, reader, settings, work, say=partial(say, "grpo"))
        refuse_unstored(trainer.model, start.base)
        covered = coverage(trainer.model)
        result = run(trainer, "grpo", work)
        if trainer.is_world_process_zero():
            write_trained(trainer, start, settings, work, None)
            tables = write_tables(work / "training", work / "rollouts")
            facts: dict[str, Any] = {"stage": "grpo", "base": start.base.name, "fingerprint": start.base.fingerprint}
            facts |= {"round": round_of(sources.get(settings.model)), **covered.facts}
            facts |= {"questions": len(tasks), "left_out": {**asked.counts, "prompt too long": too_long}}
            facts |= {"watch": watch_facts(*tables, trainer.scorer.weights), "audit": asked.watch.facts()}
            write_facts(work, facts | _facts(settings, result, trainer))
            move_into_place(work, out, ON_THE_WAY)
        trainer.accelerator.wait_for_everyone()


def _form(settings: Grpo, sources: dict[str, Path]) -> AskedAs:
    """Decide whether the model is asked by chat, as `preferences` does; refuse `think` without it."""
    from medllm.generation.identity import asked_as, refuse_thinking_without_chat

    models = {"model": settings.model}
    forms = asked_as(models, sources, engine="local", form=settings.format, given=settings.chat_template)
    refuse_thinking_without_chat(forms, [settings.prompt])
    return forms["model"]


def _reader(tokenizer: Any, form: AskedAs) -> PromptReader:  # noqa: ANN401  a tokenizer of transformers
    from medllm.generation.engine.batching import PromptReader
    from medllm.generation.types import BASE

    return PromptReader(tokenizer, {BASE: form.template} if form.template else None)


def _tasks(
    settings: Grpo, asked: QuestionSelection, form: AskedAs, reader: PromptReader
) -> tuple[dict[str, RolloutTask], int]:
    """Write each question as its prompt's tokens, by its key; also count those that leave no room for a completion."""
    from medllm.training.rewards import RolloutTask

    options: dict[str, Any] = {"prompt": settings.prompt, "template": settings.template}
    options |= {"system": settings.system_prompt, "exemplars": asked.exemplars}
    values: Mapping[str, Any] = for_prompt(settings.chat_template_kwargs, settings.prompt)
    tasks: dict[str, RolloutTask] = {}
    too_long = 0
    for question in asked.questions:
        key = f"{question.benchmark}/{question.question_id}"
        request = Request(
            key=key,
            **render(question, **options).request_fields,
            max_new_tokens=settings.max_completion_length,
            temperature=settings.temperature,
            top_p=settings.top_p,
            chat_template_kwargs=values,
        )
        tokens = reader.tokens(form.fit(request, [settings.prompt]))
        if len(tokens) + settings.max_completion_length > settings.max_length:
            too_long += 1
        else:
            tasks[key] = RolloutTask(question, request, tuple(tokens))
    if not tasks:
        raise DataError(
            "training.prompts-too-long",
            f"grpo: every one of {too_long} prompts leaves less than {settings.max_completion_length} of "
            f"{settings.max_length} tokens for a completion. Raise `max_length`, or lower `shots`.",
        )
    return tasks, too_long


def _write_questions(asked: QuestionSelection, tasks: Mapping[str, RolloutTask], work: Path) -> None:
    """Write which questions are learnt from, by name, and the audit of them, as a table and as a page."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [
        {"benchmark": task.question.benchmark, "question_id": task.question.question_id, "exam_date": day}
        for task in tasks.values()
        if (day := task.question.exam_date) is not None
    ]
    for name, table in {"questions": rows, "audit": asked.watch.rows()}.items():
        if table:
            (work / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.Table.from_pylist(table), work / name / "train-00000.parquet", compression="zstd")
    asked.watch.write("the questions of grpo", work / "audit.html")


def _facts(settings: Grpo, result: Any, trainer: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        "steps": result.global_step,
        "epochs": float(trainer.state.epoch or 0),
        "written_by": "vllm" if settings.use_vllm else "transformers",
        "reference": "the model at the start" if settings.beta else None,
        "seconds": result.metrics.get("train_runtime"),
        "settings": settings.model_dump(mode="json"),
    }
