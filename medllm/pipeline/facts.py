"""The facts that a stage records of its own output: facts.json, here or on the Hub, and as one sentence."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medllm.hub import Artifact, Hub
from medllm.pipeline.progress import format_bytes
from medllm.recipe.reference import Stage
from medllm.wording import describe_amount, describe_counts, number_of


def facts_of(hub: Hub, artifact: Artifact) -> dict[str, Any]:
    """Read the facts of a stage whose output is on the Hub."""
    path = hub.file(artifact, "facts.json")
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path else {}
    return facts


def read_facts(folder: Path) -> dict[str, Any]:
    """Read the facts that a stage recorded of its own output."""
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return facts


def describe_facts(stage: Stage, facts: Mapping[str, Any]) -> str:
    """Sum up in one sentence what a stage did; empty where its facts do not hold what the sentence needs.

    >>> describe_facts("evaluate", {"replies": 60, "questions": 10, "settings": {"models": {"base": "base"}}})
    '60 replies of 1 model to 10 questions'
    """
    try:
        return SENTENCES[stage](facts)
    except (KeyError, TypeError):
        return ""


def _corpus(facts: Mapping[str, Any]) -> str:
    kept, dropped = facts["documents"], facts["dropped"]
    why = f" ({describe_counts(facts['reasons'])})" if dropped else ""
    size = f"{describe_amount(facts['tokens'])} tokens" if facts["tokens"] else ""
    size = size or f"{describe_amount(facts['characters'])} characters"
    return f"kept {kept:,} of {kept + dropped:,} documents{why}, {size}"


def _cpt(facts: Mapping[str, Any]) -> str:
    return (
        f"trained on {describe_amount(facts['tokens_trained'])} tokens in {number_of(facts['steps'], 'update')} "
        f"({facts['epochs']:.3g} epochs){_loss(facts['first_loss'], facts['last_loss'])}"
    )


def _preferences(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['pairs']:,} pairs from {facts['samples']:,} samples of {facts['questions']:,} questions "
        f"({describe_counts(facts['labels'])})"
    )


def _rpo(facts: Mapping[str, Any]) -> str:
    first, last = facts["first"] or {}, facts["last"] or {}
    return (
        f"trained on {facts['trained']:,} of {facts['pairs']:,} pairs in {number_of(facts['steps'], 'update')} "
        f"({facts['epochs']:.3g} epochs){_loss(first.get('loss'), last.get('loss'))}"
    )


def _loss(first: object, last: object) -> str:
    return (
        ""
        if first is None or last is None
        else f", loss {float(str(first)):.3f} at first and {float(str(last)):.3f} at last"
    )


def _merge(facts: Mapping[str, Any]) -> str:
    certificate = facts.get("certificate")
    size = f"a model of {format_bytes(facts['bytes'])}"
    if certificate is None:
        return f"{size}, without a certificate"
    name = "(merged against adapter)"
    same, answers = certificate.get(f"same answers {name}"), certificate.get(f"answers {name}")
    equal = f": {same} of {answers} answers are the adapter's" if answers else ""
    return f"{size}, whose certificate {certificate['verdict']}{equal}"


def _evaluate(facts: Mapping[str, Any]) -> str:
    models = len(facts["settings"]["models"])
    cost = f", {facts['cost_in_dollars']:.2f} dollars" if facts.get("cost_in_dollars") else ""
    asked = f"{number_of(models, 'model')} to {number_of(facts['questions'], 'question')}"
    return f"{number_of(facts['replies'], 'reply')} of {asked}{cost}"


def _space(facts: Mapping[str, Any]) -> str:
    return f"a page of {', '.join(facts['models_shown'])}, {facts['files']:,} files of results"


SENTENCES: dict[Stage, Callable[[Mapping[str, Any]], str]] = {
    "corpus": _corpus,
    "cpt": _cpt,
    "preferences": _preferences,
    "rpo": _rpo,
    "merge": _merge,
    "evaluate": _evaluate,
    "space": _space,
}
"""What each stage did, from its facts."""
