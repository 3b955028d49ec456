"""Our reading agrees with what JMLE2026-Bench recorded for real replies, except where a reason is given here."""

import json
import re

import pytest

from medllm.exam.benchmarks import load
from medllm.exam.extract.answer import parse
from medllm.exam.question import index

EXPLAINED = {
    ("openai_gpt-oss-20b_medium", "120A-74"): (
        "1.200",
        "1.200 g/日",
        "the recording kept the unit behind the number; the number is the same",
    ),
}
"""(model, question): what we read, what was recorded, and why; docs/benchmarks/answer-extraction.md has the list."""


@pytest.fixture(scope="module")
def compared(shared_data):
    questions = index(load("jmle2026", shared_data / "jmle2026"))
    found = {}
    for file in sorted((shared_data / "jmle2026" / "model_outputs").glob("*.json")):
        for reply in json.loads(file.read_text(encoding="utf-8"))["results"]:
            question = questions[reply["question_id"]]
            recorded = ",".join(sorted(reply["predicted"]))
            found[file.stem, question.question_id] = (parse(reply["raw_response"], question), recorded)
    return found


def test_the_recorded_replies_of_five_models_are_there(compared):
    assert len(compared) == 2000
    assert len({model for model, _ in compared}) == 5


def test_every_disagreement_is_listed_and_explained(compared):
    differing = {key: (ours.answer, recorded) for key, (ours, recorded) in compared.items() if ours.answer != recorded}
    assert differing == {key: (ours, recorded) for key, (ours, recorded, _) in EXPLAINED.items()}


def test_at_least_995_of_1000_agree(compared):
    same = sum(ours.answer == recorded for ours, recorded in compared.values())
    assert same / len(compared) >= 0.995


def test_none_of_the_finished_replies_is_called_running_on_or_looping(compared):
    assert [key for key, (ours, _) in compared.items() if ours.run_on or ours.loop or ours.truncated] == []


def test_the_page_lists_the_same_disagreements():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "benchmarks" / "answer-extraction.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\| `([\w.-]+)` \| (120[A-F]-\d+) \|", page)) == set(EXPLAINED)


@pytest.mark.parametrize("model", ["chatgpt", "gpt3", "gpt4", "translate_chatgpt-en"])
def test_a_recorded_list_of_letters_is_read_as_it_is(shared_data, model):
    questions = index(load("igakuqa", shared_data / "igakuqa"))
    seen = 0
    for file in (shared_data / "igakuqa" / "baseline_results" / "2018").glob(f"112-?_{model}.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if re.fullmatch(r"[a-h](,[a-h])*", row["prediction"]):
                seen += 1
                expected = ",".join(sorted(set(row["prediction"].split(","))))
                assert parse(row["prediction"], questions[row["problem_id"]]).answer == expected
    assert seen > 330
