"""The command line of our own vLLM, by cases worked out by hand, and the ways in which its program is found."""

import json
import sys
from pathlib import Path

import pytest

from medllm.generation.serving import (
    Serving,
    command,
    context_of,
    devices,
    environment,
    find_program,
    refuse_adapter,
)
from medllm.recipe.servers import VllmOptions
from tests import tiny
from tests.refusals import refused

SHAPES = {
    "72B": {"num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 29568},
    "7B": {"num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944},
    "14B": {"num_attention_heads": 40, "num_key_value_heads": 8, "intermediate_size": 13824},
    "0.5B": {"num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864},
    "gemma": {"text_config": {"num_attention_heads": 4, "num_key_value_heads": 1, "intermediate_size": 2048}},
}


@pytest.fixture
def model(tmp_path):
    """A folder with a config and no weights that anybody reads."""

    def make(name: str) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(SHAPES[name]))
        (tmp_path / name / "model.safetensors").touch()
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("name", "gpus", "gb", "weights", "shared", "copies"),
    [
        ("72B", 4, 80, 145, 4, 1),  # 0.6 * 0.9 * 80 = 43 GB of weights a GPU: four GPUs hold 36 GB each
        ("72B", 8, 80, 145, 4, 2),
        ("72B", 4, 141, 145, 2, 2),  # 76 GB a GPU: two hold 73 GB each
        ("72B", 2, 80, 145, 2, 1),  # does not fit: as many as there are
        ("72B", 3, 141, 145, 2, 1),  # three do not divide 64 heads
        ("7B", 8, 80, 15, 1, 8),
        ("7B", 8, 8, 15, 4, 2),  # 8 do not divide 28 heads, 7 do not go with 4 key-value heads
        ("14B", 4, 24, 30, 4, 1),  # 13 GB a GPU: three do not divide 40 heads
        ("0.5B", 4, 80, 1, 1, 4),
        ("gemma", 4, 4, 8, 4, 1),  # more GPUs than key-value heads: each has a copy of them
        ("72B", 1, 80, 145, 1, 1),
        ("72B", 0, 0, 145, 1, 1),
    ],
)
def test_the_fewest_gpus_that_hold_a_model_share_it_and_the_rest_hold_copies(
    model, name, gpus, gb, weights, shared, copies
):
    serving = Serving(model(name), {}, gpus=gpus, gpu_bytes=gb * 1e9, weights=weights * 1e9)
    assert devices(serving) == (shared, copies)


def test_the_recipe_decides_how_gpus_are_divided(model):
    options = VllmOptions(tensor_parallel_size=2)
    assert devices(Serving(model("72B"), {}, gpus=8, gpu_bytes=8e10, weights=145e9, options=options)) == (2, 4)
    options = VllmOptions(tensor_parallel_size=2, data_parallel_size=1)
    assert devices(Serving(model("7B"), {}, gpus=8, gpu_bytes=8e10, weights=15e9, options=options)) == (2, 1)


def test_a_base_without_adapters_on_a_cpu(model):
    base = model("0.5B")
    assert command(["/opt/vllm"], Serving(base, {}, dtype="float32", length=2048), 8123) == [
        *("/opt/vllm", "serve", str(base), "--served-model-name", "base", "--host", "127.0.0.1", "--port", "8123"),
        *("--dtype", "float32", "--max-model-len", "2048", "--generation-config", "vllm"),
        "--disable-uvicorn-access-log",
    ]


def test_adapters_are_named_with_the_rank_of_their_weights_and_a_base_in_4_bits_with_its_gpus(tmp_path):
    base = tiny.make_base(tmp_path / "base")
    cpt = tiny.make_adapter(tmp_path / "cpt", base, r=4)
    final = tiny.make_adapter(tmp_path / "a=b", base, r=24)
    options = VllmOptions(gpu_memory_utilization=0.8, max_num_seqs=64, enforce_eager=True)
    gpus = {"gpus": 2, "gpu_bytes": 8e10, "weights": 1e6}
    adapters = {"cpt": cpt, "最終": final}
    words = command(["uv", "vllm"], Serving(base, adapters, quantization="nf4", options=options, **gpus), 1)
    assert words[:4] == ["uv", "vllm", "serve", str(base)]
    assert words[words.index("--disable-uvicorn-access-log") + 1 :] == [
        *("--quantization", "bitsandbytes", "--gpu-memory-utilization", "0.8", "--data-parallel-size", "2"),
        *("--max-num-seqs", "64", "--enforce-eager", "--enable-lora", "--max-loras", "2", "--max-lora-rank", "32"),
        *("--lora-modules", f"cpt={cpt}", words[-1]),
    ]
    assert json.loads(words[-1]) == {"name": "最終", "path": str(final), "base_model_name": "base"}
    assert not {"--trust-remote-code", "--api-key"} & set(words)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
        ({"target_modules": ["q_proj", "lm_head"]}, "embedding"),
        ({"r": 513, "target_modules": ["q_proj"]}, "512"),
        ({"trainable_token_indices": [3, 4]}, "trainable_token_indices"),
    ],
)
def test_an_adapter_that_vllm_does_not_serve_is_refused_by_its_kind(tmp_path, config, word):
    adapter = tiny.make_adapter(tmp_path / "adapter", tiny.make_base(tmp_path / "base"), **config)
    with refused("generation.vllm-adapter", adapter, word):
        refuse_adapter(adapter)


