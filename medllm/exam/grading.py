"""Grade one reply: `official` as IgakuQA's scorer does, byte for byte, or `normalised` by medllm's parser."""

from typing import Literal

from medllm.exam.extract.answer import is_right, parse
from medllm.exam.extract.completion import Parsed
from medllm.exam.question import Question, read_answer, write_answer
from medllm.exam.record import PromptStyle, Record

Rules = Literal["official", "normalised"]


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
    thinks: bool = False,
    **facts: object,
) -> Record:
    """Return the record of one reply: parsed, graded, and with the facts of its question that reports need.

    `thinks`: the prompt has opened the thinking, so a reply that never closes it is truncated.

    `facts` are further columns of the record: model_revision, template, shots, context, sample, seed, probability,
    tokens, prompt_hash.
    """
    parsed = parse(completion, question, finish_reason=finish_reason, thinks=thinks)
    right = is_right_officially(question, completion) if rules == "official" else is_right(question, parsed.answer)
    return _record(question, completion, parsed, right, model, prompt, {"finish_reason": finish_reason, **facts})


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
        status=parsed.status,
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
        **facts,  # type: ignore[arg-type]
    )
