"""A teacher's explanations of past questions: what it is shown, which are kept, and the rows that are written."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Literal, get_args

from medllm.exam.benchmarks import CATALOGUE
from medllm.exam.extract.answer import is_right, parse
from medllm.exam.extract.completion import Parsed
from medllm.exam.extract.reply import split_thinking
from medllm.exam.prompts import Prompt, target_completion
from medllm.exam.question import Question
from medllm.generation.types import Reply
from medllm.preferences.lint import earlier_answer, foreign_diseases
from medllm.preferences.pairs import alike, grams_of
from medllm.preferences.questions import question_hash
from medllm.recipe.settings import DataSource, Teach

Verdict = Literal[
    "kept",
    "wrong",
    "unparsed",
    "truncated",
    "untidy",
    "too_long",
    "refused",
    "short",
    "contradiction",
    "foreign_disease",
    "leak",
    "cites_view",
    "copies_view",
    "duplicate",
    "surplus",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""What becomes of a reply: it is kept, or the reason why it is not."""
NOT_RIGHT = frozenset(("wrong", "unparsed", "truncated", "untidy", "too_long", "refused"))
"""The reasons that concern the answer; the others concern an explanation whose answer is right."""

_CLOSING = re.compile(
    r"[\s*_#>「【\[(]*(?:最終的?な?)?(?:答え|解答|正答|正解|回答|(?:final\s+)?answer)(?:[\s*_」】\])]*(?:は|is)?[\s*_]*[:：は]"
    r"|[」】\]]\s*)"
    r".{0,40}|\\?boxed\{.{0,20}\}|\$?\\boxed\{.{0,20}\}\$?[。.]?",
    re.IGNORECASE,
)
"""A line that does nothing but give the answer."""
_CITES = re.compile(
    r"参考(?:の|に(?:ある|よる)|解説|資料)|(?:上記|上|前述|与えられた|提示された)の(?:参考|解説)"
    r"|(?:given|provided|reference|above)\s+(?:reference|explanation)|reference above",
    re.IGNORECASE,
)
"""Words of a reply about an explanation that a student will not see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaughtSample:
    """One reply of the teacher, with what became of it."""

    question_id: str
    benchmark: str
    sample: int
    seed: int | None
    completion: str
    answer: str | None
    status: str
    verdict: Verdict
    finish_reason: str
    explanation: str = ""
    """The explanation without the line that gives the answer; empty where there is none."""
    tokens: int
    prompt_tokens: int
    cost: float
    reasoning: str | None
    model: str
    model_revision: str | None
    prompt_hash: str
    answer_key: str | None = None
    """What the reply is kept under, so that it is not asked for again."""

    def row(self) -> dict[str, Any]:
        """A row for the table of samples."""
        return asdict(self)

    @property
    def name(self) -> str:
        """The explanation's name in the audit, as `own/100A1#2`."""
        return f"{self.benchmark}/{self.question_id}#{self.sample}"


def with_view(prompt: Prompt, question: Question) -> Prompt:
    """Show the question's verified explanation and its key before the question, in the text and in the last message.

    Raises:
        ValueError: The question has no explanation.
    """
    if not question.explanation:
        raise ValueError(f"{question.question_id} has no explanation to show")
    if question.language == "en":
        shown = f"A verified explanation of the question below; the answer is {question.gold_answer}:\n"
        wish = "Explain the question in your own words, without mentioning the verified explanation."
    else:
        shown = f"次の問題の検証済みの解説です。正解は{question.gold_answer}です。\n"
        wish = "これを踏まえて、検証済みの解説があることには触れずに、自分の言葉で解説してください。"
    asked = prompt.messages[-1]["content"]
    view = f"{shown}{question.explanation.strip()}\n\n{wish}\n\n{asked}"
    messages = (*prompt.messages[:-1], {**prompt.messages[-1], "content": view})
    return replace(prompt, text=prompt.text[: len(prompt.text) - len(asked)] + view, messages=messages)


def explanation_of(completion: str) -> str:
    r"""Return what a reply explains: without thinking, and without the lines at its end that only give the answer.

    >>> explanation_of("<think>a?</think>発熱が続くため。\n**答え: b**")
    '発熱が続くため。'
    """
    lines = (split_thinking(completion)[1] or "").strip().split("\n")
    while lines and (not lines[-1].strip() or _CLOSING.fullmatch(lines[-1].strip())):
        lines.pop()
    return "\n".join(lines).strip()