def test_the_environment_has_the_key_and_no_network_and_none_of_our_tokens_and_paths():
    given = {
        "PATH": "/bin",
        "HF_TOKEN": "hf_x",
        "OPENAI_API_KEY": "sk-x",
        "PYTHONPATH": "/our",
        "CUDA_VISIBLE_DEVICES": "1",
    }
    found = environment(given, "secret")
    assert found["VLLM_API_KEY"] == "secret" and found["PATH"] == "/bin" and found["CUDA_VISIBLE_DEVICES"] == "1"
    assert {"HF_TOKEN", "OPENAI_API_KEY", "PYTHONPATH"} & set(found) == set()
    switched = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK", "DO_NOT_TRACK")
    assert {found[name] for name in switched} == {"1"}


def test_the_program_is_the_one_that_is_named_or_the_one_on_the_path(tmp_path):
    program = tmp_path / "env" / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (program.parent / "python").symlink_to(sys.executable)
    nowhere = {"PATH": str(tmp_path / "none")}
    for named in (program, tmp_path / "env", program.parent / "python"):
        assert find_program({**nowhere, "MEDLLM_VLLM": str(named)}) == [str(program)]
    assert find_program({"PATH": str(program.parent)}) == [str(program)]
    with refused("generation.no-vllm-there", tmp_path / "other"):
        find_program({**nowhere, "MEDLLM_VLLM": str(tmp_path / "other")})


def test_nothing_is_installed_unless_it_is_asked_for_and_the_error_names_what_would_be(tmp_path):
    uv = tmp_path / "uv"
    uv.write_text("#!/bin/sh\n")
    uv.chmod(0o755)
    with refused("generation.no-vllm", "vllm==0.33.0", "MEDLLM_VLLM=uv"):
        find_program({"PATH": str(tmp_path)}, "0.33.0")
    given = {"PATH": str(tmp_path), "MEDLLM_VLLM": "uv"}
    assert find_program(given, "0.33.0") == [str(uv), "tool", "run", "--from", "vllm==0.33.0", "vllm"]
    with refused("generation.no-uv"):
        find_program({**given, "PATH": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 131072}}, 131072),
        ({"n_positions": 1024}, 1024),
        ({}, 2**31),
    ],
)
def test_the_context_is_that_of_the_config(config, length):
    assert context_of(config) == length
