"""A vLLM server of the run's own, from its start to its end: waited for, checked, and gone with the run."""

import json
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from medllm.errors import ModelError
from medllm.generation.endpoint import BROKEN_OFF, NoRedirect
from medllm.generation.serving import Serving, command, environment
from medllm.generation.types import BASE
from medllm.processes import PATIENCE, start_guarded
from medllm.weights.checkpoint import Checkpoint

LOOK, REPORT = 0.2, 30.0
"""Seconds between two looks at a server that starts, and between two lines of progress."""
GRACE = 30.0
"""Seconds that a server which answers may take to list all of its models."""
TRIES = 3
LAST_LINES, LAST_BYTES = 12, 100_000
LINE = 300
PORT_TAKEN = re.compile(r"address already in use", re.IGNORECASE)
UNKNOWN = re.compile(r"(architecture|model type).*(not supported|not recognize)|not recognize this architecture", re.I)
FULL = re.compile(
    r"out of memory|No available memory for the cache|KV cache.*(needed|larger)|Free memory on device", re.I
)
CAUSE = re.compile(r"\b(?!EngineDeadError)\w*(Error|Exception)\b: (?!.*Engine core initialization failed)")
"""What names a cause; the processes that only lost another one give an error as well."""
AFTER_THE_END = re.compile(
    r"nanobind|leaked (function|semaphore|shared_memory|type|instance)|skipped remainder|warnings\.warn"
)
"""What libraries print when a process has ended, whatever the cause was."""
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}), NoRedirect)
"""Our own server is on this machine: no proxy is asked for it."""
CHECKED = ("患者は発熱と咳嗽を訴えた。", "The capital of Japan is", "1 + 1 =")
"""Prompts, besides that of the tokenizer's check, on which each adapter must change something."""
COMPANY = 4
"""How often the base is asked while its adapters are."""
FORCED = 100
"""What is added to the score of an end mark, so that the next token is that mark."""


