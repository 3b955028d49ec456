"""The maker behind an address: any server with OpenAI's protocol (vLLM with adapters, `transformers serve`, GPT)."""

import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from typing import Any

from medllm.errors import ModelError
from medllm.generation.requests import Delta, FinishReason, PromptTooLongError, Reply, Request, UnheardError

Prices = Mapping[str, tuple[float, float]]
TOO_LONG = ("context length", "maximum context", "too long", "max_model_len", "longer than")
TRIED_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504}
STOPS_ALLOWED = 4
LONGEST_WAIT = 60.0


class Pace:
    """Lets requests through one by one, no faster than the server allows, and holds all of them when it says wait."""

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
    """Asks a server; faults that pass are waited out, those that do not are told with the server's own words."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        chat: bool = False,
        prices: Prices | None = None,
        at_once: int = 16,
        per_minute: float | None = None,
        tries: int = 6,
        timeout: float = 600.0,
    ) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self.chat = chat
        self.prices = prices or {}
        self.at_once = at_once
        self.tries = tries
        self.timeout = timeout
        self.pace = Pace(per_minute)

    def generate(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Answer every request once, many at a time, each as it becomes ready."""
        with ThreadPoolExecutor(self.at_once) as pool:
            waiting: list[Future[Reply]] = [pool.submit(self._ask, request) for request in requests]
            try:
                for done in as_completed(waiting):
                    yield done.result()
            finally:
                for one in waiting:
                    one.cancel()

    def stream(self, requests: Sequence[Request]) -> Iterator[Delta]:
        """Answer one request after the other, piece by piece as the server sends it."""
        for request in requests:
            text = ""
            reason: str | None = None
            with self._open(request, streamed=True) as response:
                for line in response:
                    if not line.startswith(b"data:") or line.strip() == b"data: [DONE]":
                        continue
                    choices = json.loads(line[5:]).get("choices") or [{}]
                    piece = self._text(choices[0])
                    reason = choices[0].get("finish_reason") or reason
                    text += piece
                    if piece:
                        yield Delta(request.key, piece)
            yield Delta(request.key, "", self._reply(request, text, reason, {}))

    def _ask(self, request: Request) -> Reply:
        try:
            with self._open(request, streamed=False) as response:
                answer = json.loads(response.read())
        except PromptTooLongError:
            return self._reply(request, "", "too_long", {})
        choice = answer["choices"][0]
        return self._reply(request, self._text(choice), choice.get("finish_reason"), answer.get("usage") or {})

    def _open(self, request: Request, *, streamed: bool) -> AbstractContextManager[Any]:
        """Send until it is heard: with patience for a busy server, none for a wrong question."""
        for attempt in range(1, self.tries + 1):
            self.pace.wait()
            try:
                opened: AbstractContextManager[Any] = urllib.request.urlopen(  # http(s) only: see _call
                    self._call(request, streamed=streamed), timeout=self.timeout
                )
                return opened
            except urllib.error.HTTPError as fault:
                told = fault.read().decode("utf-8", "replace")[:300]
                if fault.code == 400 and any(words in told.lower() for words in TOO_LONG):
                    raise PromptTooLongError from None
                if fault.code not in TRIED_AGAIN or attempt == self.tries:
                    raise UnheardError(
                        f"{self.url} answered {fault.code} for `{request.model}`: {told}", fault.code
                    ) from None
                self._rest(attempt, fault.headers.get("Retry-After"))
            except (urllib.error.URLError, TimeoutError, ConnectionError) as fault:
                if attempt == self.tries:
                    raise UnheardError(
                        f"{self.url} cannot be reached ({getattr(fault, 'reason', fault)}). Is the server up?"
                    ) from None
                self._rest(attempt, None)
        raise AssertionError("the last attempt returns or raises")

    def _rest(self, attempt: int, wanted: str | None) -> None:
        """Wait as long as the server asks, else twice as long each time; everybody waits, not only this request."""
        seconds = float(wanted) if wanted and wanted.replace(".", "", 1).isdigit() else 0.5 * 2**attempt
        self.pace.hold(min(seconds, LONGEST_WAIT))
        time.sleep(min(seconds, LONGEST_WAIT) * random.uniform(1.0, 1.1))

    def _call(self, request: Request, *, streamed: bool) -> urllib.request.Request:
        """Word the request as the protocol wants it; the key stands in a header and nowhere else."""
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": request.max_new_tokens,
            "temperature": request.temperature,
            "stream": streamed,
        }
        if request.temperature:
            body |= {"top_p": request.top_p, "seed": request.seed % 2**31}
        if request.stop:
            body["stop"] = list(request.stop[:STOPS_ALLOWED])
        if self.chat:
            body["messages"] = list(request.messages) or [{"role": "user", "content": request.text}]
        else:
            body["prompt"] = request.text
        address = f"{self.url}/chat/completions" if self.chat else f"{self.url}/completions"
        if not address.startswith(("http://", "https://")):
            raise ModelError(f"{self.url}: no address of a server. Write http://HOST:PORT/v1.")
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return urllib.request.Request(address, json.dumps(body).encode(), headers)

    def _text(self, choice: Mapping[str, Any]) -> str:
        message = choice.get("delta") or choice.get("message") or {}
        return str(choice.get("text") or message.get("content") or "")

    def _reply(self, request: Request, text: str, reason: str | None, usage: Mapping[str, Any]) -> Reply:
        """The reply with its cost, cut before the first stop string whether or not the server did so."""
        ends = [at for stop in request.stop if (at := text.find(stop)) >= 0]
        asked, said = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        price = self.prices.get(request.model, (0.0, 0.0))
        kept: FinishReason = "length" if reason == "length" and not ends else "stop"
        return Reply(
            key=request.key,
            text=text[: min(ends)] if ends else text,
            finish_reason="too_long" if reason == "too_long" else kept,
            prompt_tokens=asked,
            completion_tokens=said,
            cost=(asked * price[0] + said * price[1]) / 1_000_000,
        )
