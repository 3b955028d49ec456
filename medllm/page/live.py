"""Live mode: the models that answer now, with the exam's own prompts and parser, and a turn for each machine."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from medllm.compare import Asking, Cell, CellFault, Column
from medllm.errors import RecipeError
from medllm.exam.extract.answer import is_right, parse
from medllm.exam.prompts import Prompt, Template, render
from medllm.exam.question import Question
from medllm.exam.record import PROMPTS, PromptStyle
from medllm.generation.types import Generator, Request
from medllm.page.results import RecordedResults

OWN = "own"
"""The exam of a reader's own question."""

SILENCE = 120.0
"""Seconds until a silent server is reported: a reader is waiting, so sooner than in an evaluation."""

Makers = dict[str, tuple[Generator, str]]
"""For each name in the tables: the generator that answers, and the generator's own name for the model."""


@dataclass(frozen=True)
class Live:
    """Models that answer, and the form of their prompts."""

    makers: Makers
    name: str
    """Name of the answering server or base model, for the About page."""
    together: bool = False
    """Whether one generator answers all its cells in one batch (adapters on one base) or each cell alone (a server)."""
    template: Template | None = None
    """The prompts' template; None means the template of the shown results."""
    exemplars: Mapping[str, Sequence[Question]] = field(default_factory=dict)
    """The worked examples before the questions of each exam."""
    max_new_tokens: int = 512
    silence: float = SILENCE
    """Seconds without text after which a cell is marked as failed."""
    _turns: dict[int, Lock] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that can be asked."""
        return tuple(self.makers)

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return every model under both prompts."""
        return tuple((model, prompt) for model in self.makers for prompt in PROMPTS)

    def make_request(self, question: Question, *, scored: bool) -> "Round":
        """Put a question to all models; `scored` if it has a key to compare with."""
        asked = {column: self._request(question, *column) for column in self.columns}
        groups: dict[object, dict[Column, Request]] = {}
        for column, request in asked.items():
            maker = self.makers[column[0]][0]
            groups.setdefault(id(maker) if self.together else column, {})[column] = request
        askings: dict[Column, Asking] = {}
        for requests in groups.values():
            maker = self.makers[next(iter(requests))[0]][0]
            asking = Asking(maker, requests, self._turns.setdefault(id(maker), Lock()) if self.together else None)
            askings |= dict.fromkeys(requests, asking)
        return Round(question, askings, scored)

    def prompt(self, question: Question, style: PromptStyle) -> str:
        """Return the exact prompt that is sent."""
        text: str = self._rendered(question, style).text
        return text

    def asking_like(self, results: RecordedResults) -> "Live":
        """Return the same models with the template and worked examples of these results."""
        return replace(self, template=self.template or results.template, exemplars=results.exemplars)

    def _rendered(self, question: Question, style: PromptStyle) -> Prompt:
        examples = self.exemplars.get(question.benchmark, ())
        if question.benchmark == OWN and question.choices:
            examples = next(iter(self.exemplars.values()), ())
        return render(question, prompt=style, template=self.template or "paper", exemplars=examples)

    def _request(self, question: Question, model: str, style: PromptStyle) -> Request:
        prompt = self._rendered(question, style)
        return Request(
            key=f"{model}/{style}",
            model=self.makers[model][1],
            text=prompt.text,
            messages=prompt.messages,
            max_new_tokens=self.max_new_tokens,
            stop=prompt.stop,
        )


