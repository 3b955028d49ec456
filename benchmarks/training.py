"""A step of CPT and of RPO against TRL called directly, on the same rows and pairs: seconds and losses.

Run: python benchmarks/training.py [BASE_FOLDER] [--steps 10] [--prompt 300]
Without a folder the model is a Qwen2 of 1.2 M random weights, where what surrounds the matrix products shows most.
"""

import argparse
import random
import resource
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from medllm.recipe.settings import Cpt, Lora, Rpo
from medllm.training import cpt, rpo
from medllm.training.cpt import make_rows
from medllm.training.pair_batches import encode_pairs
from medllm.weights.load import load_tokenizer

LORA = Lora(r=64, lora_alpha=128)
VOCABULARY = 1200


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of these texts."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"]))
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def model(base: Path | None) -> PreTrainedModel:
    """The same weights each time: the folder's, or random ones."""
    if base:
        return cast("PreTrainedModel", AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32))
    torch.manual_seed(0)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=8,
            max_position_embeddings=4096,
            tie_word_embeddings=False,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def arguments(steps: int, batch: int, accumulation: int) -> dict[str, Any]:
    """What both trainers of TRL are told."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "max_steps": steps,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulation,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": steps,
        "disable_tqdm": True,
        "seed": 0,
    }


def peft() -> LoraConfig:
    """The adapter both train."""
    return LoraConfig(r=64, lora_alpha=128, target_modules=list(LORA.target_modules), task_type="CAUSAL_LM")


def run(name: str, trainer: Any, steps: int, done: float, unit: str) -> float:  # noqa: ANN401  any trainer
    """Train, print what a step took, how much was done in a second and the loss; return the step's seconds of CPU."""
    trainer.model.train()
    cpu, wall = time.process_time(), time.perf_counter()
    loss = trainer.train().training_loss
    used, clock = (time.process_time() - cpu) / steps, (time.perf_counter() - wall) / steps
    print(f"{name:34} {used:7.3f} s CPU a step  {clock:7.3f} s wall  loss {loss:.6f}  ", end="")
    print(f"{done / used:.1f} {unit} a second of CPU", flush=True)
    return used


def common(steps: int) -> dict[str, Any]:
    """What our own settings are told, the same as TRL's."""
    values: dict[str, Any] = {"dtype": "float32", "gradient_checkpointing": False, "report_to": (), "max_steps": steps}
    return values | {
        "logging_steps": steps,
        "save_steps": 10**6,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.0,
    }


def compare_cpt(base: Path | None, steps: int, documents: list[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """The same documents, packed into 8 rows of 256 tokens."""
    texts = Dataset.from_dict({"text": documents})
    sft = SFTConfig(**arguments(steps, 8, 1), packing=True, packing_strategy="bfd_split", max_length=256)
    theirs = SFTTrainer(model(base), args=sft, train_dataset=texts, processing_class=tokenizer, peft_config=peft())
    slow = run("CPT, TRL (8 rows of 256, packed)", theirs, steps, 2048, "tokens")
    rows, _ = make_rows(texts, tokenizer, 256, packing=True)
    settings = Cpt(lora=LORA, total_batch_size=8, per_device_train_batch_size=8, max_length=256, **common(steps))
    ours = cpt.make_trainer(model(base), tokenizer, rows, settings, Path(tempfile.mkdtemp()))
    print(f"{'ratio':34} {slow / run('CPT, ours', ours, steps, 2048, 'tokens'):7.2f} x")


def compare_rpo(base: Path | None, steps: int, pairs: list[dict[str, str]], tokenizer: PreTrainedTokenizerBase) -> None:
    """The same pairs, eight to an update, one at a time: TRL's way to the paper's average."""
    table = Dataset.from_list(pairs)
    weights = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 10.0], "beta": 0.1, "max_length": None}
    dpo = DPOConfig(**arguments(steps, 1, 8), **weights)
    theirs = DPOTrainer(model(base), args=dpo, train_dataset=table, processing_class=tokenizer, peft_config=peft())
    slow = run("RPO, TRL (8 pairs, one by one)", theirs, steps, 8, "pairs")
    encoded, _ = encode_pairs(table, tokenizer, 4096)
    values = Rpo(
        model="base",
        rpo_alpha=10,
        lora=LORA,
        total_batch_size=8,
        per_device_train_batch_size=1,
        max_length=4096,
        **common(steps),
    )
    mine = rpo.make_trainer(model(base), tokenizer, encoded, values, Path(tempfile.mkdtemp()), say=print)
    print(f"{'ratio':34} {slow / run('RPO, ours', mine, steps, 8, 'pairs'):7.2f} x")


def compare_groups(base: Path | None, steps: int, rows: list[list[str]], tokenizer: PreTrainedTokenizerBase) -> None:
    """All pairs of each question's answers, ranked as they stand; two questions to an update.

    A row is a prompt and its answers. TRL takes the pairs one by one, `order: questions` those of a question together.
    """
    responses = len(rows[0]) - 1
    pairs = [
        {"prompt": prompt, "chosen": better, "rejected": worse}
        for prompt, *answers in rows
        for better, worse in combinations(answers, 2)
    ]
    each = responses * (responses - 1) // 2
    table = Dataset.from_list(pairs)
    weights = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 10.0], "beta": 0.1, "max_length": None}
    dpo = DPOConfig(**arguments(steps, 1, 2 * each), **weights)
    theirs = DPOTrainer(model(base), args=dpo, train_dataset=table, processing_class=tokenizer, peft_config=peft())
    slow = run(f"RPO, TRL ({responses} answers a question)", theirs, steps, 2 * each, "pairs")
    encoded, _ = encode_pairs(table, tokenizer, 4096)
    values = {
        "model": "base",
        "rpo_alpha": 10,
        "lora": LORA,
        "total_batch_size": 2 * each,
        "max_length": 4096,
        **common(steps),
    }
    for order, split in (("pairs", 1), ("questions", each)):
        settings = Rpo.model_validate({**values, "order": order, "per_device_train_batch_size": split})
        mine = rpo.make_trainer(model(base), tokenizer, encoded, settings, Path(tempfile.mkdtemp()), say=print)
        quick = run(f"RPO, ours, order: {order}", mine, steps, 2 * each, "pairs")
        print(f"{'ratio':34} {slow / quick:7.2f} x, {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def main() -> None:
    """Both trainings, TRL's way and ours."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, nargs="?")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--prompt", type=int, default=300, help="words of a pair's prompt")
    given = parser.parse_args()
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=4)) for _ in range(400)]

    def text(least: int, most: int) -> str:
        return " ".join(draw.choices(words, k=draw.randint(least, most)))

    documents = [text(8, 60) for _ in range(1500)]
    tokenizer = load_tokenizer(given.base) if given.base else tokenizer_of(documents)
    compare_cpt(given.base, given.steps, documents, tokenizer)
    prompts = [text(given.prompt, given.prompt) for _ in range(160)]
    pairs = [{"prompt": one, "chosen": " " + text(20, 40), "rejected": " " + text(20, 40)} for one in prompts]
    compare_rpo(given.base, given.steps, pairs, tokenizer)
    for responses in (3, 8):
        rows = [[one, *(" " + text(20, 40) for _ in range(responses))] for one in prompts[: 2 * given.steps]]
        compare_groups(given.base, given.steps, rows, tokenizer)


if __name__ == "__main__":
    main()
