"""A stability report as a card shows it: one row for each model and exam, and the Hub's own index of results."""

from typing import Any


def card_rows(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Plain, explained and their difference for each model and exam, each with its interval."""
    rows = []
    for one in told["models"]:
        row: dict[str, Any] = {"model": one["model"], "exam": one["benchmark"]}
        for style, condition in one["conditions"].items():
            row["questions"] = condition["questions"]
            row |= _estimate(style, condition["score"])
        if one["change"]:
            row |= _estimate("delta", one["change"]["delta"])
            row |= {"questions": one["change"]["questions"], "p": one["change"]["p"]}
        wanted = [f"{name}{end}" for name in ("plain", "explain", "delta") for end in ("", "_low", "_high")]
        if all(row.get(key) is not None for key in wanted):
            rows.append(row)
    return rows


def _estimate(name: str, estimate: dict[str, Any]) -> dict[str, Any]:
    ends = estimate["interval"] or {}
    return {name: estimate["value"], f"{name}_low": ends.get("low"), f"{name}_high": ends.get("high")}


def model_index(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the Hub's `model-index`: a result for each model, exam and prompt."""
    index = []
    for model in dict.fromkeys(row["model"] for row in rows):
        results = [
            {
                "task": {"type": "question-answering"},
                "dataset": {"name": row["exam"], "type": row["exam"]},
                "metrics": [
                    {"type": "accuracy", "name": f"score, {style}", "value": row[style]}
                    for style in ("plain", "explain")
                ],
            }
            for row in rows
            if row["model"] == model
        ]
        index.append({"name": model, "results": results})
    return index
