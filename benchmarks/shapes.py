"""Updates of CPT and RPO at the shapes of known bases, on random weights: seconds, memory, and what `check` foretold.

Run: python benchmarks/shapes.py [Qwen/Qwen2.5-7B] [--layers 8] [--quantization nf4] [--attention flash_attention_2]
     [--length 2048] [--rows 1] [--updates 6] [--no-checkpointing] [--gpus 4]
On all GPUs that are seen, one process and one whole model on each (or on the first --gpus of them), else on the CPU.
--layers takes fewer blocks than the base has, where its weights are too large for the disk (72B: 145 GB): with two
depths, what one block adds can be told.
"""

import argparse
import gc
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, Qwen2Config, TrainerCallback

from medllm.recipe.cost import operations_per_token, training_memory
from medllm.recipe.hardware import GPUS, KNOWN, Shape
from medllm.recipe.settings import Cpt, Lora, Rpo
from medllm.training import cpt, rpo
from medllm.training.load import load_start

LORA = Lora(r=64, lora_alpha=128)
WARM = 2
"""Updates that are not counted: kernels are chosen and memory is laid out in them."""
CUDA = torch.cuda.is_available()
PROCESSES, RANK = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
FOLDER = "MEDLLM_SHAPES_FOLDER"
"""Where the processes of several GPUs find the base that the first of them writes."""


class Clock(TrainerCallback):  # type: ignore[misc]
    """The seconds of each update."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.begun = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Start the clock once the device has nothing left to do."""
        self.begun = now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Stop it likewise."""
        self.seconds.append(now() - self.begun)


def now() -> float:
    """The clock, after the device has come to rest."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def write_base(shape: Shape, folder: Path) -> Path:
    """A Qwen2 of random bfloat16 weights, made where it fits, and a tokenizer of one word: rows come as numbers."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    config = Qwen2Config(
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=32_768,
        eos_token_id=0,
        pad_token_id=0,
    )
    with torch.device("cuda" if CUDA else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(str(folder), max_shard_size="4GB")
    words = Tokenizer(models.WordLevel({"<|endoftext|>": 0}, unk_token="<|endoftext|>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<|endoftext|>", pad_token="<|endoftext|>", unk_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(str(folder))
    return folder


def numbers(draw: random.Random, count: int, vocabulary: int) -> list[int]:
    """So many random tokens."""
    return [draw.randrange(1, vocabulary) for _ in range(count)]


def rows_of(count: int, length: int, vocabulary: int) -> Dataset:
    """Full rows, each of two documents."""
    draw = random.Random(0)
    return Dataset.from_list(
        [
            {"input_ids": numbers(draw, length, vocabulary), "seq_lengths": [length // 2, length - length // 2]}
            for _ in range(count)
        ]
    )


def pairs_of(count: int, length: int, vocabulary: int) -> Dataset:
    """Pairs as long as a row: three quarters prompt, as with three worked examples."""
    draw, answer = random.Random(0), length // 4
    return Dataset.from_list(
        [
            {
                "prompt_ids": numbers(draw, length - answer, vocabulary),
                "chosen_ids": numbers(draw, answer, vocabulary),
                "rejected_ids": numbers(draw, answer, vocabulary),
                "pair": number,
            }
            for number in range(count)
        ]
    )


def peak() -> float:
    """Gigabytes: the most that stood on the device, or in this process."""
    if CUDA:
        return float(torch.cuda.max_memory_allocated()) / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measured(name: str, base: Path, shape: Shape, settings: Cpt | Rpo) -> None:
    """Train for a few updates on full rows or pairs, and print what they took."""
    work = Path(tempfile.mkdtemp(dir=base.parent))
    if CUDA:
        gc.collect()  # trainers hold themselves in circles, and with them the training before this one
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    start = load_start(settings, {"base": base})
    count = settings.total_batch_size * (settings.max_steps or 1)
    if RANK:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  the first process speaks for all
    trainer = _trainer(start.model, start.tokenizer, shape, settings, count, work)
    clock = Clock()
    trainer.add_callback(clock)
    loss = trainer.train().training_loss
    seconds = statistics.median(clock.seconds[WARM:])
    each = settings.max_length if isinstance(settings, Cpt) else settings.max_length * 5 // 4
    tokens = settings.total_batch_size * each
    unit = f"{tokens / seconds:10,.0f} tokens/s"
    if isinstance(settings, Rpo):
        unit += f" ({settings.total_batch_size / seconds:.2f} pairs/s)"
    foretold = training_memory(shape, settings, LORA, PROCESSES, sharded=False).total / 1e9
    share = _share(shape, settings, tokens / seconds)
    print(f"{name:4} {seconds:8.2f} s an update  {unit}  loss {loss:.3f}")
    print(f"     {peak():8.1f} GB at most; `medllm check` foretells {foretold:.1f}{share}")


def _trainer(
    model: Any,  # noqa: ANN401
    tokenizer: PreTrainedTokenizerBase,
    shape: Shape,
    settings: Cpt | Rpo,
    count: int,
    work: Path,
) -> Any:  # noqa: ANN401  one of our trainers
    if isinstance(settings, Cpt):
        rows = rows_of(count, settings.max_length, shape.vocabulary)
        return cpt.make_trainer(model, tokenizer, rows, settings, work)
    pairs = pairs_of(count, settings.max_length, shape.vocabulary)
    return rpo.make_trainer(model, tokenizer, pairs, settings, work, say=print)


def _share(shape: Shape, settings: Cpt | Rpo, rate: float) -> str:
    """The part of the GPU's peak that this is, by the operations that `check` counts for a token."""
    name = torch.cuda.get_device_name().lower() if CUDA else ""
    gpu = next((gpu for key, gpu in GPUS.items() if key in name), None)
    if gpu is None:
        return ""
    peak_rate = gpu.tflops * 1e12 * PROCESSES
    return f"; {rate * operations_per_token(shape, settings) / peak_rate:.0%} of the maker's peak"


