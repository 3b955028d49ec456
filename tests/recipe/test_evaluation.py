"""An evaluation as it is typed: which model and which exam is meant, under which name, and what is refused."""

import json

import pytest

from medllm.recipe.evaluation import evaluation_recipe, years_of
from medllm.recipe.settings import ApiModel
from tests.refusals import refused

QUESTION = {"question_id": "q1", "text": "どれか。", "choices": ["一", "二"], "answer": "a"}


@pytest.fixture
def ward(tmp_path):
    """An exam of one's own, with a worked example."""
    folder = tmp_path / "ward"
    folder.mkdir()
    (folder / "questions.jsonl").write_text(json.dumps(QUESTION) + "\n", "utf-8")
    example = QUESTION | {"question_id": "e1", "text": "どちらか。", "explanation": "一が正しい。"}
    (folder / "exemplars.jsonl").write_text(json.dumps(example) + "\n", "utf-8")
    return folder


def asked(*models, on=("medqa",), **options):
    found = evaluation_recipe(models, on, **options)
    assert found.evaluate is not None
    return found.evaluate


def test_a_model_is_a_repository_a_folder_a_server_or_openai(tmp_path):
    (tmp_path / "mine").mkdir()
    models = asked("me/a", "me/b@v1", str(tmp_path / "mine"), "http://localhost:8000/v1#org/c:20b", "openai:d").models
    assert models == {
        "a": "me/a@main",
        "b": "me/b@v1",
        "mine": str(tmp_path / "mine"),
        "c-20b": ApiModel(api="http://localhost:8000/v1", model="org/c:20b"),
        "d": "openai:d",
    }


def test_a_snapshot_in_the_cache_has_the_name_of_its_repository(tmp_path):
    folder = tmp_path / "models--me--small" / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    assert list(asked(str(folder)).models) == ["small"]


def test_models_of_one_name_are_named_apart_and_a_name_can_be_given(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name / "hf").mkdir(parents=True)
    folders = [str(tmp_path / name / "hf") for name in ("one", "other")]
    assert list(asked(*folders).models) == ["one-hf", "other-hf"]
    assert list(asked(f"x={folders[0]}", f"y={folders[1]}").models) == ["x", "y"]
    assert list(asked("me/a@v1", "me/a@v2").models) == ["me-a-v1", "me-a-v2"]
    with refused("command.two-models-one-name", "x"):
        asked(f"x={folders[0]}", f"x={folders[1]}")
    with refused("command.two-models-one-name", "me-a"):
        asked("me/a", "me/a")


@pytest.mark.parametrize("text", ["gpt-4o", "./none", "x=./none", "/no/such/folder"])
def test_what_is_no_model_is_refused_with_the_forms_there_are(text):
    with refused("command.no-such-model", text.removeprefix("x="), "URL#NAME"):
        asked(text)


def test_a_server_without_a_model_is_refused_and_what_it_may_hold_is_not_shown():
    with refused("command.no-model-at-address", "host") as caught:
        asked("http://user:secret@host/v1")
    assert "secret" not in str(caught.value)
    with refused("recipe.wrong-type", "evaluate.models.m") as caught:
        asked("http://user:secret@host/v1#m")
    assert "secret" not in str(caught.value)


def test_the_key_of_servers_is_named_by_its_variable():
    assert asked("http://h/v1#m", key="WARD_KEY").models["m"] == ApiModel(api="http://h/v1", model="m", key="WARD_KEY")


def test_an_exam_is_a_folder_or_a_known_name_with_its_data(ward, tmp_path):
    recipe = evaluation_recipe(["me/a"], [str(ward), "medqa", "igakuqa"], data=[f"igakuqa={tmp_path}"])
    assert {name: exam.source for name, exam in recipe.exams.items()} == {"ward": str(ward), "igakuqa": str(tmp_path)}
    assert recipe.evaluate is not None and recipe.evaluate.benchmarks == ("ward", "medqa", "igakuqa")
    assert (recipe.base, recipe.namespace, recipe.cutoff) == (None, None, None)
    (tmp_path / "igakuqa").mkdir()
    recipe = evaluation_recipe(["me/a"], ["igakuqa", f"w={ward}"], data=[str(tmp_path)])
    assert {name: exam.source for name, exam in recipe.exams.items()} == {
        "igakuqa": str(tmp_path / "igakuqa"),
        "w": str(ward),
    }


def test_an_exam_shows_as_many_worked_examples_as_it_has(ward):
    assert asked("me/a", on=[str(ward), "medqa"]).shots == {"ward": 1, "medqa": 0}
    assert asked("me/a", on=[str(ward)], shots=0).shots == 0


def test_settings_go_through_the_rules_of_a_recipe(ward):
    settings = asked("me/a", on=[str(ward)], prompts=["plain"], years=[2020], limit=5, engine="auto")
    assert (settings.prompts, settings.years, settings.limit, settings.engine) == (("plain",), (2020,), 5, "auto")
    changed = {"evaluate.max_new_tokens.plain": 64}
    assert asked("me/a", on=[str(ward)], changes=changed).max_new_tokens.plain == 64
    with refused("recipe.unknown-value", "evaluate.prompts[0]", "loud"):
        asked("me/a", on=[str(ward)], prompts=["loud"])
    with refused("recipe.out-of-range", "evaluate.limit"):
        asked("me/a", on=[str(ward)], limit=0)


@pytest.mark.parametrize(
    ("on", "code", "value"),
    [
        (["igakuqua"], "command.no-such-exam", "Did you mean `igakuqa`?"),
        (["w=./none"], "command.no-such-exam", "none"),
        (["medqa", "medqa"], "command.exam-twice", "medqa"),
    ],
)
def test_what_is_no_exam_is_refused(on, code, value):
    with refused(code, value):
        asked("me/a", on=on)


@pytest.mark.parametrize("name", ["naika.csv", "naika.xlsx", "naika.JSON"])
def test_a_table_is_sent_to_the_import(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with refused("command.table-is-no-exam", "medllm exam import", name):
        asked("me/a", on=[str(tmp_path / name)])


def test_years_are_read_as_people_type_them():
    assert years_of("2018") == [2018]
    for text in ("18", "2020-2018", "last", "2018;2019"):
        with refused("command.unknown-value", text):
            years_of(text)


def test_a_chat_template_is_read_from_its_file_and_asks_by_chat(ward, tmp_path):
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}", "utf-8")
    settings = asked("me/a", on=[str(ward)], chat_template=str(tmp_path / "own.jinja"))
    assert (settings.chat_template, settings.format) == ("{{ messages[0].content }}", "chat")
    assert asked("me/a", on=[str(ward)], chat_template="{{ messages }}", format="auto").format == "auto"
    with refused("command.template-for-servers", "vllm serve --chat-template"):
        asked("http://h/v1#m", "openai:gpt", chat_template="{{ messages }}")
    with refused("recipe.no-chat-template", "none.jinja"):
        asked("me/a", on=[str(ward)], chat_template="none.jinja")
