"""Which past questions are asked: dated, on or before the cutoff, with a verified explanation, and not held out."""

import json
import random
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from medllm.corpus.decontaminate.exam_items import translated_items
from medllm.errors import DataError
from medllm.exam.benchmarks import CATALOGUE, exemplars, load
from medllm.exam.prompts import exemplars_before
from medllm.exam.question import Question
from medllm.preferences.contamination import AuditTrail, question_texts
from medllm.recipe.settings import DataSource, Preferences
from medllm.wording import describe_counts


@dataclass(frozen=True)
class QuestionSelection:
    """The questions to ask, the worked examples before each, and what was left out for which reason."""

    questions: list[Question]
    exemplars: Sequence[Question]
    counts: dict[str, int]
    refused: frozenset[tuple[str, str]]
    """The held-out questions, by benchmark and id: no vote on them may train."""
    watch: AuditTrail
    """The leakage audit; it has seen the questions and the examples."""


def select_questions(settings: Preferences, sources: dict[str, Path]) -> QuestionSelection:
    """Read the exam sets and keep the questions that are allowed for training and useful for it."""
    held = _held_out(settings, sources)
    texts = {essence(question) for question in held}
    counts: Counter[str] = Counter()
    fit: list[Question] = []
    forgotten = _forgotten(sources)
    for source in settings.data:
        late = printed_late(source, settings.cutoff)
        for question in _read(source, sources):
            withdrawn = "forgotten" if question.question_id in forgotten else None
            reason = withdrawn or drop_reason(question, settings.cutoff, texts) or late
            counts[reason or "kept"] += 1
            if reason is None:
                fit.append(question)
    translated = [item for name in settings.held_out or () for item in translated_items(name, sources[name])]
    watch = AuditTrail.over(held, settings.leaks_reviewed, translated)
    leaks = watch.match("preferences", question_texts(fit))
    fit = [question for question in fit if f"{question.benchmark}/{question.question_id}" not in leaks]
    if leaks:
        counts.update({"kept": -len(leaks), "leak": len(leaks)})
    if settings.exemplars is None and len(fit) < settings.shots:
        left_out = ", ".join(
            f"{count} {reason}" for reason, count in counts.most_common() if reason != "kept" and count
        )
        raise DataError(
            "preferences.too-few-questions",
            f"preferences.data: {len(fit)} of {counts.total()} questions can be used, and {settings.shots} shots take "
            f"{settings.shots} of them as worked examples. Left out: {left_out or 'none'}. Lower shots, or add past "
            "questions.",
        )
    examples = _examples(settings, sources, fit)
    watch.refuse("few-shot", "preferences.exemplars", question_texts(examples))
    shown = {essence(question) for question in examples}
    questions = [question for question in fit if essence(question) not in shown]
    if settings.questions is not None and settings.questions < len(questions):
        chosen = set(random.Random(settings.seed).sample(range(len(questions)), settings.questions))
        questions = [question for number, question in enumerate(questions) if number in chosen]
    if not questions:
        raise DataError(
            "preferences.no-question-left",
            f"preferences.data: no question is left to ask ({describe_counts(counts)}). They need an exam date on or "
            "before the cutoff and a verified explanation that was published by then; state `published` for a source "
            "if you know.",
        )
    refused = frozenset((question.benchmark, question.question_id) for question in held)
    return QuestionSelection(questions, examples, dict(counts), refused, watch)


def _forgotten(sources: dict[str, Path]) -> set[str]:
    """Read the ids of the questions that were withdrawn, from the list that the pipeline gives."""
    if "forgotten" not in sources:
        return set()
    lines = (sources["forgotten"] / "forgotten.jsonl").read_text("utf-8").splitlines()
    return {name for line in lines for name in json.loads(line)["questions"]}


def printed_late(source: DataSource, cutoff: date | None) -> str | None:
    """Why a set's explanations may be too young although its exams are not: the corpus' rule, for the same texts.

    The day the recipe states comes first; a set of the catalogue has its own; of another the exams' days must do.
    """
    known = CATALOGUE.get(source.exam or "")
    published = source.published or (known.published if known else None)
    return "published after the cutoff" if cutoff and published and published > cutoff else None


def drop_reason(question: Question, cutoff: date | None, held_out: set[str]) -> str | None:
    """Why a question is not asked, or None when it is."""
    if question.exam_date is None:
        return "no exam date"
    if cutoff is not None and question.exam_date > cutoff:
        return "after the cutoff"
    if question.image:
        return "needs a picture"
    if not question.explanation:
        return "no explanation"
    if question.any_answer_correct:
        return "any answer is right"
    if essence(question) in held_out:
        return "held out"
    return None


def essence(question: Question) -> str:
    """A question's text and choices without what printing changes: widths, spaces, punctuation."""
    text = unicodedata.normalize("NFKC", "".join((question.text, *question.choices))).casefold()
    return "".join(character for character in text if character.isalnum())


def _read(source: DataSource, sources: dict[str, Path]) -> list[Question]:
    known = CATALOGUE.get(source.exam or "")
    if known is not None and known.test_only:
        raise DataError(
            "preferences.test-only-exam",
            f"preferences.data: {known.name} is for tests only, never for training. Use another exam.",
        )
    questions = load(source.exam or "own", sources[source.source])
    if source.exam_date is not None:
        questions = [replace(one, exam_date=one.exam_date or source.exam_date) for one in questions]
    return questions


def _examples(settings: Preferences, sources: dict[str, Path], fit: list[Question]) -> Sequence[Question]:
    if not settings.shots:
        return ()
    if settings.exemplars is None:
        return exemplars_before(fit, settings.cutoff or date.max, settings.shots, settings.prompt)
    exam = settings.data[0].exam or "own"
    given = exemplars(exam, sources[settings.exemplars])
    return exemplars_before(given, settings.cutoff or date.max, settings.shots, settings.prompt)


def _held_out(settings: Preferences, sources: dict[str, Path]) -> list[Question]:
    for name in settings.held_out or ():
        if name not in sources or not sources[name].exists():
            raise DataError(
                "preferences.no-held-out-exam",
                f"preferences.held_out: `{name}` is missing, so decontamination cannot run. Give its files.",
            )
    return [question for name in settings.held_out or () for question in load(name, sources[name])]
