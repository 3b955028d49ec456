"""Every kind of adapter that PEFT knows: merged into the model that the adapter makes, or refused by name."""

import dataclasses
import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import config as lora
from peft.utils.peft_types import PeftType
from transformers import AutoModelForCausalLM

from medllm.weights.adapter import Adapter
from medllm.weights.adapter_kinds import FOLLOWED, FREE, REFUSED, refuse_unknown
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import load_adapters, load_base
from medllm.weights.merge import concatenate, merge
from tests import tiny
from tests.refusals import refused

SIDES = {"target_modules": ["q_proj", "v_proj"]}
INSIDE = {
    "bias of the adapted layers": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
    "DoRA, rsLoRA and patterns": {"use_dora": True, "use_rslora": True, "rank_pattern": {"q_proj": 2}},
    "DoRA and whole norms": {"use_dora": True, "modules_to_save": ["norm"]},
    "gaussian": {"init_lora_weights": "gaussian"},
    "no init": {"init_lora_weights": False},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "MiCA": {"init_lora_weights": "mica"},
    "EVA": {"init_lora_weights": "eva"},
    "fan_in_fan_out of linear layers": {"fan_in_fan_out": True},
    "some modules left out": {"exclude_modules": ["layers.0.self_attn.q_proj"]},
    "one block": {"layers_to_transform": [1]},
    "one block by pattern": {"layers_to_transform": 1, "layers_pattern": "layers"},
    "a regular expression": {"target_modules": r".*1.*(q_proj|down_proj)"},
    "all linear layers": {"target_modules": "all-linear"},
    "patterns": {
        "rank_pattern": {"q_proj": 2, r"^model\.layers\.1.*v_proj": 3},
        "alpha_pattern": {"layers.0.self_attn.q_proj": 3},
    },
    "dropout": {"lora_dropout": 0.1},
    "whole norms": {"modules_to_save": ["norm", "input_layernorm"]},
    "a whole block's part": {"modules_to_save": ["mlp"]},
    "bias of the factors": {"lora_bias": True},
}
ENDS = {
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "head": {"target_modules": ["lm_head"]},
    "both ends": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
    "embedding, kept tied": {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True},
    "both ends, kept tied": {"target_modules": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "head, kept tied": {"target_modules": ["lm_head"], "ensure_weight_tying": True},
    "whole head": {"modules_to_save": ["lm_head"]},
    "whole embedding": {"modules_to_save": ["embed_tokens"]},
    "whole embedding, kept tied": {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "whole ends, kept tied": {"modules_to_save": ["embed_tokens", "lm_head"], "ensure_weight_tying": True},
    "some tokens": {"trainable_token_indices": [3, 399, 7]},
    "some tokens by module": {"trainable_token_indices": {"embed_tokens": [3, 9]}},
    "other tokens of the head": {"trainable_token_indices": {"embed_tokens": [3, 9], "lm_head": [4]}},
    "the same tokens of both": {"trainable_token_indices": {"embed_tokens": [3, 9], "lm_head": [3, 9]}},
}
REFUSALS: dict[str, tuple[str, dict[str, object]]] = {
    "PiSSA": ("init-changes-base", {"init_lora_weights": "pissa_niter_4"}),
    "OLoRA": ("init-changes-base", {"init_lora_weights": "olora"}),
    "DoRA": ("misfit", {"target_modules": ["embed_tokens"], "use_dora": True}),
    "aLoRA": ("lora-variant", {"alora_invocation_tokens": [3]}),
    "target_parameters": ("lora-variant", {"target_modules": [], "target_parameters": ["mlp.down_proj.weight"]}),
    "VeLoRA": ("lora-variant", {"velora_config": lora.VeloraConfig()}),
    "KaSA": ("lora-variant", {"kasa_config": lora.KasaConfig()}),
    "MonteCLoRA": ("lora-variant", {"monteclora_config": lora.MontecloraConfig()}),
    "BD-LoRA": (
        "lora-variant",
        {"use_bdlora": lora.BdLoraConfig(target_modules_bd_a=["v_proj"], target_modules_bd_b=["q_proj"])},
    ),
    "layer_replication": ("lora-variant", {"layer_replication": [(0, 2), (1, 2)]}),
    "lora_bias": ("misfit", {"target_modules": ["down_proj"], "lora_bias": True}),
}
IDS = torch.arange(5, 60)[None]


def make(base, folder, **config):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **{**SIDES, **config}))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    return folder


