"""Each model is asked at its own address, with its own key and options; nothing goes to a host nobody named."""

import asyncio
import json
import threading
import time
from pathlib import Path

import pytest

from medllm.exam.prompts import render
from medllm.generation import factory
from medllm.generation.factory import make_generators
from medllm.generation.types import Delta, Reply, Request
from medllm.page.live import open_live
from medllm.recipe.settings import ApiModel, Evaluate
from medllm.side_by_side import Round
from medllm.stages import evaluate
from tests import tiny
from tests.exam.making import question
from tests.generation.serving import ChatServer
from tests.generation.test_endpoint import Server
from tests.refusals import refused

SECRET = "sk-very-secret"


@pytest.fixture
def servers(monkeypatch):
    monkeypatch.setenv("LLM_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    made = [Server(), Server()]
    yield made
    for one in made:
        one.close()


def ask(models, **options) -> None:
    for name, (generator, known) in make_generators(models, {}, **options).items():
        list(generator.generate([Request(key=name, model=known, text="q", max_new_tokens=4)]))


def test_openai_models_are_asked_by_chat_at_the_engine(servers):
    own, other = servers
    ask({"a": "openai:good"}, engine=own.url)
    ((path, _, body),) = own.seen
    assert (path, body["model"], other.seen) == ("/v1/chat/completions", "good", [])


def test_an_address_of_the_environment_that_the_recipe_does_not_name_is_refused(servers, monkeypatch):
    own, _ = servers
    monkeypatch.setenv("OPENAI_BASE_URL", own.url)
    with refused("generation.address-from-environment", "evaluate.models.a", own.url, "model: good"):
        ask({"a": "openai:good"})
    assert own.seen == []


def test_each_model_has_its_own_address_kind_key_and_options(servers):
    own, other = servers
    chat = ApiModel(api=own.url, model="good", key="LLM_KEY", request={"reasoning_effort": "low", "max_tokens": None})
    text = ApiModel(api=other.url, model="old", chat=False)
    ask({"a": chat, "b": text}, engine="http://127.0.0.1:9/v1")
    ((path, headers, body),) = own.seen
    assert (path, headers["Authorization"], body["reasoning_effort"]) == (
        "/v1/chat/completions",
        f"Bearer {SECRET}",
        "low",
    )
    assert "max_tokens" not in body
    ((path, headers, body),) = other.seen
    assert (path, body["model"], "Authorization" in headers) == ("/v1/completions", "old", False)


def test_models_of_one_server_share_its_generator(servers):
    options = {"api": servers[0].url, "key": "LLM_KEY"}
    made = make_generators({name: ApiModel(model=name, **options) for name in ("a", "b")}, {})
    assert made["a"][0] is made["b"][0]


def test_a_key_that_is_not_set_is_refused_by_the_name_of_its_variable(servers, monkeypatch):
    monkeypatch.delenv("LLM_KEY")
    with refused("generation.no-key", "evaluate.models.a", "LLM_KEY"):
        make_generators({"a": ApiModel(api=servers[0].url, model="m", key="LLM_KEY")}, {})


def test_an_evaluation_needs_no_weights_and_writes_down_options_but_no_key(servers, tmp_path: Path):
    import pyarrow.parquet as pq

    exam = tiny.make_exam(tmp_path / "naika", 2, first="2019-02-09")
    model = {"api": servers[0].url, "model": "good", "key": "LLM_KEY", "request": {"reasoning_effort": "low"}}
    settings = Evaluate(models={"a": model}, benchmarks=("naika",), shots=0)
    out = tmp_path / "out"
    evaluate.make(settings, {"naika": exam}, out)
    assert len(servers[0].seen) == 4
    run, _ = pq.read_table(out / "runs" / "runs.parquet").to_pylist()
    assert (run["source"], run["api"], json.loads(run["request"])) == ("good", servers[0].url, model["request"])
    assert (run["engine"], run["engine_version"]) == (servers[0].url, None)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_the_live_page_takes_the_same_shape(servers, monkeypatch):
    own, other = servers
    model = {"api": own.url, "model": "good", "key": "LLM_KEY"}
    live = open_live(json.dumps({"url": other.url, "models": {"a": model, "b": "plain"}}))
    assert live is not None
    (first, known), (second, plain) = live.generators["a"], live.generators["b"]
    assert (first.url, first.chat, known) == (own.url, True, "good")
    assert (second.url, second.chat, plain) == (other.url, False, "plain")
    alone = open_live(json.dumps({"models": {"a": model}}))
    assert alone is not None
    assert alone.models == ("a",)


def asked_live(put: Round):
    async def last():
        return [state async for state in put.cells(every=0.001, silence=60)][-1]

    with put:
        return asyncio.run(asyncio.wait_for(last(), 60))


PROMPTS = {style: render(question(), prompt=style) for style in ("plain", "explain")}
ROOM = dict.fromkeys(PROMPTS, 9)


@pytest.mark.parametrize("through", ["ask", "page"])
def test_models_at_several_addresses_stream_at_the_same_time(through):
    """No server sends its first byte before all six requests have come: in turns, the first would wait for ever."""
    all_asked = threading.Barrier(6)

    def late(body):
        all_asked.wait(30)
        return {"content": "答え: b"}

    servers = [ChatServer(late) for _ in range(3)]
    models = {name: {"api": server.url, "model": "m"} for name, server in zip("abc", servers, strict=True)}
    if through == "page":
        put = open_live(json.dumps({"models": models})).start_round(question())
    else:
        makers = make_generators({name: ApiModel(**one) for name, one in models.items()}, {})
        put = Round(makers, PROMPTS, ROOM, question())
    cells = asked_live(put)
    for server in servers:
        server.close()
    assert {column: (cell.state, cell.answer) for column, cell in cells.items()} == {
        (name, style): ("done", "b") for name in "abc" for style in PROMPTS
    }


def test_models_of_this_machine_load_and_stream_one_after_the_other(monkeypatch, tmp_path):
    steps = []

    class Writer:
        def __init__(self, name):
            self.name = name

        def stream(self, requests):
            for request in requests:
                steps.append(self.name)
                time.sleep(0.02)
                reply = Reply(key=request.key, text="b", finish_reason="stop", prompt_tokens=1, completion_tokens=1)
                yield Delta(request.key, "", reply)

    def load(_, base, *__):
        steps.append(f"load {base.name}")
        time.sleep(0.02)
        return Writer(base.name)

    monkeypatch.setattr(factory._Here, "_load", load)
    sources = {name: tiny.make_base(tmp_path / name) for name in ("first", "second")}
    cells = asked_live(Round(make_generators({name: name for name in sources}, sources), PROMPTS, ROOM, question()))
    assert {cell.state for cell in cells.values()} == {"done"}
    half = [steps[:3], steps[3:]]
    assert sorted(half) == [["load first", "first", "first"], ["load second", "second", "second"]]
