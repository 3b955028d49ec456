"""What a round of sampling yielded: labels, questions without contrast, and whether longer answers win."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from medllm.preferences.labels import LABELS, LabelledSample
from medllm.preferences.pairs import PreferencePair


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
