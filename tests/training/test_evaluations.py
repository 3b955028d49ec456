"""Evaluations during a training: rows held out whole, means over them, the best weights kept, and an early end."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from medllm.stages import cpt, rpo
from medllm.training import callbacks
from medllm.training.cpt import question_or_text, read_texts
from medllm.training.pair_batches import question_names
from medllm.training.updates import hold_out
from medllm.weights.load import load_tokenizer
from tests import tiny
from tests.refusals import refused
from tests.stages.test_architectures import Killed, killed, resumed, weights
from tests.together import train

STEPS = {"eval_strategy": "steps", "eval_steps": 2, "eval_size": 8}
BEST = {**STEPS, "load_best_model_at_end": True, "max_steps": 12, "save_steps": 5}
BEST |= {"learning_rate": 1.0, "lr_scheduler_type": "constant"}
"""A training whose steps are so wide that the last evaluation is not the best."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return tiny.make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch):
    monkeypatch.setattr(callbacks, "SAMPLED_TOKENS", 4)


def evaluations(out: Path) -> dict[int, dict[str, float]]:
    """The figures of each evaluation in a training's log, by update."""
    lines = [json.loads(line) for line in (out / "training" / "log.jsonl").read_text("utf-8").splitlines()]
    return {line["step"]: line for line in lines if "eval_loss" in line}


def test_rows_are_held_out_by_whole_groups_whatever_their_order_until_there_are_enough():
    groups = [f"question {number // 3}" for number in range(60)]
    held = hold_out(groups, 10, seed=1)
    chosen = {group for group, out in zip(groups, held, strict=True) if out}
    assert sum(held) == 12 and not chosen & {group for group, out in zip(groups, held, strict=True) if not out}
    backwards = hold_out(groups[::-1], 10, seed=1)
    assert chosen == {group for group, out in zip(groups[::-1], backwards, strict=True) if out}
    assert sum(hold_out(groups, 0.05, seed=1)) == 3 and hold_out(groups, 10, seed=2) != held


def test_a_size_that_leaves_nothing_to_train_on_is_refused():
    with refused("training.all-held-out", "`eval_size` 9", "10 rows", "2 of them"):
        hold_out(["a"] * 5 + ["b"] * 5, 9, seed=0)


def test_an_exam_item_in_several_ways_and_a_text_that_occurs_twice_are_one_group(tmp_path):
    (tmp_path / "corpus").mkdir()
    columns = {
        "text": ["asked plainly", "asked for reasons", "another", "a text", "a text", "Q1 plain"],
        "kind": ["exam", "exam", "exam", "guideline", "guideline", None],
        "locator": ["Q1 plain", "Q1 explain", "Q2 plain", "Q1 plain", "line 2", "line 3"],
    }
    pq.write_table(pa.table(columns), tmp_path / "corpus" / "train.parquet")
    texts = read_texts(tmp_path, tmp_path / "cache", items=True)
    named = dict(zip(texts["text"], question_or_text(texts), strict=True))
    assert named["asked plainly"] == named["asked for reasons"] != named["another"]
    assert named["a text"] == "a text" and named["Q1 plain"] == "Q1 plain"


def test_pairs_of_a_question_are_one_group_by_its_number_else_by_its_prompt(tmp_path):
    tiny.make_pairs(tmp_path / "plain", count=3)
    names = question_names(tmp_path / "plain", tmp_path / "cache")
    assert len(set(names)) == 3 and all("問題: " in name for name in names)
    table = pq.read_table(tmp_path / "plain" / "data" / "train.parquet")
    table = table.append_column("benchmark", pa.array(["past"] * 3)).append_column(
        "question_id", pa.array(["1", "1", "2"])
    )
    (tmp_path / "numbered").mkdir()
    pq.write_table(table, tmp_path / "numbered" / "pairs.parquet")
    names = question_names(tmp_path / "numbered", tmp_path / "cache")
    assert names[0] == names[1] != names[2]


