"""`engine: vllm`: a base and its adapters behind a server of the run's own, asked in tokens and read in tokens."""

import collections.abc
import os
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from medllm.errors import ModelError
from medllm.generation.endpoint import EndpointGenerator
from medllm.generation.engine.batching import PromptReader, refuse_strangers, too_long
from medllm.generation.engine.decoding import Decoder
from medllm.generation.serving import Serving, context_of, find_program, refuse_adapter
from medllm.generation.types import (
    BASE,
    Delta,
    Generator,
    NoReplyError,
    Reply,
    Request,
    choose_engine,
    engine_of,
    release_model,
)
from medllm.generation.vllm_server import CHECKED, DIRECT, TRIES, Server, check, start
from medllm.processes import PATIENCE
from medllm.recipe.servers import vllm_version
from medllm.weights.adapter import Adapter
from medllm.weights.checkpoint import Checkpoint
from medllm.weights.load import PROBE, end_tokens, load_tokenizer

AT_ONCE = 256
"""Requests sent at once to our own server."""
LEAST, STEP = 4096, 256
"""Tokens that a server takes at least, if the model can, and in which steps more: a longer request needs no restart."""
SILENCE = 7200.0
"""Seconds for one reply: a server of our own that lives works through its queue."""


class OneServer:
    """The server that runs now: at most one, since each takes its machine's memory; another base waits for its turn."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._users = 0
        self._owner: VllmGenerator | None = None
        self._server: Server | None = None

    @contextmanager
    def of(self, owner: "VllmGenerator", length: int) -> Iterator[Server]:
        """Give a server with that model and room for so many tokens; start it when the one before is idle."""
        with self._free:
            while self._users and not self._serves(owner, length):
                self._free.wait()
            if not self._serves(owner, length):
                self._end()
                self._server, self._owner = owner.start(length), owner
            server = self._server
            assert server is not None
            self._users += 1
        try:
            yield server
        finally:
            with self._free:
                self._users -= 1
                self._free.notify_all()

    def release(self, owner: "VllmGenerator") -> None:
        """End the server if it is that model's."""
        with self._free:
            if self._owner is owner:
                self._end()

    def __del__(self) -> None:
        with suppress(Exception):  # a run that failed has released nothing
            self._end()

    def _serves(self, owner: "VllmGenerator", length: int) -> bool:
        server = self._server
        return server is not None and self._owner is owner and server.lives and server.serving.length >= length

    def _end(self) -> None:
        if self._server is not None:
            self._server.stop()
        self._server = self._owner = None


