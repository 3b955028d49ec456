"""The gate before a public push: the conditions of the recipe, checked against the facts of the outputs."""

from collections.abc import Iterator, Mapping
from typing import Any

from medllm.recipe import Recipe


def failed_gate_conditions(
    recipe: Recipe, facts: Mapping[str, Mapping[str, Any]], worst_delta: float | None
) -> list[str]:
    """Every condition that does not hold; `facts` by stage, `worst_delta` the far end of the final model's interval.

    A condition that was not measured does not hold: a missing audit is not an audit without findings.
    """
    return [*_audit(recipe, facts), *_personal(recipe, facts), *_drop(recipe, worst_delta)]


def _audit(recipe: Recipe, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not recipe.gate.audit or recipe.corpus is None:
        return
    open_findings = facts.get("corpus", {}).get("audit", {}).get("unreviewed")
    if open_findings is None:
        yield "gate.audit: the corpus has no leakage audit. Run the stage `corpus` with held_out"
    elif open_findings:
        yield (
            f"gate.audit: {open_findings} matches of the leakage audit need a person's review. Read audit.html in the "
            "corpus, and list those that are not leaks under corpus.leaks_reviewed"
        )
    waiting = facts.get("preferences", {}).get("audit", {}).get("unreviewed")
    if recipe.preferences is not None and waiting is None:
        yield "gate.audit: the preference pairs have no leakage audit. Run the stage `preferences` with held_out"
    elif recipe.preferences is not None and waiting:
        yield (
            f"gate.audit: {waiting} matches of the leakage audit in the preference pairs need a person's review. Read "
            "audit.html there, and list those that are not leaks under preferences.leaks_reviewed"
        )


def _personal(recipe: Recipe, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    if not recipe.gate.personal_data or recipe.corpus is None:
        return
    kept = facts.get("corpus", {}).get("personal_data", {}).get("standing")
    if kept is None:
        yield "gate.personal_data: the corpus does not record whether it holds documents with personal data"
    elif kept:
        yield f"gate.personal_data: {kept} places in the corpus seem to name a patient. Set personal_data: drop"


def _drop(recipe: Recipe, worst_delta: float | None) -> Iterator[str]:
    allowed = recipe.gate.max_drop
    if allowed is None:
        return
    if worst_delta is None:
        yield (
            "gate.max_drop: the final model did not answer every exam both plainly and explained, so its drop is "
            "unknown. Add `evaluate` with both prompts"
        )
    elif -worst_delta > allowed:
        yield (
            f"gate.max_drop: at the far end of its interval the final model loses {-100 * worst_delta:.1f} points "
            f"when it explains; {100 * allowed:.1f} are allowed. Ask more questions, or raise gate.max_drop"
        )
