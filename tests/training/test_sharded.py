"""One model shared over processes by FSDP2, tried on CPU processes: it learns what one process learns."""

import json

import pytest
import torch
from safetensors.torch import load_file

from medllm.recipe.settings import Cpt, Lora, Rpo
from medllm.training.checkpointing import last_checkpoint
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from tests import tiny, together

pytestmark = pytest.mark.usefixtures("watchdog")
COMMON = {
    "total_batch_size": 4,
    "num_train_epochs": 2.0,
    "logging_steps": 1,
    "save_steps": 3,
    "report_to": (),
    "learning_rate": 1e-3,
}
SETTINGS = {
    "cpt": Cpt(lora=Lora(r=8, lora_alpha=16), max_length=64, **COMMON),
    "sft": tiny.SFT.model_copy(update={**COMMON, "dtype": "bfloat16", "lora": Lora(r=8, lora_alpha=16)}),
    "rpo": Rpo(model="cpt", rpo_alpha=10, max_length=256, **COMMON),
}
KILL = """
from medllm.training.callbacks import TrainingLog
write = TrainingLog.on_log
def killed(self, args, state, control, logs, **more):
    write(self, args, state, control, logs, **more)
    if state.global_step == 5:
        raise SystemExit("killed after update 5")
TrainingLog.on_log = killed
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Thirteen pairs and rows, so that the last update of each epoch has a row for one process only."""
    folder = tmp_path_factory.mktemp("sources")
    base = tiny.make_base(folder / "base", hidden_size=64, head_dim=16, dtype="bfloat16")
    pairs, corpus = tiny.make_pairs(folder / "pairs", 13), tiny.make_corpus(folder / "corpus")
    return {"base": base, "cpt": tiny.make_adapter(folder / "cpt", base), "preferences": pairs, "corpus": corpus} | {
        "./talks": tiny.make_talks(folder / "talks", 13)
    }


def log_of(folder):
    return [json.loads(line) for line in (folder / "training" / "log.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(("stage", "quantization"), [("cpt", "none"), ("sft", "none"), ("rpo", "nf4")])
def test_two_shards_learn_what_one_process_learns_and_go_on_after_a_kill(sources, tmp_path, stage, quantization):
    settings = SETTINGS[stage].model_copy(update={"quantization": quantization})
    together.train(stage, settings, sources, tmp_path / "one", processes=1, sharded=True)
    if quantization == "nf4":
        with pytest.raises(AssertionError, match="killed after update 5"):
            together.train(stage, settings, sources, tmp_path / "two", processes=2, sharded=True, patches=KILL)
        left = last_checkpoint(tmp_path / "two.part" / "checkpoints")
        assert left.name == "checkpoint-3"
    together.train(stage, settings, sources, tmp_path / "two", processes=2, sharded=True)
    one, two = (log_of(tmp_path / name) for name in ("one", "two"))
    updates = 6 if stage == "sft" else 8  # some of the conversations share a row
    assert [line["step"] for line in two] == [line["step"] for line in one] == list(range(1, updates + 1))
    # The processes' gradients are added up in bfloat16, as accelerate has it for the exchange.
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=2e-3)
    if stage == "rpo":
        assert [line["rewards/margins"] for line in two[:2]] == [0, 0], "the reference is the start, to the last bit"
    learnt = load_file(tmp_path / "two" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in learnt.values()} == {torch.float32}, "an adapter in bfloat16 rounds updates off"
    alone = load_file(tmp_path / "one" / "adapter_model.safetensors")
    start = load_file(sources["cpt"] / "adapter_model.safetensors") if stage == "rpo" else {}
    assert learnt.keys() == alone.keys()
    for name, tensor in learnt.items():
        moved = float((alone[name] - start[name]).abs().mean()) if start else float(alone[name].abs().mean())
        assert float((tensor - alone[name]).abs().mean()) < 0.2 * moved, name
    Adapter(tmp_path / "two").fits(Checkpoint(sources["base"]))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("stage", ["cpt", "rpo"])
def test_two_shards_train_all_weights_as_one_process_does_and_write_one_full_model(sources, tmp_path, stage):
    """In bfloat16, with a kill after the fifth update of the two."""
    changed = {"lora": None, "model": "base", "learning_rate": 1e-4}
    settings = SETTINGS[stage].model_copy(update=changed)
    together.train(stage, settings, sources, tmp_path / "one", processes=1, sharded=True)
    with pytest.raises(AssertionError, match="killed after update 5"):
        together.train(stage, settings, sources, tmp_path / "two", processes=2, sharded=True, patches=KILL)
    together.train(stage, settings, sources, tmp_path / "two", processes=2, sharded=True)
    one, two = (log_of(tmp_path / name) for name in ("one", "two"))
    assert [line["step"] for line in two] == [line["step"] for line in one] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=2e-3)
    base, alone, learnt = (
        load_file(folder / "model.safetensors")
        for folder in (sources["base"], *(tmp_path / name for name in ("one", "two")))
    )
    assert learnt.keys() == alone.keys() == base.keys()
    assert {tensor.dtype for tensor in learnt.values()} == {torch.bfloat16}
    moved, apart = (
        sum(float((learnt[name].float() - other[name].float()).abs().sum()) for name in learnt)
        for other in (base, alone)
    )
    assert moved > 0 and apart < 0.2 * moved
    facts = json.loads((tmp_path / "two" / "facts.json").read_text("utf-8"))
    assert facts["method"] == "full fine-tuning" and facts["trained_numbers"] == sum(
        one.numel() for one in base.values()
    )


