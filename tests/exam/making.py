"""Questions and records that the exam's tests are made of: small, invented, with every field at hand."""

from typing import Any

from medllm.exam.question import Question
from medllm.exam.record import Record


def question(gold: str = "b", **given: Any) -> Question:
    """An invented question with five choices; `gold` is "b", "b,d" or, with no choices, a number."""
    choices = given.pop("choices", ("胃", "肝臓", "腎臓", "心臓", "肺"))
    answer = frozenset({gold}) if not choices else frozenset(gold.split(","))
    fields: dict[str, Any] = {
        "question_id": "1", "benchmark": "invented", "text": "胆汁を作るのはどれか。", "choices": tuple(choices),
        "gold": (answer,), "key": tuple(sorted(answer)), "numeric": not choices,
    }  # fmt: skip
    return Question(**(fields | given))


def record(question_id: str = "1", **given: Any) -> Record:
    """A right, plain reply of model "m" to a one-point question."""
    correct = given.get("correct", True)
    total = given.get("points_total", 1.0)
    fields: dict[str, Any] = {
        "question_id": question_id, "benchmark": "invented", "model": "m", "prompt": "plain", "status": "answered",
        "correct": correct, "points": total if correct else 0.0, "points_total": total,
        "answer": "a" if correct else "b", "gold": "a",
    }  # fmt: skip
    return Record(**(fields | given))
