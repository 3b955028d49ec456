"""Two processes that train together over gloo: both losses, and the adapter, are those of one process."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from medllm.recipe.settings import Cpt, Lora, Rpo
from medllm.stages import cpt, rpo, sft
from medllm.training.devices import split_batch
from tests import tiny, together
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("watchdog")
CONFIG = str(Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu-2.yaml")
COMMON = {"max_steps": 4, "total_batch_size": 4, "dtype": "float32", "learning_rate": 1e-3}
COMMON |= {"gradient_checkpointing": False, "logging_steps": 1, "report_to": ()}
TRAININGS = {
    "cpt": (cpt.make, Cpt(lora=Lora(r=4, lora_alpha=8), max_length=64, **COMMON)),
    "sft": (sft.make, tiny.SFT.model_copy(update={**COMMON, "per_device_train_batch_size": 1, "packing": False})),
    "rpo": (rpo.make, Rpo(model="cpt", rpo_alpha=10, max_length=256, **COMMON)),
    "mix": (
        rpo.make,
        Rpo(
            model="cpt",
            rpo_alpha=10,
            max_length=256,
            chat_template=tiny.CHAT,
            mix={"data": tiny.SFT.data, "held_out": [], "cutoff": tiny.SFT.cutoff, "share": 0.25},
            **COMMON,
        ),
    ),
}


def losses(folder):
    lines = [json.loads(line) for line in (folder / "training" / "log.jsonl").read_text("utf-8").splitlines()]
    return [
        value for line in lines for name, value in line.items() if name in ("loss", "loss/dpo", "loss/nll", "loss/mix")
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("cpt", marks=pytest.mark.long),
        pytest.param("sft", marks=pytest.mark.long),
        "rpo",
        pytest.param("mix", marks=pytest.mark.long),
    ],
)
def test_two_processes_over_gloo_learn_what_one_learns(tmp_path, stage):
    base = tiny.make_base(tmp_path / "base")
    sources = {"base": base, "cpt": tiny.make_adapter(tmp_path / "cpt", base)}
    # Of different lengths, so that a mean over devices instead of over tokens (or pairs) would show.
    sources["corpus"] = tiny.make_corpus(tmp_path / "corpus", 20, longest=80)
    # The last update of an epoch has one pair, so that a pair counted twice to fill the other device would show.
    sources["preferences"] = tiny.make_pairs(tmp_path / "pairs", 13)
    sources["./talks"] = tiny.make_talks(tmp_path / "talks", 15)
    make, settings = TRAININGS[stage]
    make(settings, sources, tmp_path / "one")
    make(settings.model_copy(update={"accelerate": CONFIG}), sources, tmp_path / "two")
    assert not (tmp_path / "two.given.json").exists()
    one, two = (losses(tmp_path / name) for name in ("one", "two"))
    assert len(one) == {"cpt": 4, "sft": 4, "rpo": 12, "mix": 16}[stage] and len(set(one)) > 4 - 1
    assert two == pytest.approx(one, rel=1e-4)
    left, right = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    start = load_file(sources["cpt"] / "adapter_model.safetensors") if stage in ("rpo", "mix") else {}
    assert left.keys() == right.keys()
    for name, learnt in left.items():
        moved = float((learnt - start[name]).abs().max()) if start else float(learnt.abs().max())
        assert float((learnt - right[name]).abs().max()) < 0.05 * moved, name


def test_a_batch_is_split_over_devices_without_changing_its_size():
    assert split_batch(16, 4, 2) == (4, 2)
    assert split_batch(4, 8, 1) == (4, 1)
    with refused("recipe.batch-not-divisible", "`total_batch_size` 16", "3 devices"):
        split_batch(16, 1, 3)


# One process takes its time over the tokens, longer than the other would wait in an exchange; and of two rows of a
# micro-step one may lie on this side and one on that side of the border between the two ways to the logits.
SLOWLY = """
import time
from medllm.training import cpt
read = cpt.read_texts
def slowly(*given, **options):
    time.sleep(25)
    return read(*given, **options)
cpt.read_texts = slowly
cpt.WHOLE_LOGITS = 30 * 393
"""


@pytest.mark.slow
@pytest.mark.long
def test_rows_of_unlike_lengths_and_slow_tokens_keep_no_process_waiting(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    sources = {"base": base, "corpus": tiny.make_corpus(tmp_path / "corpus", 30, longest=60)}
    settings = Cpt(lora=Lora(r=4, lora_alpha=8), max_length=64, packing=False, **COMMON)
    settings = settings.model_copy(update={"max_steps": None, "num_train_epochs": 1.0})
    cpt.make(settings, sources, tmp_path / "one")
    # Fifteen seconds are more than two processes on a busy machine need to meet, and less than the tokens take.
    together.train("cpt", settings, sources, tmp_path / "two", processes=2, patches=SLOWLY, patience=15)
    lengths = [row["seq_lengths"][0] for row in _rows_of(sources, tmp_path)]
    assert min(lengths) < 15 and max(lengths) > 45, "rows on both sides of the border"
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    assert len(losses(tmp_path / "two")) == 8


def _rows_of(sources, folder):
    from medllm.training.cpt import make_rows, read_texts
    from medllm.weights.load import load_tokenizer

    texts = read_texts(sources["corpus"], folder / "cache")
    return make_rows(texts, load_tokenizer(sources["base"]), 64, packing=False)[0]
