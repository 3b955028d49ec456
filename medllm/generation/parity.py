"""How far one set of weights answers as another, measured on real prompts; one of the two is in memory at a time.

The first model's answers and its probability of each next token go to the disk; then the second reads the same texts.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file

from medllm.exam.extract.answer import is_right, parse
from medllm.exam.prompts import Prompt, render, target_completion
from medllm.exam.question import LETTERS, Question
from medllm.files import atomic_write, write_text
from medllm.generation.engine.blockwise import BlockwiseModel
from medllm.generation.engine.choice import open_generator
from medllm.generation.engine.local import LocalGenerator
from medllm.generation.engine.transformers import TransformersGenerator
from medllm.generation.types import BASE, Request, shared_length
from medllm.recipe.hardware import PROVEN
from medllm.recipe.servers import AUTO, LOCAL
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import release
from medllm.work_progress import counted

TEMPLATE: Literal["igakuqa", "paper"] = "igakuqa"
TOKENS = 64
"""Room for each answer."""
KEPT = 256
"""How many of a position's likeliest tokens are kept; all others count as one, so that a divergence is never reported
too large, and is exact where the vocabulary is no larger."""
NOTED = 16 * KEPT + 32
"""Bytes that are written down for a position: number and logit of each kept token, and four figures."""
TEXT = 4096
"""Bytes that are written down for a text besides, at most: names, shapes, and the answer."""
AT_ONCE = 128
"""Positions whose logits are taken apart at a time."""


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
    """Over the tokens that the first finds likeliest."""
    answers: int
    """Answers of both models; none where they only read."""
    same_answers: int
    """Greedy answers that are equal to the last character."""
    same_choices: int
    """Answers in which the same choice is read (or none in both)."""
    correct_a: int
    correct_b: int
    """Questions each of them has right."""

    def as_facts(self) -> dict[str, Any]:
        """Plain numbers for the certificate; None for one that is no number."""
        values = asdict(self)
        return {
            key: (round(value, 8) if value == value else None) if isinstance(value, float) else value
            for key, value in values.items()
        }


class WholeModel:
    """One model under measurement, base and adapter or a whole model; it is loaded when it is first asked."""

    speaks = True

    def __init__(self, base: Path, adapter: Path | None = None, **options: Any) -> None:  # noqa: ANN401
        self.base, self.adapter, self.options = base, adapter, options
        self.name = "final" if adapter else BASE
        self._generator: LocalGenerator | TransformersGenerator | None = None

    @property
    def generator(self) -> LocalGenerator | TransformersGenerator:
        """The model in memory."""
        if self._generator is None:
            adapters = {self.name: self.adapter} if self.adapter else None
            engine = LOCAL if Checkpoint(self.base).config.get("model_type") in PROVEN else AUTO
            self._generator = open_generator(engine, self.base, adapters, alone=True, **self.options)
        return self._generator

    @property
    def beside_its_base(self) -> bool:
        """Whether the base can be asked through it as well, untouched by the adapter."""
        return self.adapter is not None and not self.generator.changed_base

    def release(self) -> None:
        """Give the memory back; asked again, it is loaded again."""
        self._generator = None
        release()

    def answers(self, prompts: Sequence[Prompt]) -> list[str]:
        """Greedy answers, in the order of the prompts."""
        shared = shared_length([prompt.text for prompt in prompts])
        requests = [
            Request(**prompt.request_fields, key=str(number), model=self.name, shared=shared, max_new_tokens=TOKENS)
            for number, prompt in enumerate(prompts)
        ]
        written = counted(self.generator.generate(requests), len(requests), "answers", "certifying")
        replies = {reply.key: reply.text for reply in written}
        return [replies[request.key] for request in requests]

    def read(self, texts: Sequence[str], model: str | None = None) -> Iterator[torch.Tensor]:
        """The logits at every position of each text: positions x vocabulary."""
        for text in texts:
            yield self.generator.logits(text, model or self.name)


def prompts_of(questions: Sequence[Question], examples: Sequence[Question]) -> list[Prompt]:
    """The canary questions as both models are asked them."""
    return [render(question, prompt="explain", template=TEMPLATE, exemplars=examples) for question in questions]


def note(
    first: WholeModel | BlockwiseModel, questions: Sequence[Question], prompts: Sequence[Prompt], folder: Path
) -> None:
    """Write down what the first model answers and what it finds likely; what is in the folder is not made again.

    A model that cannot speak reads the verified explanations instead.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "answers.json"
    if not path.is_file():
        replies = (
            first.answers(prompts)
            if isinstance(first, WholeModel)
            else [target_completion(question, "explain", TEMPLATE) for question in questions]
        )
        write_text(path, json.dumps(replies, ensure_ascii=False))
    places = {folder / f"{number}.safetensors": text for number, text in enumerate(texts(prompts, folder))}
    missing = {place: text for place, text in places.items() if not place.is_file()}
    if not missing:
        return
    read = first.read(list(missing.values()))
    bare = first.read(list(missing.values()), BASE) if isinstance(first, WholeModel) and first.beside_its_base else None
    for place, logits in zip(missing, counted(read, len(missing), "texts read", "certifying"), strict=True):
        tensors = _likely(logits, None if bare is None else next(bare))
        with atomic_write(place) as part:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part)


def texts(prompts: Sequence[Prompt], folder: Path) -> list[str]:
    """What is read: each prompt with the first model's answer."""
    values = json.loads((folder / "answers.json").read_text("utf-8"))
    return [prompt.text + answer for prompt, answer in zip(prompts, values, strict=True)]


