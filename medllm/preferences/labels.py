"""The label of a sampled answer: chosen, rejected, or of no use, each for a reason that is counted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from medllm.exam.extract.answer import is_right, parse
from medllm.exam.question import Question
from medllm.generation.types import Reply

Label = Literal["chosen", "rejected", "unparsed", "untidy"]
LABELS: tuple[Label, ...] = ("chosen", "rejected", "unparsed", "untidy")
GRAM = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSample:
    """One sampled answer with its label and where it came from."""

    question_id: str
    benchmark: str
    sample: int
    seed: int | None
    completion: str
    answer: str | None
    status: str
    label: Label
    """`untidy` is a right answer that ran on, looped or was cut off: nothing to prefer, nothing to reject."""
    duplicate: bool = False
    """Whether an earlier sample of the question is nearly the same."""
    finish_reason: str | None = None
    tokens: int | None = None
    model: str
    model_revision: str | None = None
    prompt_hash: str
    answer_key: str | None = None
    """What the reply is kept under, so that it is not asked for again."""
    prompt_tokens: int | None = None
    cost: float | None = None

    def row(self) -> dict[str, Any]:
        """A row for the table of samples."""
        return asdict(self)


def label(question: Question, completion: str, finish_reason: str | None) -> tuple[Label, str | None, str]:
    """Return the label, what was read as the answer, and the reading's status."""
    parsed = parse(completion, question, finish_reason=finish_reason)
    if parsed.answer is None:
        return "unparsed", None, parsed.status
    if not is_right(question, parsed.answer):
        return "rejected", parsed.answer, parsed.status
    tidy = not (parsed.run_on or parsed.loop or parsed.truncated)
    return "chosen" if tidy else "untidy", parsed.answer, parsed.status


def labelled(
    question: Question,
    replies: Sequence[tuple[int, int | None, Reply]],
    *,
    model: str,
    revision: str | None,
    prompt_hash: str,
    max_similarity: float,
    answer_keys: Mapping[int, str] | None = None,
) -> list[LabelledSample]:
    """Label all samples of a question in order; of samples more alike than `max_similarity` only the first counts.

    `answer_keys` has what each sample is kept under, by its number.
    """
    samples: list[LabelledSample] = []
    kept: list[tuple[Label, frozenset[str]]] = []
    for number, seed, reply in replies:
        given, answer, status = label(question, reply.text, reply.finish_reason)
        grams = grams_of(reply.text)
        duplicate = any(given == other and alike(grams, seen) > max_similarity for other, seen in kept)
        if not duplicate:
            kept.append((given, grams))
        samples.append(
            LabelledSample(
                question_id=question.question_id,
                benchmark=question.benchmark,
                sample=number,
                seed=seed,
                completion=reply.text,
                answer=answer,
                status=status,
                label=given,
                duplicate=duplicate,
                finish_reason=reply.finish_reason,
                tokens=reply.completion_tokens,
                model=model,
                model_revision=revision,
                prompt_hash=prompt_hash,
                answer_key=(answer_keys or {}).get(number),
                prompt_tokens=reply.prompt_tokens,
                cost=reply.cost,
            )
        )
    return samples


def grams_of(text: str) -> frozenset[str]:
    """Return the character trigrams of a text without its spaces; Japanese has no words to compare."""
    packed = "".join(text.split())
    return frozenset(packed[at : at + GRAM] for at in range(max(1, len(packed) - GRAM + 1)))


def alike(left: frozenset[str], right: frozenset[str]) -> float:
    """Return the share of trigrams that two texts have in common.

    >>> alike(grams_of("発熱と咳嗽"), grams_of("発熱と 咳嗽"))
    1.0
    """
    return len(left & right) / len(left | right)
