"""The endpoint maker against a real server, `transformers serve`: it says there what the model says here."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from medllm.cli.main import app
from medllm.exam.record import read_records
from medllm.generation.endpoint import EndpointGenerator
from medllm.generation.engine.local import LocalGenerator
from medllm.generation.types import NoReplyError, Request
from medllm.training.checkpointing import write_tokenizer
from medllm.weights.load import load_tokenizer
from tests import tiny
from tests.pipeline.whole import question
from tests.refusals import refused

PATIENCE = 900
"""Seconds for the server to come up on a machine that is busy with other tests."""
CHATML = (
    "{% for one in messages %}<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BROKEN = "\N{REPLACEMENT CHARACTER}"
PROMPTS = ("患者は発熱と咳嗽。", "胸部の痛み", "心電図 診断 治療 投与 mg")


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def wait_until_ready(server, url, log):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if server.poll() is not None:
            pytest.fail(f"transformers serve ended with {server.returncode}: {log.read_text('utf-8')[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"transformers serve was not ready after {PATIENCE} s: {log.read_text('utf-8')[-2000:]}")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder with a model, and the address at which it is served."""
    folder = tmp_path_factory.mktemp("served")
    base = tiny.make_base(folder / "base")
    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = CHATML
    write_tokenizer(tokenizer, base)
    url, log = f"http://127.0.0.1:{free_port()}", folder / "log"
    serve = "import sys; sys.argv[0] = 'transformers'; from transformers.cli.transformers import main; main()"
    text = ["serve", str(base), "--host", "127.0.0.1", "--port", url.rsplit(":", 1)[1], "--device", "cpu"]
    with log.open("w") as written:
        server = subprocess.Popen(
            [sys.executable, "-c", serve, *text, "--dtype", "float32"], stdout=written, stderr=subprocess.STDOUT
        )
    try:
        wait_until_ready(server, url, log)
        yield base, f"{url}/v1"
    finally:
        server.terminate()
        server.wait(60)


def requests(base):
    return [
        Request(
            key=str(n), model=str(base), text=text, messages=({"role": "user", "content": text},), max_new_tokens=16
        )
        for n, text in enumerate(PROMPTS)
    ]


@pytest.fixture(scope="module")
def here(served):
    """What the model says here, without a server: to a text as it is, and to one as a turn of a conversation."""
    generator = LocalGenerator(served[0], dtype="float32")
    turns = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in PROMPTS]
    replies = {}
    for chat, texts in ((False, PROMPTS), (True, turns)):
        if chat:  # the marks of these turns are meant, unlike any that a question holds
            generator.reader.words = SimpleNamespace(prompt=lambda text: generator.tokenizer(text)["input_ids"])
        asked = [Request(key=str(n), text=text, max_new_tokens=16) for n, text in enumerate(texts)]
        replies[chat] = {reply.key: reply for reply in generator.generate(asked)}
    return replies


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("chat", [False, True], ids=["completions", "chat"])
def test_a_real_server_says_what_the_model_says_here(served, here, chat):
    base, url = served
    replies = {
        reply.key: reply for reply in EndpointGenerator(url, chat=chat, num_concurrent=2).generate(requests(base))
    }
    assert replies.keys() == here[chat].keys()
    for key, mine in here[chat].items():
        text = replies[key]
        assert (text.text, text.finish_reason, text.prompt_tokens) == (
            mine.text,
            mine.finish_reason,
            mine.prompt_tokens,
        )


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("chat", [False, True], ids=["completions", "chat"])
def test_a_real_server_streams_the_words_it_says_at_once(served, here, chat):
    base, url = served
    deltas = list(EndpointGenerator(url, chat=chat).stream(requests(base)))
    for key, mine in here[chat].items():
        own = [delta for delta in deltas if delta.key == key]
        assert len(own) > 2, "in pieces"
        # The server keeps back a last character that never becomes whole, as a random model leaves it.
        assert own[-1].reply.text.rstrip(BROKEN) == mine.text.rstrip(BROKEN) != ""
        assert "".join(delta.text for delta in own) == own[-1].reply.text
        assert own[-1].reply.finish_reason == mine.finish_reason
        assert [delta.reply for delta in own[:-1]] == [None] * (len(own) - 1)


@pytest.mark.slow
@pytest.mark.long
def test_an_exam_is_evaluated_at_a_real_server_by_one_command_with_the_replies_of_the_folder(
    served, tmp_path, monkeypatch
):
    base, url = served
    monkeypatch.chdir(tmp_path)
    Path("ward").mkdir()
    rows = "".join(json.dumps(question(f"w{number}", 2020)) + "\n" for number in range(3))
    Path("ward/all.jsonl").write_text(rows, "utf-8")
    options = [
        "--set",
        "evaluate.format=chat",
        "--set",
        "evaluate.max_new_tokens={plain: 8, explain: 16}",
        "--set",
        "evaluate.dtype=float32",
    ]
    words = ["evaluate", f"served={url}#{base}", f"here={base}", "--on", "./ward", *options]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    records = read_records(Path(done.stdout.splitlines()[-1].split("medllm app ")[1]))
    texts = {
        name: {(row.question_id, row.prompt): row.completion.rstrip(BROKEN) for row in records if row.model == name}
        for name in ("served", "here")
    }
    assert len(texts["here"]) == 6 and texts["served"] == texts["here"]


@pytest.mark.slow
@pytest.mark.long
def test_a_model_that_the_server_does_not_have_is_named(served):
    with refused("generation.error-answered", "`nobody/nothing`", kind=NoReplyError) as caught:
        list(EndpointGenerator(served[1], tries=1).generate([Request(key="k", model="nobody/nothing", text="Q")]))
    assert 400 <= caught.value.status < 500
