"""Servers on loopback that take JSON: the shell that fake servers share, and one with OpenAI's chat protocol."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class JsonServer(ThreadingHTTPServer):
    """A server on a free port that answers from its start to `close`; `handler` decides what."""

    daemon_threads = True
    handler: type[BaseHTTPRequestHandler]

    def __init__(self):
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), self.handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def close(self):
        self.shutdown()
        self.server_close()


class JsonHandler(BaseHTTPRequestHandler):
    """Reads the body of a request, and sends JSON, or text that is given as it is."""

    def read(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def send(self, code, what, headers=None):
        content = what if isinstance(what, bytes) else (what if isinstance(what, str) else json.dumps(what)).encode()
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def as_events(events):
    """Server-sent events, each after its type where it has one."""
    kinds = [f"event: {event['type']}\n" if "type" in event else "" for event in events]
    return "".join(f"{kind}data: {json.dumps(event)}\n\n" for kind, event in zip(kinds, events, strict=True))


class ChatHandler(JsonHandler):
    def do_POST(self):
        body, server = self.read(), self.server
        if fault := server.absent.get(self.path):
            server.refused.append(self.path)
            self.send(404, {"error": {"message": fault}})
            return
        with server.lock:
            unknown = {key: body[key] for key in server.refuses if key in body}
            if unknown:
                server.refused.append(unknown)
                (key,) = unknown
                self.send(400, {"error": {"message": f"{server.refuses[key]}: '{key}'"}})
                return
            server.seen.append(body)
            given = server.messages.pop(0) if len(server.messages) > 1 else server.messages[0]
        given = dict(given(body) if callable(given) else given)
        answer = response if self.path.endswith("/responses") else completion
        self.send(200, answer(given, streamed=body.get("stream")))


class ChatServer(JsonServer):
    """Answers each request with the next message, the last one again and again; a function of the body may decide.

    The same message is a chat completion, a completion of text, or a response of OpenAI's Responses API, by the path.
    """

    handler = ChatHandler

    def __init__(self, *messages, refuses=None, absent=None):
        self.messages, self.refuses = list(messages), refuses or {}
        self.absent = {f"/v1{path}": fault for path, fault in (absent or {}).items()}
        self.seen, self.refused = [], []
        super().__init__()


def completion(given, *, streamed):
    """A chat completion, or a completion of text, as one answer or as events."""
    usage = given.pop("usage", {"prompt_tokens": 9, "completion_tokens": 5})
    reason = given.pop("finish_reason", "stop")
    if not streamed:
        return {"choices": [{"message": given, "text": given["content"], "finish_reason": reason}], "usage": usage}
    events = [{"delta": {name: part}} for name in sorted(given, reverse=True) for part in given[name] or ""]
    events.append({"delta": {}, "finish_reason": reason})
    return as_events([{"choices": [event]} for event in events]) + "data: [DONE]\n\n"


def response(given, *, streamed):
    """A response of OpenAI's Responses API: output items, usage and why it is incomplete, as an answer or as events."""
    reason, thought = given.get("finish_reason", "stop"), given.get("reasoning")
    thinking = {"type": "reasoning", "id": "rs_1", "summary": []}
    if thought:
        thinking["summary"] = [{"type": "summary_text", "text": thought}]
    if given.get("reasoning_content"):
        thinking["content"] = [{"type": "reasoning_text", "text": given["reasoning_content"]}]
    parts = [{"type": "output_text", "text": given["content"], "annotations": []}] if given.get("content") else []
    parts += [{"type": "refusal", "refusal": given["refusal"]}] if given.get("refusal") else []
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": parts}
    whole = {
        "id": "resp_1",
        "object": "response",
        "status": given.get("status", "completed" if reason == "stop" else "incomplete"),
        "error": given.get("error"),
        "incomplete_details": None if reason == "stop" else {"reason": reason},
        "output": [thinking, *([message] if parts else [])],
        "usage": given.get("usage", {"input_tokens": 9, "output_tokens": 5, "output_tokens_details": {}}),
    }
    if not streamed:
        return whole
    events = [{"type": "response.created", "response": {**whole, "status": "in_progress", "output": []}}]
    kinds = {"reasoning_content": "reasoning_text", "reasoning": "reasoning_summary_text", "content": "output_text"}
    kinds["refusal"] = "refusal"
    for name, kind in kinds.items():
        events += [{"type": f"response.{kind}.delta", "delta": piece} for piece in given.get(name) or ""]
        if given.get(name):
            events.append({"type": f"response.{kind}.done", "text": given[name]})
    return as_events([*events, {"type": f"response.{whole['status']}", "response": whole}])
