"""The maker behind an address: any server with OpenAI's protocol (vLLM with adapters, `transformers serve`, GPT)."""

import http.client
import json
import random
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import closing
from queue import Empty, Queue, SimpleQueue
from typing import Any, TypeVar

from medllm.errors import ModelError
from medllm.generation.openai_api import (
    LATER_NAMES,
    NO_TEMPLATE,
    TOO_LONG,
    Ending,
    choice_of,
    choice_of_event,
    read_reply,
    reason_of,
    refused_key,
    response_request,
    text_of,
    thinking_of,
    wants_responses,
)
from medllm.generation.types import Delta, NoReplyError, Reply, Request
from medllm.recipe.servers import for_prompt

Prices = Mapping[str, tuple[float, float]]
TRIED_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
STOPS_ALLOWED = 4
LONGEST_WAIT = 60.0
LONGEST_WORD = 300
"""Characters of a server's own message that are shown."""
DONE = b"data: [DONE]"
BROKEN_OFF = (OSError, http.client.HTTPException)
T = TypeVar("T")


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A handler that reports a redirect and does not follow it: the key would go with the request."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Follow no redirect, wherever it leads."""


class _PromptTooLongError(Exception):
    """The server reports that the prompt does not fit."""


OPENER = urllib.request.build_opener(NoRedirect)


