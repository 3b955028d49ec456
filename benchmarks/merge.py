"""The streamed merge against PEFT's merge_and_unload, each in a process of its own: peak memory and seconds.

Run: python benchmarks/merge.py [BASE_FOLDER] [--gigabytes 3] [--shard 300MB]
Without a folder the base is a Qwen2 of random weights.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def random_model(gigabytes: float) -> Any:  # noqa: ANN401  torch is imported late
    """A Qwen2 model of random bfloat16 weights."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    layers = max(1, round((gigabytes * 5e8 - 2 * 32_000 * 2048) / 46_000_000))
    config = Qwen2Config(
        vocab_size=32_000,
        hidden_size=2048,
        intermediate_size=5632,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=4,
        tie_word_embeddings=False,
    )
    return Qwen2ForCausalLM(config).to(torch.bfloat16)


def make(folder: Path, real: Path | None, gigabytes: float, shard: str) -> None:
    """The base, in shards, and an adapter of rank 64 on all its linear layers."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(real, dtype=torch.bfloat16) if real else random_model(gigabytes)
    model.save_pretrained(str(folder / "base"), max_shard_size=shard)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=64, lora_alpha=128, target_modules=modules, task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    adapted.save_pretrained(str(folder / "adapter"))


def streamed(folder: Path) -> None:
    """Our merge."""
    from medllm.weights.adapter import Adapter
    from medllm.weights.checkpoint import Checkpoint
    from medllm.weights.merge import merge

    merge(
        Checkpoint(folder / "base"),
        [Adapter(folder / "adapter")],
        folder / "streamed",
        dtype=None,
        say=lambda line: None,
    )


def whole(folder: Path) -> None:
    """PEFT's merge, as its documentation shows it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, str(folder / "adapter")).merge_and_unload()
    merged.save_pretrained(str(folder / "whole"), max_shard_size="300MB")


def compared(folder: Path) -> None:
    """Whether both merges came to the same bits, tensor by tensor."""
    import torch
    from safetensors import safe_open

    from medllm.weights.checkpoint import read_header

    def tensors(way: str) -> dict[str, Path]:
        return {name: shard for shard in (folder / way).glob("*.safetensors") for name in read_header(shard)[0]}

    ours, theirs = tensors("streamed"), tensors("whole")
    equal = 0
    for name in ours.keys() & theirs.keys():
        with safe_open(str(ours[name]), "pt") as left, safe_open(str(theirs[name]), "pt") as right:
            equal += torch.equal(left.get_tensor(name), right.get_tensor(name))
    print(f"{equal} of {len(ours.keys() | theirs.keys())} tensors are bit-equal")


def imported(folder: Path) -> None:
    """Nothing but the libraries: what every process pays."""
    import peft  # noqa: F401
    import torch  # noqa: F401


def copied(folder: Path) -> None:
    """Read and write every byte once: what the disk alone takes."""
    import shutil

    shutil.copytree(folder / "base", folder / "copied")


def main() -> None:
    """Measure each way in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, nargs="?")
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--shard", default="300MB")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--way", choices=("make", "streamed", "whole", "imported", "copied", "compared"))
    given = parser.parse_args()
    if given.way == "make":
        make(given.folder, given.base, given.gigabytes, given.shard)
    elif given.way:
        wall, cpu = time.perf_counter(), time.process_time()
        globals()[given.way](given.folder)
        os.sync()  # what is still on its way to the disk counts too
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"{given.way:9} {peak:6.2f} GB peak  {time.perf_counter() - wall:7.1f} s wall  ", end="")
        print(f"{time.process_time() - cpu:7.1f} s CPU")
    else:
        with tempfile.TemporaryDirectory() as folder:
            for way in ("make", "imported", "copied", "streamed", "whole", "compared"):
                command = [sys.executable, __file__, "--folder", folder, "--way", way]
                command += ["--gigabytes", str(given.gigabytes), "--shard", given.shard]
                command += [str(given.base)] if given.base else []
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
