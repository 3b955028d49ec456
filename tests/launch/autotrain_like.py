"""Does with a config what AutoTrain Advanced 0.8.36 does, down to its refusals and its exit code, but learns nothing.

Its parser, its column mapping and its choice of files are followed; the adapter it leaves is drawn, of the shape that
was asked for. `AUTOTRAIN_CRASHES=1` lets the training crash as the real one does: with a traceback and exit code 0.
`AUTOTRAIN_HANGS=FILE` lets it start a training, write down both their process numbers there, and wait for ever.
"""

import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

TASKS = {"llm": "default", "llm-sft": "sft", "llm-generic": "default", "llm-dpo": "dpo"}
KNOWN = """
epochs batch_size gradient_accumulation lr scheduler warmup_ratio weight_decay max_grad_norm block_size optimizer
model_max_length mixed_precision disable_gradient_checkpointing use_flash_attention_2 logging_steps peft seed
quantization target_modules lora_r lora_alpha lora_dropout padding dpo_beta max_prompt_length
"""


def program_like(folder: Path) -> Path:
    """This file as a program by that name."""
    program = folder / "autotrain"
    program.write_text(f"#!{sys.executable}\n" + Path(__file__).read_text(encoding="utf-8"), encoding="utf-8")
    program.chmod(0o755)
    return program


def parameters(config: dict) -> dict:
    """What its parser makes of a config; it asks for these keys and fails where one is missing."""
    data = config["data"]
    found = {"model": config["base_model"], "project_name": config["project_name"], "data_path": data["path"]}
    found |= {"trainer": TASKS[config["task"]], "chat_template": data["chat_template"], **data["column_mapping"]}
    found |= {"train_split": data["train_split"], "valid_split": data["valid_split"], "log": config["log"]}
    unknown = set(config["params"]) - set(KNOWN.split())
    assert not unknown, f"no such parameter: {unknown}"
    assert config["backend"] == "local" and "hub" not in config
    assert re.fullmatch(r"[A-Za-z0-9-]{1,50}", found["project_name"]), "project_name must be alphanumeric"
    return found | config["params"]


def check_base(folder: Path) -> None:
    """What transformers 4.48 needs to read a base rightly."""
    config = json.loads((folder / "config.json").read_text())
    assert "rope_theta" in config, "4.48 would take a theta of 10,000"
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not list(folder.glob("*.py"))


def shapes(folder: Path) -> dict[str, list[int]]:
    """The tensors of a model, by the headers of its files."""
    found = {}
    for path in folder.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        found |= {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    return found


def main() -> None:
    """Be the program."""
    values = parameters(yaml.safe_load(Path(sys.argv[sys.argv.index("--config") + 1]).read_text(encoding="utf-8")))
    check_base(Path(values["model"]))
    rows = [json.loads(line) for line in (Path(values["data_path"]) / "train.jsonl").read_text("utf-8").splitlines()]
    for column in (
        values["text_column"],
        *(values[k] for k in ("prompt_text_column", "rejected_text_column") if k in values),
    ):
        assert all(isinstance(row[column], str) for row in rows), column
    if os.environ.get("AUTOTRAIN_CRASHES"):
        print("RuntimeError: the training crashed", file=sys.stderr)
        sys.exit(0)
    if os.environ.get("AUTOTRAIN_HANGS"):
        training = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        aside = Path(os.environ["AUTOTRAIN_HANGS"] + ".aside")
        aside.write_text(f"{os.getpid()} {training.pid}")
        aside.replace(os.environ["AUTOTRAIN_HANGS"])
        training.wait()
    draw, wanted, learnt = np.random.default_rng(values["seed"]), values["target_modules"].split(","), {}
    for name, shape in shapes(Path(values["model"])).items():
        module = name.removesuffix(".weight")
        if module.rsplit(".", 1)[-1] in wanted:
            sizes = {"A": (values["lora_r"], shape[1]), "B": (shape[0], values["lora_r"])}
            for letter, size in sizes.items():
                key = f"base_model.model.{module}.lora_{letter}.weight"
                learnt[key] = draw.normal(0, 0.02, size).astype(np.float32)
    out = Path(values["project_name"])
    out.mkdir()
    # It resizes the embedding to the tokenizer, and PEFT then stores that beside what was learnt.
    learnt["base_model.model.model.embed_tokens.weight"] = np.zeros((3, 3), np.float32)
    save_file(learnt, out / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": values["model"]}
    config |= {"r": values["lora_r"], "lora_alpha": values["lora_alpha"], "target_modules": wanted, "bias": "none"}
    (out / "adapter_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    main()
