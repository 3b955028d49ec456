"""A `vllm` program of the standard library, with a fault on request: what its life does to a run is tried with it."""

import sys
from pathlib import Path

PROGRAM = '''
import json, os, signal, subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULT = os.environ.get("FAKE_FAULT", "")
NOTES = os.environ["FAKE_NOTES"]
words = sys.argv[1:]
value = lambda option: words[words.index(option) + 1]
names = ["base"]
if "--lora-modules" in words:
    for word in words[words.index("--lora-modules") + 1 :]:
        names.append(json.loads(word)["name"] if word.startswith("{") else word.split("=")[0])


def note(kind, what):
    with open(NOTES, "a") as file:
        file.write(json.dumps([kind, what]) + "\\n")


note("start", {"pid": os.getpid(), "words": words, "key": os.environ["VLLM_API_KEY"], "environment": dict(os.environ)})
if FAULT == "dies at start":
    print("INFO loading")
    print("RuntimeError: the wheel does not fit, key " + os.environ["VLLM_API_KEY"])
    sys.exit(3)
if FAULT == "engine dies at start":
    print("(EngineCore pid=7) ValueError: the part does not fit")
    print("(APIServer pid=6) EngineDeadError: EngineCore encountered an issue. See stack trace (above).")
    for number in range(40):
        print(f' - leaked function "get_{number}"')
        print("resource_tracker.py:254: UserWarning: resource_tracker: There appear to be 1 leaked semaphore objects")
    print("INFO shutting down\\n" * 20)
    sys.exit(0)
if FAULT == "unknown model":
    print("ValueError: Model architectures ['NewForCausalLM'] are not supported for now. Supported: [...]")
    sys.exit(1)
if FAULT == "port taken" and sum('"start"' in line for line in open(NOTES)) < 3:
    print("OSError: [Errno 98] error while attempting to bind: address already in use")
    sys.exit(1)
if FAULT == "never ready":
    time.sleep(600)
if FAULT == "ignores SIGTERM":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stay = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", stay])
    note("child", child.pid)
if FAULT == "slow start":
    print("INFO loading slowly", flush=True)
    time.sleep(1)
lock, count = threading.Lock(), 0


adapters_asked = 0


def in_company(model):
    """Whether an adapter is asked now: a server with the fault then answers for the base as for it."""
    global adapters_asked
    adapters_asked += model != "base"
    time.sleep(0.1)
    found = adapters_asked > 0
    adapters_asked -= model != "base"
    return found


def reply(model, prompt, most, stops, bias):
    """Tokens that depend on the prompt and the model alone."""
    index = 0 if FAULT == "idle adapter" else names.index(model)
    tokens = []
    for step in range(most):
        forced = max(bias, key=bias.get) if bias else None
        token = int(forced) if forced else 3 + (sum(prompt) * 7 + index * 31 + step * 13) % 300
        tokens.append(token)
        if token in stops and FAULT != "no end":
            return tokens, "stop"
    return tokens, "length"


class Handler(BaseHTTPRequestHandler):
    def send(self, code, what):
        body = json.dumps(what).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/version":
            return self.send(200, {"version": "0.32.0"})
        if self.headers["Authorization"] != "Bearer " + os.environ["VLLM_API_KEY"]:
            return self.send(401, {"error": "Unauthorized"})
        listed = names[:-1] if FAULT == "lacks a model" else names
        self.send(200, {"data": [{"id": name} for name in listed]})

    def do_POST(self):
        global count
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != "Bearer " + os.environ["VLLM_API_KEY"]:
            return self.send(401, {"error": "Unauthorized"})
        prompts = body["prompt"] if isinstance(body["prompt"][0], list) else [body["prompt"]]
        choices, company = [], FAULT == "mixes rows" and in_company(body["model"])
        for number, prompt in enumerate(prompts):
            how = (body["max_tokens"], body.get("stop_token_ids", ()), body.get("logit_bias"))
            model = names[-1] if company else body["model"]
            tokens, reason = reply(model if body["model"] == "base" else body["model"], prompt, *how)
            scores = {"token_logprobs": [-float(token) for token in tokens]}
            one = {"index": number, "text": str(tokens), "token_ids": tokens, "finish_reason": reason}
            choices.append({**one, "logprobs": scores})
        with lock:
            if body.get("return_token_ids"):
                count += 1
                if FAULT == "dies half-way" and count > 20:
                    print("RuntimeError: the engine died", flush=True)
                    os._exit(9)
                note("asked", [body["model"], prompts[0]])
        self.send(200, {"choices": choices, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer((value("--host"), int(value("--port"))), Handler)
server.daemon_threads = True
server.serve_forever()
'''


def write_fake_vllm(folder: Path) -> Path:
    """Write the program; its environment variables FAKE_FAULT and FAKE_NOTES name a fault and a file for its notes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "vllm"
    path.write_text(f"#!{sys.executable} -IS\n{PROGRAM}", "utf-8")
    path.chmod(0o755)
    return path