def agreement(
    second: WholeModel | BlockwiseModel, folder: Path, questions: Sequence[Question], prompts: Sequence[Prompt]
) -> Parity:
    """Let the second model answer the same questions and read the same texts as the first, whose notes are there."""
    values = heard = []
    if isinstance(second, WholeModel):
        values, heard = json.loads((folder / "answers.json").read_text("utf-8")), second.answers(prompts)
    else:
        questions = []
    read = counted(second.read(texts(prompts, folder)), len(prompts), "texts read", "comparing")
    figures = [_apart(load_file(folder / f"{number}.safetensors"), logits) for number, logits in enumerate(read)]
    whole = torch.cat(figures, 1)
    left = [parse(answer, question).answer for answer, question in zip(values, questions, strict=True)]
    right = [parse(answer, question).answer for answer, question in zip(heard, questions, strict=True)]
    return Parity(
        positions=whole.shape[1],
        top1_agreement=float(whole[0].mean()),
        kl_mean=float(whole[1].mean()),
        kl_largest=float(whole[1].max()),
        logit_difference_largest=float(whole[2].max()),
        answers=len(questions),
        same_answers=sum(a == b for a, b in zip(values, heard, strict=True)),
        same_choices=sum(a == b for a, b in zip(left, right, strict=True)),
        correct_a=sum(is_right(question, answer) for question, answer in zip(questions, left, strict=True)),
        correct_b=sum(is_right(question, answer) for question, answer in zip(questions, right, strict=True)),
    )


def effect(folder: Path) -> float | None:
    """Mean divergence, in nats, from the adapter to its bare base over the noted texts; None where it was not read."""
    effects = [load_file(path).get("effect") for path in sorted(folder.glob("*.safetensors"))]
    read = [effect_ for effect_ in effects if effect_ is not None]
    return float(torch.cat(read).mean()) if read else None


def compare(
    first: WholeModel, second: WholeModel, questions: Sequence[Question], examples: Sequence[Question]
) -> Parity:
    """Both models on the same questions, one after the other."""
    prompts = prompts_of(questions, examples)
    with TemporaryDirectory() as folder:
        note(first, questions, prompts, Path(folder))
        first.release()
        result = agreement(second, Path(folder), questions, prompts)
        second.release()
    return result


def _likely(logits: torch.Tensor, base: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """The likeliest tokens of each position, their logits, the mass of all and of the others, in logarithms."""
    by_name: dict[str, list[torch.Tensor]] = {}
    for at in range(0, len(logits), AT_ONCE):
        part = logits[at : at + AT_ONCE].double()
        ids = part.topk(min(KEPT, part.shape[1])).indices
        values = {"ids": ids, "logits": part.gather(1, ids), "mass": part.logsumexp(-1)}
        values |= {"rest": _rest(part, ids), "first": part.argmax(-1)}
        if base is not None:
            values["effect"] = _divergence(values, base[at : at + AT_ONCE].double())
        for name, value in values.items():
            by_name.setdefault(name, []).append(value.cpu())
    return {name: torch.cat(parts) for name, parts in by_name.items()}


def _apart(noted: dict[str, torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """3 x positions: whether both find the same token likeliest, divergence, largest difference of a logit."""
    distances = []
    for at in range(0, len(logits), AT_ONCE):
        values = {name: value[at : at + AT_ONCE].to(logits.device) for name, value in noted.items()}
        part = logits[at : at + AT_ONCE].double()
        same = (part.argmax(-1) == values["first"]).double()
        apart = (part.gather(1, values["ids"]) - values["logits"]).abs().amax(-1)
        distances.append(torch.stack([same, _divergence(values, part), apart]).cpu())
    return torch.cat(distances, 1)


def _divergence(values: dict[str, torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of each position, where all tokens but the kept ones count as one."""
    p = values["logits"] - values["mass"][:, None]
    q = logits.gather(1, values["ids"]) - logits.logsumexp(-1)[:, None]
    kept = (p.exp() * (p - q)).sum(-1)
    others = values["rest"].exp() * (values["rest"] - _rest(logits, values["ids"]))
    return (kept + torch.where(values["rest"] > -torch.inf, others, 0.0)).clamp(min=0)


def _rest(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Logarithm of the probability of all tokens but these; minus infinity where there are no others."""
    return logits.scatter(1, ids, -torch.inf).logsumexp(-1) - logits.logsumexp(-1)


DRUGS = ("アセトアミノフェン", "アモキシシリン", "ゲンタマイシン", "フェニトイン", "メトトレキサート", "バンコマイシン")
SHOTS = 3


def parity_questions(count: int, seed: int = 0) -> tuple[list[Question], list[Question]]:
    """`count` questions on doses, and three worked examples; the same for the same seed, and in no exam."""
    draw = random.Random(f"canary {seed}")
    made = [_question(number, draw) for number in range(count + SHOTS)]
    return made[SHOTS:], made[:SHOTS]


def _question(number: int, draw: random.Random) -> Question:
    weight, dose = draw.randrange(12, 90), draw.randrange(2, 40)
    right = weight * dose
    wrong = draw.sample([weight + dose, right * 10, right // 2 or 1, right + weight, right + 3 * dose], 4)
    choices = [right, *wrong]
    draw.shuffle(choices)
    letter = LETTERS[choices.index(right)]
    return Question(
        question_id=f"canary-{number}",
        benchmark="canary",
        text=f"体重{weight} kgの患者に{draw.choice(DRUGS)}を{dose} mg/kgで投与する。投与量はどれか。",
        choices=tuple(f"{choice} mg" for choice in choices),
        gold=(frozenset(letter),),
        key=(letter,),
        explanation=f"{weight} kg × {dose} mg/kg = {right} mgである。",
    )
