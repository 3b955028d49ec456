"""The `rpo` stage: preference pairs to an adapter that explains itself without losing accuracy."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from medllm.recipe.settings import Rpo
from medllm.stages.workdir import finish_interrupted_move, move_into_place, say, work_folder, write_facts

ON_THE_WAY = ("checkpoints", "last_good", "cache", "above")


def make(settings: Rpo, sources: dict[str, Path], out: Path) -> None:
    """Optimise preferences; the adapter that is written gives the final model alone on the base, CPT and RPO in one.

    Called again after an interruption, it resumes from the last whole checkpoint.
    """
    if (out / "facts.json").is_file() or finish_interrupted_move(out, ON_THE_WAY):
        return
    from medllm.training.callbacks import gather_sharded_state, translate_resource_errors
    from medllm.training.devices import set_up_trackers
    from medllm.training.launcher import launch_processes

    set_up_trackers("rpo", settings)
    work = work_folder(out)
    with translate_resource_errors("rpo", work):
        pairs, held_out, tally = _pairs(settings, sources, work)
        mix, account = _mix(settings, sources, work)
        if launch_processes("rpo", settings, sources, out):
            return
        from medllm.training.checkpointing import run, write_trained
        from medllm.training.layout import choose_pairs
        from medllm.training.load import load_start
        from medllm.training.rpo import make_trainer
        from medllm.training.targets import coverage
        from medllm.training.updates import evaluation_facts
        from medllm.weights.adapter import refuse_unstored

        tell = partial(say, "rpo")
        _keep_other_reference(settings, sources, (pairs, held_out, mix), work)
        start = load_start(settings, sources)
        trainer = make_trainer(start.model, start.tokenizer, pairs, settings, work, held_out, say=tell, mix=mix)
        refuse_unstored(trainer.model, start.base)
        covered, layout = coverage(trainer.model), choose_pairs(trainer)
        if trainer.is_world_process_zero():
            for sentence in (covered.sentence, *layout.sentences):
                say("rpo", sentence)
        result = run(trainer, "rpo", work)
        state = gather_sharded_state(trainer)
        if trainer.is_world_process_zero():
            write_trained(trainer, start, settings, work, state)
            made_from: dict[str, Any] = {"base": start.base.name, "fingerprint": start.base.fingerprint}
            made_from |= {
                "round": _round(sources[settings.data]),
                **covered.facts,
                **layout.facts,
                **evaluation_facts(trainer),
            }
            write_facts(work, {"stage": "rpo", **made_from, **tally, **account, **_facts(settings, result, trainer)})
            move_into_place(work, out, ON_THE_WAY)
        trainer.accelerator.wait_for_everyone()


def _pairs(settings: Rpo, sources: dict[str, Path], work: Path) -> Any:  # noqa: ANN401  pairs and their account
    from datasets import DatasetDict

    from medllm.training.data import prepared
    from medllm.training.load import chat_template_for
    from medllm.training.pair_batches import VALUES, encode_pairs, question_names, read_pairs
    from medllm.training.updates import hold_out
    from medllm.weights.load import load_tokenizer

    def made(tokenizer: Path) -> tuple[Any, dict[str, Any]]:
        table = read_pairs(sources[settings.data], work / "cache", keep_exemplars=settings.keep_exemplars)
        talks, words = VALUES in table.column_names, load_tokenizer(tokenizer)
        chat = chat_template_for(settings, sources, words, talks=talks)
        pairs, tally = encode_pairs(table, words, settings.max_length, chat)
        longer = f"{tally.too_long} are longer than {settings.max_length} tokens"
        if settings.eval_strategy == "no":
            say("rpo", f"{tally.trained} of {tally.pairs} pairs; {longer}")
            return pairs, tally.as_facts()
        questions = question_names(sources[settings.data], work / "cache")
        held = hold_out([questions[number] for number in pairs["pair"]], settings.eval_size, settings.seed)
        parts = DatasetDict(
            {
                name: pairs.select([row for row, out in enumerate(held) if out == wanted])
                for name, wanted in (("train", False), ("eval", True))
            }
        )
        tally.trained = len(parts["train"])
        say("rpo", f"{tally.trained} of {tally.pairs} pairs, {len(parts['eval'])} held out for evaluations; {longer}")
        return parts, tally.as_facts() | {"held_out": {"pairs": len(parts["eval"])}}

    return prepared(settings, sources, work, made)


def _mix(settings: Rpo, sources: dict[str, Path], work: Path) -> tuple[Any, dict[str, Any]]:
    """Return the conversations that join the pairs, and their account; nothing where the recipe has none."""
    block = settings.mix
    if block is None:
        return None, {}
    from medllm.training.conversations import encode_conversations, writer_of
    from medllm.training.data import prepared
    from medllm.training.instructions import admit_conversations
    from medllm.training.load import chat_template_for
    from medllm.training.pair_batches import conversations_as_pairs
    from medllm.weights.load import load_tokenizer

    def made(tokenizer: Path) -> tuple[Any, dict[str, Any]]:
        admitted = admit_conversations(block, sources, "rpo.mix", system=block.system_prompt)
        admitted.write(work)
        words = load_tokenizer(tokenizer)
        talks = block.format != "completion" and any(talk.messages for talk in admitted.conversations)
        chat = chat_template_for(settings.model_copy(update={"format": "auto"}), sources, words, talks=talks)
        writer = writer_of(words, chat, block)
        rows, tally = encode_conversations(admitted.conversations, writer, settings.max_length, "rpo.mix")
        say("rpo", f"{tally}; {settings.mixed_rows} of {settings.total_batch_size} rows of an update")
        return conversations_as_pairs(rows), {**admitted.facts(), **tally.as_facts()}

    rows, _, account = prepared(settings, sources, work, made, "mix")
    return rows, {"mix": {**account, "settings": block.model_dump(mode="json")}}


def _keep_other_reference(settings: Rpo, sources: dict[str, Path], parts: tuple[Any, Any, Any], work: Path) -> None:
    """Compute the reference with the model that `settings.reference` names, and keep it for the training.

    That model is loaded and wrapped as the one to train will be, asked for every pair in the same micro-batches, and
    given back before the other is loaded.
    """
    from medllm.training.reference import FILE, EndWithReference, ReferenceKnown

    if settings.reference is None or (work / FILE).is_file():
        return
    from medllm.training.layout import choose_pairs
    from medllm.training.load import load_start
    from medllm.training.rpo import make_trainer
    from medllm.weights.load import release

    say("rpo", f"the reference is {settings.reference}")
    own = settings.model_copy(update={"model": settings.reference, "reference": None})
    start, apart = load_start(own, sources), work / "above"
    pairs, held_out, mix = parts
    tell = partial(say, "rpo")
    trainer = make_trainer(start.model, start.tokenizer, pairs, own, apart, held_out, say=tell, mix=mix)
    choose_pairs(trainer)
    trainer.add_callback(EndWithReference())
    with suppress(ReferenceKnown):
        trainer.train()
    if trainer.is_world_process_zero():
        (apart / FILE).replace(work / FILE)
    trainer.accelerator.wait_for_everyone()
    trainer.accelerator.free_memory()
    del trainer, start
    release()


def _facts(settings: Rpo, result: Any, trainer: Any) -> dict[str, Any]:  # noqa: ANN401
    lines = [line for line in trainer.state.log_history if "loss" in line]
    kept = ("loss", "loss/dpo", "loss/nll", "loss/mix", "rewards/chosen", "rewards/margins", "rewards/accuracies")
    return {
        "steps": result.global_step,
        "epochs": float(trainer.state.epoch or 0),
        "first": {key: lines[0][key] for key in kept if key in lines[0]} if lines else None,
        "last": {key: lines[-1][key] for key in kept if key in lines[-1]} if lines else None,
        "chosen_fell_at_step": trainer.falling.first,
        "reference": settings.reference or "the model at the start, proved equal to the policy before the first update",
        "nll": "mean over the tokens of each chosen answer, then over pairs (Pang et al.)",
        "seconds": result.metrics.get("train_runtime"),
        "settings": settings.model_dump(mode="json"),
    }


def _round(preferences: Path) -> int:
    """Which round of sampling the pairs came from, so that the next one knows its number."""
    path = preferences / "facts.json"
    return int(json.loads(path.read_text("utf-8")).get("round", 1)) if path.is_file() else 1