@dataclass(frozen=True)
class Round:
    """One question on its way to all models."""

    question: Question
    askings: dict[Column, Asking]
    scored: bool

    def __enter__(self) -> "Round":
        return self

    def __exit__(self, *_: object) -> None:
        """End the round's producers, however the round ended."""
        for asking in self.askings.values():
            asking.let_go()

    def ask(self, model: str, prompt: PromptStyle) -> Any:  # noqa: ANN401  (an async iterator of text)
        """Return the reply of one cell, piece by piece."""
        return self.askings[model, prompt].read((model, prompt))

    def judge(self, model: str, prompt: PromptStyle, text: str) -> Cell:
        """Return the finished cell, read by the exam's own parser."""
        reply = self.askings[model, prompt].replies.get((model, prompt))
        if reply and reply.finish_reason == "too_long":
            return Cell(model, prompt, "failed", fault=CellFault("too_long"))
        whole = reply.text if reply else text
        asked = self.question if self.scored else None
        parsed = parse(whole, asked, finish_reason=reply.finish_reason if reply else None)
        harm = sorted(set((parsed.answer or "").split(",")) & self.question.prohibited) if self.scored else []
        return Cell(
            model=model,
            prompt=prompt,
            state="done",
            text=whole,
            status=parsed.status if asked else None,
            answer=parsed.answer,
            correct=is_right(self.question, parsed.answer) if self.scored else None,
            prohibited=",".join(harm) or None,
        )


def open_live(told: str | None = None) -> Live | None:
    """Open the live models that MEDLLM_LIVE (or the argument) describes; return None if there are none.

    It is JSON: `{"url": ".../v1", "models": {"base": "NAME", ...}, "chat": false}` for a server, whose key is in
    OPENAI_API_KEY, or `{"base": "FOLDER|ORG/NAME@REV", "adapters": {"cpt": "...", "final": "..."}}` for adapters here.
    """
    told = told or os.environ.get("MEDLLM_LIVE")
    if not told or told == "none":
        return None
    try:
        settings = json.loads(Path(told).read_text(encoding="utf-8") if Path(told).is_file() else told)
        return _server(settings) if "url" in settings else _adapters(settings)
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise RecipeError(
            f"MEDLLM_LIVE: cannot be read ({fault}). Give JSON with `url` and `models`, or `base` and `adapters`."
        ) from fault


def _server(settings: dict[str, Any]) -> Live:
    from medllm.generation.endpoint import EndpointGenerator

    key = os.environ.get("OPENAI_API_KEY") or os.environ.get("HF_TOKEN" if settings.get("kind") == "inference" else "")
    models = dict(settings["models"])
    patience = float(settings.get("silence", SILENCE))
    maker = EndpointGenerator(
        settings["url"], key=key, chat=bool(settings.get("chat", False)), num_concurrent=64, tries=2, timeout=patience
    )
    return Live({name: (maker, known) for name, known in models.items()}, settings["url"], **_how(settings))


def _adapters(settings: dict[str, Any]) -> Live:
    adapters = dict(settings["adapters"])
    from medllm.generation.factory import make_generators

    sources = {"base": _folder(settings["base"])} | {name: _folder(source) for name, source in adapters.items()}
    models = {"base": "base"} | {name: name for name in adapters}
    quantization: Literal["none", "nf4"] = "nf4" if settings.get("quantization") == "nf4" else "none"
    makers = make_generators(models, sources, dtype=settings.get("dtype", "float32"), quantization=quantization)
    if settings.get("kind") == "zerogpu":
        makers = {name: (OnZeroGpu(maker), known) for name, (maker, known) in makers.items()}
    return Live(makers, str(settings["base"]), together=True, **_how(settings))


def _how(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in ("template", "max_new_tokens", "silence") if name in settings}


def _folder(source: str) -> Path:
    """Return the folder of a model: a local one, or a repository pulled from the Hub."""
    if Path(source).exists():
        return Path(source)
    from medllm.hub import connect

    repo_id, _, revision = source.partition("@")
    with connect() as hub:
        return hub.pull(hub.resolve(repo_id, "model", revision or "main"))


class OnZeroGpu:
    """A generator that answers with the GPU that a ZeroGPU Space lends for each answer."""

    def __init__(self, maker: Generator, lend: Callable[..., Any] | None = None) -> None:
        if lend is None:
            import spaces

            lend = spaces.GPU(duration=120)
        self.generate = lend(maker.generate)
        self.stream = lend(maker.stream)
