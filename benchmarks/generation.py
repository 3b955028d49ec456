"""Three models asked two ways on real questions: one base and a prefix computed once, against plain generate.

Run: python benchmarks/generation.py BASE_FOLDER IGAKUQA_FOLDER [--questions 100] [--tokens 48] [--batch 8]
Prints CPU seconds (fair on a busy machine) and wall seconds of both, their ratio, and how many answers are equal.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from medllm.exam.benchmarks import exemplars, load
from medllm.exam.prompts import render
from medllm.generation.local import LocalGenerator
from medllm.generation.requests import Request, shared_length

MODELS = ("base", "cpt", "final")


def adapter(base: Path, folder: Path, seed: int) -> Path:
    """A random adapter of rank 16 on all linear layers, strong enough to change answers."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=modules, task_type="CAUSAL_LM"))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.002)
    adapted.save_pretrained(str(folder))
    return folder


def requests(exam: Path, count: int, tokens: int) -> list[Request]:
    """Each question plainly and explained, to each model, after three worked examples."""
    questions = [question for question in load("igakuqa", exam) if not question.image][:count]
    examples = exemplars("igakuqa", exam)
    found = []
    for style in ("plain", "explain"):
        prompts = [render(question, prompt=style, exemplars=examples) for question in questions]
        shared = shared_length([prompt.text for prompt in prompts])
        room = min(tokens, 8) if style == "plain" else tokens
        found += [
            Request(key=f"{model} {style} {n}", model=model, text=p.text, shared=shared, max_new_tokens=room)
            for n, p in enumerate(prompts)
            for model in MODELS
        ]
    return found


def plain(base: Path, adapters: dict[str, Path], asked: list[Request], batch: int, dtype: str) -> dict[str, str]:
    """What most scripts do: each model in turn, the whole prompt of every question, `generate` in batches."""
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    said = {}
    for name in MODELS:
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype)).eval()
        if name != "base":
            model = PeftModel.from_pretrained(model, str(adapters[name])).eval()
        mine = [request for request in asked if request.model == name]
        for at in range(0, len(mine), batch):
            part = mine[at : at + batch]
            encoded = tokenizer([request.text for request in part], return_tensors="pt", padding=True)
            room = max(request.max_new_tokens for request in part)
            with torch.inference_mode():
                out = model.generate(
                    **encoded, max_new_tokens=room, do_sample=False, pad_token_id=tokenizer.pad_token_id
                )
            for request, row in zip(part, out[:, encoded["input_ids"].shape[1] :], strict=True):
                text = tokenizer.decode(row[: request.max_new_tokens], skip_special_tokens=True)
                said[request.key] = text
    return said


def timed(work: Callable[[], dict[str, str]]) -> tuple[dict[str, str], float, float]:
    """What came out, CPU seconds, wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.process_time() - cpu, time.perf_counter() - wall


def main() -> None:
    """Measure both and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("igakuqa", type=Path)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args()
    asked = requests(given.igakuqa, given.questions, given.tokens)
    with tempfile.TemporaryDirectory() as folder:
        adapters = {name: adapter(given.base, Path(folder) / name, seed) for seed, name in enumerate(MODELS[1:])}

        def ours() -> dict[str, str]:
            generator = LocalGenerator(given.base, adapters, dtype=given.dtype, batch_size=given.at_once)
            return {reply.key: reply.text for reply in generator.generate(asked)}

        mine, cpu, wall = timed(ours)
        print(f"ours   {cpu:8.1f} s CPU  {wall:8.1f} s wall  {len(asked)} answers", flush=True)
        theirs, cpu_plain, wall_plain = timed(lambda: plain(given.base, adapters, asked, given.batch, given.dtype))
        print(f"plain  {cpu_plain:8.1f} s CPU  {wall_plain:8.1f} s wall")
        same = sum(mine[request.key] == theirs[request.key] for request in asked)
        print(
            f"ratio  {cpu_plain / cpu:8.2f} x CPU {wall_plain / wall:8.2f} x wall  {same} of {len(asked)} answers equal"
        )


if __name__ == "__main__":
    main()