def test_the_loss_is_the_mean_over_the_tokens_of_the_documents_that_are_held_out(sources, tmp_path):
    settings = tiny.CPT.model_copy(update=STEPS)
    facts = resumed(cpt, settings, sources, tmp_path / "out")
    assert facts["held_out"]["documents"] == 8 and facts["documents"] == 32
    found = evaluations(tmp_path / "out")
    assert list(found) == [2, 4, 6] and facts["kept_step"] == 6 and not facts["stopped_early"]
    assert evaluations(tmp_path / "out-again") == found
    texts = read_texts(sources["corpus"], tmp_path / "cache")
    held = hold_out(question_or_text(texts), 8, seed=0)
    tokenizer = load_tokenizer(sources["base"])
    base = AutoModelForCausalLM.from_pretrained(sources["base"], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(tmp_path / "out")).eval()
    total, count = 0.0, 0
    for text, out in zip(texts["text"], held, strict=True):
        if out:
            ids = torch.tensor([[*tokenizer(text)["input_ids"], tokenizer.eos_token_id]])
            with torch.no_grad():
                scores = model(ids).logits[0, :-1].log_softmax(-1)
            total -= float(scores.gather(-1, ids[0, 1:, None]).sum())
            count += ids.shape[1] - 1
    assert found[6]["eval_loss"] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("full", [False, True], ids=["adapter", "full"])
def test_the_weights_of_the_best_evaluation_are_kept_after_a_kill_too(sources, tmp_path, full):
    settings = tiny.CPT.model_copy(update={**BEST, **({"lora": None, "learning_rate": 0.3} if full else {})})
    seen = {}
    with tiny.at_each_checkpoint(lambda folder: seen.update({folder.name: weights(folder)})):
        facts = resumed(cpt, settings, sources, tmp_path / "out")
    found = evaluations(tmp_path / "out")
    best = min(found, key=lambda step: found[step]["eval_loss"])
    assert best < 12 and facts["kept_step"] == best and facts["steps"] == 12
    made = weights(tmp_path / "out")
    assert all(torch.equal(made[name], one) for name, one in seen[f"checkpoint-{best}"].items())


def test_a_training_ends_after_evaluations_without_a_better_one_and_so_it_does_when_it_is_resumed(sources, tmp_path):
    settings = tiny.CPT.model_copy(update={**BEST, "early_stopping_patience": 2, "max_steps": 40})
    facts = resumed(cpt, settings, sources, tmp_path / "out")
    found = evaluations(tmp_path / "out")
    best = min(found, key=lambda step: found[step]["eval_loss"])
    assert facts["stopped_early"] and facts["steps"] == max(found) == best + 4 and facts["kept_step"] == best


