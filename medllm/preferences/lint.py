"""What in preference data teaches something else than the right answer: length, wording, contradictions, diseases."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from medllm.exam.extract.answer import answer_at, parse
from medllm.exam.extract.completion import sentences
from medllm.exam.question import Question
from medllm.exam.statistics import mcnemar
from medllm.preferences.pairs import LabelledSample, PreferencePair, Text, alike, grams_of, length_of

Filter = Literal["contradiction", "foreign_disease"]
NEAR = 0.8
"""Share of common trigrams from which the two sides of a pair are near-copies."""
COMMONEST = 10
"""Names of diseases that the report lists."""
_DISEASE = re.compile(
    r"[一-龥々ァ-ヶー]{1,10}?(?:症候群|症|炎|癌|がん|肉腫|腫瘍|梗塞|不全|結核|貧血|肝硬変|麻痺|病)(?![一-龥々])"
)
_GENERAL = frozenset(("疾病", "発病", "看病", "重症", "軽症", "発症", "感染症", "合併症", "後遺症", "炎症", "既往症"))


def earlier_answer(question: Question, completion: str) -> str | None:
    """Return an answer that the explanation gives before the last one, if it is another; None otherwise."""
    parts, final = sentences(completion), parse(completion, question).answer
    place = answer_at(parts, final, question)
    if place is None:
        return None
    before = parse("".join(parts[:place]), question).answer
    return before if before != final else None


def foreign_diseases(question: Question, completion: str) -> list[str]:
    """List the diseases that a text names and neither its question nor the verified explanation does."""
    known = "".join((question.context or "", question.text, *question.choices, question.explanation or ""))
    named = dict.fromkeys(_DISEASE.findall(completion))
    return [name for name in named if name not in known and name not in _GENERAL]


def filter_samples(
    question: Question, samples: Sequence[LabelledSample], filters: Sequence[Filter]
) -> list[LabelledSample]:
    """Label right answers that a filter names as `untidy`, so that nothing is preferred for them."""
    checks = {"contradiction": earlier_answer, "foreign_disease": foreign_diseases}
    return [
        replace(sample, label="untidy")
        if sample.label == "chosen" and any(checks[name](question, sample.completion) for name in filters)
        else sample
        for sample in samples
    ]


def lint(
    questions: Sequence[Question],
    samples: Mapping[tuple[str, str], Sequence[LabelledSample]],
    pairs: Sequence[PreferencePair],
) -> dict[str, Any]:
    """Count what a person should look at before training: see docs/training.md, the preference data.

    `samples` has those of each question, by benchmark and question id, with the labels before any filter.
    """
    known = {(question.benchmark, question.question_id): question for question in questions}
    right = [
        (known[key], sample)
        for key, of_question in samples.items()
        for sample in of_question
        if sample.label == "chosen"
    ]
    foreign = {_name(sample): foreign_diseases(question, sample.completion) for question, sample in right}
    named = Counter(name for names in foreign.values() for name in names)
    return {
        "right_answers": len(right),
        "contradictions": [
            _name(sample) for question, sample in right if earlier_answer(question, sample.completion) is not None
        ],
        "foreign_diseases": [name for name, diseases in foreign.items() if diseases],
        "diseases": dict(named.most_common(COMMONEST)),
        "near_copies": sum(
            alike(grams_of(_text(pair.chosen)), grams_of(_text(pair.rejected))) > NEAR for pair in pairs
        ),
        "same_answer": sum(_same_answer(known.get((pair.benchmark, pair.question_id)), pair) for pair in pairs),
        "length": _length_bias(pairs),
    }


def _name(sample: LabelledSample) -> str:
    return f"{sample.benchmark}/{sample.question_id}#{sample.sample}"


def _text(side: Text) -> str:
    return side if isinstance(side, str) else "\n".join(turn["content"] for turn in side)


def _same_answer(question: Question | None, pair: PreferencePair) -> bool:
    """Whether both sides end in one answer, so that only their wording differs."""
    if question is None:
        return False
    chosen, rejected = (parse(_text(side), question).answer for side in (pair.chosen, pair.rejected))
    return chosen is not None and chosen == rejected


def _length_bias(pairs: Sequence[PreferencePair]) -> dict[str, float]:
    """How often the chosen side is the longer one, with the two-sided sign test of its being so by chance."""
    longer = sum(length_of(pair.chosen) > length_of(pair.rejected) for pair in pairs)
    shorter = sum(length_of(pair.chosen) < length_of(pair.rejected) for pair in pairs)
    return {"chosen_longer": longer, "chosen_shorter": shorter, "p": mcnemar(shorter, longer)}