def merged(base, adapter, out):
    merge(Checkpoint(base), [Adapter(adapter)], out, dtype=None, say=lambda line: None)
    return AutoModelForCausalLM.from_pretrained(out).eval()


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {name: tiny.make_base(folder / name, tied=name == "tied") for name in ("apart", "tied")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("ends", "kind"), [*(("apart", kind) for kind in [*INSIDE, *ENDS]), *(("tied", kind) for kind in ENDS)]
)
def test_the_merged_model_is_the_one_that_the_adapter_makes(bases, tmp_path, ends, kind):
    base = bases[ends]
    adapter = make(base, tmp_path / "a", **(INSIDE | ENDS)[kind])
    with torch.no_grad():
        alone = AutoModelForCausalLM.from_pretrained(base).eval()(IDS).logits
        laid = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
        want, got = laid(IDS).logits, merged(base, adapter, tmp_path / "out")
        assert float((want - alone).abs().max()) > 0.5, "the adapter must change something"
        assert float((got(IDS).logits - want).abs().max()) < 1e-4
    if ends == "apart":  # with tied ends PEFT's own merge is not the adapter's model
        by_peft = laid.merge_and_unload().state_dict()
        assert [name for name, one in got.state_dict().items() if not torch.equal(one, by_peft[name])] == []


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", REFUSALS)
def test_an_adapter_that_is_more_than_plain_lora_is_refused_by_name_with_a_mend(tmp_path, kind):
    base = tiny.make_base(tmp_path / "base")
    code, config = REFUSALS[kind]
    adapter = make(base, tmp_path / "a", **config)
    with refused(f"weights.{code}", adapter, kind):
        Adapter(adapter).fits(Checkpoint(base))


@pytest.mark.parametrize(
    ("init", "name"),
    [
        ("pissa", "PiSSA"),
        ("PiSSA_niter_16", "PiSSA"),
        ("olora", "OLoRA"),
        ("corda", "CorDA"),
        ("lora_ga", "LoRA-GA"),
        ("loftq", "LoftQ"),
    ],
)
def test_an_init_that_changes_the_base_is_refused(init, name):
    with refused("weights.init-changes-base", "an adapter", name):
        refuse_unknown({"peft_type": "LORA", "init_lora_weights": init}, "an adapter")


def test_an_init_that_peft_may_add_is_refused():
    with refused("weights.unknown-init", "an adapter", "`an init of tomorrow`"):
        refuse_unknown({"peft_type": "LORA", "init_lora_weights": "an init of tomorrow"}, "an adapter")


def test_every_key_that_peft_writes_is_followed_free_or_refused():
    keys = {field.name for field in dataclasses.fields(LoraConfig) if field.init}
    assert keys - FREE - FOLLOWED - REFUSED.keys() == set()
    for key in REFUSED:
        with refused("weights.lora-variant", "an adapter", REFUSED[key][0]):
            refuse_unknown({"peft_type": "LORA", key: {"some": "value"}}, "an adapter")
    with refused("weights.unknown-adapter-key", "an adapter", "`key_of_tomorrow`"):
        refuse_unknown({"peft_type": "LORA", "key_of_tomorrow": 3}, "an adapter")
    refuse_unknown({"peft_type": "LORA", "key_of_tomorrow": None, "use_dora": False}, "an adapter")


def test_every_other_type_of_peft_is_refused_by_name():
    for kind in PeftType:
        if kind is not PeftType.LORA:
            with refused("weights.not-lora", "an adapter", kind.value):
                refuse_unknown({"peft_type": kind.value}, "an adapter")