def over_all(wanted: int | None) -> int | None:
    """Run this program again with one process for each GPU; none when this process is enough."""
    seen = torch.cuda.device_count()
    count = min(wanted or seen, seen)
    if "RANK" in os.environ or FOLDER in os.environ or seen < 2:
        return None
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    first = (given.split(",") if given else [str(number) for number in range(seen)])[:count]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(first), FOLDER: folder}
        words = [sys.executable]
        if count > 1:
            words += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
        return subprocess.run([*words, *sys.argv], env=environment, check=False).returncode


def shared_base(shape: Shape, folder: Path) -> Path:
    """The base that the first process writes and the others wait for."""
    written = folder / "written"
    if RANK == 0:
        write_base(shape, folder / "base")
        written.touch()
    while not written.exists():
        time.sleep(1)
    return folder / "base"


def main() -> None:
    """Both trainings, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="Qwen/Qwen2.5-0.5B", choices=[n for n in KNOWN if "Qwen2" in n])
    parser.add_argument("--layers", type=int)
    parser.add_argument("--quantization", default="none", choices=("none", "nf4"))
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--rows", type=int, default=1, help="rows or pairs to an update")
    parser.add_argument("--updates", type=int, default=6)
    parser.add_argument("--checkpointing", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--gpus", type=int, help="the first so many; all when left out")
    given = parser.parse_args()
    if given.updates <= WARM:
        parser.error(f"--updates must be more than the {WARM} that are not counted")
    code = over_all(given.gpus)
    if code is not None:
        sys.exit(code)
    known = KNOWN[given.base]
    shape = replace(known, layers=given.layers or known.layers)
    where = f"{PROCESSES} x {torch.cuda.get_device_name()}" if CUDA else f"CPU, {torch.get_num_threads()} threads"
    if not RANK:
        print(f"{given.base}, {shape.layers} of {known.layers} blocks, {shape.parameters / 1e9:.2f} G weights; {where}")
    common: dict[str, Any] = {
        "lora": LORA,
        "quantization": given.quantization,
        "attn_implementation": given.attention,
        "max_length": given.length,
        "total_batch_size": given.rows * PROCESSES,
        "per_device_train_batch_size": given.rows,
        "max_steps": given.updates,
        "gradient_checkpointing": given.checkpointing,
        "logging_steps": given.updates,
        "save_steps": 10**6,
        "report_to": (),
    }
    with tempfile.TemporaryDirectory() as own:
        base = shared_base(shape, Path(os.environ.get(FOLDER, own)))
        measured("CPT", base, shape, Cpt(**common))
        measured("RPO", base, shape, Rpo(model="base", rpo_alpha=10, **common))


if __name__ == "__main__":
    main()
