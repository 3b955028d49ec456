"""Preference pairs by the paper's hierarchy, from sampled answers with their labels, and from experts' votes."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import median
from typing import Any, Literal

from medllm.exam.extract.answer import is_right, parse
from medllm.exam.prompts import Prompt
from medllm.exam.question import Question
from medllm.generation.types import Reply

Label = Literal["chosen", "rejected", "unparsed", "untidy"]
LABELS: tuple[Label, ...] = ("chosen", "rejected", "unparsed", "untidy")
GRAM = 3
Text = str | Sequence[Mapping[str, str]]
"""One side of a pair: a text that goes on, or the messages of a conversation."""


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
    reasoning: str | None = None
    """What a model that is asked by chat thought before its answer."""

    def row(self) -> dict[str, Any]:
        """A row for the table of samples."""
        return asdict(self)


def label(
    question: Question, completion: str, finish_reason: str | None, reasoning: str = ""
) -> tuple[Label, str | None, str]:
    """Return the label, what was read as the answer, and the reading's status; thinking is never the answer."""
    only_thought = bool(reasoning) and not completion.strip()
    parsed = parse(completion, question, finish_reason=finish_reason, thinks=only_thought)
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

    Thinking is compared with the reply. `answer_keys` has what each sample is kept under, by its number.
    """
    samples: list[LabelledSample] = []
    kept: list[tuple[Label, frozenset[str]]] = []
    for number, seed, reply in replies:
        given, answer, status = label(question, reply.text, reply.finish_reason, reply.reasoning)
        grams = grams_of(reply.reasoning + reply.text)
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
                reasoning=reply.reasoning or None,
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


Step = Literal["gt>chosen", "gt>rejected", "chosen>rejected"]
STEPS: tuple[Step, ...] = ("gt>chosen", "gt>rejected", "chosen>rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """One row of the preference dataset; the first three columns are those that TRL trains on."""

    prompt: Text
    chosen: Text
    rejected: Text
    prompt_without_shots: Text
    """The same question alone, for training without worked examples."""
    pair: str
    """Which step of the hierarchy, or `expert`."""
    origin: str
    """`sampled`, `teacher` where the chosen side is a teacher's explanation, or `expert` for a person's vote."""
    question_id: str
    benchmark: str
    model: str
    model_revision: str | None = None
    prompt_hash: str
    chosen_sample: int | None = None
    """The number of the sample that was chosen; none for the ground truth."""
    rejected_sample: int | None = None
    chosen_seed: int | None = None
    rejected_seed: int | None = None
    round: int = 1
    """Which round of sampling and training this is; 1 asks the CPT model, 2 the model of the first RPO."""
    chat_template_kwargs: Mapping[str, Any] | None = None
    """The values of the chat template with which a conversation was put to the model; none for texts."""
    teacher: str | None = None
    """Who wrote the chosen side, where that is a teacher's explanation."""
    teacher_cutoff: str | None = None
    """The last day of what the teacher was trained on, as stated, or `unknown`."""

    def row(self, *, taught: bool = False) -> dict[str, Any]:
        """A row for the table of pairs; `taught` adds the columns of a teacher, a conversation that of its values."""
        left_out = {"chat_template_kwargs"} if self.chat_template_kwargs is None else set()
        left_out |= set() if taught else {"teacher", "teacher_cutoff"}
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    def conversation(self, values: Mapping[str, Any]) -> "PreferencePair":
        """Return a pair of texts as a conversation: the prompt is what the user writes, an answer is the reply."""
        sides: dict[str, Any] = {name: reply_message(getattr(self, name)) for name in ("chosen", "rejected")}
        asked = {n: [{"role": "user", "content": getattr(self, n)}] for n in ("prompt", "prompt_without_shots")}
        return replace(self, **{**asked, **sides}, chat_template_kwargs=values)


def reply_message(text: str, reasoning: str | None = None) -> list[dict[str, str]]:
    """Return a reply as the last message of a conversation, with the thinking before it where there was some."""
    thought = {"reasoning_content": reasoning} if reasoning else {}
    return [{"role": "assistant", "content": text.strip(), **thought}]


def length_of(side: Text) -> int:
    """Count the characters of an answer, thinking included."""
    parts = [side] if isinstance(side, str) else [text for row in side for name, text in row.items() if name != "role"]
    return sum(map(len, parts))


@dataclass(frozen=True)
class RankedAnswers:
    """A question as it was asked, the right answer with its verified explanation, and the model's samples."""

    prompt: Prompt
    bare: Prompt
    truth: str
    samples: Sequence[LabelledSample]
    values: Mapping[str, Any] | None = None
    """The values of the chat template where the model was asked by chat; None where it completed the text."""
    teacher: tuple[str, str] | None = None
    """The teacher that wrote the right answer, and its cutoff; None for a person."""


