"""The facts that a stage records of its own output: facts.json, here or on the Hub."""

import json
from pathlib import Path
from typing import Any

from medllm.hub import Artifact, Hub


def facts_of(hub: Hub, artifact: Artifact) -> dict[str, Any]:
    """Read the facts of a stage whose output is on the Hub."""
    path = hub.file(artifact, "facts.json")
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path else {}
    return facts


def read_facts(folder: Path) -> dict[str, Any]:
    """Read the facts that a stage recorded of its own output."""
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    return facts
