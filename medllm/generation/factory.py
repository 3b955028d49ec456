"""Who answers: the maker that settings name, with the models that sources hold."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from medllm.errors import ModelError
from medllm.generation.identity import KEY, asked_as, base_under, openai_address
from medllm.generation.types import (
    BASE,
    Delta,
    Generator,
    Reply,
    Request,
    choose_engine,
    engine_of,
    take_turn,
    tokens_read,
    tokens_written,
)
from medllm.recipe.hardware import machine, nodes
from medllm.recipe.servers import AUTO, LOCAL, OPENAI_PREFIX, VllmOptions, is_address, is_vllm
from medllm.recipe.settings import ApiModel, Evaluate, Preferences, Teach
from medllm.weights.adapter import Adapter, is_adapter
from medllm.weights.checkpoint import Checkpoint, model_name
from medllm.weights.load import Quantization

if TYPE_CHECKING:
    from medllm.generation.vllm import OneServer, VllmGenerator

AT_ONCE = 16
"""Requests sent at once to a server at an address."""


@dataclass(frozen=True)
class ServerOptions:
    """How a server is asked."""

    prices: dict[str, tuple[float, float]] | None = None
    """US dollars per million tokens asked and answered, by model."""
    num_concurrent: int | None = None
    """Requests at a time; what suits the server when left out."""
    vllm: VllmOptions = field(default_factory=VllmOptions)
    """How a vLLM of the run's own is started."""


class OnDemand:
    """A maker that is loaded when it is first asked, and whose memory can be given back.

    Makers with the same `turn` load and stream one after the other.
    """

    def __init__(self, load: Callable[[], Generator], turn: Lock | None = None) -> None:
        self._load = load
        self._loaded: Generator | None = None
        self._turn = turn or Lock()

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once."""
        yield from self._maker().generate(requests)

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer all requests at the same time, piece by piece; streams in several threads take turns."""
        yield from take_turn(self._turn, lambda asked: self._maker().stream(asked), requests)

    @property
    def written(self) -> int:
        """Tokens written since it was loaded."""
        return tokens_written(self._loaded)

    @property
    def read(self) -> int:
        """Tokens of prompts read since it was loaded."""
        return tokens_read(self._loaded)

    @property
    def engine(self) -> str:
        """Name and version of the engine, once it is loaded."""
        return engine_of(self._loaded)

    def choose(self) -> str:
        """Load the model, and return name and version of the engine that answers."""
        return choose_engine(self._maker())

    def release(self) -> None:
        """Forget the model; asked again, it is loaded again."""
        from medllm.weights.load import release

        self._loaded = None
        release()

    def _maker(self) -> Generator:
        if self._loaded is None:
            self._loaded = self._load()
        return self._loaded


def processes_of(settings: Teach | Preferences | Evaluate) -> int | None:
    """Count the processes that answer: as the recipe sets, else one for each visible GPU that `run_on` asks for."""
    here = not is_address(settings.engine) and not is_vllm(settings.engine)
    if settings.num_processes is not None or not here or settings.run_on is None:
        return settings.num_processes
    asked = machine(settings.run_on)
    if asked is None or asked.gpu is None:
        return None
    from medllm.weights.load import import_torch

    return min(asked.count, import_torch().cuda.device_count()) or None


