"""The `cpt` stage: continued pretraining of a base on a corpus, by (Q)LoRA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medllm.recipe.settings import Cpt
from medllm.training.work import move_into_place, moved_now, say, work_folder, write_facts

ON_THE_WAY = ("checkpoints", "last_good", "cache")


def make(settings: Cpt, sources: dict[str, Path], out: Path, *, saved: Callable[[Path], None] | None = None) -> None:
    """Train an adapter on the texts; called again after an interruption, it goes on from the last whole checkpoint.

    `saved` is handed the folder of every checkpoint as it is written, for whoever wants to keep it elsewhere.
    """
    if (out / "facts.json").is_file() or moved_now(out, ON_THE_WAY):
        return
    from medllm.training.launched import launch_elsewhere

    if launch_elsewhere("cpt", settings, sources, out):
        return
    from medllm.training.continued import make_trainer
    from medllm.training.finish import gathered, write_adapter
    from medllm.training.start import load_start
    from medllm.training.watch import last_checkpoint, worded
    from medllm.weights.seats import refuse_unstored

    work = work_folder(out)
    with worded("cpt", work):
        start = load_start(settings, sources)
        rows, tally = _rows(settings, sources, start.tokenizer, work)
        say("cpt", str(tally))
        trainer = make_trainer(start.model, start.tokenizer, rows, settings, work, saved=saved)
        refuse_unstored(trainer.model, start.base)
        resumed = last_checkpoint(work / "checkpoints")
        result = trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        trainer.accelerator.wait_for_everyone()
        state = gathered(trainer)
        if trainer.is_world_process_zero():
            write_adapter(trainer.accelerator.unwrap_model(trainer.model), start.tokenizer, start.base, work, state)
            facts = _facts(settings, asdict(tally), result, trainer)
            write_facts(work, {"base": start.base.name, "fingerprint": start.base.fingerprint, **facts})
            move_into_place(work, out, ON_THE_WAY)
        trainer.accelerator.wait_for_everyone()


def _rows(settings: Cpt, sources: dict[str, Path], tokenizer: Any, work: Path) -> Any:  # noqa: ANN401
    from medllm.training.arguments import processes
    from medllm.training.packing import make_rows, read_texts

    with processes().main_process_first():
        texts = read_texts(sources[settings.data], work / "cache")
        return make_rows(texts, tokenizer, settings.max_length, packing=settings.packing)


def _facts(settings: Cpt, tally: dict[str, int], result: Any, trainer: Any) -> dict[str, Any]:  # noqa: ANN401
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
