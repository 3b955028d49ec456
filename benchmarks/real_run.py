"""The whole method on a real small model, real exams and texts, with `medllm run`; seconds and facts of each stage.

Run: python benchmarks/real_run.py MODEL_FOLDER DATA_FOLDER OUT [--set cpt.max_steps=12 ...]
DATA_FOLDER holds igakuqa/, yakugakuqa/ and text/. OUT gets the sources, the recipe (benchmarks/real_run.yaml), the
Hub and the work; run again after an interruption, it goes on.

Each stage is a process of its own, so that its CPU and its peak of memory can be told; what they say goes to OUT/log.
At the end one `medllm run` publishes, the merged model is loaded in a fresh process and asked a question, and
`medllm status` and `medllm trace` tell where everything came from.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

RECIPE = Path(__file__).with_suffix(".yaml")
OLD, NEW = range(97, 103), range(103, 110)
"""The pharmacist exams of 2012 to 2017, and of 2018 to 2024."""
TEXTS = {
    "pharmacopoeia": "pharmacopoeia_easy",
    "case-reports": "medtxt_case_reports",
    "encyclopedia": "jaquad_contexts_medical",
}
STAGES = ("corpus", "cpt", "preferences", "rpo", "merge", "evaluate", "space")
MEDLLM = (sys.executable, "-W", "ignore", "-m", "medllm.cli")
LEFT_OUT = ("settings", "index", "stage", "languages", "histogram", "statements", "licenses", "size", "findings")
LOADED = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
asked = tokenizer(open(sys.argv[2], encoding="utf-8").read(), return_tensors="pt")
written = model.generate(**asked, max_new_tokens=400, do_sample=False, tokenizer=tokenizer)[0]
new = written[asked["input_ids"].shape[1]:].tolist()
print(f"{len(new)} of at most 400 tokens; stops: {model.generation_config.stop_strings}, "
      f"{model.generation_config.eos_token_id}; last token: {tokenizer.decode(new[-1:])!r}")
print(tokenizer.decode(new))
"""


def lay_out(model: Path, data: Path, out: Path) -> Path:
    """The sources where the recipe looks for them: old and new exams apart, which is what the cutoff parts them by."""
    for name, numbers in (("past", OLD), ("asked", NEW)):
        (out / name).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            shutil.copyfile(data / "yakugakuqa" / f"{number:03}.jsonl", out / name / f"{number:03}.jsonl")
    for name, file in TEXTS.items():
        (out / "texts" / name).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / "text" / f"{file}.jsonl", out / "texts" / name / f"{file}.jsonl")
    for name, folder in (("base", model), ("igakuqa", data / "igakuqa")):
        if not (out / name).exists():
            shutil.copytree(folder, out / name)
    shutil.copyfile(RECIPE, out / "recipe.yaml")
    return out / "recipe.yaml"


def measured(name: str, command: list[str], log: Path) -> str:
    """Run a command to its end, print what it took, and give back what it printed."""
    wall = time.perf_counter()
    with log.open("ab") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        assert process.stdout is not None
        printed = process.stdout.read().decode()
        _, status, used = os.wait4(process.pid, 0)
    took = f"{used.ru_utime + used.ru_stime:.0f} s CPU, {time.perf_counter() - wall:.0f} s wall"
    print(f"{name}: {took}, {used.ru_maxrss / 1e6:.2f} GB peak", flush=True)
    if status:
        raise SystemExit(f"{name} ended with {os.waitstatus_to_exitcode(status)}: {log} says why")
    return printed


def facts(work: Path, stage: str) -> dict[str, object]:
    """What a stage says of what it made."""
    made = max(work.glob(f"*/{stage}-*/made"), key=lambda folder: folder.stat().st_mtime)
    values = json.loads((made / "facts.json").read_text("utf-8")) if (made / "facts.json").is_file() else {}
    return {key: value for key, value in values.items() if key not in LEFT_OUT} | {"folder": str(made)}


def question(out: Path, work: Path) -> Path:
    """The first training question after its worked examples: what the merged model is asked."""
    import pyarrow.parquet as pq

    pairs = next(Path(str(facts(work, "preferences")["folder"])).glob("data/*.parquet"))
    asked = out / "asked.txt"
    asked.write_text(pq.read_table(pairs).to_pylist()[0]["prompt"], "utf-8")
    return asked


def main() -> None:
    """All stages in order, then the merged model alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "data", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    given = parser.parse_args()
    out = given.out.resolve()
    recipe, work, log = lay_out(given.model, given.data, out), out / "work", out / "log"
    options = [str(recipe), "--hub", str(out / "hub"), *(word for one in given.set for word in ("--set", one))]
    for stage in STAGES:
        measured(stage, [*MEDLLM, "run", *options, "--work", str(work), "--yes", stage], log)
        print(json.dumps(facts(work, stage), ensure_ascii=False, default=str), flush=True)
    print(measured("run", [*MEDLLM, "run", *options, "--work", str(work), "--yes"], log))
    merged = str(facts(work, "merge")["folder"])
    asked = str(question(out, work))
    print(measured("merged model", [sys.executable, "-W", "ignore", "-c", LOADED, merged, asked], log))
    print(measured("status", [*MEDLLM, "status", *options], log))
    print(measured("trace", [*MEDLLM, "trace", "trial/real-run", "--hub", str(out / "hub")], log))


if __name__ == "__main__":
    main()