class VllmGenerator:
    """Answers with one base and its adapters through a server of our own, which is started when it is first asked."""

    def __init__(
        self,
        serving: Serving,
        server: OneServer,
        *,
        engine: str = "vllm",
        num_concurrent: int | None = None,
        templates: Mapping[str, str] | None = None,
    ) -> None:
        checkpoint = Checkpoint(serving.base)
        for folder in serving.adapters.values():
            refuse_adapter(folder)
            Adapter(folder).fits(checkpoint)
        self.program = find_program(os.environ, vllm_version(engine))
        self.serving, self.server, self.wanted = serving, server, vllm_version(engine)
        self.num_concurrent = num_concurrent or AT_ONCE
        self.tokenizer = load_tokenizer(serving.base)
        self.reader = PromptReader(self.tokenizer, templates)
        self.ends = end_tokens(self.tokenizer, serving.base) | self.reader.ends
        self.context = context_of(checkpoint.config)
        self.engine: str | None = None
        """Name and version of the engine, once it has answered."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once, many at a time, each as it becomes ready."""
        fitting, tokens, unfit = self._planned(requests)
        yield from too_long(unfit)
        if fitting:
            with self._asked(fitting, tokens) as client:
                for turn, part in client.parts(fitting):
                    with turn:
                        yield from client.generate(part)

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer many requests at a time, piece by piece."""
        fitting, tokens, unfit = self._planned(requests)
        for reply in too_long(unfit):
            yield Delta(reply.key, "", reply)
        if fitting:
            with self._asked(fitting, tokens) as client:
                for turn, part in client.parts(fitting):
                    with turn:
                        yield from client.stream(part)

    def release(self) -> None:
        """End the server; asked again, it starts again."""
        self.server.release(self)

    def start(self, length: int) -> Server:
        """Start a server for texts of so many tokens, and check it."""
        room = min(self.context, max(LEAST, -(-length // STEP) * STEP))
        server = start(replace(self.serving, length=room), self.program, os.environ)
        try:
            version = server.version()
            self.engine = f"vllm {version}"
            if self.wanted is not None and version.split("+")[0] != self.wanted:
                raise ModelError(
                    "generation.vllm-other-version",
                    f"the recipe asks for vllm {self.wanted}, and {self.program[0]} is {version}. Install that "
                    "version, or write the other one into `engine`.",
                )
            prompts = [self.reader.words.prompt(text) for text in (PROBE, *CHECKED)]
            check(server, [prompt[:512] for prompt in prompts], sorted(self.ends)[:4])
        except BaseException:
            server.stop()
            raise
        sys.stderr.write(f"engine: {self.engine} for {', '.join(self.serving.names)}\n")
        return server

    def _planned(
        self, requests: Sequence[Request]
    ) -> tuple[list[Request], dict[str, list[int]], list[tuple[Request, int]]]:
        """The requests that fit the model, the tokens of each by its key, and the others with their lengths."""
        refuse_strangers(requests, tuple(self.serving.adapters))
        read = {request.key: self.reader.tokens(request) for request in requests}
        long = {request.key: len(read[request.key]) + request.max_new_tokens > self.context for request in requests}
        unfit = [(request, len(read[request.key])) for request in requests if long[request.key]]
        return [request for request in requests if not long[request.key]], read, unfit

    @contextmanager
    def _asked(self, requests: Sequence[Request], tokens: Mapping[str, list[int]]) -> Iterator["VllmClient"]:
        """A client of the server; a server that dies meanwhile is named as the cause, with its last lines."""
        length = max(len(tokens[request.key]) + request.max_new_tokens for request in requests)
        try:
            with self.server.of(self, length) as server:
                try:
                    yield VllmClient(self, server, tokens)
                except NoReplyError as fault:
                    if server.ends_within(PATIENCE):  # a dying server still answers, with errors
                        raise server.ended() from fault
                    raise
        except ModelError:  # the run ends: its server ends first
            self.release()
            raise


class VllmOrHere:
    """`engine: auto` where there is a vLLM: it answers, unless it does not know the model; then an engine here does."""

    def __init__(self, served: "VllmGenerator", here: Generator) -> None:
        self.served, self.here = served, here
        self._unserved = False

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once."""
        answered = set()
        if not self._unserved:
            try:
                for reply in self.served.generate(requests):
                    answered.add(reply.key)
                    yield reply
            except ModelError as error:
                self._give_up(error)
        if left := [request for request in requests if request.key not in answered]:  # else nothing is loaded
            yield from self.here.generate(left)

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer all requests at the same time, piece by piece."""
        answered = set()
        if not self._unserved:
            try:
                for delta in self.served.stream(requests):
                    answered.add(delta.key)
                    yield delta
            except ModelError as error:
                self._give_up(error)
        if left := [request for request in requests if request.key not in answered]:  # else nothing is loaded
            yield from self.here.stream(left)

    def release(self) -> None:
        """End the server, and forget the model that is here."""
        self.served.release()
        release_model(self.here)

    @property
    def engine(self) -> str:
        """Name and version of the engine that answers now."""
        return engine_of(self.here if self._unserved else self.served)

    def choose(self) -> str:
        """Start the server, or load the model where vLLM does not know it; return the engine that answers."""
        if not self._unserved:
            try:
                with self.served.server.of(self.served, 1):
                    return self.engine
            except ModelError as error:
                self._give_up(error)
        return choose_engine(self.here)

    def _give_up(self, error: ModelError) -> None:
        if error.code != "generation.vllm-unknown-model":
            raise error
        sys.stderr.write(
            f"engine: not vllm, because it does not know the model: {str(error).splitlines()[-1].strip()}\n"
        )
        self._unserved = True


class VllmClient(EndpointGenerator):
    """A client of our own server: prompts go as tokens, and replies are read from tokens, as the local engine does."""

    opener = DIRECT

    def __init__(self, owner: VllmGenerator, server: Server, tokens: Mapping[str, list[int]]) -> None:
        options = {"stop_token_ids": sorted(owner.ends), "return_token_ids": True}
        super().__init__(
            server.url,
            key=server.key,
            num_concurrent=owner.num_concurrent,
            tries=TRIES,
            timeout=SILENCE,
            options=options,
        )
        self.owner, self.server, self.tokens = owner, server, tokens

    def parts(self, requests: Sequence[Request]) -> list[tuple[AbstractContextManager[Any], list[Request]]]:
        """What may be asked at the same time, with the lock to hold meanwhile: all, or the base before its adapters."""
        if self.server.mixes or not self.server.serving.adapters:
            return [(nullcontext(), list(requests))]
        base = [request for request in requests if request.model == BASE]
        others = [request for request in requests if request.model != BASE]
        return [(self.server.turn, part) for part in (base, others) if part]

    def _rest(self, attempt: int, wanted: str | None) -> None:
        """Wait before the next attempt; there is none where the server has ended."""
        if self.server.ends_within(0.5 * 2**attempt):
            raise self.server.ended()

    def prompt(self, request: Request) -> str | list[int]:
        """The tokens of the prompt: a mark in a question stays text, which vLLM's own reading would not keep."""
        return self.tokens[request.key]

    def stops(self, request: Request) -> Sequence[str]:
        """The stop strings for the server; of a chat they are looked for here, where thinking and reply are apart."""
        return () if self.owner.reader.chat(request) else super().stops(request)

    def _stream_one(self, request: Request) -> collections.abc.Generator[Delta]:
        if self.owner.reader.chat(request) is None:
            yield from super()._stream_one(request)
            return
        writing = self._decoder(request)
        for choice in self._choices(request):
            for token in choice.get("token_ids") or ():
                if writing.finished is None:
                    writing.take(int(token))
            if writing.finished is None and (news := writing.news()):
                yield news
            self._finish(writing, choice.get("finish_reason"))
        self._finish(writing, "stop")
        yield writing.last(streamed=True)

    def completed(self, request: Request, choice: Mapping[str, Any], usage: Mapping[str, Any]) -> Reply:
        """Read the reply off its tokens, by the local engine's rules of stops and ends."""
        writing = self._decoder(request)
        for token in choice["token_ids"]:
            if writing.finished is None:
                writing.take(int(token))
        self._finish(writing, choice.get("finish_reason") or "stop")
        return writing.reply()

    def _decoder(self, request: Request) -> Decoder:
        return Decoder.begin(self.owner.reader, request, len(self.tokens[request.key]), self.owner.ends)

    def _finish(self, writing: Decoder, reason: str | None) -> None:
        if writing.finished is None and reason:
            writing.finished = reason if reason in ("length", "repetition") else "stop"  # type: ignore[assignment]
