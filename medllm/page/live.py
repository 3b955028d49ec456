"""Live mode: the models that a page can ask now, and how: template, worked examples, length and patience."""

import json
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from secrets import token_urlsafe
from threading import Lock
from typing import Any

from medllm.errors import RecipeError
from medllm.exam.prompts import Prompt, Template, render
from medllm.exam.question import Question
from medllm.exam.record import PROMPTS, PromptStyle
from medllm.generation.types import Delta, Generator, Request, take_turn
from medllm.page.results import RecordedResults
from medllm.recipe.read import template_text
from medllm.recipe.servers import ENGINES, LOCAL, for_prompt, is_vllm
from medllm.recipe.validators import is_template
from medllm.side_by_side import Cells, Column, Generators, Round

SILENCE = 120.0
"""Seconds until a silent server is reported: a reader is waiting, so sooner than in an evaluation."""


@dataclass(frozen=True)
class Live:
    """Models that answer, and the form of their prompts."""

    generators: Generators
    name: str
    """Name of the answering server or base model, for the About page."""
    template: Template | None = None
    """The prompts' template; None means the template of the shown results."""
    exemplars: Mapping[str, Sequence[Question]] = field(default_factory=dict)
    """The worked examples before the questions of each exam."""
    max_new_tokens: int = 512
    """Maximum number of tokens in a reply; with `think` four times as many, for the thinking."""
    prompts: tuple[PromptStyle, ...] = ("plain", "explain")
    system_prompt: str | None = None
    """The system message of a chat; the template's own when None."""
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Values of the chat template, as in a recipe."""
    chat: bool = False
    """Whether the models get the prompt as a conversation."""
    silence: float = SILENCE
    """Seconds without text after which a cell is marked as failed."""

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models that can be asked."""
        return tuple(self.generators)

    def start_round(self, question: Question, only: Column | None = None) -> Round:
        """Put a question to all models under every prompt, or `only` to one cell; one without a key is not scored."""
        prompts = {style: self._rendered(question, style) for style in self.prompts}
        room = {style: self.max_new_tokens * (4 if style == "think" else 1) for style in self.prompts}
        values = {style: for_prompt(self.chat_template_kwargs, style) for style in self.prompts}
        return Round(self.generators, prompts, room, question if question.has_key else None, values, only)

    def prompt(self, question: Question, style: PromptStyle) -> str:
        """Return the exact prompt that is sent."""
        prompt = self._rendered(question, style)
        return prompt.conversation if self.chat else prompt.text

    def asking_like(self, results: RecordedResults) -> "Live":
        """Return the same models with the template and worked examples of these results."""
        return replace(self, template=self.template or results.template, exemplars=results.exemplars)

    def _rendered(self, question: Question, style: PromptStyle) -> Prompt:
        examples = self.exemplars.get(question.benchmark, ())
        if question.choices and not question.has_key:
            examples = next(iter(self.exemplars.values()), ())
        template = self.template or "paper"
        return render(question, prompt=style, template=template, exemplars=examples, system=self.system_prompt)


@dataclass(frozen=True)
class LiveAnswers:
    """The live answers to one question, as far as they have come, with what marks them: when, and from which server."""

    key: str
    """The key of the question; empty for one of the reader's own."""
    server: str
    names: Mapping[str, str]
    """The server's name for each model."""
    cells: Cells
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    later: Mapping[Column, datetime] = field(default_factory=dict)
    """When cells were asked again."""
    question: Question | None = None
    """The reader's own question."""
    name: str = field(default_factory=lambda: token_urlsafe(12))
    """A random name by which the page finds them again."""

    @property
    def time(self) -> str:
        """The time of asking, in the server's own zone, as the page shows it."""
        return clock(self.at)

    def asked_at(self, column: Column) -> datetime:
        """Return when a cell was asked last."""
        return self.later.get(column, self.at)

    def having(self, cells: Cells) -> "LiveAnswers":
        """Return these answers with cells as they are now; a free question has no letter for an answer."""
        if self.question is not None and not self.question.choices:
            cells = {column: replace(cell, answer=None) for column, cell in cells.items()}
        return replace(self, cells={**self.cells, **cells})

    def origin(self, model: str) -> str:
        """Return the server and its name of a model."""
        return " · ".join(part for part in (self.server, self.names.get(model, "")) if part)


def clock(at: datetime) -> str:
    """Return a time of day in the server's own zone, as the page shows it."""
    return f"{at.astimezone():%H:%M %Z}"


MOST_KEPT = 128
"""Rounds of live answers that a download can still take; the oldest goes first."""