def test_a_tensor_of_another_kind_of_adapter_is_refused_even_if_the_config_is_silent(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    adapter = make(base, tmp_path / "a", use_dora=True)
    values = json.loads((adapter / "adapter_config.json").read_text("utf-8")) | {"use_dora": False}
    (adapter / "adapter_config.json").write_text(json.dumps(values), "utf-8")
    with refused("weights.unknown-tensor", "lora_magnitude_vector"):
        Adapter(adapter).fits(Checkpoint(base))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ends", ["apart", "tied"])
def test_a_larger_vocabulary_is_merged_as_on_a_resized_base(bases, tmp_path, ends):
    base = bases[ends]

    def resized():
        model = AutoModelForCausalLM.from_pretrained(base)
        model.resize_token_embeddings(408, mean_resizing=False)
        return model

    torch.manual_seed(1)
    adapted = get_peft_model(
        resized(), LoraConfig(r=4, task_type="CAUSAL_LM", modules_to_save=["embed_tokens", "lm_head"], **SIDES)
    )
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "a")
    got = merged(base, tmp_path / "a", tmp_path / "out")
    assert got.config.vocab_size == 408 == got.get_input_embeddings().weight.shape[0]
    ids = torch.tensor([[5, 405, 7, 403]])
    with torch.no_grad():
        want = PeftModel.from_pretrained(resized(), tmp_path / "a").eval()(ids).logits
        assert float((got(ids).logits - want).abs().max()) < 1e-4
    with refused("weights.adapter-changes-base", tmp_path / "a", "408 tokens"):
        load_adapters(load_base(base, dtype="float32"), {"a": tmp_path / "a"}, base)


def test_an_adapter_that_writes_over_the_base_is_not_laid_beside_others(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    adapter = make(base, tmp_path / "a", bias="all")
    with refused("weights.adapter-changes-base", adapter, ".bias", f"medllm merge {base} {adapter}"):
        load_adapters(load_base(base, dtype="float32"), {"a": adapter}, base)
    assert load_adapters(load_base(base, dtype="float32"), {"a": adapter}, base, alone=True)


@pytest.mark.parametrize("family", ["gpt2", "openai-gpt"])
def test_layers_that_store_their_weights_transposed_are_refused(tmp_path, family):
    base = tiny.make_base(tmp_path / "base")
    adapter = tiny.make_adapter(tmp_path / "a", base)
    values = json.loads((base / "config.json").read_text("utf-8")) | {"model_type": family}
    (base / "config.json").write_text(json.dumps(values), "utf-8")
    with refused("weights.transposed-base", adapter, family):
        Adapter(adapter).fits(Checkpoint(base))


def test_weights_that_are_stored_quantized_are_refused(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    adapter = tiny.make_adapter(tmp_path / "a", base)
    shard = base / "model.safetensors"
    raw = shard.read_bytes()
    shard.write_bytes(raw.replace(b'"dtype":"F32"', b'"dtype":"I32"'))
    values = json.loads((base / "config.json").read_text("utf-8")) | {"quantization_config": {"quant_method": "gptq"}}
    (base / "config.json").write_text(json.dumps(values), "utf-8")
    with refused("weights.quantized-base", base, "I32"):
        Adapter(adapter).fits(Checkpoint(base))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("second", [{"layers_to_transform": [1]}, {"target_modules": r".*0.*(q_proj|down_proj)"}])
def test_adapters_laid_one_above_the_other_keep_all_their_modules(tmp_path, second):
    base = tiny.make_base(tmp_path / "base")
    adapters = [make(base, tmp_path / "a", lora_bias=True), make(base, tmp_path / "b", use_rslora=True, **second)]
    concatenate([Adapter(one) for one in adapters], tmp_path / "both")
    merge(Checkpoint(base), [Adapter(one) for one in adapters], tmp_path / "out", dtype=None, say=lambda line: None)
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(base)
        want = PeftModel.from_pretrained(plain, tmp_path / "both").eval()(IDS).logits
        got = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()(IDS).logits
    assert float((got - want).abs().max()) < 1e-4
