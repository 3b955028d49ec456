"""Names in files and in memory: Gemma 3 with vision goes the whole way; what could not is refused at the start."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from medllm.exam.record import read_records
from medllm.recipe.settings import Evaluate, Merge
from medllm.stages import cpt, evaluate, merge, rpo
from medllm.weights.adapter import Adapter, outside_text, refuse_unstored
from medllm.weights.checkpoint import Checkpoint
from tests import tiny
from tests.refusals import refused

ADAPTED = ("q_proj", "v_proj", "down_proj", "fc1", "out_proj")


@pytest.mark.slow
@pytest.mark.parametrize("tied", [True, pytest.param(False, marks=pytest.mark.long)], ids=["tied", "apart"])
def test_gemma_3_with_vision_is_trained_preferred_merged_evaluated_and_loads_elsewhere(tmp_path, tied):
    sources = {
        "base": tiny.make_base(tmp_path / "base", family="gemma3", tied=tied),
        "corpus": tiny.make_corpus(tmp_path / "corpus"),
        "preferences": tiny.make_pairs(tmp_path / "preferences"),
        "own": tiny.make_exam(tmp_path / "own", 4, first="2019-02-09"),
    }
    base = Checkpoint(sources["base"])
    assert base.tied is tied and base.embedding == "language_model.model.embed_tokens.weight"
    lora = tiny.CPT.lora.model_copy(update={"target_modules": ADAPTED})
    cpt.make(tiny.CPT.model_copy(update={"lora": lora}), sources, tmp_path / "cpt")
    modules = Adapter(tmp_path / "cpt").modules
    assert len(modules) == 6 and all(name.startswith("model.language_model.layers.") for name in modules)
    rpo.make(tiny.RPO, {**sources, "cpt": tmp_path / "cpt"}, tmp_path / "rpo")
    sources |= {"cpt": tmp_path / "cpt", "rpo": tmp_path / "rpo"}
    merge.make(Merge(model="rpo", dtype="float32", parity_questions=2), sources, tmp_path / "merge")
    certificate = json.loads((tmp_path / "merge" / "certificate.json").read_text("utf-8"))
    assert certificate["verdict"] == "passed" and certificate["kl mean (base against adapter)"] > 0
    asked = Evaluate(
        models={"base": "base", "final": "rpo", "merged": "merge"},
        benchmarks=("own",),
        shots=0,
        dtype="float32",
        max_new_tokens={"plain": 6, "explain": 6},
    )
    evaluate.make(asked, {**sources, "merge": tmp_path / "merge"}, tmp_path / "out")
    completions = {(r.model, r.question_id, r.prompt): r.completion for r in read_records(tmp_path / "out")}
    assert all(text == completions["merged", *key[1:]] for key, text in completions.items() if key[0] == "final")
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        laid = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sources["base"]), tmp_path / "rpo")
        want, got = laid.eval()(ids).logits, AutoModelForCausalLM.from_pretrained(tmp_path / "merge").eval()(ids).logits
    assert float((got - want).abs().max()) < 1e-4


@pytest.mark.parametrize("before", ["model.language_model.layers", "language_model.model.layers"])
def test_an_adapter_is_found_under_the_names_of_today_and_of_older_transformers(tmp_path, before):
    from safetensors.torch import load_file, save_file

    from medllm.weights.merge import merge as write

    base = tiny.make_base(tmp_path / "base", family="gemma3", tied=True)
    adapter = tiny.make_adapter(tmp_path / "a", base, target_modules=r".*language_model.*\.(q_proj|down_proj)")
    path = adapter / "adapter_model.safetensors"
    tensors = {name.replace("model.language_model.layers", before): one for name, one in load_file(path).items()}
    save_file(tensors, path)
    write(Checkpoint(base), [Adapter(adapter)], tmp_path / "out", dtype=None, say=lambda line: None)
    ids = torch.arange(5, 30)[None]
    with torch.no_grad():
        want = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()(ids).logits
        got = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()(ids).logits
        plain = AutoModelForCausalLM.from_pretrained(base).eval()(ids).logits
    assert float((got - want).abs().max()) < 1e-4 < float((got - plain).abs().max())


def test_a_model_that_only_reads_text_has_nothing_outside_it(tmp_path):
    assert outside_text(AutoModelForCausalLM.from_pretrained(tiny.make_base(tmp_path / "base"))) is None


@pytest.mark.filterwarnings("ignore")
def test_an_adapter_on_joined_experts_is_refused_before_the_first_step(tmp_path):
    base = tiny.make_base(tmp_path / "base", family="qwen3_moe")
    model = AutoModelForCausalLM.from_pretrained(base)
    fine = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    refuse_unstored(fine, Checkpoint(base))
    experts = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), experts)
    with refused("weights.unmergeable-layer", "experts", "`lora.target_modules`"):
        refuse_unstored(adapted, Checkpoint(base))
