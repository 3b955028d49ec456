"""The configurations in recipes/accelerate, as accelerate itself reads them and hands them to the processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

RECIPES = Path(__file__).parents[2] / "recipes" / "accelerate"
PROBE = """
import torch
from accelerate import Accelerator
accelerator = Accelerator(cpu=True)
model = accelerator.prepare(torch.nn.Linear(4, 4))
if accelerator.is_main_process:
    print(accelerator.num_processes, accelerator.distributed_type.value, type(model).__name__)
"""


def launched(name):
    """What `accelerate launch` makes of a file before it starts anything."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    told = launch_command_parser().parse_args(["--config_file", str(RECIPES / name), "script.py"])
    known = set(vars(told))
    arguments, defaults, _ = _validate_launch_command(told)
    return arguments, defaults, known


@pytest.fixture
def environment(monkeypatch):
    """An environment that may be filled, since the launcher speaks to its processes through it."""
    copy = dict(os.environ)
    monkeypatch.setattr(os, "environ", copy)
    return copy


def test_every_file_is_read_without_a_word_that_accelerate_does_not_know():
    from accelerate.commands.config.config_args import load_config_from_file

    names = {path.name for path in RECIPES.glob("*.yaml")}
    assert names == {"cpu-2.yaml", "deepspeed-zero3.yaml", "fsdp2-qlora.yaml"}
    for name in names:
        told = yaml.safe_load((RECIPES / name).read_text("utf-8"))
        read = load_config_from_file(str(RECIPES / name))
        assert read.num_processes == told["num_processes"] and read.mixed_precision == told["mixed_precision"]


def test_the_fsdp_file_asks_for_a_model_sharded_layer_by_layer_by_version_2(environment):
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments, defaults, known = launched("fsdp2-qlora.yaml")
    assert set(defaults.fsdp_config) <= known, "a key that no argument of the launcher takes is passed over in silence"
    assert arguments.use_fsdp and not arguments.use_cpu and arguments.mixed_precision == "bf16"
    environment.update(prepare_multi_gpu_env(arguments))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.cpu_ram_efficient_loading and plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    assert "transformer_auto_wrap_policy" in str(plugin.auto_wrap_policy)


def test_the_deepspeed_file_asks_for_stage_3_and_leaves_the_batch_to_the_recipe(environment):
    from accelerate.utils import DeepSpeedPlugin
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    arguments, defaults, known = launched("deepspeed-zero3.yaml")
    assert set(defaults.deepspeed_config) <= known
    assert arguments.use_deepspeed and not arguments.use_fsdp
    arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    environment.update(prepare_deepspeed_cmd_env(arguments)[1])
    plugin = DeepSpeedPlugin()
    assert plugin.zero_stage == 3 and plugin.zero3_save_16bit_model
    assert plugin.gradient_accumulation_steps == plugin.gradient_clipping == "auto"
    assert plugin.offload_optimizer_device == plugin.offload_param_device == "none"


@pytest.mark.slow
def test_accelerate_still_passes_fsdp_over_on_a_cpu_which_is_why_it_is_not_trained_with_here():
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*words, sys.executable, "-c", PROBE],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
        timeout=900,
    )
    assert done.stdout.split() == ["2", "MULTI_CPU", "DistributedDataParallel"], "FSDP on a CPU can be trained here now"
