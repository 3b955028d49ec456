"""`medllm evaluate` as it is typed, and `medllm ask`, cell after cell: tables, verdicts, faults after the rest."""

import asyncio
import json
import re
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from medllm.cli.evaluate import _print_json, _write
from medllm.cli.main import app
from medllm.exam.prompts import render
from medllm.exam.question import own_question
from medllm.exam.record import read_records
from medllm.generation.types import Delta, NoReplyError, Reply
from medllm.side_by_side import Round
from tests.exam.making import question as exam_question
from tests.pipeline.test_kept_answers import Server
from tests.pipeline.whole import question
from tests.refusals import refused


@pytest.fixture
def server():
    one = Server()
    yield one
    one.close()


@pytest.fixture
def ward(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ward").mkdir()
    rows = [question(f"w{number}", 2020) for number in range(12)]
    Path("ward/all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return tmp_path / "ward"


def typed(*words: str):
    return CliRunner().invoke(app, list(words), catch_exceptions=False)


def address(server: Server, name: str) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}/v1#{name}"


def test_two_models_of_a_server_are_asked_and_compared_by_one_command(ward, server):
    done = typed("evaluate", address(server, "b"), address(server, "a"), "--on", "./ward", "--limit", "5")
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["model", "exam", "questions", "plain", "explain", "delta"]
    assert [line.split()[:4] for line in lines[1:3]] == [[name, "(trial)", "ward", "5"] for name in "ba"]
    assert any(re.match(r"  a minus b, ward, plain: .+, 5 questions, p 1.0000 .*\(trial\)$", line) for line in lines)
    running = [line for line in done.stderr.splitlines() if "a minus b, ward, " in line]
    assert [re.search(r"ward, (\w+): .+ 5 questions, p 1.0000 \(trial\)$", line)[1] for line in running] == [
        "plain",
        "explain",
    ], "each difference is printed as soon as both models are done"
    folder = Path(lines[-1].split("medllm app ")[1])
    assert len(read_records(folder)) == 20
    assert sorted(server.new()) == ["a"] * 10 + ["b"] * 10


def test_what_is_typed_again_asks_nothing_and_one_model_more_asks_only_that(ward, server):
    words = ("evaluate", address(server, "a"), "--on", "ward", "--modes", "plain", "--out", "mine")
    assert typed(*words).exit_code == 0 and server.new() == ["a"] * 12
    again = typed(*words, "--json")
    assert server.new() == [] and json.loads(again.stdout)["rows"][0]["questions"] == 12
    assert typed(*words[:2], address(server, "b"), *words[2:]).exit_code == 0
    assert server.new() == ["b"] * 12 and len(read_records(Path("mine"))) == 24


def test_several_exams_follow_one_on(ward, server):
    Path("old").mkdir()
    rows = [question(f"o{number}", 2019) for number in range(3)]
    Path("old/all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = typed("evaluate", address(server, "a"), "--on", "ward", "old", "--modes", "plain", "--years", "2019-2020")
    assert done.exit_code == 0, done.output
    assert [line.split()[1:3] for line in done.stdout.splitlines()[1:3]] == [["ward", "12"], ["old", "3"]]
    rows = re.findall(r"evaluate: a on (\w+), (\d+) questions: plain ", done.stderr)
    assert rows == [("ward", "12"), ("old", "3")], "each exam has its row as soon as its replies are there"


def test_the_recipe_of_table_1_asks_its_twelve_systems_to_the_end(server, shared_data, tmp_path, monkeypatch):
    recipe = yaml.safe_load((Path(__file__).parents[2] / "recipes/table1.yaml").read_text("utf-8"))
    recipe["exams"] = {"igakuqa": str(shared_data / "igakuqa")}
    systems = list(recipe["evaluate"]["models"])
    url = address(server, "").rstrip("#")
    recipe["evaluate"]["models"] = {name: {"api": url, "model": name} for name in systems}
    recipe["evaluate"]["limit"] = 2
    monkeypatch.chdir(tmp_path)
    Path("table1.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    done = typed("run", "table1.yaml")
    assert done.exit_code == 0, done.output
    assert server.new() == sorted(systems * 4), "two questions, each plainly and explained"
    rows = {line.split()[0] for line in done.stdout.splitlines() if line.split()[1:3] == ["(trial)", "igakuqa"]}
    assert len(systems) == 12 and rows == set(systems)


def test_a_recipe_that_only_evaluates_is_checked_and_run_into_a_folder(ward, server):
    url, _, name = address(server, "a").rpartition("#")
    values = {"name": "daily", "exams": {"ward": "./ward"}}
    values |= {"evaluate": {"models": {"a": {"api": url, "model": name}}, "benchmarks": ["ward"], "shots": 0}}
    Path("daily.yaml").write_text(yaml.safe_dump(values), "utf-8")
    checked = typed("check", "daily.yaml")
    assert checked.exit_code == 0 and checked.stdout.startswith("daily.yaml is valid: daily.\n")
    done = typed("run", "daily.yaml")
    assert done.exit_code == 0, done.output
    assert re.search(r"medllm app runs/daily-[0-9a-f]{12}$", done.stdout.rstrip())
    for command in ("status", "clean"):
        with refused("recipe.no-namespace"):
            typed(command, "daily.yaml")
    with refused("recipe.no-namespace", "slurm"):
        typed("run", "daily.yaml", "--on", "slurm")


def test_an_exam_without_a_server_or_questions_of_the_years_is_refused_before_the_work(ward, server):
    with refused("recipe.unknown-year", "2020"):
        typed("evaluate", address(server, "a"), "--on", "ward", "--years", "2018")
    url = address(server, "a")
    server.shutdown()
    server.server_close()
    with refused("generation.server-not-reachable", "evaluate.models.a"):
        typed("evaluate", url, "--on", "ward")
    assert not Path("runs").exists()


STYLES = ["plain", "explain"]


class Writer:
    """Answers each model with its line, letter by letter, or with an error where it has none; plain prompts first."""

    def __init__(self, lines):
        self.lines = lines

    def stream(self, requests):
        for request in sorted(requests, key=lambda request: STYLES.index(request.key.rpartition("/")[2])):
            line = self.lines.get(request.model)
            if line is None:
                yield Delta(request.key, "", error=NoReplyError("generation.unreachable", "http://127.0.0.1:9/v1"))
                continue
            for letter in line:
                yield Delta(request.key, letter)
            reason = "stop" if line else "too_long"
            yield Delta(
                request.key,
                "",
                Reply(key=request.key, text=line, finish_reason=reason, prompt_tokens=1, completion_tokens=1),
            )


def put(lines, asked):
    prompts = {style: render(asked, prompt=style, template="igakuqa") for style in STYLES}
    writer = Writer(lines)
    generators = {name: (writer, name) for name in lines}
    return Round(generators, prompts, dict.fromkeys(STYLES, 9), asked if asked.has_key else None)


def write(lines, asked):
    with put(lines, asked) as cells:
        asyncio.run(_write(cells, STYLES, "問題"))


def test_cells_are_written_one_after_the_other_plain_ones_first_with_their_verdicts(capsys):
    write({"base": "答え:b", "final": "答え:c", "mute": "ええと"}, exam_question())
    assert capsys.readouterr().out.split("\n--- ") == [
        "問題\n",
        "base, plain\n答え:b\n[b: right]\n",
        "final, plain\n答え:c\n[c: wrong; the key is b]\n",
        "mute, plain\nええと\n[no answer could be read; the key is b]\n",
        "base, explain\n答え:b\n[b: right]\n",
        "final, explain\n答え:c\n[c: wrong; the key is b]\n",
        "mute, explain\nええと\n[no answer could be read; the key is b]\n",
    ]


def test_a_question_of_ones_own_is_written_without_a_verdict(capsys):
    write({"base": "寝る。"}, own_question("かぜの治療は？"))
    assert capsys.readouterr().out == "問題\n\n--- base, plain\n寝る。\n\n--- base, explain\n寝る。\n"


def test_a_model_that_cannot_be_reached_ends_the_command_with_its_error_after_the_others_were_written(capsys):
    with refused("generation.unreachable", "127.0.0.1:9/v1", kind=NoReplyError):
        write({"gone": None, "base": "答え:b"}, exam_question())
    written = capsys.readouterr().out
    assert written.count("[no reply]") == 2
    assert written.count("[b: right]") == 2


def test_a_prompt_without_room_is_reported_as_such(capsys):
    write({"base": ""}, exam_question())
    assert capsys.readouterr().out.count("[the prompt is too long for this model]") == 2


def test_json_holds_every_cell(capsys):
    with put({"base": "答え:b", "gone": None}, exam_question()) as cells, pytest.raises(NoReplyError):
        asyncio.run(_print_json(cells))
    rows = json.loads(capsys.readouterr().out)
    assert [(one["model"], one["prompt"], one["state"], one["answer"], one["correct"]) for one in rows] == [
        ("base", "plain", "done", "b", True),
        ("base", "explain", "done", "b", True),
        ("gone", "plain", "failed", None, None),
        ("gone", "explain", "failed", None, None),
    ]


def test_text_is_written_as_it_comes(capsys):
    seen = []

    class Slow(Writer):
        def stream(self, requests):
            for request in requests:
                yield Delta(request.key, "第一")
                time.sleep(0.2)
                seen.append(capsys.readouterr().out)
                yield Delta(request.key, "、第二")
                yield Delta(
                    request.key,
                    "",
                    Reply(
                        key=request.key, text="第一、第二", finish_reason="stop", prompt_tokens=1, completion_tokens=1
                    ),
                )

    prompts = {"plain": render(exam_question(), prompt="plain")}
    with Round({"base": (Slow({}), "base")}, prompts, {"plain": 9}, exam_question()) as cells:
        asyncio.run(_write(cells, ["plain"], "問題"))
    assert seen == ["問題\n\n--- base, plain\n第一"]
    assert capsys.readouterr().out.startswith("、第二\n[")
