"""Evaluation by chat: plain, explained and after thinking, of models here and behind a server in one evaluation."""

import json
import shutil

import pyarrow.parquet as pq
import pytest

from medllm.exam.record import read_records
from medllm.exam.stability.report import stability_report
from medllm.recipe.base import settings_for_digest
from medllm.recipe.settings import Evaluate
from medllm.stages import evaluate
from tests import tiny
from tests.generation.serving import ChatServer
from tests.refusals import refused

PROMPTS = ("plain", "explain", "think")


def settings(**changed):
    common = {"models": {"base": "base"}, "benchmarks": ("own",), "dtype": "float32", "format": "chat", "shots": 1}
    rooms = {"plain": 8, "explain": 8, "think": 12}
    return Evaluate(**{**common, "prompts": PROMPTS, "max_new_tokens": rooms, **changed})


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    exam = tiny.make_exam(folder / "own", 6, first="2019-02-09")
    lines = (tiny.make_exam(folder / "old", 1, seed=8) / "exam.jsonl").read_text("utf-8")
    (exam / "exemplars.jsonl").write_text(lines, "utf-8")
    return {"base": tiny.make_scripted(folder / "base"), "own": exam}


@pytest.fixture(autouse=True)
def no_kept_answers(monkeypatch):
    monkeypatch.setenv("MEDLLM_ANSWERS", "none")


@pytest.fixture
def server():
    def think(body):
        thinks = body["chat_template_kwargs"]["enable_thinking"]
        return {"content": "c", "reasoning_content": "c だろう。"} if thinks else {"content": "答え: d"}

    server = ChatServer(think)
    yield server
    server.close()


def test_three_prompts_are_asked_and_thinking_is_recorded_counted_and_never_the_answer(sources, tmp_path, server):
    models = {"base": "base", "served": {"api": server.url, "model": "m"}}
    evaluate.make(settings(models=models), sources, tmp_path / "out")
    records = read_records(tmp_path / "out")
    assert len(records) == 6 * 2 * 3
    here = {(one.prompt, one.reasoning, one.reasoning_tokens, one.answer) for one in records if one.model == "base"}
    assert here == {("plain", None, None, "b"), ("explain", None, None, "b"), ("think", "患者答えa", 5, "b")}
    there = {(one.prompt, one.reasoning, one.answer) for one in records if one.model == "served"}
    assert there == {("plain", None, "d"), ("explain", None, "d"), ("think", "c だろう。", "c")}
    assert {one.completion for one in records if one.prompt == "think"} == {"b", "c"}
    runs = pq.read_table(tmp_path / "out" / "runs").to_pylist()
    assert {run["format"] for run in runs} == {"chat"}
    assert {run["reasoning_tokens"] for run in runs if run["model"] == "base"} == {0, 30}
    facts = json.loads((tmp_path / "out" / "facts.json").read_text("utf-8"))
    assert [column["key"] for column in facts["columns"]][:4] == [*PROMPTS, "delta"]
    assert all(set(row) >= {*PROMPTS, "think_minus_plain"} for row in facts["rows"])
    (one, two) = stability_report(records).models
    assert set(one.changes) == {("plain", "explain"), ("plain", "think"), ("explain", "think")} == set(two.changes)
    assert (one.conditions["think"].thought, one.conditions["think"].reasoning_tokens) == (6, 5)


def test_the_conversation_has_the_worked_example_and_the_recipes_system_message(sources, tmp_path, server):
    models = {"served": {"api": server.url, "model": "m"}}
    changes = {"models": models, "limit": 1, "system_prompt": "簡潔に。", "chat_template_kwargs": {"budget": 5}}
    evaluate.make(settings(**changes), sources, tmp_path / "out")
    bodies = {body["chat_template_kwargs"]["enable_thinking"]: body for body in server.seen}
    assert [message["role"] for message in bodies[True]["messages"]] == ["system", "user", "assistant", "user"]
    assert bodies[True]["messages"][0]["content"] == "簡潔に。"
    assert bodies[True]["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True, "budget": 5}
    assert "stop" in bodies[False] and "stop" not in bodies[True]


def test_a_server_that_is_not_asked_to_think_gets_no_switch(sources, tmp_path):
    plain = ChatServer({"content": "b"})
    models = {"served": {"api": plain.url, "model": "m"}}
    evaluate.make(settings(models=models, prompts=("plain",)), sources, tmp_path / "out")
    plain.close()
    assert all("chat_template_kwargs" not in body for body in plain.seen) and len(plain.seen) == 6


def test_thinking_that_meets_its_budget_is_no_answer_to_any_question(sources, tmp_path):
    rooms = {"plain": 8, "explain": 8, "think": 4}
    evaluate.make(settings(max_new_tokens=rooms), sources, tmp_path / "out")
    cut = [one for one in read_records(tmp_path / "out") if one.prompt == "think"]
    assert {(one.status, one.answer, one.finish_reason, one.completion) for one in cut} == {
        ("thinking", None, "length", "")
    }
    assert {one.reasoning for one in cut} == {"患者答えa"}


def test_replies_of_a_chat_are_kept_with_their_thinking_and_not_confused_with_completions(
    sources, tmp_path, monkeypatch
):
    monkeypatch.setenv("MEDLLM_ANSWERS", str(tmp_path / "kept"))
    evaluate.make(settings(), sources, tmp_path / "first")
    monkeypatch.setattr("medllm.generation.engine.local.LocalGenerator.generate", lambda *_: 1 / 0)
    evaluate.make(settings(), sources, tmp_path / "again")
    assert read_records(tmp_path / "again") == read_records(tmp_path / "first")
    with pytest.raises(ZeroDivisionError):
        evaluate.make(settings(format="completion", prompts=("plain",)), sources, tmp_path / "text")


def test_a_model_that_cannot_be_asked_so_is_refused_before_any_is_asked(sources, tmp_path):
    bare = {**sources, "base": tiny.make_base(tmp_path / "bare")}
    with refused("generation.no-chat-template", "base"):
        evaluate.make(settings(), bare, tmp_path / "out")
    with refused("generation.think-needs-chat", "base"):
        evaluate.make(settings(format="auto"), bare, tmp_path / "out")
    evaluate.make(settings(format="auto", prompts=("plain",)), bare, tmp_path / "text")
    runs = pq.read_table(tmp_path / "text" / "runs").to_pylist()
    assert {run["format"] for run in runs} == {"completion"}


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("{{ raise_exception('no users') }}", "weights.template-raises"),
        ("hello", "weights.template-without-question"),
    ],
)
def test_a_template_that_cannot_ask_is_refused_by_its_models_name_before_weights_are_loaded(
    sources, tmp_path, monkeypatch, template, code
):
    bad = tmp_path / "bad"
    shutil.copytree(sources["base"], bad)
    (bad / "chat_template.jinja").write_text(template, "utf-8")
    monkeypatch.setattr("medllm.generation.engine.local.load_base", lambda *_, **__: 1 / 0)
    with refused(code, "mine:"):
        evaluate.make(settings(models={"mine": "mine"}, engine="auto"), {**sources, "mine": bad}, tmp_path / "out")


def test_an_evaluation_that_names_no_format_has_the_digest_of_before_there_were_formats():
    old = {"models": {"base": "base"}, "benchmarks": ("igakuqa",)}
    dump = settings_for_digest(Evaluate(**old))
    assert not {"format", "system_prompt", "chat_template_kwargs"} & set(dump)
    assert dump["max_new_tokens"] == {"plain": 32, "explain": 1024}
    for changed in ({"format": "auto"}, {"system_prompt": ""}, {"chat_template_kwargs": {"reasoning_effort": "low"}}):
        assert settings_for_digest(Evaluate(**old, **changed)) == {**dump, **changed}
    longer = settings_for_digest(Evaluate(**old, max_new_tokens={"think": 4096}))
    assert longer["max_new_tokens"] == {"plain": 32, "explain": 1024, "think": 4096}