class RecentAnswers:
    """The live answers on readers' screens, so that downloads and comparisons hold them; in memory alone."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._kept: OrderedDict[str, LiveAnswers] = OrderedDict()
        self._most = most

    def keep(self, answers: LiveAnswers) -> LiveAnswers:
        """Keep the answers under their name, in the place of an earlier state of them; return them."""
        self._kept[answers.name] = answers
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return answers

    def of(self, name: str, key: str) -> LiveAnswers | None:
        """Return the answers of a name if they are to this question."""
        answers = self._kept.get(name)
        return answers if answers is not None and answers.key == key else None


def open_live(description: str | None = None) -> Live | None:
    """Open the live models that MEDLLM_LIVE (or the argument) describes; return None if there are none.

    It is JSON: `{"url": ".../v1", "models": {"base": "NAME", ...}, "chat": false}` for a server, whose key is in
    OPENAI_API_KEY; a model may have its own address, as in a recipe: `{"api", "model", "chat", "key", "request"}`. Or
    `{"base": "FOLDER|ORG/NAME@REV", "adapters": {"cpt": "...", "final": "..."}}` for adapters here, with `"engine"` one
    of a recipe's that is no address, and `"chat_template"` that of models without one. `format`, `prompts`,
    `system_prompt`, `chat_template_kwargs`: as in a recipe.
    """
    description = description or os.environ.get("MEDLLM_LIVE")
    if not description or description == "none":
        return None
    try:
        settings = json.loads(
            Path(description).read_text(encoding="utf-8") if Path(description).is_file() else description
        )
        return _server(settings) if "url" in settings or "models" in settings else _adapters(settings)
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise RecipeError(
            "page.bad-live-models",
            f"MEDLLM_LIVE: cannot be read ({fault}). Give JSON with `url` and `models`, or `base` and `adapters`.",
        ) from fault


def _server(settings: dict[str, Any]) -> Live:
    from medllm.generation.endpoint import EndpointGenerator
    from medllm.generation.factory import key_of
    from medllm.recipe.servers import ApiModel

    url = settings.get("url")
    key = os.environ.get("OPENAI_API_KEY") or os.environ.get("HF_TOKEN" if settings.get("kind") == "inference" else "")
    patience = float(settings.get("silence", SILENCE))

    def open_server(url: str, key: str | None, **how: Any) -> EndpointGenerator:  # noqa: ANN401
        return EndpointGenerator(url, key=key, num_concurrent=64, tries=2, timeout=patience, **how)

    chat = bool(settings.get("chat", settings.get("format", "completion") != "completion"))
    shared = open_server(url, key, chat=chat) if url else None
    makers: dict[str, tuple[Generator, str]] = {}
    if not settings["models"]:
        raise ValueError("`models` names no model")
    for name, known in dict(settings["models"]).items():
        if isinstance(known, dict):
            own = ApiModel.model_validate(known)
            how = {"chat": own.chat, "responses": own.responses, "options": own.request}
            maker = open_server(own.api, key_of(own, f"MEDLLM_LIVE.models.{name}"), **how)
            chat = chat or own.chat
            makers[name] = (maker, own.model)
        elif shared is not None:
            makers[name] = (shared, known)
        else:
            raise ValueError(f"{name} has no address: give `url`, or `{{api, model}}` for it")
    return Live(makers, url or "servers of their own", chat=chat, **_how(settings, chat=chat))


def _adapters(settings: dict[str, Any]) -> Live:
    adapters = dict(settings["adapters"])
    from medllm.generation.factory import make_generators
    from medllm.generation.identity import asked_as, refuse_thinking_without_chat

    sources = {"base": _folder(settings["base"])} | {name: _folder(source) for name, source in adapters.items()}
    models = {"base": "base"} | {name: name for name in adapters}
    quantization = settings.get("quantization", "none")
    if quantization not in ("none", "nf4"):
        raise ValueError(f"`quantization` is {quantization}, not none or nf4")
    engine = settings.get("engine", LOCAL)
    if engine not in ENGINES and not is_vllm(engine):
        raise ValueError(f"`engine` is {engine}, not one of {', '.join(ENGINES)}")
    dtype = settings.get("dtype", "float32")
    given = settings.get("chat_template")
    form = settings.get("format", "completion" if given is None else "chat")
    if given is not None:
        given = template_text(given, Path())
        if not is_template(given):
            raise ValueError(f"`chat_template` is {given}, no template and no file that can be read")
    forms = asked_as(models, sources, engine=engine, form=form, given=given)
    refuse_thinking_without_chat(forms, settings.get("prompts", ()))
    how: dict[str, Any] = {"engine": engine, "dtype": dtype, "quantization": quantization}
    makers = make_generators(models, sources, form=form, given=given, **how)
    chat = any(form.chat for form in forms.values())
    if settings.get("kind") == "zerogpu":
        makers = {name: (OnZeroGpu(maker), known) for name, (maker, known) in makers.items()}
    return Live(makers, str(settings["base"]), chat=chat, **_how(settings, chat=chat))


def _how(settings: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    names = ("template", "max_new_tokens", "silence", "system_prompt", "chat_template_kwargs")
    chosen = {name: settings[name] for name in names if name in settings}
    if "prompts" in settings:
        wanted = settings["prompts"]
        if not wanted or not set(wanted) <= set(PROMPTS):
            raise ValueError(f"`prompts` is {wanted}, not a list of {', '.join(PROMPTS)}")
        if "think" in wanted and not chat:
            raise ValueError("the prompt `think` needs `format: chat`")
        chosen["prompts"] = tuple(style for style in PROMPTS if style in wanted)
    return chosen


def _folder(source: str) -> Path:
    """Return the folder of a model: a local one, or a repository pulled from the Hub."""
    if Path(source).exists():
        return Path(source)
    from medllm.hub import connect

    repo_id, _, revision = source.partition("@")
    with connect() as hub:
        return hub.pull(hub.resolve(repo_id, "model", revision or "main"))


class OnZeroGpu:
    """A generator that answers with the GPU that a ZeroGPU Space lends for each answer, one question at a time."""

    def __init__(self, maker: Generator, lend: Callable[..., Any] | None = None) -> None:
        if lend is None:
            import spaces

            lend = spaces.GPU(duration=120)
        self.generate = lend(maker.generate)
        self._stream = lend(maker.stream)
        self._turn = Lock()

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer all requests at the same time, piece by piece."""
        return take_turn(self._turn, self._stream, requests)
