"""Three models asked two ways on real questions: ours, against plain generate, lm-evaluation-harness and a server.

Run: python benchmarks/generation.py BASE_FOLDER IGAKUQA_FOLDER [--questions 100] [--tokens 48] [--batch 8]
     [--adapters FOLDER] [--no-plain] [--harness] [--endpoint http://127.0.0.1:8000/v1]
     [--engines local transformers vllm]
Prints CPU seconds (fair on a busy machine) and wall seconds of each, the ratio to ours, and how many answers are equal.
--engines compares nothing but medllm's own engines, as `engine: NAME` of a recipe opens them, each with the first;
loading a model and starting a server (MEDLLM_VLLM) are not counted. --harness wants `lm_eval` importable. --endpoint
asks a server that has base, cpt and final; --adapters keeps the two adapters, so that it can be started with them:
vllm serve BASE --served-model-name base --enable-lora --max-lora-rank 16 --lora-modules cpt=FOLDER/cpt
final=FOLDER/final
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from medllm.exam.benchmarks import exemplars, load
from medllm.exam.prompts import render
from medllm.generation.endpoint import EndpointGenerator
from medllm.generation.engine.local import LocalGenerator
from medllm.generation.factory import make_generators
from medllm.generation.types import Request, engine_of, release_model, shared_length

MODELS = ("base", "cpt", "final")
Work = Callable[[], dict[str, str]]
Cost = tuple[float, float]
"""Seconds of CPU, and on the clock."""


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
    replies = {}
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
                replies[request.key] = text
    return replies


def harness(base: Path, adapters: dict[str, Path], asked: list[Request], batch: int, dtype: str) -> dict[str, str]:
    """The hf backend of lm-evaluation-harness, which evaluations are commonly run with; each model in turn."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    replies: dict[str, str] = {}
    for name in MODELS:
        peft = {} if name == "base" else {"peft": str(adapters[name])}
        model = HFLM(pretrained=str(base), dtype=dtype, device="cpu", batch_size=batch, **peft)
        mine = [request for request in asked if request.model == name]
        report = [
            Instance("generate_until", {}, (one.text, {"until": [], "max_gen_toks": one.max_new_tokens}), number)
            for number, one in enumerate(mine)
        ]
        texts = model.generate_until(report, disable_tqdm=True)
        replies |= {request.key: text for request, text in zip(mine, texts, strict=True)}
    return replies


def server(url: str, asked: list[Request]) -> dict[str, str]:
    """All requests to a server that has the three models under their names."""
    return {reply.key: reply.text for reply in EndpointGenerator(url).generate(asked)}


@contextmanager
def engine(name: str, base: Path, adapters: dict[str, Path], asked: list[Request], dtype: str) -> Iterator[Work]:
    """Open the models by one of medllm's engines, ask the longest prompt once, and give the work of asking them all."""
    sources = {"base": base, **adapters}
    generators = make_generators({model: model for model in MODELS}, sources, engine=name, dtype=dtype)
    generator = generators["base"][0]
    mine = [replace(request, model=generators[request.model][1]) for request in asked]
    longest = max(mine, key=lambda request: len(request.text))  # a server starts with room for it
    list(generator.generate([replace(longest, key="first")]))
    print(engine_of(generator), flush=True)
    yield lambda: {reply.key: reply.text for reply in generator.generate(mine)}
    release_model(generator)


def compare_engines(names: list[str], way: tuple[Path, dict[str, Path], list[Request], str]) -> None:
    """Measure each engine, and print its ratios to the first."""
    with engine(names[0], *way) as work:
        mine, cost = timed(work)
    print(f"{names[0]:12} {cost[0]:8.1f} s CPU  {cost[1]:8.1f} s wall  {len(mine)} answers", flush=True)
    for name in names[1:]:
        with engine(name, *way) as work:
            report(name, way[2], mine, cost, work)


def timed(work: Work) -> tuple[dict[str, str], Cost]:
    """What came out, and what it took this program and the servers that it has started."""

    def spent() -> float:
        children = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
        return time.process_time() + sum(float(times.user + times.system) for times in children)

    wall, cpu = time.perf_counter(), spent()
    found = work()
    return found, (spent() - cpu, time.perf_counter() - wall)


def report(name: str, asked: list[Request], mine: dict[str, str], ours: Cost, work: Work) -> None:
    """Measure one other way and print what it took, its ratio to ours, and how often it says the same."""
    theirs, (cpu, wall) = timed(work)
    same = sum(mine[request.key] == theirs[request.key] for request in asked)
    print(f"{name:12} {cpu:8.1f} s CPU  {wall:8.1f} s wall  {same} of {len(asked)} answers equal")
    print(f"{'':12} {cpu / ours[0]:8.2f} x CPU {wall / ours[1]:8.2f} x wall", flush=True)


def main() -> None:
    """Measure each way and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("igakuqa", type=Path)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--adapters", type=Path)
    parser.add_argument("--plain", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--harness", action="store_true")
    parser.add_argument("--endpoint")
    parser.add_argument("--engines", nargs="*", default=[])
    given = parser.parse_args()
    asked = requests(given.igakuqa, given.questions, given.tokens)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.adapters or Path(scratch)
        adapters = {
            name: folder / name if (folder / name).is_dir() else adapter(given.base, folder / name, seed)
            for seed, name in enumerate(MODELS[1:])
        }
        if given.engines:
            compare_engines(given.engines, (given.base, adapters, asked, given.dtype))
            return

        def ours() -> dict[str, str]:
            generator = LocalGenerator(given.base, adapters, dtype=given.dtype, batch_size=given.at_once)
            return {reply.key: reply.text for reply in generator.generate(asked)}

        mine, cost = timed(ours)
        print(f"{'ours':12} {cost[0]:8.1f} s CPU  {cost[1]:8.1f} s wall  {len(asked)} answers", flush=True)
        way = (given.base, adapters, asked, given.batch, given.dtype)
        if given.plain:
            report("plain", asked, mine, cost, lambda: plain(*way))
        if given.harness:
            report("harness", asked, mine, cost, lambda: harness(*way))
        if given.endpoint:
            report("server", asked, mine, cost, lambda: server(given.endpoint, asked))


if __name__ == "__main__":
    main()
