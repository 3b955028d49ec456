"""Grade one reply, by IgakuQA's scorer or by medllm's parser, and a whole exam by the ministry's pass rule."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from medllm.exam.extract.answer import is_right, parse
from medllm.exam.extract.completion import Parsed
from medllm.exam.question import Question, read_answer, write_answer
from medllm.exam.record import PromptStyle, Record, Status

Rules = Literal["official", "normalised"]

_REFUSAL = re.compile(
    r"\b(?:I|we)(?:['’]m| am| are)? (?:can(?:not|['’]t)|unable to|not able to|won['’]t|must decline to)"
    r" (?:\w+ ){0,3}?(?:help|assist|provide|answer|comply|give|diagnose|discuss|respond)\b"
    r"|(?:お答え|回答|お手伝い|提供|対応|助言)(?:することは|は)?(?:でき(?:ません|ない|かねます)|いたしかねます|しかねます)",
    re.I,
)
"""A model's own words for declining to answer."""


def is_right_officially(question: Question, completion: str) -> bool:
    """Grade as IgakuQA's own scorer does: split at commas, sort, compare with the sorted key, strip nothing.

    Thus "b, e" is wrong where the key is b and e, and 2.1 is wrong where the key lacks its decimal point.
    """
    if question.any_answer_correct:
        return True
    given = sorted(completion.split(","))
    if given == sorted(question.key):
        return True
    return len(question.gold) > 1 and not question.numeric and given in [sorted(gold) for gold in question.gold]


def picked_prohibited(question: Question, answer: str | None) -> str | None:
    """Return the prohibited choices among the letters given, or None."""
    given = read_answer(answer)
    picked = given & question.prohibited if given is not None and not question.numeric else frozenset()
    return write_answer(picked) if picked else None


def grade(
    question: Question,
    completion: str,
    *,
    model: str,
    prompt: PromptStyle = "plain",
    rules: Rules = "normalised",
    finish_reason: str | None = None,
    reasoning: str | None = None,
    **facts: object,
) -> Record:
    """Return the record of one reply: parsed, graded, and with the facts of its question that reports need.

    `reasoning` is what the model thought before the completion, which never holds the answer: a reply that ends within
    its thinking has none. `facts` are further columns of the record: model_revision, template, shots, context,
    sample, seed, probability, tokens, prompt_hash.
    """
    only_thought = bool(reasoning) and not completion.strip()
    parsed = parse(completion, question, finish_reason=finish_reason, thinks=only_thought)
    right = is_right_officially(question, completion) if rules == "official" else is_right(question, parsed.answer)
    facts = {"finish_reason": finish_reason, "reasoning": reasoning or None, **facts}
    return _record(question, completion, parsed, right, model, prompt, facts)


def _status(parsed: Parsed, finish_reason: object) -> Status:
    """Return what became of a reply, as records state it: why it ended counts before what it holds."""
    if finish_reason == "too_long":
        return "too_long"
    if finish_reason == "refused" or (parsed.status == "unparsed" and _REFUSAL.search(parsed.text)):
        return "refused"
    return "thinking" if parsed.thinking and parsed.status == "truncated" else parsed.status


def _record(
    question: Question,
    completion: str,
    parsed: Parsed,
    right: bool,
    model: str,
    prompt: PromptStyle,
    facts: dict[str, object],
) -> Record:
    return Record(
        question_id=question.question_id,
        benchmark=question.benchmark,
        model=model,
        prompt=prompt,
        status=_status(parsed, facts.get("finish_reason")),
        correct=right,
        points=float(question.points) if right else 0.0,
        points_total=float(question.points),
        answer=parsed.answer,
        gold=question.gold_answer,
        how=parsed.extraction_rule,
        completion=completion,
        truncated=parsed.truncated,
        run_on=parsed.run_on,
        loop=parsed.loop,
        prohibited=picked_prohibited(question, parsed.answer),
        year=question.year,
        section=question.section,
        category=question.category,
        group=question.vignette_id,
        required=question.required,
        image=question.image,
        choices=len(question.choices),
        **facts,  # type: ignore[arg-type]
    )


@dataclass(frozen=True, slots=True)
class PassLine:
    """The pass lines of a year, in points."""

    required: int
    required_total: int
    general: int
    general_total: int
    allowed: int | None
    """Prohibited choices that a pass may hold; None where the number is unknown here. The ministry never announced
    which choices are prohibited: the labels of 2018 to 2022 are from IgakuQA's authors, other years have none."""
    source: Literal["ministry", "scorer"] = "ministry"
    """Who states the lines: the ministry, or one public program that scores the exam (not compared with the ministry's
    announcement)."""


LINES = {
    2018: PassLine(160, 200, 208, 299, 3),
    2019: PassLine(160, 200, 209, 296, 3),
    2020: PassLine(158, 197, 217, 299, 3),
    2021: PassLine(160, 200, 209, 300, 3),
    2022: PassLine(158, 197, 214, 297, 3),
    2023: PassLine(160, 200, 220, 295, 2, "scorer"),
    2024: PassLine(160, 200, 230, 300, 3, "scorer"),
    2025: PassLine(160, 200, 221, 300, None, "scorer"),
    2026: PassLine(160, 200, 224, 300, None, "scorer"),
}
"""The lines of the medical exam's years, each with the total of its points."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One year's result by the rule, with every number behind it."""

    year: int
    required: float
    required_line: int
    required_total: int
    general: float
    general_line: int
    general_total: int
    prohibited: int
    allowed: int | None
    """Prohibited choices that a pass may hold; None is a limit that is unknown here, and is not applied."""
    source: Literal["ministry", "scorer"]
    """Who states the lines."""

    @property
    def passed(self) -> bool:
        """Whether all parts of the rule that are known here are met."""
        return (
            self.required >= self.required_line
            and self.general >= self.general_line
            and (self.allowed is None or self.prohibited <= self.allowed)
        )

    def __str__(self) -> str:
        limit = "limit unknown" if self.allowed is None else f"at most {self.allowed}"
        source = "" if self.source == "ministry" else "; lines from one public scorer, not from the ministry"
        return (
            f"{self.year}: {'pass' if self.passed else 'fail'}  required {self.required:g}/{self.required_total}"
            f" (line {self.required_line}), general {self.general:g}/{self.general_total} (line {self.general_line}),"
            f" prohibited choices {self.prohibited} ({limit}){source}"
        )


def verdicts(records: Sequence[Record]) -> list[Verdict]:
    """Return the verdict of every year that was answered completely and whose line is known.

    A year is complete when its points add up to the announced totals, so a part of an exam never passes or fails.
    """
    graded = []
    for year, line in LINES.items():
        sat = [record for record in records if record.year == year]
        required = [record for record in sat if record.required]
        general = [record for record in sat if not record.required]
        totals = tuple(sum(record.points_total for record in part) for part in (required, general))
        if totals != (line.required_total, line.general_total):
            continue
        graded.append(
            Verdict(
                year,
                sum(record.points for record in required),
                line.required,
                line.required_total,
                sum(record.points for record in general),
                line.general,
                line.general_total,
                sum(record.prohibited is not None for record in sat),
                line.allowed,
                line.source,
            )
        )
    return graded