WRONG = """
import torch
from torch.distributed.fsdp import FSDPModule
from medllm.training.callbacks import SameAfterSharding
ask = SameAfterSharding._logits
def spoilt(self):
    if isinstance(self.trainer.model, FSDPModule):
        for name, parameter in self.trainer.model.named_parameters():
            if "down_proj.base_layer" in name:
                parameter.data.zero_()
    return ask(self)
SameAfterSharding._logits = spoilt
"""


@pytest.mark.slow
def test_weights_that_sharding_changed_stop_the_run_before_anything_is_learnt(sources, tmp_path):
    with pytest.raises(AssertionError, match="bitsandbytes issue 1945"):
        together.train("cpt", SETTINGS["cpt"], sources, tmp_path / "out", processes=1, sharded=True, patches=WRONG)
    assert not list((tmp_path / "out.part" / "checkpoints").glob("checkpoint-*"))


SPOILT = """
from medllm.training.rpo import RpoTrainer
compute = RpoTrainer.compute_loss
def spoilt(self, *args, **options):
    loss = compute(self, *args, **options)
    return loss * float("nan") if rank == 1 and self.state.global_step == 2 else loss
RpoTrainer.compute_loss = spoilt
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_loss_that_is_no_number_on_one_process_stops_both_with_the_weights_of_the_step_before(sources, tmp_path):
    changed = {"num_train_epochs": None, "lr_scheduler_type": "constant", "warmup_ratio": 0.0, "save_steps": 100}
    settings = SETTINGS["rpo"].model_copy(update=changed)
    two, three = (settings.model_copy(update={"max_steps": steps}) for steps in (2, 3))
    together.train("rpo", two, sources, tmp_path / "two", processes=2, sharded=True)
    with pytest.raises(AssertionError) as stopped:
        together.train("rpo", three, sources, tmp_path / "three", processes=2, sharded=True, patches=SPOILT)
    assert str(stopped.value).count("step 3: the loss or a gradient is not a number") == 2
    kept = load_file(tmp_path / "three.part" / "last_good" / "adapter_model.safetensors")
    second = load_file(tmp_path / "two" / "adapter_model.safetensors")
    assert kept.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in kept.items())
    Adapter(tmp_path / "three.part" / "last_good").fits(Checkpoint(sources["base"]))
