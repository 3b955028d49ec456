"""`medllm ask` writes cell after cell, each with its verdict; a model that fails is reported after the others."""

import asyncio
import json
import time

import pytest

from medllm.cli.ask import _print_json, _write
from medllm.exam.prompts import render
from medllm.exam.question import own_question
from medllm.generation.types import Delta, NoReplyError, Reply
from medllm.side_by_side import Round
from tests.exam.making import question
from tests.refusals import refused

STYLES = ["plain", "explain"]


class Writer:
    """A generator that answers each model with its line, letter by letter, or with an error where it has none."""

    def __init__(self, lines):
        self.lines = lines

    def stream(self, requests):
        for request in requests:
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
    write({"base": "答え:b", "final": "答え:c", "mute": "ええと"}, question())
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
        write({"gone": None, "base": "答え:b"}, question())
    written = capsys.readouterr().out
    assert written.count("[no reply]") == 2
    assert written.count("[b: right]") == 2


def test_a_prompt_without_room_is_reported_as_such(capsys):
    write({"base": ""}, question())
    assert capsys.readouterr().out.count("[the prompt is too long for this model]") == 2


def test_json_holds_every_cell(capsys):
    with put({"base": "答え:b", "gone": None}, question()) as cells, pytest.raises(NoReplyError):
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

    prompts = {"plain": render(question(), prompt="plain")}
    with Round({"base": (Slow({}), "base")}, prompts, {"plain": 9}, question()) as cells:
        asyncio.run(_write(cells, ["plain"], "問題"))
    assert seen == ["問題\n\n--- base, plain\n第一"]
    assert capsys.readouterr().out.startswith("、第二\n[")