def test_a_training_that_is_killed_after_its_early_end_takes_no_further_update(sources, tmp_path, monkeypatch):
    settings = tiny.CPT.model_copy(update={**BEST, "early_stopping_patience": 2, "max_steps": 40, "save_steps": 1})
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("medllm.training.checkpointing.write_trained", lambda *given: killed(given))
        cpt.make(settings, sources, tmp_path / "out")
    before = evaluations(tmp_path / "out.part")
    cpt.make(settings, sources, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    assert evaluations(tmp_path / "out") == before and facts["steps"] == max(before) and facts["stopped_early"]


def test_a_missing_best_checkpoint_is_named_when_the_run_is_resumed(sources, tmp_path):
    settings = tiny.CPT.model_copy(update={**BEST, "early_stopping_patience": 2, "save_steps": 1})

    def kill_after_the_best(folder):
        state = json.loads((folder / "trainer_state.json").read_text("utf-8"))
        if state["best_global_step"] not in (None, state["global_step"]):
            raise Killed

    with pytest.raises(Killed), tiny.at_each_checkpoint(kill_after_the_best):
        cpt.make(settings, sources, tmp_path / "out")
    checkpoints = tmp_path / "out.part" / "checkpoints"
    last = max(checkpoints.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    best = json.loads((last / "trainer_state.json").read_text("utf-8"))["best_global_step"]
    (checkpoints / f"checkpoint-{best}").rename(tmp_path / "elsewhere")
    with refused("training.best-checkpoint-missing", checkpoints / f"checkpoint-{best}"):
        cpt.make(settings, sources, tmp_path / "out")
    (tmp_path / "elsewhere").rename(checkpoints / f"checkpoint-{best}")
    (tmp_path / "out.part").rename(tmp_path / "moved.part")  # as to another machine
    cpt.make(settings, sources, tmp_path / "moved")
    found = evaluations(tmp_path / "moved")
    kept = json.loads((tmp_path / "moved" / "facts.json").read_text("utf-8"))["kept_step"]
    assert kept == min(found, key=lambda step: found[step]["eval_loss"])


def test_each_epoch_is_evaluated_at_its_last_update(sources, tmp_path):
    changed = {"eval_strategy": "epoch", "eval_size": 0.2, "num_train_epochs": 2, "max_steps": None}
    cpt.make(tiny.CPT.model_copy(update=changed), sources, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    each = math.ceil(facts["rows"] / 4)
    assert list(evaluations(tmp_path / "out")) == [each, 2 * each] and facts["held_out"]["documents"] == 8


def test_pairs_are_evaluated_with_the_figures_of_their_training_and_against_the_very_start(sources, tmp_path):
    changed = {**STEPS, "eval_size": 4, "load_best_model_at_end": True, "metric_for_best_model": "rewards/margins"}
    facts = resumed(rpo, tiny.RPO.model_copy(update=changed), sources, tmp_path / "out")
    assert facts["held_out"] == {"pairs": 4} and facts["trained"] == 12
    found = evaluations(tmp_path / "out")
    assert list(found) == [2, 4, 6] and evaluations(tmp_path / "out-again") == found
    assert facts["kept_step"] == max(found, key=lambda step: found[step]["eval_rewards/margins"])
    for line in found.values():
        loss = line["eval_loss/dpo"] + 10 * line["eval_loss/nll"]
        assert line["eval_loss"] == pytest.approx(loss, rel=1e-6)
        assert line["eval_rewards/margins"] == pytest.approx(
            line["eval_rewards/chosen"] - line["eval_rewards/rejected"]
        )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "sharded"), [("cpt", True), ("rpo", False), ("rpo", True)], ids=["cpt-fsdp2", "rpo-ddp", "rpo-fsdp2"]
)
def test_two_processes_find_what_one_finds(sources, tmp_path, stage, sharded):
    # The second process is late at each checkpoint, so it sees the folder that the first one has begun to fill.
    late = "import time, transformers\nsave = transformers.Trainer.save_model\n"
    late += "transformers.Trainer.save_model = lambda *given, **named: (time.sleep(rank), save(*given, **named))[1]"
    settings = (tiny.CPT if stage == "cpt" else tiny.RPO).model_copy(
        update={**STEPS, "eval_size": 5, "load_best_model_at_end": True, "early_stopping_patience": 1, "max_steps": 8}
    )
    {"cpt": cpt, "rpo": rpo}[stage].make(settings, sources, tmp_path / "one")
    train(stage, settings, sources, tmp_path / "two", processes=2, sharded=sharded, patches=late)
    one, two = evaluations(tmp_path / "one"), evaluations(tmp_path / "two")
    assert list(one) == list(two)
    for step, line in one.items():
        rel = 2e-2 if sharded else 1e-4  # divided, an adapter computes in bfloat16
        assert two[step]["eval_loss"] == pytest.approx(line["eval_loss"], rel=rel)
    facts = [json.loads((tmp_path / name / "facts.json").read_text("utf-8")) for name in ("one", "two")]
    assert facts[0]["kept_step"] == facts[1]["kept_step"]
    if not sharded:
        made, other = weights(tmp_path / "one"), weights(tmp_path / "two")
        assert all(torch.allclose(made[name], other[name], rtol=1e-3, atol=1e-5) for name in made)
