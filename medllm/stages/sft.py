"""The `sft` stage: supervised fine-tuning on conversations that are dated, licensed and free of the held-out exams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medllm.recipe.settings import Sft
from medllm.stages.workdir import finish_interrupted_move, move_into_place, say, work_folder, write_facts
from medllm.wording import describe_counts

if TYPE_CHECKING:
    from medllm.training.conversations import Conversation, TurnWriter

ON_THE_WAY = ("checkpoints", "last_good", "cache", "above")


def make(settings: Sft, sources: dict[str, Path], out: Path) -> None:
    """Train an adapter or all weights on the assistant's turns; an adapter above another is written as one with it.

    Called again after an interruption, it resumes from the last whole checkpoint.
    """
    if (out / "facts.json").is_file() or finish_interrupted_move(out, ON_THE_WAY):
        return
    from medllm.training.callbacks import gather_sharded_state, translate_resource_errors
    from medllm.training.devices import set_up_trackers
    from medllm.training.launcher import launch_processes

    set_up_trackers("sft", settings)
    work = work_folder(out)
    with translate_resource_errors("sft", work):
        rows, held_out, tally = _rows(settings, sources, work)
        if launch_processes("sft", settings, sources, out):
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
                say("sft", sentence)
        result = run(trainer, "sft", work)
        state = gather_sharded_state(trainer)
        if trainer.is_world_process_zero():
            write_trained(trainer, start, settings, work, state)
            facts = _facts(settings, tally, result, trainer) | covered.facts | layout.facts | evaluation_facts(trainer)
            write_facts(work, {"base": start.base.name, "fingerprint": start.base.fingerprint, **facts})
            move_into_place(work, out, ON_THE_WAY)
        trainer.accelerator.wait_for_everyone()


def _rows(settings: Sft, sources: dict[str, Path], work: Path) -> Any:  # noqa: ANN401  rows and their account
    from medllm.training.data import prepared
    from medllm.training.instructions import admit_conversations
    from medllm.training.load import chat_template_for
    from medllm.weights.load import load_tokenizer

    def made(tokenizer: Path) -> tuple[Any, dict[str, Any]]:
        from medllm.training.conversations import writer_of

        admitted = admit_conversations(settings, sources, "sft", system=settings.system_prompt)
        admitted.write(work)
        facts = admitted.facts()
        dropped = f"; left out: {describe_counts(facts['reasons'])}" if facts["reasons"] else ""
        say("sft", f"{facts['conversations']:,} of {facts['conversations_read']:,} conversations{dropped}")
        words = load_tokenizer(tokenizer)
        talks = any(conversation.messages for conversation in admitted.conversations)
        chat = chat_template_for(settings, sources, words, talks=talks)
        rows, tally = _encoded(admitted.conversations, writer_of(words, chat, settings), settings)
        return rows, {**facts, **tally}

    return prepared(settings, sources, work, made)


def _encoded(conversations: Sequence[Conversation], writer: TurnWriter, settings: Sft) -> tuple[Any, dict[str, Any]]:
    """Write conversations as rows of tokens, those apart that are held out for evaluations."""
    from datasets import DatasetDict

    from medllm.training.conversations import encode_conversations, fill_rows, group_of
    from medllm.training.updates import hold_out

    if settings.eval_strategy == "no":
        pieces, tally = encode_conversations(conversations, writer, settings.max_length)
        say("sft", str(tally))
        return fill_rows(pieces, settings.max_length, packing=settings.packing), tally.as_facts()
    held = hold_out([group_of(conversation) for conversation in conversations], settings.eval_size, settings.seed)
    parts = {
        name: encode_conversations(
            [conversation for conversation, out in zip(conversations, held, strict=True) if out == wanted],
            writer,
            settings.max_length,
        )
        for name, wanted in (("train", False), ("eval", True))
    }
    say("sft", f"{parts['train'][1]}; held out for evaluations: {parts['eval'][1]}")
    rows = {
        name: fill_rows(pieces, settings.max_length, packing=settings.packing) for name, (pieces, _) in parts.items()
    }
    return DatasetDict(rows), parts["train"][1].as_facts() | {"held_out": parts["eval"][1].as_facts()}


def _facts(settings: Sft, tally: dict[str, Any], result: Any, trainer: Any) -> dict[str, Any]:  # noqa: ANN401
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    epochs = float(trainer.state.epoch or 0)
    return {
        "stage": "sft",
        **tally,
        "steps": result.global_step,
        "epochs": epochs,
        "tokens_trained": round(tally["tokens"] * epochs),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "nll": "mean over all tokens of the assistant in an update"
        if settings.assistant_only_loss
        else "mean over all tokens of an update",
        "seconds": result.metrics.get("train_runtime"),
        "settings": settings.model_dump(mode="json"),
    }