class RateLimit:
    """A limiter that sends requests one by one, no faster than the server allows; holds all when it asks to wait."""

    def __init__(self, per_minute: float | None) -> None:
        self.gap = 60.0 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._next = 0.0

    def wait(self) -> None:
        """Return when it is this request's turn."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self.gap
        if turn > now:
            time.sleep(turn - now)

    def hold(self, seconds: float) -> None:
        """Let nothing through for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class EndpointGenerator:
    """A client of a server: waits out temporary faults, and reports lasting ones in the server's own words."""

    opener = OPENER

    def __init__(  # noqa: PLR0913  each a way to ask a server
        self,
        url: str,
        *,
        key: str | None = None,
        chat: bool = False,
        or_text: bool = False,
        responses: bool = False,
        prices: Prices | None = None,
        num_concurrent: int = 16,
        per_minute: float | None = None,
        tries: int = 6,
        timeout: float = 600.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self.chat = chat
        self.or_text = or_text
        """Whether a model without a chat template is asked to complete the text instead."""
        self.responses = responses
        """Whether chat models are asked by the Responses API."""
        self.without_chat: dict[str, str] = {}
        """The models that the server has no chat completions for, with its answer: they are asked by `/responses`."""
        self.prices = prices or {}
        self.num_concurrent = num_concurrent
        self.tries = tries
        self.timeout = timeout
        self.options = dict(options or {})
        """Further keys of each request; None leaves a key out."""
        self.limit = RateLimit(per_minute)
        self.renamed: dict[str, dict[str, str | None]] = {}
        """The keys that a model's server refused, each with the key to send instead, or None to send none."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once, many at a time, each as it becomes ready."""
        with ThreadPoolExecutor(self.num_concurrent) as pool:
            waiting: list[Future[Reply]] = [pool.submit(self._ask, request) for request in requests]
            try:
                for done in as_completed(waiting):
                    yield done.result()
            finally:
                for call in waiting:
                    call.cancel()

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer many requests at a time, piece by piece; a request that fails ends with its error, alone."""
        waiting: SimpleQueue[Request] = SimpleQueue()
        for request in requests:
            waiting.put(request)
        pieces: Queue[Delta] = Queue()
        closed = threading.Event()
        for _ in range(min(self.num_concurrent, len(requests))):
            # Daemons: a program that was interrupted must not wait for a silent server.
            threading.Thread(target=self._stream_each, args=(waiting, pieces, closed), daemon=True).start()
        unfinished = len(requests)
        try:
            while unfinished:
                delta = pieces.get()
                unfinished -= delta.reply is not None or delta.error is not None
                yield delta
        finally:
            closed.set()

    def _stream_each(self, waiting: SimpleQueue[Request], pieces: Queue[Delta], closed: threading.Event) -> None:
        """Stream waiting requests one after the other, until none is left or the stream is closed."""
        while not closed.is_set():
            try:
                request = waiting.get_nowait()
            except Empty:
                return
            try:
                with closing(self._stream_one(request)) as deltas:
                    for delta in deltas:
                        pieces.put(delta)
                        if closed.is_set():
                            return
            except Exception as fault:
                pieces.put(Delta(request.key, "", error=fault))

    def _stream_one(self, request: Request) -> Generator[Delta]:
        """Yield the pieces of one reply as the server sends them, and the whole reply last."""
        text = thought = ""
        reason: str | None = None
        usage: Mapping[str, Any] = {}
        try:
            for choice in self._choices(request):
                piece, thinking = text_of(choice), thinking_of(choice)
                reason, usage = reason_of(choice) or reason, choice.get("usage") or usage
                text, thought = text + piece, thought + thinking
                if piece or thinking:
                    yield Delta(request.key, piece, reasoning=thinking)
        except _PromptTooLongError:
            reason = "too_long"
        yield Delta(request.key, "", self._reply(request, text, reason, usage, thought))

    def _choices(self, request: Request) -> Iterator[Mapping[str, Any]]:
        """Each event of a streamed answer; one that breaks off is not asked again, for its beginning was given out."""
        with closing(self._read_response(request, streamed=True, take=lambda response: response)) as response:
            try:
                ended = False
                for line in response:
                    if line.strip() == DONE:
                        ended = True
                    elif line.startswith(b"data:"):
                        choice = choice_of_event(json.loads(line[5:]))
                        ended = ended or bool(choice.get("finish_reason"))
                        yield choice
                if not ended:
                    raise EOFError("the stream has no end")
            except (*BROKEN_OFF, EOFError, ValueError, AttributeError) as fault:
                raise NoReplyError(
                    "generation.answer-broken-off",
                    f"{self.url} broke off its answer for `{request.model}` ({fault}). Ask again.",
                ) from None

    def _ask(self, request: Request) -> Reply:
        try:
            whole = self._read_response(request, streamed=False, take=_whole)
        except _PromptTooLongError:
            return self._reply(request, "", "too_long", {})
        try:
            choice, usage = choice_of(json.loads(whole))
            reply = self.completed(request, choice, usage)
        except (ValueError, LookupError, TypeError, AttributeError):
            body = self._redacted(whole)
            raise NoReplyError(
                "generation.not-a-completion",
                f"{self.url} does not answer for `{request.model}` as OpenAI's API does. Check the address, which ends "
                f"in /v1. The answer: {body}",
            ) from None
        return self._ask(request) if self._stopped_in_thinking(request, reply) else reply

    def _stopped_in_thinking(self, request: Request, reply: Reply) -> bool:
        """Note, once, that a model's thinking met a stop string, so that it is asked without; whether it did."""
        known = self.renamed.setdefault(request.model, {})
        sent = self.chat and bool(self.stops(request)) and "stop" not in known and not self._by_responses(request.model)
        if not sent or reply.finish_reason != "stop" or reply.text or not reply.reasoning:
            return False
        known["stop"] = None
        sys.stderr.write(
            f"medllm: {self.url} ended the thinking of `{request.model}` at a stop string: none is sent any more\n"
        )
        return True

    def _read_response(self, request: Request, *, streamed: bool, take: Callable[[Any], T]) -> T:
        """Send until the server replies: retry a busy or broken server, never a wrong request."""
        attempt = 1
        while True:
            self.limit.wait()
            sent = self._body(request, streamed=streamed)
            try:
                return take(self.opener.open(self._call(sent), timeout=self.timeout))
            except urllib.error.HTTPError as fault:
                body = self._redacted(fault.read())
                if fault.code == 400 and any(words in body.lower() for words in TOO_LONG):
                    raise _PromptTooLongError from None
                if self._adapts(request.model, fault.code, sent, body):  # each does so once, so this ends
                    continue
                if fault.code not in TRIED_AGAIN or attempt == self.tries:
                    raise NoReplyError(
                        "generation.error-answered",
                        f"{self.url} answered {fault.code} for `{request.model}`. Check the model's name and the key. "
                        f"The answer: {(fault.code == 404 and self.without_chat.get(request.model)) or body}",
                        status=fault.code,
                    ) from None
                self._rest(attempt, fault.headers.get("Retry-After"))
            except BROKEN_OFF as fault:
                if attempt == self.tries:
                    raise NoReplyError(
                        "generation.unreachable",
                        f"{self.url} cannot be reached ({getattr(fault, 'reason', fault)}). Check that the server runs "
                        "and that the address is right.",
                    ) from None
                self._rest(attempt, None)
            attempt += 1

    def _adapts(self, model: str, code: int, sent: Mapping[str, Any], body: str) -> bool:
        """Learn from a refusal how this model's server can be asked; whether it can be asked differently."""
        if code == 400 and (self._learn(model, sent, body) or self._gives_up_chat(model, sent, body)):
            return True
        if "messages" not in sent or not wants_responses(code, body):
            return False
        if model not in self.without_chat:
            sys.stderr.write(f"medllm: {self.url} has no chat completion for `{model}`: it is asked by /responses\n")
        self.without_chat[model] = body
        return True

    def _by_responses(self, model: str) -> bool:
        return self.chat and (self.responses or model in self.without_chat)

    def changes(self, model: str) -> tuple[str, ...]:
        """Return what was sent otherwise than asked for, because this model's server refused it."""
        renamed = self.renamed.get(model, {}).items()
        left_out = [f"{key} as {other}" if other else f"no {key}" for key, other in renamed]
        if model in self.without_chat:
            left_out.append("by /responses")
        return (*left_out, *(["no chat"] if self.or_text and not self.chat else []))

    def _learn(self, model: str, sent: Mapping[str, Any], body: str) -> bool:
        """Note a key that the server refuses, and report it once; whether there is such a key."""
        key = refused_key(sent, body)
        if key is None:
            return False
        other = LATER_NAMES.get(key)
        known = self.renamed.setdefault(model, {})
        if key not in known:
            known[key] = other
            what = f"`{other}` is sent instead" if other else "it is left out, so the server's own default holds"
            sys.stderr.write(f"medllm: {self.url} refuses `{key}` for `{model}`: {what}\n")
        return True

    def _gives_up_chat(self, model: str, sent: Mapping[str, Any], body: str) -> bool:
        """Complete text from now on, where a model has no chat template and that is allowed; whether it is so."""
        if "messages" not in sent or not self.or_text or not NO_TEMPLATE.search(body):
            return False
        if self.chat:  # else another request has noted it meanwhile
            sys.stderr.write(f"medllm: {self.url} has no chat template for `{model}`: it is asked to complete text\n")
        self.chat = False
        return True

    def _redacted(self, body: bytes) -> str:
        """Decode the beginning of a server's message without the key, which some servers give back."""
        text = body.decode("utf-8", "replace")
        return (text.replace(self._key, "***") if self._key else text)[:LONGEST_WORD]

    def _rest(self, attempt: int, wanted: str | None) -> None:
        """Wait as long as the server asks, else twice as long each time; everybody waits, not only this request."""
        seconds = float(wanted) if wanted and wanted.replace(".", "", 1).isdigit() else 0.5 * 2**attempt
        self.limit.hold(min(seconds, LONGEST_WAIT))
        time.sleep(min(seconds, LONGEST_WAIT) * random.uniform(1.0, 1.1))

    def _body(self, request: Request, *, streamed: bool) -> dict[str, Any]:
        """Write the request as the protocol wants it, without the keys that this model's server refused."""
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "stream": streamed,
        }
        if request.temperature:
            body |= {"top_p": request.top_p, "seed": request.seed % 2**31}
        if stops := self.stops(request):
            body["stop"] = list(stops)
        if self.chat:
            body["messages"] = list(request.messages) or [{"role": "user", "content": request.text}]
            if request.chat_template_kwargs:
                body["chat_template_kwargs"] = dict(request.chat_template_kwargs)
        else:
            body["prompt"] = self.prompt(request)
        options = for_prompt(self.options, request.style)
        body = {key: value for key, value in {**body, **options}.items() if value is not None}
        if self._by_responses(request.model):
            body = response_request(body)
        for key, other in self.renamed.get(request.model, {}).items():
            value = body.pop(key, None)
            if other and value is not None:
                body.setdefault(other, value)
        return body

    def _call(self, body: Mapping[str, Any]) -> urllib.request.Request:
        """Build the call; the key is in a header and nowhere else."""
        kind = "responses" if "input" in body else "chat/completions" if "messages" in body else "completions"
        address = f"{self.url}/{kind}"
        if not address.startswith(("http://", "https://")):
            raise ModelError("generation.not-an-address", f"{self.url}: is not an address. Write http://HOST:PORT/v1.")
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return urllib.request.Request(address, json.dumps(body).encode(), headers)

    def prompt(self, request: Request) -> str | list[int]:
        """Return a request's prompt as the server gets it, for models that complete text."""
        return request.text

    def stops(self, request: Request) -> Sequence[str]:
        """Return the stop strings for the server; none where they might end the thinking instead of the reply."""
        return () if self.chat and request.thinks else request.stop[:STOPS_ALLOWED]

    def completed(self, request: Request, choice: Mapping[str, Any], usage: Mapping[str, Any]) -> Reply:
        """Return the reply that a whole answer holds."""
        return self._reply(request, text_of(choice), reason_of(choice), usage, thinking_of(choice))

    def _reply(
        self, request: Request, text: str, reason: str | None, usage: Mapping[str, Any], thought: str = ""
    ) -> Reply:
        price = self.prices.get(request.model, (0.0, 0.0))
        return read_reply(request, Ending(text, thought, reason), usage, chat=self.chat, price=price)


def _whole(response: Any) -> bytes:  # noqa: ANN401  an http.client.HTTPResponse
    with response:
        read: bytes = response.read()
    return read
