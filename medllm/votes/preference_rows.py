"""Votes as preference rows with `origin: expert`, for training; a vote about a test item never gets here."""

import hashlib
from collections.abc import Callable, Iterable
from datetime import date
from typing import Any

from medllm.exam.benchmarks import CATALOGUE
from medllm.exam.prompts import Prompt
from medllm.exam.question import Question
from medllm.exam.record import Record
from medllm.votes.vote import Use, Vote

Find = Callable[[Vote, str], Record | None]
"""Finds the explanation that a side showed, by the vote and the model."""


def use_of(question: Question, cutoff: date | None) -> Use:
    """Return whether votes on a question may train: only where its exam was sat by the cutoff and is not test-only.

    Unknown means not allowed: without a cutoff or an exam date, or for a test-only set, votes may not train.
    """
    known = CATALOGUE.get(question.benchmark)
    if known is not None and known.test_only:
        return "evaluation-only"
    if cutoff is None or question.exam_date is None or question.exam_date > cutoff:
        return "evaluation-only"
    return "training"


def preference_rows(
    votes: Iterable[Vote], find: Find, prompts: Callable[[Vote], tuple[Prompt, Prompt]]
) -> list[dict[str, Any]]:
    """Return the votes that may train, as prompt, chosen and rejected; ties and votes on changed texts are left out.

    `prompts` gives the prompt of the shown replies, with its worked examples and without them; both answers continue
    it as sampled preference pairs do.
    """
    rows = []
    for vote in votes:
        if vote.use != "training" or vote.choice not in ("a", "b"):
            continue
        a, b = find(vote, vote.model_a), find(vote, vote.model_b)
        if a is None or b is None or (_digest(a), _digest(b)) != (vote.completion_a, vote.completion_b):
            continue
        chosen, rejected = (a, b) if vote.choice == "a" else (b, a)
        prompt, bare = prompts(vote)
        rows.append(
            {
                "prompt": prompt.text,
                "prompt_without_shots": bare.text,
                "chosen": prompt.completion(chosen.completion),
                "rejected": prompt.completion(rejected.completion),
                "pair": "expert",
                "origin": "expert",
                "question_id": vote.question_id,
                "benchmark": vote.benchmark,
                "model": chosen.model,
                "rejected_model": rejected.model,
                "prompt_hash": prompt.hash,
                "vote_id": vote.vote_id,
            }
        )
    return rows


def _digest(record: Record) -> str:
    return hashlib.sha256(record.completion.encode()).hexdigest()
