"""A server with OpenAI's chat protocol that answers with given messages, and refuses keys that it does not know."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer(ThreadingHTTPServer):
    """Answers each request with the next message, the last one again and again; a function of the body may decide."""

    daemon_threads = True

    def __init__(self, *messages, refuses=None):
        self.messages, self.refuses = list(messages), refuses or {}
        self.seen, self.refused = [], []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def close(self):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            unknown = {key: body[key] for key in self.server.refuses if key in body}
            if unknown:
                self.server.refused.append(unknown)
                (key,) = unknown
                self.send(400, {"error": {"message": f"{self.server.refuses[key]}: '{key}'"}})
                return
            self.server.seen.append(body)
            messages = self.server.messages
            given = messages.pop(0) if len(messages) > 1 else messages[0]
        given = dict(given(body) if callable(given) else given)
        usage = given.pop("usage", {"prompt_tokens": 9, "completion_tokens": 5})
        reason = given.pop("finish_reason", "stop")
        if not body.get("stream"):
            choice = {"message": given, "text": given["content"], "finish_reason": reason}
            self.send(200, {"choices": [choice], "usage": usage})
            return
        events = [{"delta": {name: part}} for name in sorted(given, reverse=True) for part in given[name] or ""]
        events.append({"delta": {}, "finish_reason": reason})
        lines = "".join(f"data: {json.dumps({'choices': [event]})}\n\n" for event in events) + "data: [DONE]\n\n"
        self.send(200, lines)

    def send(self, code, what):
        content = (what if isinstance(what, str) else json.dumps(what)).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass
