"""Models behind addresses of their own, the hosts that a recipe speaks to, and exams that stay on this machine."""

import json

import pytest

from medllm.errors import RecipeError
from medllm.hub import digest_of
from medllm.recipe import read_recipe, settings_for_digest
from medllm.recipe.dependencies import hosts_of
from medllm.recipe.estimate import plan
from medllm.recipe.settings import ApiModel, Evaluate
from tests.refusals import refused

RECIPE = """
name: ward
base: org/base@main
namespace: clinic
cutoff: 2017-12-31
exams: {naika: {source: org/naika@main, first: 2019-02-09}}
evaluate: {models: {a: "openai:good"}, benchmarks: [naika], shots: 0}
"""
API = {"api": "https://llm.example/v1", "model": "good", "key": "LLM_KEY"}


@pytest.fixture
def read(tmp_path):
    (tmp_path / "r.yaml").write_text(RECIPE, "utf-8")
    return lambda **changes: read_recipe(
        tmp_path / "r.yaml", {key.replace("__", "."): value for key, value in changes.items()}
    )


def named(recipe) -> list[tuple[str, str, bool]]:
    return [(one.place, one.name, one.outside) for one in hosts_of(recipe)]


def test_openai_is_spoken_to_only_where_no_engine_is_named(read):
    assert named(read()) == [("evaluate.models.a", "api.openai.com", True)]
    assert named(read(evaluate__engine="http://127.0.0.1:8333/v1")) == [("evaluate.engine", "127.0.0.1:8333", False)]


@pytest.mark.parametrize("engine", ["local", "transformers", "vllm", "vllm==0.32.0", "auto"])
def test_an_engine_of_this_machine_is_no_host_and_check_names_it(read, engine):
    recipe = read(evaluate__engine=engine, evaluate__models={"b": "base"})
    assert named(recipe) == []
    (step,) = plan(recipe).steps
    assert step.notes[-1].startswith(f"answers with {engine}: ")


def test_check_names_an_engine_only_where_a_model_is_here(read):
    own = {"api": "http://127.0.0.1:8333/v1", "model": "good"}
    (step,) = plan(read(evaluate__models={"a": own, "b": "openai:gpt"})).steps
    assert step.notes[-2:] == ("asks the server http://127.0.0.1:8333/v1", "asks the server https://api.openai.com/v1")
    assert not [note for note in step.notes if "answers with" in note]
    (step,) = plan(read(evaluate__models={"a": own, "b": "base"})).steps
    assert step.notes[-2].startswith("answers with local: ") and step.notes[-1] == f"asks the server {own['api']}"


@pytest.mark.parametrize(
    "engine",
    [
        "vlm",
        "vllm>=0.3",
        "",
        "ftp://a/v1",
        "http:///v1",
        "https://u:sk-very-secret@a/v1",
        "https://a/v1?k=sk-very-secret",
    ],
)
def test_what_is_no_engine_is_refused_by_check_and_no_key_is_shown(read, engine):
    with refused("recipe.wrong-type", "engine", kind=RecipeError) as caught:
        read(evaluate__engine=engine)
    assert "very-secret" not in str(caught.value)


def test_a_model_with_an_address_is_listed_by_check(read):
    recipe = read(evaluate__models={"a": API, "b": {**API, "api": "http://localhost:8000/v1"}})
    assert named(recipe) == [
        ("evaluate.models.a", "llm.example", True),
        ("evaluate.models.b", "localhost:8000", False),
    ]
    assert plan(recipe).hosts == ("llm.example (evaluate.models.a)", "localhost:8000 (evaluate.models.b)")


@pytest.mark.parametrize(
    ("wrong", "code", "place"),
    [
        ({"api": "llm.example/v1"}, "recipe.wrong-type", "api"),
        ({"api": "ftp://llm.example"}, "recipe.wrong-type", "api"),
        ({"api": "https://user:sk-very-secret@llm.example/v1"}, "recipe.wrong-type", "api"),
        ({"api": "https://llm.example/v1?key=sk-very-secret"}, "recipe.wrong-type", "api"),
        ({"key": "sk-very-secret"}, "recipe.wrong-form", "key"),
        ({"key": "hf_verysecretverysecret"}, "recipe.wrong-form", "key"),
        ({"model": ""}, "recipe.wrong-type", "model"),
        ({"request": {"messages": []}}, "recipe.wrong-type", "request"),
        ({"reqest": {}}, "recipe.unknown-key", "reqest"),
    ],
)
def test_a_wrong_model_is_one_fault_at_its_place_that_shows_no_key(read, wrong, code, place):
    with refused(code, f"evaluate.models.a.{place}:", kind=RecipeError) as caught:
        read(evaluate__models={"a": {**API, **wrong}})
    assert "secret" not in str(caught.value)


def test_a_private_exam_is_not_sent_to_another_machine(read):
    private = {"source": "org/naika@main", "first": "2019-02-09", "private": True}
    with refused("recipe.private-exam", "evaluate.models.a", "naika", "allowed_hosts: [api.openai.com]"):
        read(exams={"naika": private})
    with refused("recipe.private-exam", "evaluate.engine", "10.0.0.7:8000"):
        read(exams={"naika": private}, evaluate__engine="http://10.0.0.7:8000/v1")
    read(exams={"naika": {**private, "allowed_hosts": ["api.openai.com"]}})
    read(exams={"naika": private}, evaluate__engine="http://127.0.0.1:8000/v1")


def digest(models) -> str:
    settings = Evaluate(models=models, benchmarks=("naika",))
    return digest_of("evaluate", settings_for_digest(settings), ())


def test_the_options_of_a_request_are_in_the_digest_and_address_and_key_are_not():
    assert digest({"a": API}) == digest({"a": {**API, "api": "http://10.0.0.7/v1", "key": "OTHER"}})
    assert digest({"a": API}) != digest({"a": {**API, "request": {"reasoning_effort": "low"}}})
    assert digest({"a": API}) != digest({"a": {**API, "model": "better"}})
    assert digest({"a": "openai:good"}) != digest({"a": API})


def test_the_dump_of_a_model_holds_the_name_of_the_key_and_never_the_key(monkeypatch):
    monkeypatch.setenv("LLM_KEY", "sk-very-secret")
    dumped = json.dumps(ApiModel(**API).model_dump(mode="json"))
    assert "LLM_KEY" in dumped
    assert "sk-very-secret" not in dumped
