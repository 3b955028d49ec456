"""The development exam, on which rounds are chosen: none of its questions may be among those that are learnt from."""

from pathlib import Path

from medllm.errors import DataError
from medllm.exam.benchmarks import load
from medllm.exam.question import of_years
from medllm.preferences.questions import essence, past_questions
from medllm.recipe.settings import Rounds

SHOWN = 3
"""Questions that a message names; more of them are counted."""


def refuse_trained_exam(settings: Rounds, sources: dict[str, Path]) -> None:
    """Raise DataError where a past question that a round samples is one of the development exam, however printed."""
    years = settings.evaluate.exam_years.get(settings.exam)
    asked = {essence(question) for question in of_years(load(settings.exam, sources[settings.exam]), years)}
    for number, source in enumerate(settings.preferences.data):
        hits = [question.question_id for question in past_questions(source, sources) if essence(question) in asked]
        if hits:
            named = ", ".join(hits[:SHOWN]) + (f" and {len(hits) - SHOWN} more" if len(hits) > SHOWN else "")
            raise DataError(
                "preferences.development-exam-trained",
                f"rounds.preferences.data[{number}]: {source.source} holds {named}, questions of the development exam "
                f"`{settings.exam}`: a model that trains on them cannot be tested on them. Remove them from one of the "
                "two, or divide the file by `years`.",
            )
