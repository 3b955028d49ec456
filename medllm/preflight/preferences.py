"""The past exams that preferences are sampled from: enough questions, chosen by the stage's own function."""

from collections.abc import Mapping
from pathlib import Path

from medllm.preflight.findings import Findings
from medllm.recipe.settings import Preferences


def check_preferences(
    settings: Preferences, sources: Mapping[str, Path], findings: Findings, *, thorough: bool
) -> None:
    """Choose the questions as the stage will; skipped while a source is out of reach or already faulty."""
    needed = [one.source for one in settings.data] + list(settings.held_out or ())
    needed += [settings.exemplars] if settings.exemplars else []
    if findings.found or any(name not in sources for name in needed):
        return
    from medllm.preferences.questions import select_questions

    held_out = settings.held_out if thorough else ()
    with findings.collect("preferences.data"):
        select_questions(settings.model_copy(update={"held_out": held_out}), dict(sources))