def make_pairs(
    ranked: RankedAnswers, *, steps: Sequence[Step], most: int, max_similarity: float, seed: int, number: int
) -> list[PreferencePair]:
    """At most `most` pairs of each step, drawn by the seed; no pair contains two nearly equal texts."""
    if not ranked.samples:
        return []
    useful = [sample for sample in ranked.samples if not sample.duplicate]
    chosen = [sample for sample in useful if sample.label == "chosen"]
    rejected = [sample for sample in useful if sample.label == "rejected"]
    sides: dict[Step, tuple[Sequence[LabelledSample | None], list[LabelledSample]]] = {
        "gt>chosen": ([None], chosen),
        "gt>rejected": ([None], rejected),
        "chosen>rejected": (chosen, rejected),
    }
    first = ranked.samples[0]
    draw = random.Random(f"{seed} {first.benchmark} {first.question_id}")
    pairs: list[PreferencePair] = []
    for step in steps:
        couples = list(product(*sides[step]))
        draw.shuffle(couples)
        fit = [couple for couple in couples if not _same(ranked.truth, *couple, max_similarity)]
        pairs += [_pair(ranked, step, better, worse, number) for better, worse in _spread(fit)[:most]]
    return pairs


def _spread(
    couples: list[tuple[LabelledSample | None, LabelledSample]],
) -> list[tuple[LabelledSample | None, LabelledSample]]:
    """Couples of texts not used yet come first, so that a cap does not keep the same text again and again."""
    seen: set[int] = set()
    fresh: list[tuple[LabelledSample | None, LabelledSample]] = []
    again: list[tuple[LabelledSample | None, LabelledSample]] = []
    for better, worse in couples:
        texts = {id(sample) for sample in (better, worse) if sample is not None}
        (again if texts & seen else fresh).append((better, worse))
        seen |= texts
    return fresh + again


def _same(truth: str, better: LabelledSample | None, worse: LabelledSample, max_similarity: float) -> bool:
    text = truth if better is None else (better.reasoning or "") + better.completion
    return alike(grams_of(text), grams_of((worse.reasoning or "") + worse.completion)) > max_similarity


def _pair(
    ranked: RankedAnswers, step: Step, better: LabelledSample | None, worse: LabelledSample, number: int
) -> PreferencePair:
    teacher, cutoff = (better is None and ranked.teacher) or (None, None)
    return PreferencePair(
        **_sides(ranked, better, worse),
        pair=step,
        origin="teacher" if teacher else "sampled",
        teacher=teacher,
        teacher_cutoff=cutoff,
        question_id=worse.question_id,
        benchmark=worse.benchmark,
        model=worse.model,
        model_revision=worse.model_revision,
        prompt_hash=worse.prompt_hash,
        chosen_sample=None if better is None else better.sample,
        rejected_sample=worse.sample,
        chosen_seed=None if better is None else better.seed,
        rejected_seed=worse.seed,
        round=number,
        chat_template_kwargs=ranked.values,
    )


def _sides(ranked: RankedAnswers, better: LabelledSample | None, worse: LabelledSample) -> dict[str, Any]:
    """Return prompt and answers: as texts that go on from each other, or as messages of a conversation."""
    if ranked.values is None:
        return {
            "prompt": ranked.prompt.text,
            "prompt_without_shots": ranked.bare.text,
            "chosen": ranked.prompt.completion(ranked.truth if better is None else better.completion),
            "rejected": ranked.prompt.completion(worse.completion),
        }
    return {
        "prompt": list(ranked.prompt.messages),
        "prompt_without_shots": list(ranked.bare.messages),
        "chosen": reply_message(ranked.truth) if better is None else reply_message(better.completion, better.reasoning),
        "rejected": reply_message(worse.completion, worse.reasoning),
    }


def yield_report(samples: Mapping[str, Sequence[LabelledSample]], pairs: Sequence[PreferencePair]) -> dict[str, Any]:
    """Return the numbers for the card, by question and by sample."""
    labels = [Counter(sample.label for sample in of_question) for of_question in samples.values()]
    every = [sample for of_question in samples.values() for sample in of_question]
    return {
        "questions": len(samples),
        "questions_with_a_pair": len({(pair.benchmark, pair.question_id) for pair in pairs if pair.origin != "expert"}),
        "questions_without_a_wrong_answer": sum(not count["rejected"] for count in labels),
        "questions_without_a_right_answer": sum(not count["chosen"] for count in labels),
        "questions_with_nothing_parsable": sum(
            sum(count.values()) == count["unparsed"] for count in labels if sum(count.values())
        ),
        "samples": len(every),
        "too_long": sum(sample.finish_reason == "too_long" for sample in every),
        "labels": {name: sum(count[name] for count in labels) for name in LABELS},
        "statuses": dict(Counter(sample.status for sample in every).most_common()),
        "near_duplicates": sum(sample.duplicate for sample in every),
        "pairs": len(pairs),
        "pairs_by_step": dict(Counter(pair.pair for pair in pairs)),
        "lengths": {step: _lengths([p for p in pairs if p.pair == step]) for step in sorted({p.pair for p in pairs})},
    }


def _lengths(pairs: Sequence[PreferencePair]) -> dict[str, float]:
    """Characters of both sides: where the chosen one is nearly always longer, length is what is learnt."""
    return {
        "chosen_median": median(length_of(pair.chosen) for pair in pairs),
        "rejected_median": median(length_of(pair.rejected) for pair in pairs),
        "chosen_longer_share": sum(length_of(pair.chosen) > length_of(pair.rejected) for pair in pairs) / len(pairs),
    }