class Server:
    """A running vLLM with its address, its key and its log."""

    def __init__(self, serving: Serving, program: Sequence[str], given: Mapping[str, str]) -> None:
        self.serving, self.key = serving, secrets.token_urlsafe(24)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._folder = Path(tempfile.mkdtemp(prefix="medllm-vllm-"))
        self._log = self._folder / "log"
        with self._log.open("wb") as log:
            words, variables = command(program, serving, self.port), environment(given, self.key)
            self.process = start_guarded(words, stdout=log, stderr=subprocess.STDOUT, env=variables)

        self.mixes = False
        """Whether base and adapters may be asked at the same time."""
        self.turn = threading.Lock()
        """For a server that does not mix them: the lock of those that ask one of the two."""

    @property
    def lives(self) -> bool:
        """Whether the process is there."""
        return self.process.poll() is None

    def ends_within(self, seconds: float) -> bool:
        """Wait so long for its end, and return whether it came."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return not self.lives

    def ask(self, path: str, body: Mapping[str, Any] | None = None, timeout: float = 300.0) -> Any:  # noqa: ANN401
        """Send one request and return the JSON of its answer; OSError or ValueError where there is none."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url.removesuffix("/v1") + path, data, headers)
        with DIRECT.open(request, timeout=timeout) as response:
            return json.loads(response.read())

    def log(self) -> list[str]:
        """The last lines that it printed, without the key."""
        with self._log.open("rb") as file:
            file.seek(max(0, self._log.stat().st_size - LAST_BYTES))
            text = file.read().decode("utf-8", "replace").replace(self.key, "***")
        lines = (line.rstrip()[:LINE] for line in text.splitlines() if line.strip())
        return [line for line in lines if not AFTER_THE_END.search(line)]

    def stop(self) -> None:
        """End the process and all that it started, whatever they do."""
        with suppress(OSError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        try:
            self.process.wait(2 * PATIENCE + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def ended(self) -> ModelError:
        """Why it is gone, with the last lines of its log."""
        lines = self.log()
        text = "\n".join(lines)
        cause = [line for line in lines[:-LAST_LINES] if CAUSE.search(line)][-1:]
        shown = "\n".join(f"  {line}" for line in [*cause, *lines[-LAST_LINES:]])
        name = Checkpoint(self.serving.base).name
        code = self.process.poll()
        if UNKNOWN.search(text):
            return ModelError(
                "generation.vllm-unknown-model",
                f"{name}: this version of vLLM does not know the model's architecture. Set `engine: transformers`, or "
                f"give a newer vLLM. The end of its log:\n{shown}",
            )
        if FULL.search(text):
            return ModelError(
                "generation.vllm-no-memory",
                f"{name}: vLLM has too little memory. Lower `max_new_tokens` or `vllm.max_num_seqs`, raise "
                f"`vllm.gpu_memory_utilization` or `vllm.tensor_parallel_size`, or set `quantization: nf4`; replies so "
                f"far are kept. The end of its log:\n{shown}",
            )
        return ModelError(
            "generation.vllm-ended",
            f"{name}: vLLM ended with code {code}. Mend what its log names and run again; replies so far are kept. The "
            f"end of its log:\n{shown}",
        )

    def wait(self) -> None:
        """Return when it lists every model; raise when it ends, lacks one, or is not ready in time."""
        begun, reported, answered = time.monotonic(), 0.0, None
        while self.lives:
            passed = time.monotonic() - begun
            listed = self._listed()
            missing = [name for name in self.serving.names if name not in listed]
            if not missing:
                return
            answered = answered or (passed if listed else None)
            if answered is not None and passed - answered > GRACE:
                raise ModelError(
                    "generation.vllm-model-missing",
                    f"vLLM runs and does not list {', '.join(missing)} (it lists: {', '.join(listed)}). Check the "
                    "adapter with `engine: local`.",
                )
            if passed > self.serving.options.start_timeout:
                last = next(iter(self.log()[-1:]), "none")
                raise ModelError(
                    "generation.vllm-too-slow",
                    f"vLLM is not ready after {passed:.0f} seconds. Raise `vllm.start_timeout` if it only loads. Its "
                    f"last message: {last}",
                )
            if passed - reported >= REPORT:
                reported = passed
                sys.stderr.write(f"vllm: starting for {passed:.0f} s; {next(iter(self.log()[-1:]), '')}\n")
            time.sleep(LOOK)
        raise self.ended()

    def _listed(self) -> list[str]:
        try:
            return [str(model["id"]) for model in self.ask("/v1/models", timeout=5)["data"]]
        except (*BROKEN_OFF, ValueError, LookupError, TypeError):
            return []

    def version(self) -> str:
        """The version that it reports."""
        try:
            return str(self.ask("/version", timeout=5)["version"])
        except (*BROKEN_OFF, ValueError, LookupError, TypeError):
            return "unknown"


def start(serving: Serving, program: Sequence[str], given: Mapping[str, str]) -> Server:
    """Start a server and wait until it is ready; on a port that was taken meanwhile, try another one."""
    for attempt in range(1, TRIES + 1):
        server = Server(serving, program, given)
        try:
            server.wait()
            return server
        except ModelError:
            taken = not server.lives and PORT_TAKEN.search("\n".join(server.log())) is not None
            server.stop()
            if not taken or attempt == TRIES:
                raise
        except BaseException:
            server.stop()
            raise
    raise AssertionError("the last attempt returns or raises")


def _alike_in_company(server: Server, greedy: Callable[[str], list[Any]], plain: list[Any]) -> bool:
    """Whether the base answers the same words while all adapters are asked without a pause."""
    over = threading.Event()

    def keep_asking(name: str) -> None:
        while not over.is_set():
            greedy(name)

    with ThreadPoolExecutor(2 * len(server.serving.adapters)) as pool:
        others = [pool.submit(keep_asking, name) for name in [*server.serving.adapters] * 2]
        try:
            replies = [greedy(BASE) for _ in range(COMPANY)]
        finally:
            over.set()
    for other in others:
        other.result()
    return all([text for text, _ in reply] == [text for text, _ in plain] for reply in replies)


def check(server: Server, prompts: Sequence[Sequence[int]], ends: Sequence[int]) -> None:
    """Refuse a server whose adapters change nothing, or whose replies do not end at an end mark.

    A server that answers for the base otherwise while adapters are asked is noted as one that does not mix them.
    """

    def greedy(model: str) -> list[Any]:
        body = {"model": model, "prompt": prompts, "max_tokens": 8, "temperature": 0, "logprobs": 1, "seed": 0}
        choices = sorted(server.ask("/v1/completions", body)["choices"], key=lambda choice: int(choice["index"]))
        return [(choice["text"], choice["logprobs"]["token_logprobs"]) for choice in choices]

    try:
        plain = greedy(BASE) if server.serving.adapters else []
        for name in server.serving.adapters:
            if greedy(name) == plain:
                raise ModelError(
                    "generation.vllm-adapter-idle",
                    f"vLLM answers as `{name}` just what it answers as the base: the adapter "
                    f"{server.serving.adapters[name]} is not applied, or changes nothing. Ask it with `engine: local`, "
                    "or leave it out.",
                )
        # On a CPU vLLM 0.32.0 adds an adapter's change to the base's rows when both are in one batch.
        server.mixes = bool(server.serving.gpus) and _alike_in_company(server, greedy, plain)
        for end in ends:
            body = {"model": BASE, "prompt": list(prompts[0]), "max_tokens": 4, "temperature": 0}
            body |= {"logit_bias": {str(end): FORCED}, "stop_token_ids": list(ends)}
            reason = server.ask("/v1/completions", body)["choices"][0]["finish_reason"]
            if reason != "stop":
                raise ModelError(
                    "generation.vllm-no-end",
                    f"vLLM goes on after the end mark {end} (finish_reason: {reason}), so replies would run on. Update "
                    "vLLM, or set `engine: local`.",
                )
    except (*BROKEN_OFF, ValueError, LookupError, TypeError) as fault:
        if not server.lives:
            raise server.ended() from fault
        raise ModelError(
            "generation.vllm-bad-answer",
            f"vLLM does not answer the check of its models as OpenAI's API does ({fault}). Update vLLM, or set "
            "`engine: local`.",
        ) from fault
