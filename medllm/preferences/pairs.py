"""Preference pairs by the paper's hierarchy: ground truth above a right answer above a wrong one."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from statistics import median
from typing import Any, Literal

from medllm.exam.prompts import Prompt
from medllm.preferences.labels import LABELS, LabelledSample, alike, grams_of

Step = Literal["gt>chosen", "gt>rejected", "chosen>rejected"]
STEPS: tuple[Step, ...] = ("gt>chosen", "gt>rejected", "chosen>rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """One row of the preference dataset; the first three columns are those that TRL trains on."""

    prompt: str
    chosen: str
    rejected: str
    prompt_without_shots: str
    """The same question alone, for training without worked examples."""
    pair: str
    """Which step of the hierarchy, or `expert`."""
    origin: str
    """`sampled`, or `expert` for a person's vote."""
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

    def row(self) -> dict[str, Any]:
        """A row for the table of pairs."""
        return asdict(self)


@dataclass(frozen=True)
class RankedAnswers:
    """A question as it was asked, the right answer with its verified explanation, and the model's samples."""

    prompt: Prompt
    bare: Prompt
    truth: str
    samples: Sequence[LabelledSample]


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
    text = truth if better is None else better.completion
    return alike(grams_of(text), grams_of(worse.completion)) > max_similarity


def _pair(
    ranked: RankedAnswers, step: Step, better: LabelledSample | None, worse: LabelledSample, number: int
) -> PreferencePair:
    return PreferencePair(
        prompt=ranked.prompt.text,
        prompt_without_shots=ranked.bare.text,
        chosen=ranked.prompt.completion(ranked.truth if better is None else better.completion),
        rejected=ranked.prompt.completion(worse.completion),
        pair=step,
        origin="sampled",
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
    )


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
        "chosen_median": median(len(pair.chosen) for pair in pairs),
        "rejected_median": median(len(pair.rejected) for pair in pairs),
        "chosen_longer_share": sum(len(pair.chosen) > len(pair.rejected) for pair in pairs) / len(pairs),
    }
