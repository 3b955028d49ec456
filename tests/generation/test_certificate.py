"""The certificate of a merge: one model in memory at a time, a verdict by kind of number, needs told before work."""

import dataclasses
import gc
import json
import shutil
import subprocess
import sys
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from medllm.generation import certificate, parity
from medllm.generation.certificate import LIMITS, judge
from medllm.generation.engine.blockwise import BlockwiseModel
from medllm.generation.engine.local import LocalGenerator
from medllm.generation.parity import Parity
from medllm.stages.merge import merge_into, put_in_place
from medllm.weights import resources
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import load_tokenizer
from medllm.weights.merge import merge
from tests import tiny
from tests.refusals import refused

RIGHT = Parity(
    positions=500,
    top1_agreement=1.0,
    kl_mean=1e-9,
    kl_largest=1e-8,
    logit_difference_largest=1e-5,
    answers=4,
    same_answers=4,
    same_choices=4,
    correct_a=0,
    correct_b=0,
)


@pytest.fixture
def merging(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    return base, tiny.make_adapter(tmp_path / "a", base), tmp_path / "out"


@pytest.mark.parametrize(
    ("numbers", "changed", "faults"),
    [
        ("float32", {}, 0),
        ("float32", {"top1_agreement": 0.99}, 1),
        ("bfloat16", {"top1_agreement": 0.979, "kl_mean": 0.0021}, 0),
        ("bfloat16", {"top1_agreement": 0.18, "kl_mean": 0.8}, 3),
        ("float16", {"kl_mean": 0.0021}, 1),
        ("float32", {"top1_agreement": float("nan"), "kl_mean": float("nan")}, 2),
        ("bfloat16", {"kl_mean": 0.006}, 1),  # within the limit, but half of what the adapter does
    ],
)
def test_the_verdict_goes_by_the_kind_of_number_and_by_what_the_adapter_does(numbers, changed, faults):
    assert len(judge(dataclasses.replace(RIGHT, **changed), numbers, 0.012)) == faults
    assert set(LIMITS) == set(resources.WIDTH)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_right_merge_passes_in_every_kind_of_number(merging, dtype):
    base, adapter, out = merging
    values = merge_into(base, [adapter], out, dtype=dtype, questions=2)["certificate"]
    assert values["verdict"] == "passed" and values["faults"] == [] and values["numbers"] == dtype
    assert values["kl mean (base against adapter)"] > 0.01
    put_in_place(out, {})
    assert not (out / certificate.NOTES).exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(0.0, id="an adapter half merged"),
        pytest.param(float("nan"), id="a broken weight"),
    ],
)
def test_a_merge_into_another_model_fails_on_the_command_line_and_is_not_put_in_place(merging, damage):
    base, adapter, out = merging
    work = out.with_name("out.part")
    merge(Checkpoint(base), [Adapter(adapter)], work, dtype=None, say=lambda line: None)
    tensors, plain = load_file(work / "model.safetensors"), load_file(base / "model.safetensors")
    for name in tensors:
        if damage != damage:
            tensors[name][0] = damage
        elif "down_proj" in name:
            tensors[name] = plain[name]
    save_file(tensors, work / "model.safetensors", metadata={"format": "pt"})
    words = [sys.executable, "-m", "medllm.cli", "merge", base, adapter, "--out", out, "--parity-questions", "2"]
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1 and "the certificate of the merge failed: top-1 agreement" in done.stderr
    values = json.loads((work / "certificate.json").read_text("utf-8"))
    assert values["verdict"] == "failed" and values["faults"] and values["numbers"] == "float32"
    assert not out.exists()