def make_generators(  # noqa: PLR0913  each a way to load or to ask
    models: Mapping[str, str | ApiModel],
    sources: dict[str, Path],
    *,
    form: str = "completion",
    given: str | None = None,
    engine: str = "local",
    dtype: str = "bfloat16",
    quantization: Quantization = "none",
    batch_size: int = 16,
    server: ServerOptions | None = None,
    num_processes: int | None = 1,
    place: str = "evaluate.models",
) -> dict[str, tuple[Generator, str]]:
    """For each name in the tables: who answers for it, and under which name that maker knows it.

    Adapters and the base they lie on share one copy of the base. `openai:MODEL` is asked by chat at the engine's
    address; with an engine of this machine at OpenAI's own. An ApiModel has its own. Models here are loaded when they
    are first asked, each by `num_processes` processes (None: one for each GPU). `given` is the chat template of models
    that have none.
    """
    server = server or ServerOptions()
    forms = asked_as(models, sources, engine=engine, form=form, given=given)
    generators: dict[str, tuple[Generator, str]] = {}
    own: dict[str, Generator] = {}
    local: dict[str, Path] = {}
    for name, source in models.items():
        if isinstance(source, ApiModel):
            twin = json.dumps(source.model_dump(exclude={"model", "revision"}), sort_keys=True)
            if twin not in own:
                key = key_of(source, f"{place}.{name}")
                chat, responses = source.chat, source.responses
                own[twin] = _api(source.api, server, chat=chat, responses=responses, key=key, options=source.request)
            generators[name] = (own[twin], source.model)
        elif source.startswith(OPENAI_PREFIX):
            maker = _api(openai_address(engine, f"{place}.{name}", source), server, chat=True, key=os.environ.get(KEY))
            generators[name] = (maker, source.removeprefix(OPENAI_PREFIX))
        elif is_address(engine):
            chat, or_text = forms[name].chat, form == "auto"
            generators[name] = (_api(engine, server, chat=chat, or_text=or_text, key=os.environ.get(KEY)), name)
        else:
            local[name] = sources[source]
    options = {"engine": engine, "dtype": dtype, "quantization": quantization, "batch_size": batch_size}
    bases = {name: base_under(str(models[name]), sources) for name in local}
    templates = {name: template for name, form_ in forms.items() if (template := form_.template)}
    return {**generators, **_local(local, bases, templates, _Here(num_processes, options, server))}


def generators_for(
    settings: Evaluate, sources: dict[str, Path], *, num_processes: int | None = 1
) -> dict[str, tuple[Generator, str]]:
    """Who answers the models of an evaluation, as its settings name engine, precision, batch and servers."""
    return make_generators(
        settings.models,
        sources,
        form=settings.format,
        given=settings.chat_template,
        engine=settings.engine,
        dtype=settings.dtype,
        quantization=settings.quantization,
        batch_size=settings.batch_size,
        server=ServerOptions(settings.prices, settings.num_concurrent, settings.vllm),
        num_processes=num_processes,
    )


def _local(
    models: dict[str, Path], bases: Mapping[str, Path | None], templates: Mapping[str, str], here: _Here
) -> dict[str, tuple[Generator, str]]:
    """One maker for each base with all adapters on it, and one for each full model besides."""
    laid: dict[Path, dict[str, Path]] = {}
    for name, folder in models.items():
        if is_adapter(folder):
            base = bases[name]
            if base is None:
                raise ModelError(
                    "generation.no-base", f"{name} is an adapter, and its base is not given. Give the base too."
                )
            Adapter(folder).fits(Checkpoint(base))
            laid.setdefault(base.resolve(), {})[name] = folder
    generators: dict[str, tuple[Generator, str]] = {}
    together = {}
    for base, adapters in laid.items():
        names = {name: name for name in adapters}
        names |= {name: BASE for name, folder in models.items() if folder.resolve() == base}
        chats = {known: templates[name] for name, known in names.items() if name in templates}
        together[base] = here.open(base, adapters, chats)
    for name, folder in models.items():
        on = next((base for base, adapters in laid.items() if name in adapters), None)
        if on is not None:
            generators[name] = (together[on], name)
        elif folder.resolve() in together:
            generators[name] = (together[folder.resolve()], BASE)
        else:
            chats = {BASE: templates[name]} if name in templates else {}
            generators[name] = (here.open(folder, {}, chats), BASE)
    return generators


