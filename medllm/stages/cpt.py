"""The `cpt` stage: continued pretraining of a base on a corpus, by (Q)LoRA or full fine-tuning."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from medllm.recipe.settings import Cpt
from medllm.stages.workdir import finish_interrupted_move, move_into_place, say, work_folder, write_facts

ON_THE_WAY = ("checkpoints", "last_good", "cache")


def make(settings: Cpt, sources: dict[str, Path], out: Path) -> None:
    """Train an adapter or all weights; called again after a stop, it resumes from the last whole checkpoint."""
    if (out / "facts.json").is_file() or finish_interrupted_move(out, ON_THE_WAY):
        return
    from medllm.training.callbacks import gather_sharded_state, translate_resource_errors
    from medllm.training.devices import set_up_trackers
    from medllm.training.launcher import launch_processes

    set_up_trackers("cpt", settings)
    work = work_folder(out)
    with translate_resource_errors("cpt", work):
        rows, held_out, tally = _rows(settings, sources, work)
        if launch_processes("cpt", settings, sources, out):
            return
        from medllm.training.checkpointing import run, write_trained
        from medllm.training.cpt import make_trainer
        from medllm.training.layout import choose_rows
        from medllm.training.load import load_start
        from medllm.training.targets import coverage
        from medllm.training.updates import evaluation_facts
        from medllm.weights.adapter import refuse_unstored

        start = load_start(settings, sources)
        trainer = make_trainer(start.model, start.tokenizer, rows, settings, work, held_out)
        refuse_unstored(trainer.model, start.base)
        covered, layout = coverage(trainer.model), choose_rows(trainer)
        if trainer.is_world_process_zero():
            for sentence in (covered.sentence, *layout.sentences):
                say("cpt", sentence)
        result = run(trainer, "cpt", work)
        state = gather_sharded_state(trainer)
        if trainer.is_world_process_zero():
            write_trained(trainer, start, settings, work, state)
            facts = _facts(settings, tally, result, trainer) | covered.facts | layout.facts | evaluation_facts(trainer)
            write_facts(work, {"base": start.base.name, "fingerprint": start.base.fingerprint, **facts})
            move_into_place(work, out, ON_THE_WAY)
        trainer.accelerator.wait_for_everyone()


def _rows(settings: Cpt, sources: dict[str, Path], work: Path) -> Any:  # noqa: ANN401  rows and their account
    import numpy as np
    from datasets import DatasetDict

    from medllm.training.cpt import ITEM, Talk, make_rows, question_or_text, read_texts
    from medllm.training.data import prepared
    from medllm.training.load import chat_template_for
    from medllm.training.updates import hold_out
    from medllm.weights.load import load_tokenizer

    def made(tokenizer: Path) -> tuple[Any, dict[str, Any]]:
        words = load_tokenizer(tokenizer)
        chat = chat_template_for(settings, sources, words)
        talk = Talk(chat, settings.system_prompt, settings.chat_template_kwargs) if chat else None
        divides = settings.eval_strategy != "no"
        texts = read_texts(sources[settings.data], work / "cache", items=talk is not None or divides)
        talk = talk if set(ITEM) <= set(texts.column_names) else None
        fill = partial(make_rows, tokenizer=words, max_length=settings.max_length, packing=settings.packing, talk=talk)
        if not divides:
            rows, tally = fill(texts)
            say("cpt", str(tally))
            return rows, asdict(tally)
        held = np.array(hold_out(question_or_text(texts), settings.eval_size, settings.seed))
        (rows, tally), (out, account) = (fill(texts.select(np.flatnonzero(part))) for part in (~held, held))
        say("cpt", f"{tally}; held out for evaluations: {account}")
        return DatasetDict(train=rows, eval=out), asdict(tally) | {"held_out": asdict(account)}

    return prepared(settings, sources, work, made)


def _facts(settings: Cpt, tally: dict[str, Any], result: Any, trainer: Any) -> dict[str, Any]:  # noqa: ANN401
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    epochs = float(trainer.state.epoch or 0)
    return {
        "stage": "cpt",
        **tally,
        "steps": result.global_step,
        "epochs": epochs,
        "tokens_trained": round(tally["tokens_in_rows"] * epochs),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "seconds": result.metrics.get("train_runtime"),
        "settings": settings.model_dump(mode="json"),
    }