def test_one_model_is_in_memory_at_a_time_and_what_was_noted_is_not_asked_again(merging, monkeypatch):
    base, adapter, out = merging
    (adapter / "facts.json").write_text(json.dumps({"settings": {"quantization": "nf4"}}), "utf-8")
    opened, alive = [], []
    begin = LocalGenerator.__init__

    def counting(self, folder, *args, **kwargs):
        gc.collect()
        alive.append(sum(one() is not None for one in opened))
        opened.append(weakref.ref(self))
        begin(self, folder, *args, **kwargs)

    monkeypatch.setattr(LocalGenerator, "__init__", counting)
    judged = parity.agreement
    monkeypatch.setattr(certificate, "agreement", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        merge_into(base, [adapter], out, dtype="float32", questions=2)
    monkeypatch.setattr(certificate, "agreement", judged)
    values = merge_into(base, [adapter], out, dtype="float32", questions=2)["certificate"]
    assert values["verdict"] == "passed" and "top1 agreement (merged against adapter on the 4-bit base)" in values
    assert len(opened) == 3, "adapter, adapter in 4 bits, merged model: each once"
    assert alive == [0, 0, 0]


def test_what_is_kept_of_the_logits_gives_the_whole_divergence_or_less():
    torch.manual_seed(0)
    left, right = torch.randn(7, 300), torch.randn(7, 300)
    whole = (left.log_softmax(-1).exp() * (left.log_softmax(-1) - right.log_softmax(-1))).sum(-1)
    for kept, exact in ((300, True), (30, False)):
        part = parity.KEPT
        parity.KEPT = kept
        try:
            same, divergence, largest = parity._apart(parity._likely(left, None), right)
        finally:
            parity.KEPT = part
        assert torch.equal(same, (left.argmax(-1) == right.argmax(-1)).double())
        assert torch.all(divergence <= whole.double() + 1e-6) and bool(torch.all(divergence > 0))
        assert torch.allclose(divergence.float(), whole, atol=1e-5) is exact
        assert float(largest.max()) <= float((left - right).abs().max()) + 1e-6


def test_a_merge_says_what_it_lacks_before_it_writes_a_byte(merging, monkeypatch):
    base, adapter, out = merging
    monkeypatch.setattr(certificate, "memory_free", lambda: 1_000_000_000)
    assert certificate.WORKING > 1_000_000_000
    with refused("weights.certificate-memory", "2 GB", "1 GB", "`parity_questions: 0`"):
        merge_into(base, [adapter], out, dtype=None, questions=2)
    monkeypatch.undo()
    (base / "tokenizer.json").rename(base / "elsewhere.json")
    with refused("weights.no-tokenizer", base, "tokenizer.json, vocab.json + merges.txt"):
        merge_into(base, [adapter], out, dtype=None, questions=0)
    (base / "elsewhere.json").rename(base / "tokenizer.json")
    values = json.loads((base / "tokenizer.json").read_text("utf-8"))
    values["added_tokens"].append({**values["added_tokens"][0], "id": 999, "content": "<|new|>"})
    (adapter / "tokenizer.json").write_text(json.dumps(values), "utf-8")
    shutil.copy(base / "tokenizer_config.json", adapter)
    with refused("weights.vocabulary-too-large", adapter, "highest token is 400", "400 rows"):
        merge_into(base, [adapter], out, dtype=None, questions=0)
    assert not out.with_name("out.part").exists() and not out.exists()


def test_the_disk_must_hold_the_notes_of_the_certificate_too_and_the_room_is_checked_before_any_work(
    merging, monkeypatch, capsys
):
    base, adapter, out = merging
    (adapter / "facts.json").write_text(json.dumps({"settings": {"quantization": "nf4"}}), "utf-8")
    asked = certificate.Certificate(base, [adapter], "float32", 2, print)
    notes = asked.disk_bytes(load_tokenizer(base))
    whole = sum(tensor.size for tensor in Checkpoint(base).tensors.values())

    def disk_of(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(free, 0, free))

    disk_of(whole + notes - 1)
    with refused("weights.disk-too-small", f"and the files beside it {notes / 1e9:.3g} GB"):
        merge_into(base, [adapter], out, dtype=None, questions=2)
    assert not list(out.with_name("out.part").iterdir())
    disk_of(whole + notes)
    merge_into(base, [adapter], out, dtype=None, questions=2)
    values = capsys.readouterr()
    room = f"the merged model needs {whole / 1e9:.3g} GB of disk and the files beside it {notes / 1e9:.3g} GB"
    assert room in values.out + values.err
    files = (out.with_name("out.part") / certificate.NOTES).rglob("*")
    written = sum(path.stat().st_size for path in files if path.is_file())
    assert notes / 4 < written < notes


def test_a_tokenizer_saved_as_words_and_merges_is_enough(merging):
    base, adapter, out = merging
    values = json.loads((base / "tokenizer.json").read_text("utf-8"))["model"]
    (base / "vocab.json").write_text(json.dumps(values["vocab"], ensure_ascii=False), "utf-8")
    pairs = [" ".join(pair) if isinstance(pair, list) else pair for pair in values["merges"]]
    (base / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n", "utf-8")
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (base / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    (base / "tokenizer.json").unlink()
    merge_into(base, [adapter], out, dtype=None, questions=0)
    assert (out.with_name("out.part") / "tokenizer.json").is_file()


def test_the_memory_that_a_model_needs_is_its_weights(tmp_path):
    base = Checkpoint(tiny.make_base(tmp_path / "base"))
    numbers = sum(tensor.size for tensor in base.tensors.values()) / 4
    assert resources.bytes_in_memory(base, "float32") == 4 * numbers
    assert resources.bytes_in_memory(base, "bfloat16") == 2 * numbers
    assert 2 * 2 * 400 * 32 < resources.bytes_in_memory(base, "bfloat16", "nf4") < 2 * numbers
    assert resources.numbers_of(base) == "float32" and resources.memory_free() > 0


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3_text", "gemma3"])
def test_a_model_read_block_by_block_finds_what_the_whole_one_finds(tmp_path, family):
    base = tiny.make_base(tmp_path / "base", family=family, tied=family == "gemma3", shard="40KB")
    modules = r".*language_model.*(q_proj|down_proj)" if family == "gemma3" else ["q_proj", "down_proj"]
    adapter = tiny.make_adapter(tmp_path / "a", base, target_modules=modules)
    texts = tiny.sentences(3, seed=4)
    for laid in (None, adapter):
        whole = list(parity.WholeModel(base, laid, dtype="float32").read(texts))
        for one, other in zip(whole, BlockwiseModel(base, laid, dtype="float32").read(texts), strict=True):
            assert one.shape == other.shape and float((one - other).abs().max()) < 1e-4


def test_a_certificate_that_reads_block_by_block_names_what_it_leaves_out(merging, monkeypatch, capsys):
    base, adapter, out = merging
    (adapter / "facts.json").write_text('{"settings": {"quantization": "nf4"}}', "utf-8")
    whole = resources.bytes_in_memory(Checkpoint(base), "float32") + certificate.WORKING
    monkeypatch.setattr(certificate, "memory_free", lambda: whole - 1)
    values = merge_into(base, [adapter], out, dtype="float32", questions=2)["certificate"]
    left_out = "no answers are compared, and the adapter on the 4-bit base is not measured"
    assert values["read"] == f"block by block: {left_out}"
    assert left_out in "".join(capsys.readouterr())
    assert not any("4-bit" in name for name in values if name != "read")


def test_a_machine_that_holds_a_block_but_no_whole_model_certifies_all_the_same(merging, monkeypatch):
    base, adapter, out = merging
    whole = resources.bytes_in_memory(Checkpoint(base), "float32") + certificate.WORKING
    monkeypatch.setattr(certificate, "memory_free", lambda: whole - 1)
    monkeypatch.setattr(LocalGenerator, "__init__", lambda *args, **kwargs: pytest.fail("a whole model was loaded"))
    values = merge_into(base, [adapter], out, dtype="float32", questions=2)["certificate"]
    assert values["verdict"] == "passed" and values["answers (merged against adapter)"] == 0
    assert values["positions (merged against adapter)"] > 200 and values["read"].startswith("block by block")
    work = out.with_name("out.part")
    tensors = load_file(work / "model.safetensors")
    for name in tensors:
        tensors[name] *= 1.1 if "down_proj" in name else 1.0
    save_file(tensors, work / "model.safetensors", metadata={"format": "pt"})
    with refused("weights.certificate-failed", work):
        merge_into(base, [adapter], out, dtype="float32", questions=2)
