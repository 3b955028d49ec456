"""Several CPU processes that train together as GPUs would: over DDP, or over the real FSDP2 of torch.

accelerate shards only over processes that have a GPU each. Here it is told that CPU processes are such, and torch is
given a mesh of CPUs. What is tried is then all real but the devices: accelerate's preparation, `fully_shard`, the
exchanges over gloo, the sharded checkpoints. A process that waits for another longer than `PATIENCE` seconds fails.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path

import yaml

from medllm.recipe.settings import Cpt, Lora
from medllm.training.devices import config

PATIENCE = 30


def sharded_environment() -> dict[str, str]:
    """The variables by which `accelerate launch` would tell two processes about `accelerate: fsdp2`."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_multi_gpu_env

    text = config(Cpt(lora=Lora(r=1, lora_alpha=1), accelerate="fsdp2"), 2, 1, gpus=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(text), "utf-8")
        arguments = launch_command_parser().parse_args(["--config_file", str(file), "script.py"])
        arguments, _, _ = _validate_launch_command(arguments)
        known = dict(os.environ)
        made = prepare_multi_gpu_env(arguments)
    return {key: value for key, value in made.items() if known.get(key) != value}


def train(stage, settings, sources, out, *, processes, sharded=False, patches="", patience=PATIENCE):
    """Train in so many processes of their own; an AssertionError with what they said when one of them fails.

    `patches` is Python that each of them runs before, with `rank` known.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    places = {name: str(path) for name, path in sources.items()}
    given = {"stage": stage, "settings": settings.model_dump(mode="json"), "sources": places, "out": str(out)}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    shared |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    shared |= {
        "GIVEN": json.dumps(given),
        "PATCHES": patches,
        "PATIENCE": str(patience),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    shared |= sharded_environment() if sharded else {}
    with tempfile.TemporaryFile("w+") as log:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.together"],
                env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            for rank in range(processes)
        ]
        try:
            for one in running:
                one.wait()
        finally:
            for one in running:
                one.kill()
                one.wait()
            log.seek(0)
            text = log.read()
    assert not any(one.returncode for one in running), text


def _shard_on_cpu() -> None:
    """Tell accelerate that CPU processes have a GPU each, and torch to shard over CPUs."""
    import torch
    import torch.distributed as dist
    import torch.distributed.fsdp as fsdp
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    from torch.distributed.device_mesh import init_device_mesh

    def set_device(self):
        if self.device is None:
            self.device = torch.device("cpu")

    PartialState._prepare_backend = lambda self, cpu=False, sm=False, backend=None: ("gloo", DistributedType.MULTI_GPU)
    PartialState.set_device = set_device
    PartialState.wait_for_everyone = lambda self: dist.barrier()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    shard = fsdp.fully_shard
    fsdp.fully_shard = lambda module, **options: shard(module, **options | {"mesh": mesh})


def main() -> None:
    """Be one of the processes."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=int(os.environ["PATIENCE"])))
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":
        _shard_on_cpu()
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    from medllm.stages import cpt, rpo, sft
    from medllm.training.launcher import SETTINGS

    given = json.loads(os.environ["GIVEN"])
    exec(os.environ["PATCHES"], {"rank": dist.get_rank()})
    settings = SETTINGS[given["stage"]].model_validate(given["settings"])
    sources = {name: Path(path) for name, path in given["sources"].items()}
    {"cpt": cpt, "sft": sft, "rpo": rpo}[given["stage"]].make(settings, sources, Path(given["out"]))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
