"""What the base reads is laid out as the exam room asks: a form that drifts apart would make it answer at chance."""

import random
from pathlib import Path

import pytest

from medllm.exam import benchmarks
from medllm.exam.extract.answer import parse
from medllm.exam.prompts import render, target_completion
from medllm.miniature import exams
from medllm.miniature.exams import explain, make_item, topics
from medllm.miniature.world import make_world

WORLD = make_world()


@pytest.mark.parametrize("form", ["fact", "case", "pair", "days"])
@pytest.mark.parametrize("style", ["plain", "explain"])
def test_a_page_is_the_exams_prompt_and_right_reply(form, style, tmp_path: Path):
    item = make_item(WORLD, topics(WORLD, "known", form)[0], random.Random(1))
    example = make_item(WORLD, topics(WORLD, "known", "fact")[7], random.Random(2))
    exam = exams.MiniatureExam("100", exams.date(2006, 2, 10), (example, item))
    exams.write(exams.rows(WORLD, exam), tmp_path / "100.jsonl")
    shown, question = benchmarks.load("own", tmp_path)
    prompt = render(question, prompt=style, template="paper", exemplars=[shown])
    answered = prompt.text + prompt.joint + target_completion(question, style, "paper")
    pages = [
        exams.explained(one, explain(WORLD, one)) if style == "explain" else exams.answer_line(one)
        for one in (example, item)
    ]
    assert "".join(pages).strip() == answered.strip()


@pytest.mark.parametrize("form", ["fact", "case", "pair", "days"])
def test_the_parser_reads_the_answer_behind_an_explanation(form, tmp_path: Path):
    item = make_item(WORLD, topics(WORLD, "known", form)[3], random.Random(3))
    exams.write(exams.rows(WORLD, exams.MiniatureExam("100", exams.date(2006, 2, 10), (item,))), tmp_path / "100.jsonl")
    (question,) = benchmarks.load("own", tmp_path)
    reply_text = exams.explained(item, explain(WORLD, item)).split("Explanation:")[1]
    assert parse(reply_text, question).answer == item.answer