def judged(
    question: Question,
    replies: Sequence[tuple[int, int | None, Reply]],
    settings: Teach,
    *,
    revision: str | None,
    prompt_hash: str,
    answer_keys: Mapping[int, str],
) -> list[TaughtSample]:
    """Judge the replies to a question, in order, before the leakage audit: `kept` are those that may be kept."""
    samples: list[TaughtSample] = []
    for number, seed, reply in replies:
        parsed = parse(reply.text, question, finish_reason=reply.finish_reason)
        explanation = explanation_of(reply.text)
        samples.append(
            TaughtSample(
                question_id=question.question_id,
                benchmark=question.benchmark,
                sample=number,
                seed=seed,
                completion=reply.text,
                answer=parsed.answer,
                status=parsed.status,
                verdict=_verdict(question, reply, parsed, explanation, settings),
                finish_reason=reply.finish_reason,
                explanation=explanation,
                tokens=reply.completion_tokens,
                prompt_tokens=reply.prompt_tokens,
                cost=reply.cost,
                reasoning=reply.reasoning or None,
                model=settings.name,
                model_revision=revision,
                prompt_hash=prompt_hash,
                answer_key=answer_keys.get(number),
            )
        )
    return samples


def _verdict(question: Question, reply: Reply, parsed: Parsed, explanation: str, settings: Teach) -> Verdict:
    if reply.finish_reason in ("too_long", "refused"):
        return reply.finish_reason
    if reply.finish_reason != "stop" or parsed.truncated:
        return "truncated"
    if parsed.answer is None:
        return "unparsed"
    if not is_right(question, parsed.answer):
        return "wrong"
    if parsed.run_on or parsed.loop:
        return "untidy"
    if len(explanation) < max(settings.min_chars, 1):
        return "short"
    if "contradiction" in settings.filters and earlier_answer(question, reply.text) is not None:
        return "contradiction"
    if "foreign_disease" in settings.filters and foreign_diseases(question, explanation):
        return "foreign_disease"
    if settings.view_explanation and question.explanation:
        if _CITES.search(explanation) or "検証済み" in explanation:
            return "cites_view"
        if alike(grams_of(explanation), grams_of(question.explanation)) > settings.max_similarity:
            return "copies_view"
    return "kept"


def without_leaks_and_copies(
    samples: Sequence[TaughtSample], leaks: Mapping[str, object], settings: Teach
) -> list[TaughtSample]:
    """Give up, of a question's kept samples, those that the audit names, near-copies, and more than are wanted."""
    kept: list[frozenset[str]] = []
    decided: list[TaughtSample] = []
    for sample in samples:
        verdict = sample.verdict
        if verdict == "kept":
            grams = grams_of(sample.explanation)
            if sample.name in leaks:
                verdict = "leak"
            elif any(alike(grams, seen) > settings.max_similarity for seen in kept):
                verdict = "duplicate"
            elif len(kept) == settings.kept_per_question:
                verdict = "surplus"
            else:
                kept.append(grams)
        decided.append(replace(sample, verdict=verdict))
    return decided


def conversation_row(
    question: Question, sample: TaughtSample, bare: Prompt, source: DataSource, settings: Teach
) -> dict[str, Any]:
    """Return a kept explanation as a conversation: the question alone, and the explanation with the key at its end.

    `date` is the day of the exam: what the question is about is not younger. What the teacher knows may be, and
    `teacher_cutoff` states that.
    """
    answer = question.gold_answer if question.numeric or sample.answer is None else sample.answer
    answered = replace(question, gold=(frozenset(answer.split(",")),))  # of several accepted answers its own
    reply = target_completion(answered, "explain", settings.template, sample.explanation)
    return {
        "messages": [*bare.messages, {"role": "assistant", "content": reply}],
        "date": question.exam_date,
        "license": license_of_source(source),
        "source": source.source,
        "origin": "teacher",
        "teacher": settings.name,
        "teacher_revision": sample.model_revision,
        "teacher_cutoff": str(settings.teacher_cutoff),
        "question_id": question.question_id,
        "benchmark": question.benchmark,
        "question_hash": question_hash(question),
        "explanation": sample.explanation,
        "answer": answer,
        "sample": sample.sample,
        "seed": sample.seed,
        "prompt_hash": sample.prompt_hash,
        "viewed": settings.view_explanation,
    }


def license_of_source(source: DataSource) -> str | None:
    """Return the licence of a set of past questions: as the recipe states it, else the catalogue's."""
    known = CATALOGUE.get(source.exam or "")
    return source.license.lower() if source.license else known.license if known else None


def teaching_report(samples: Mapping[tuple[str, str], Sequence[TaughtSample]]) -> dict[str, Any]:
    """Return the numbers for the card, by question and by reply."""
    every = [sample for of in samples.values() for sample in of]
    verdicts = Counter(sample.verdict for sample in every)
    right = [sum(sample.verdict not in NOT_RIGHT for sample in of) for of in samples.values()]
    lengths = [len(sample.explanation) for sample in every if sample.verdict == "kept"]
    return {
        "questions": len(samples),
        "questions_explained": sum(any(sample.verdict == "kept" for sample in of) for of in samples.values()),
        "questions_never_right": sum(not count for count in right),
        "samples": len(every),
        "explanations": verdicts["kept"],
        "verdicts": {name: verdicts[name] for name in VERDICTS if verdicts[name]},
        "median_characters": median(lengths) if lengths else 0,
        "cost_in_dollars": sum(sample.cost for sample in every),
    }
