"""The certificate: how far one set of weights answers as another, measured on real prompts rather than assumed."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from medllm.exam.answers import is_right, parse
from medllm.exam.prompts import Prompt, render
from medllm.exam.question import Question
from medllm.generation.local import LocalGenerator
from medllm.generation.requests import BASE, Request, shared_length

TOKENS = 64


@dataclass(frozen=True)
class Parity:
    """Agreement of a second model with a first, over every position of the canary texts."""

    positions: int
    top1_agreement: float
    """The share of positions at which both find the same token likeliest."""
    kl_mean: float
    """Kullback-Leibler divergence from the first to the second, in nats, over positions."""
    kl_largest: float
    logit_difference_largest: float
    answers: int
    same_answers: int
    """Greedy answers that are equal to the last character."""
    same_choices: int
    """Answers in which the same choice is read (or none in both)."""
    right_first: int
    right_second: int
    """Questions each of them has right."""

    def as_facts(self) -> dict[str, Any]:
        """Plain numbers for the certificate."""
        return {key: round(value, 8) if isinstance(value, float) else value for key, value in asdict(self).items()}


def compare(
    first: "Answerer", second: "Answerer", questions: Sequence[Question], examples: Sequence[Question]
) -> Parity:
    """Let both answer the same questions, and both read the same texts: each prompt with the first one's answer."""
    prompts = [render(question, prompt="explain", exemplars=examples) for question in questions]
    told, heard = first.answers(prompts), second.answers(prompts)
    figures = [
        _reading(first.logits(prompt.text + answer), second.logits(prompt.text + answer))
        for prompt, answer in zip(prompts, told, strict=True)
    ]
    positions = sum(figure[0] for figure in figures)
    left = [parse(answer, question).answer for answer, question in zip(told, questions, strict=True)]
    right = [parse(answer, question).answer for answer, question in zip(heard, questions, strict=True)]
    return Parity(
        positions=positions,
        top1_agreement=sum(figure[1] for figure in figures) / positions,
        kl_mean=sum(figure[2] for figure in figures) / positions,
        kl_largest=max(figure[3] for figure in figures),
        logit_difference_largest=max(figure[4] for figure in figures),
        answers=len(questions),
        same_answers=sum(a == b for a, b in zip(told, heard, strict=True)),
        same_choices=sum(a == b for a, b in zip(left, right, strict=True)),
        right_first=sum(is_right(question, answer) for question, answer in zip(questions, left, strict=True)),
        right_second=sum(is_right(question, answer) for question, answer in zip(questions, right, strict=True)),
    )


def _reading(left: torch.Tensor, right: torch.Tensor) -> tuple[int, int, float, float, float]:
    """Over the positions of one text: how many, how many agree, summed and largest divergence, largest difference."""
    p, q = left.log_softmax(-1), right.log_softmax(-1)
    divergence = (p.exp() * (p - q)).sum(-1).clamp(min=0)
    agree = int((left.argmax(-1) == right.argmax(-1)).sum())
    return len(left), agree, float(divergence.sum()), float(divergence.max()), float((left - right).abs().max())


class Answerer:
    """One model under measurement: base and adapter, or a whole model."""

    def __init__(self, base: Path, adapter: Path | None = None, **options: Any) -> None:  # noqa: ANN401
        self.name = "final" if adapter else BASE
        self.generator = LocalGenerator(base, {self.name: adapter} if adapter else None, **options)

    def answers(self, prompts: Sequence[Prompt]) -> list[str]:
        """Greedy answers, in the order of the prompts."""
        shared = shared_length([prompt.text for prompt in prompts])
        requests = [
            Request(
                key=str(number),
                model=self.name,
                text=prompt.text,
                shared=shared,
                max_new_tokens=TOKENS,
                stop=prompt.stop,
            )
            for number, prompt in enumerate(prompts)
        ]
        said = {reply.key: reply.text for reply in self.generator.generate(requests)}
        return [said[request.key] for request in requests]

    def logits(self, text: str) -> torch.Tensor:
        """The logits at every position of a text."""
        return self.generator.logits(text, self.name)
