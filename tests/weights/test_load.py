"""Weights in memory: NF4 with exact gradients, the tokenizer that the file describes, and what is refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from medllm.weights.checkpoint import Checkpoint, model_name
from medllm.weights.load import PROBE, check_vocabulary, load_base, load_tokenizer
from tests import tiny
from tests.refusals import refused


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_adapter_gradients_on_nf4_are_exact_after_an_evaluation_pass(tmp_path, family):
    """Bitsandbytes packs 4-bit weights at the first pass without gradients; packed layers ignore autograd."""
    from peft import LoraConfig, get_peft_model

    base = tiny.make_base(tmp_path / "base", family=family, hidden_size=64, head_dim=16)
    ids = torch.arange(5, 37)[None]

    def gradients(model):
        torch.manual_seed(0)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
        adapted.eval()
        with torch.no_grad():
            adapted(input_ids=ids)
        adapted.train()
        adapted(input_ids=ids, labels=ids).loss.backward()
        return {name: p.grad.clone() for name, p in adapted.named_parameters() if p.grad is not None}

    from bitsandbytes.functional import dequantize_4bit

    four = load_base(base, dtype="float32", quantization="nf4")
    twin = load_base(base, dtype="float32")
    quantized = 0
    for name, module in four.named_modules():
        if type(module).__name__ == "Linear4bit":
            twin.get_submodule(name).weight.data = dequantize_4bit(module.weight.data, module.weight.quant_state)
            quantized += 1
    assert quantized >= 14
    got, wanted = gradients(four), gradients(twin)
    assert got.keys() == wanted.keys() and len(got) >= 8
    for name in got:
        assert torch.allclose(got[name], wanted[name], rtol=1e-5, atol=1e-7), name


def test_a_tokenizer_that_its_class_would_rebuild_otherwise_is_loaded_as_its_file_says(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoTokenizer

    base = tiny.make_base(tmp_path / "base")
    words = {"[end]": 0, "問": 1, "1": 2, "：": 3, "？": 4}
    own = Tokenizer(models.WordLevel(words, unk_token="？"))
    own.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    own.save(str(base / "tokenizer.json"))
    values = json.loads((base / "tokenizer_config.json").read_text("utf-8"))
    values |= {"eos_token": "[end]", "pad_token": "[end]", "unk_token": "？"}
    (base / "tokenizer_config.json").write_text(json.dumps(values), "utf-8")
    written = own.encode(PROBE, add_special_tokens=False).ids
    assert load_tokenizer(base)(PROBE, add_special_tokens=False)["input_ids"] == written
    try:
        rebuilt = AutoTokenizer.from_pretrained(base)(PROBE, add_special_tokens=False)["input_ids"]
    except Exception:
        rebuilt = None
    assert rebuilt != written, "AutoTokenizer reads the file itself now: the check in load_tokenizer may go"


def test_a_tokenizer_with_more_tokens_than_the_model_has_rows_is_refused(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    tokenizer = load_tokenizer(base)
    model = load_base(base, dtype="float32")
    check_vocabulary(tokenizer, model, base)
    tokenizer.add_tokens(["新しい語"])
    with refused("weights.vocabulary-too-large", base, "highest token is 400", "only 400 rows"):
        check_vocabulary(tokenizer, model, base)


def test_a_model_that_lacks_a_tensor_is_refused_and_not_filled_with_random_numbers(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with refused("weights.incomplete-model", base, "1 tensors", "model.layers.0.mlp.up_proj"):
        load_base(base, dtype="float32")


def test_a_type_that_transformers_does_not_load_is_refused(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    values = json.loads((base / "config.json").read_text("utf-8"))
    (base / "config.json").write_text(json.dumps(values | {"model_type": "t5"}), "utf-8")
    with refused("weights.unsupported-type", base, "`t5`", "Update transformers"):
        load_base(base)


def test_a_base_is_known_by_its_weights_and_named_by_its_place_in_the_hubs_cache(tmp_path):
    one, same = tiny.make_base(tmp_path / "one"), tiny.make_base(tmp_path / "same")
    other = tiny.make_base(tmp_path / "other", seed=3)
    assert Checkpoint(one).fingerprint == Checkpoint(same).fingerprint != Checkpoint(other).fingerprint
    assert model_name(tmp_path / "models--Qwen--Qwen2.5-72B" / "snapshots" / "abc") == "Qwen/Qwen2.5-72B"


def test_an_attention_that_is_not_installed_is_an_error_in_one_line(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    with refused("weights.load-failed", base, "lash"):
        load_base(base, attn_implementation="flash_attention_2")


def test_a_shard_that_is_cut_off_is_named_before_it_is_loaded(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with refused("weights.cut-off", base / "model.safetensors"):
        load_base(base)
