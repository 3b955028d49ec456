"""Live mode with real models and real servers: adapters on one base, and a server that refuses, hangs or answers."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path

import pytest

from medllm.exam.extract.answer import parse
from medllm.generation.types import Request
from medllm.page.html import words
from medllm.page.live import open_live
from tests import tiny
from tests.browser.conftest import opened, served

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MODELS = ("base", "cpt", "final")
QUESTION = "kakuu/115A1"


@pytest.fixture(scope="module")
def adapters(tmp_path_factory) -> str:
    """The miniature's base with two adapters, as MEDLLM_LIVE describes them."""
    folder = tmp_path_factory.mktemp("models")
    base = Path(str(resources.files("medllm"))) / "miniature" / "base"
    made = {name: str(tiny.make_adapter(folder / name, base, seed=seed)) for seed, name in enumerate(("cpt", "final"))}
    return json.dumps({"base": str(base), "adapters": made, "max_new_tokens": 24})


WRITTEN = """(wanted) => Object.entries(wanted).every(([place, text]) =>
  document.querySelector(place)?.innerText.replace(/\\s+/g, '').includes(text.replace(/\\s+/g, '')))"""
"""Whether every cell shows its text; spaces are the browser's to fold."""


def test_real_adapters_write_what_they_write_alone_and_the_exam_s_parser_judges_it(
    chromium, tmp_path_factory, evaluation_folder, adapters
):
    from medllm.page.loading import read
    from medllm.page.results import Origin

    results = read(evaluation_folder, Origin("x"))
    question = results.question(QUESTION)
    live = open_live(adapters).asking_like(results)
    maker = live.generators["base"][0]
    wanted = {}
    for model in MODELS:
        for style in ("plain", "explain"):
            asked = Request(key="k", model=model, text=live.prompt(question, style), max_new_tokens=24,
                            stop=("\nQuestion:",))  # fmt: skip
            (reply,) = maker.generate([asked])
            wanted[model, style] = reply
    assert len({reply.text for reply in wanted.values()}) > 3, "the adapters say different things"
    for address in served(tmp_path_factory, results=str(evaluation_folder), live=adapters):
        for seen in opened(chromium, address):
            seen.open(f"?q={QUESTION}")
            seen.wait("() => document.querySelector('#card h2')?.innerText === '115A1'")
            seen.page.click("#go")
            cells = {(model, style): f".model:nth-child({place}) .now.reply.{style}"
                     for place, model in enumerate(MODELS, 1) for style in ("plain", "explain")}  # fmt: skip
            seen.wait(WRITTEN, {cells[column]: reply.text for column, reply in wanted.items()})
            seen.wait("() => !document.querySelector('#grid .badge.running, #grid .badge.waiting')")
            for place, model in enumerate(MODELS):
                for style in ("plain", "explain"):
                    reply = wanted[model, style]
                    parsed = parse(reply.text, question, finish_reason=reply.finish_reason)
                    answer = seen.page.locator(f".model:nth-child({place + 1}) .line.{style}.now")
                    assert (parsed.answer or "").upper() in answer.inner_text()
            assert seen.complaints == []


class Hard(BaseHTTPRequestHandler):
    """A server that answers for base, does not know cpt, and falls silent for final."""

    hung = threading.Event()

    def do_POST(self):
        """Answer by the model's name."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["model"] == "cpt":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        if body["model"] == "final":
            self.wfile.flush()
            self.hung.wait(60)
            return
        for text, reason in (("考えた。答え：", None), ("a", "stop")):
            piece = json.dumps({"choices": [{"text": text, "finish_reason": reason}]}, ensure_ascii=False)
            self.wfile.write(f"data: {piece}\n\n".encode())

    def log_message(self, *_):
        """Keep quiet."""


@pytest.mark.parametrize("language", ["ja", pytest.param("en", marks=pytest.mark.long)])
def test_of_a_server_s_six_cells_two_answer_two_are_refused_and_two_hang(
    chromium, tmp_path_factory, evaluation_folder, language
):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hard)
    Hard.hung.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    described = {"url": f"http://127.0.0.1:{server.server_port}/v1", "models": {name: name for name in MODELS},
                 "silence": 3}  # fmt: skip
    for address in served(tmp_path_factory, results=str(evaluation_folder), live=json.dumps(described)):
        for seen in opened(chromium, address, language=language):
            seen.open(f"?q={QUESTION}&lang={language}")
            seen.page.click("#go")
            seen.wait("() => document.querySelectorAll('#grid [role=alert]').length === 4")
            shown = ":is(.now, .note)"
            columns = [
                "".join(seen.page.locator(f".model:nth-child({place}) {shown}").all_inner_texts())
                for place in (1, 2, 3)
            ]
            assert columns[0].count("答え：a") == 2
            assert words()["failed"][language] not in columns[0]
            assert columns[1].count(words()["fault_answered"][language].format(detail="404")) == 2
            assert columns[2].count(words()["fault_silent"][language].format(detail="3")) == 2
            assert seen.complaints == []
    Hard.hung.set()
    server.shutdown()
    server.server_close()
