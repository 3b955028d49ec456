"""Inspect tasks that ask IgakuQA plainly and explained, with the prompts that `medllm exam prompts` wrote."""

import json
import re
import unicodedata
from pathlib import Path

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    GenerateConfig,
)
from inspect_ai.scorer import Score, Scorer, Target, accuracy, scorer, stderr
from inspect_ai.solver import TaskState, generate

EXAM = "igakuqa"
ROLES = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


@task
def igakuqa_plain(prompts: str = "prompts", max_tokens: int = 32) -> Task:
    """Ask for the answer alone."""
    return _task(prompts, "plain", max_tokens)


@task
def igakuqa_explain(prompts: str = "prompts", max_tokens: int = 1024) -> Task:
    """Ask for an explanation first."""
    return _task(prompts, "explain", max_tokens)


def _task(prompts: str, mode: str, max_tokens: int) -> Task:
    path = Path(prompts) / f"{EXAM}-{mode}.jsonl"
    if not path.is_file():
        path = Path.cwd() / path  # Inspect works in the folder of the task's file
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    samples = [Sample(id=row["question_id"], input=_messages(row["messages"]), target=row["target"]) for row in rows]
    config = GenerateConfig(temperature=0.0, max_tokens=max_tokens, stop_seqs=rows[0]["stop"])
    dataset = MemoryDataset(samples, name=f"{EXAM}-{mode}")
    return Task(dataset=dataset, solver=generate(), scorer=letters(), config=config, metadata={"prompt": mode})


def _messages(written: list[dict[str, str]]) -> list[ChatMessage]:
    return [ROLES[one["role"]](content=one["content"]) for one in written]


@scorer(metrics=[accuracy(), stderr()])
def letters() -> Scorer:
    """Compare the letters or the number at the end of a reply with the key; `medllm score` reads it properly."""

    async def score(state: TaskState, target: Target) -> Score:
        reply = unicodedata.normalize("NFKC", state.output.completion).lower()
        last = re.split(r"答え\s*:|answer\s*:", reply)[-1]
        found = ",".join(sorted(re.findall(r"\b[a-h]\b|\d+(?:\.\d+)?", last)))
        return Score(value="C" if found == target.text else "I", answer=found)

    return score