class _Here:
    """How models are opened on this machine; of the vLLM servers of one evaluation, one runs at a time."""

    def __init__(self, num_processes: int | None, options: dict[str, Any], server: ServerOptions) -> None:
        self.num_processes, self.options, self.server = num_processes, options, server
        self.engine: str = options["engine"]
        self._server: OneServer | None = None
        self._turn = Lock()
        """Held while one of the models streams: two that load or compute at once would share memory and cores."""

    def open(self, base: Path, adapters: dict[str, Path], templates: Mapping[str, str]) -> Generator:
        """A base with its adapters: behind a vLLM, in this process, or in several processes."""
        Checkpoint(base)
        if is_vllm(self.engine):
            return self._served(base, adapters, templates)
        here = OnDemand(lambda: self._load(base, adapters, templates), self._turn)
        if self.engine == AUTO and self._vllm_suits():
            try:
                from medllm.generation.vllm import VllmOrHere

                return VllmOrHere(self._served(base, adapters, templates), here)
            except ModelError as error:
                sys.stderr.write(f"engine: not vllm, because {error}\n")
        return here

    def _load(self, base: Path, adapters: dict[str, Path], templates: Mapping[str, str]) -> Generator:
        from medllm.generation.distributed import SpreadGenerator, devices
        from medllm.generation.engine.choice import open_generator

        places = devices(self.num_processes)
        if self.engine == LOCAL:  # the other engines spread a model over several GPUs
            _refuse_small_gpus(base, places, self.options["quantization"], self.options["dtype"])
        if len(places) * nodes() > 1:
            return SpreadGenerator(base, adapters, places, templates=dict(templates), **self.options)
        return open_generator(base=base, adapters=adapters or None, templates=templates, **self.options)

    def _served(self, base: Path, adapters: dict[str, Path], templates: Mapping[str, str]) -> VllmGenerator:
        from medllm.generation.serving import serving_of
        from medllm.generation.vllm import OneServer, VllmGenerator

        self._server = self._server or OneServer()
        how = {"dtype": self.options["dtype"], "quantization": self.options["quantization"]}
        serving = serving_of(base, adapters, **how, options=self.server.vllm)
        concurrent = self.server.num_concurrent
        options: dict[str, Any] = {"num_concurrent": concurrent, "templates": templates}
        return VllmGenerator(serving, self._server, engine=self.engine, **options)

    def _vllm_suits(self) -> bool:
        """Whether `auto` tries vLLM: it is named, a GPU is here, and no other machine works on the stage."""
        from medllm.generation.serving import PROGRAM
        from medllm.weights.load import import_torch

        return bool(os.environ.get(PROGRAM)) and nodes() == 1 and bool(import_torch().cuda.device_count())


def _refuse_small_gpus(base: Path, places: list[str | None], quantization: str, dtype: str) -> None:
    """Raise before anything is loaded when one of the GPUs cannot hold the base of each process that answers on it."""
    from medllm.weights.resources import refuse_small_gpus, visible_gpus

    if None in places:
        return
    used = dict(list(enumerate(visible_gpus()))[: len(set(places))])
    copies = max(places.count(place) for place in places)
    refuse_small_gpus(model_name(base), base, used, quantization=quantization, dtype=dtype, copies=copies)


def _api(
    url: str,
    server: ServerOptions,
    *,
    chat: bool,
    key: str | None,
    or_text: bool = False,
    responses: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Generator:
    from medllm.generation.endpoint import EndpointGenerator

    return EndpointGenerator(
        url,
        key=key,
        chat=chat,
        or_text=or_text,
        responses=responses,
        prices=server.prices,
        num_concurrent=server.num_concurrent or AT_ONCE,
        options=options,
    )


def key_of(model: ApiModel, place: str) -> str | None:
    """Read the key of a model's server from the environment variable that the recipe names."""
    if model.key is None:
        return None
    value = os.environ.get(model.key)
    if not value:
        raise ModelError(
            "generation.no-key",
            f"{place}: the environment variable {model.key} is not set, so {model.api} cannot be asked. Set it to the "
            "server's key.",
        )
    return value
