"""The configurations that come with medllm, as accelerate itself reads them and hands them to the processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from medllm.recipe.settings import Cpt, Lora
from medllm.recipe.training import NAMED
from medllm.training.devices import config

CPU = Path(__file__).parents[2] / "recipes" / "accelerate" / "cpu-2.yaml"
SETTINGS = Cpt(lora=Lora(r=1, lora_alpha=1))
CONFIGS = {name: config(SETTINGS.model_copy(update={"accelerate": name}), 4, 1, gpus=True) for name in NAMED}
CONFIGS["cpu-2"] = yaml.safe_load(CPU.read_text("utf-8"))
PROBE = """
import torch
from accelerate import Accelerator
accelerator = Accelerator(cpu=True)
model = accelerator.prepare(torch.nn.Linear(4, 4))
if accelerator.is_main_process:
    print(accelerator.num_processes, accelerator.distributed_type.value, type(model).__name__)
"""


def launched(name, tmp_path):
    """What `accelerate launch` makes of a file before it starts anything."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(CONFIGS[name]), "utf-8")
    values = launch_command_parser().parse_args(["--config_file", str(file), "script.py"])
    known = set(vars(values))
    arguments, defaults, _ = _validate_launch_command(values)
    return arguments, defaults, known


@pytest.fixture
def environment(monkeypatch):
    """An environment that may be filled, since the launcher speaks to its processes through it."""
    copy = dict(os.environ)
    monkeypatch.setattr(os, "environ", copy)
    return copy


def test_every_configuration_is_read_without_a_word_that_accelerate_does_not_know(tmp_path):
    from accelerate.commands.config.config_args import load_config_from_file

    assert [path.name for path in CPU.parent.iterdir()] == [CPU.name], "a file that no test reads"
    for name, values in CONFIGS.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values), "utf-8")
        read = load_config_from_file(str(file))
        assert (read.mixed_precision, read.num_processes) == (values["mixed_precision"], values["num_processes"])


def test_the_fsdp_file_asks_for_a_model_sharded_layer_by_layer_by_version_2(environment, tmp_path):
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env

    arguments, defaults, known = launched("fsdp2", tmp_path)
    assert set(defaults.fsdp_config) <= known, "a key that no argument of the launcher takes is passed over in silence"
    assert arguments.use_fsdp and not arguments.use_cpu and arguments.mixed_precision == "bf16"
    environment.update(prepare_multi_gpu_env(arguments))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    assert plugin.cpu_ram_efficient_loading and plugin.state_dict_type.name == "SHARDED_STATE_DICT"
    assert "transformer_auto_wrap_policy" in str(plugin.auto_wrap_policy)


def test_the_ddp_file_asks_for_a_whole_model_on_each_gpu_and_leaves_numbers_to_the_recipe(tmp_path):
    arguments, _, _ = launched("ddp", tmp_path)
    assert arguments.multi_gpu and not arguments.use_fsdp and not arguments.use_deepspeed
    assert arguments.num_processes == 4 and arguments.mixed_precision == "no"


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.usefixtures("watchdog")
def test_accelerate_still_passes_fsdp_over_on_a_cpu_which_is_why_the_tests_tell_it_of_gpus():
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python"]
    asked = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(
        [*words, sys.executable, "-c", PROBE],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2", "MULTI_CPU", "DistributedDataParallel"], "FSDP on a CPU can be trained here now"
