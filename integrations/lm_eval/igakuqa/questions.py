"""The questions of the lm-evaluation-harness tasks, as `medllm exam prompts` wrote them, and a rough score."""

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

import datasets

FOLDER = "MEDLLM_PROMPTS"
"""The environment variable of the folder with the prompts; `prompts` here when it is not set."""
EXAM = "igakuqa"


def load(mode: str, **_: Any) -> dict[str, datasets.Dataset]:  # noqa: ANN401  the harness passes its metadata too
    """Return the questions of one mode, `plain` or `explain`, under the name of the split."""
    path = Path(os.environ.get(FOLDER, "prompts")) / f"{EXAM}-{mode}.jsonl"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: write it with `medllm exam prompts {EXAM} --data DIR --out {path.parent}`")
    return {"test": datasets.Dataset.from_json(str(path))}


def right(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Compare the letters or the number at the end of a reply with the key; `medllm score` reads it properly."""
    reply = unicodedata.normalize("NFKC", results[0]).lower()
    last = re.split(r"答え\s*:|answer\s*:", reply)[-1]
    found = re.findall(r"\b[a-h]\b|\d+(?:\.\d+)?", last)
    return {"acc": float(sorted(found) == sorted(doc["target"].split(",")))}
