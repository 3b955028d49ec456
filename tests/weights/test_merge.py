"""The streamed merge: PEFT's own numbers bit for bit, little memory, interrupted and gone on, faults named."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from medllm.weights import checkpoint
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.merge import merge, share_lost_to_rounding
from tests import tiny
from tests.refusals import refused


def merged(base, adapters, out, dtype=None):
    messages = []
    merge(Checkpoint(base), [Adapter(folder) for folder in adapters], out, dtype=dtype, say=messages.append)
    assert "GB of disk; " in messages[0], "the room comes before any shard"
    return messages[1:]


def by_peft(base, adapters, dtype):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    for folder in adapters:
        model = PeftModel.from_pretrained(model, str(folder)).merge_and_unload()
    return model.eval()


@pytest.mark.parametrize("numbers", [checkpoint.NUMBERS_AT_ONCE, 700], ids=["whole tensors", "slices of them"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["qwen2", "gemma3_text"])
def test_every_tensor_is_bit_equal_to_successive_merges_by_peft(tmp_path, monkeypatch, dtype, family, numbers):
    monkeypatch.setattr(checkpoint, "NUMBERS_AT_ONCE", numbers)
    base = tiny.make_base(tmp_path / "base", family=family, dtype=dtype, shard="40KB")
    kind = getattr(torch, dtype)
    adapters = [
        tiny.make_adapter(
            tmp_path / "a", base, dtype=dtype, modules_to_save=["lm_head"], target_modules=["q_proj", "embed_tokens"]
        ),
        tiny.make_adapter(tmp_path / "b", base, dtype=dtype, seed=1, r=3, lora_alpha=5, use_rslora=True),
        tiny.make_adapter(
            tmp_path / "c",
            base,
            dtype=dtype,
            seed=2,
            rank_pattern={"layers.1.mlp.down_proj": 2},
            alpha_pattern={"q_proj": 3},
        ),
    ]
    merged(base, adapters, tmp_path / "out")
    shards = sorted(path.name for path in base.glob("*.safetensors"))
    assert len(shards) > 1 and shards == sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    expected = by_peft(base, adapters, kind).state_dict()
    from transformers import AutoModelForCausalLM

    got = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=kind).state_dict()
    assert got.keys() == expected.keys()
    assert [name for name in got if not torch.equal(got[name], expected[name])] == []
    original = AutoModelForCausalLM.from_pretrained(base, dtype=kind).state_dict()
    assert sum(not torch.equal(got[name], original[name]) for name in got) >= 8, "the adapters must change something"


@pytest.mark.parametrize("target", [["q_proj", "v_proj"], ["q_proj", "embed_tokens"]])
def test_a_tied_head_stays_what_it_was_under_the_adapter(tmp_path, target):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = tiny.make_base(tmp_path / "base", tied=True)
    adapter = tiny.make_adapter(tmp_path / "a", base, target_modules=target, std=0.3)
    messages = merged(base, [adapter], tmp_path / "out")
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
        want = PeftModel.from_pretrained(plain, str(adapter)).eval()(ids).logits
        got = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
        assert float((got(ids).logits - want).abs().max()) < 1e-4
    parted = "embed_tokens" in target
    assert got.config.tie_word_embeddings is not parted
    assert any("no longer the embedding" in line for line in messages) is parted


@pytest.mark.parametrize(
    ("std", "dtype", "least", "most"),
    [
        (1e-6, "bfloat16", 0.9, 1.01),
        (0.1, "bfloat16", 1e-6, 0.1),
        (1e-6, "float32", 1e-9, 0.05),
        (0.1, "float32", 1e-9, 1e-5),
    ],
)
def test_a_small_change_is_lost_to_rounding_in_coarse_numbers_alone(tmp_path, std, dtype, least, most):
    base = tiny.make_base(tmp_path / "base", dtype="bfloat16")
    adapter = tiny.make_adapter(tmp_path / "a", base, std=std)
    lost = share_lost_to_rounding(Checkpoint(base), [Adapter(adapter)], dtype)
    assert lost is not None and least <= lost <= most
    merged(base, [adapter], tmp_path / "out", dtype)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out"))
    same = torch.cat([(before[name].float() == after[name].float()).flatten() for name in before if "q_proj.w" in name])
    assert (same.float().mean() > 0.99) == (lost > 0.9)


def test_an_interrupted_merge_goes_on_with_the_shards_that_are_missing(tmp_path):
    base = tiny.make_base(tmp_path / "base", shard="60KB")
    adapter = tiny.make_adapter(tmp_path / "a", base)
    merged(base, [adapter], tmp_path / "whole")
    merged(base, [adapter], tmp_path / "out")
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    shards[-1].rename(shards[-1].with_name(shards[-1].name + ".part"))
    (tmp_path / "out" / "config.json").unlink()
    written = [shard.stat().st_mtime_ns for shard in shards[:-1]]
    merged(base, [adapter], tmp_path / "out")
    assert len(shards) == 3
    assert [shard.stat().st_mtime_ns for shard in shards[:-1]] == written
    for shard in shards:
        assert shard.read_bytes() == (tmp_path / "whole" / shard.name).read_bytes()


def test_the_shards_of_another_merge_are_not_gone_on_with(tmp_path):
    base = tiny.make_base(tmp_path / "base", shard="60KB")
    one, other = (tiny.make_adapter(tmp_path / name, base, seed=seed) for seed, name in enumerate("ab"))
    merged(base, [one], tmp_path / "out")
    for adapters, dtype in (([other], None), ([one, other], None), ([one], "bfloat16")):
        with refused("weights.other-merge", tmp_path / "out"):
            merged(base, adapters, tmp_path / "out", dtype)
    assert merged(base, [one], tmp_path / "out") == [], "the same merge is gone on with"


def test_a_float32_base_can_be_written_as_bfloat16(tmp_path):
    base = tiny.make_base(tmp_path / "base", shard="60KB")
    adapter = tiny.make_adapter(tmp_path / "a", base)
    merged(base, [adapter], tmp_path / "out", "bfloat16")
    expected = by_peft(base, [adapter], torch.float32).state_dict()
    for shard in (tmp_path / "out").glob("*.safetensors"):
        for name, tensor in load_file(shard).items():
            assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, expected[name].to(torch.bfloat16))
    assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["dtype"] == "bfloat16"
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text("utf-8"))
    assert index["metadata"]["total_size"] == sum(t.size for t in Checkpoint(tmp_path / "out").tensors.values())


def test_a_bfloat16_base_written_as_float32_keeps_the_whole_change(tmp_path):
    base = tiny.make_base(tmp_path / "base", dtype="bfloat16")
    adapters = [tiny.make_adapter(tmp_path / name, base, seed=seed, std=1e-4) for seed, name in enumerate("ab")]
    merged(base, adapters, tmp_path / "out", "float32")
    expected = by_peft(base, adapters, torch.float32).state_dict()
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, expected[name])


def test_a_disk_that_holds_the_base_but_not_the_wider_merged_model_is_refused_before_a_byte_is_written(
    tmp_path, monkeypatch
):
    base = tiny.make_base(tmp_path / "base", tied=True, dtype="bfloat16", shard="40KB")
    adapter = tiny.make_adapter(tmp_path / "a", base, dtype="bfloat16", target_modules=["embed_tokens"])
    tensors = Checkpoint(base).tensors
    whole = 2 * sum(tensor.size for tensor in tensors.values()) + 2 * tensors["model.embed_tokens.weight"].size

    def disk_of(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(free, 0, free))

    disk_of(whole - 1)
    with refused("weights.disk-too-small", tmp_path / "out", f"{(whole - 1) / 1e9:.3g} GB"):
        merged(base, [adapter], tmp_path / "out", dtype="float32")
    assert not list((tmp_path / "out").iterdir())
    disk_of(whole)
    merged(base, [adapter], tmp_path / "out", dtype="float32")
    written = sum(tensor.size for tensor in Checkpoint(tmp_path / "out").tensors.values())
    assert written == whole
    disk_of(0)
    assert merged(base, [adapter], tmp_path / "out", dtype="float32"), "what stands needs no room again"


def test_an_adapter_of_another_base_is_refused_with_both_names(tmp_path):
    base = tiny.make_base(tmp_path / "mine")
    other = tiny.make_base(tmp_path / "theirs", seed=1)
    adapter = tiny.make_adapter(tmp_path / "a", other)
    with refused("weights.other-base", "theirs", "mine"):
        merged(base, [adapter], tmp_path / "out")
    (adapter / "base.json").unlink()
    wider = tiny.make_base(tmp_path / "wider", family="llama", hidden_size=64)
    with refused("weights.misfit", "wider", "model.layers.0.mlp.down_proj", "(32, 64)", "(64, 64)"):
        merged(wider, [adapter], tmp_path / "out")


def test_an_adapter_whose_tokenizer_numbers_a_word_otherwise_is_refused_with_that_word(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    adapter = tiny.make_adapter(tmp_path / "a", base)
    values = json.loads((base / "tokenizer.json").read_text("utf-8"))
    (adapter / "tokenizer.json").write_text(json.dumps(values), "utf-8")
    Adapter(adapter).fits(Checkpoint(base))
    words = values["model"]["vocab"]
    first, second = [word for word in words if not word.startswith("<|")][:2]
    words[first], words[second] = words[second], words[first]
    (adapter / "tokenizer.json").write_text(json.dumps(values), "utf-8")
    with refused("weights.other-tokenizer", adapter, f"`{first}`", "base"):
        merged(base, [adapter], tmp_path / "out")


def test_an_adapter_trained_on_a_resized_vocabulary_is_refused_with_both_sizes(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    resized = tiny.make_base(tmp_path / "resized", vocab_size=408)
    adapter = tiny.make_adapter(tmp_path / "a", resized, modules_to_save=["lm_head"])
    (adapter / "base.json").unlink()
    with refused("weights.misfit", "lm_head.weight", "(408, 32)", "(400, 32)"):
        merged(base, [adapter], tmp_path / "out")


def test_adapters_that_are_missing_broken_or_pickled_are_refused(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    for folder, code in (
        (tmp_path / "none", "weights.no-folder"),
        (tmp_path, "weights.not-an-adapter"),
        (base, "weights.not-an-adapter"),
    ):
        with refused(code, folder):
            merged(base, [folder], tmp_path / "out")
    adapter = tiny.make_adapter(tmp_path / "a", base)
    weights = adapter / "adapter_model.safetensors"
    cut = tmp_path / "cut"
    shutil.copytree(adapter, cut)
    (cut / weights.name).write_bytes(weights.read_bytes()[:-100])
    with refused("weights.cut-off", cut / weights.name):
        merged(base, [cut], tmp_path / "out")
    tensors = load_file(weights)
    half = next(name for name in tensors if "lora_B" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != half}, weights)
    with refused("weights.half-pair", half.removeprefix("base_model.model.").split(".lora_B")[0]):
        merged(base, [adapter], tmp_path / "out")
    weights.rename(adapter / "adapter_model.bin")
    with refused("weights.pickled", "adapter_model.bin"):
        merged(base, [adapter], tmp_path / "out")


def test_a_base_of_pickles_or_without_a_shard_or_that_is_none_is_refused(tmp_path):
    base = tiny.make_base(tmp_path / "base", shard="60KB")
    adapter = tiny.make_adapter(tmp_path / "a", base)
    for folder, code in (
        (tmp_path / "none", "weights.no-folder"),
        (tmp_path, "weights.not-a-model"),
        (adapter, "weights.not-a-model"),
    ):
        with refused(code, folder):
            Checkpoint(folder)
    next(base.glob("*.safetensors")).unlink()
    with refused("weights.missing-shards", base):
        Checkpoint(base).tensors  # noqa: B018  reading is what is tried
    for shard in base.glob("*.safetensors"):
        shard.rename(shard.with_suffix(".bin"))
    with refused("weights.pickled", base, ".bin"):
        Checkpoint(base)


@pytest.mark.slow
def test_the_result_loads_in_a_fresh_process_that_knows_nothing_of_us(tmp_path):
    from medllm.recipe.settings import Merge
    from medllm.stages import merge as stage

    base = tiny.make_base(tmp_path / "base")
    adapter = tiny.make_adapter(tmp_path / "rpo", base)
    stage.make(
        Merge(model="rpo", dtype="float32", parity_questions=0), {"base": base, "rpo": adapter}, tmp_path / "out"
    )
    script = (
        "import sys; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "m = AutoModelForCausalLM.from_pretrained(sys.argv[1]); t = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "assert 'medllm' not in sys.modules and t.chat_template\n"
        "print(type(m).__name__, m.generation_config.eos_token_id)\n"
        "m.generate(**t('患者', return_tensors='pt'), max_new_tokens=3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "out")], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stdout.strip() == "Qwen2ForCausalLM [0, 2]"
