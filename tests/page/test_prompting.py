"""The exact prompt: rebuilt from what the evaluation kept, and believed only when its hash is the recorded one."""

from dataclasses import replace

import pytest

from medllm.exam.prompts import render
from medllm.exam.record import read_records, write_records
from medllm.page.context import PageContext, Shelf
from medllm.page.html import words
from medllm.page.loading import read
from medllm.page.results import Origin, RecordedResults
from medllm.page.routes import exact_prompt
from tests.page.simulated import questions, write
from tests.page.simulated import write_questions as write_examples

SHOWN = questions(12)
EXAMPLES = [
    replace(one, question_id=f"old{at}", text=f"昔の問題{at}", explanation="解説。") for at, one in enumerate(SHOWN[:3])
]


@pytest.fixture
def folder(tmp_path):
    """An evaluation whose records carry the hash of a three-shot prompt."""
    write(tmp_path, per_section=12)
    asked = {one.question_id: one for one in SHOWN}
    hashed = [
        replace(
            record,
            prompt_hash=render(
                asked[record.question_id], prompt=record.prompt, template="paper", exemplars=EXAMPLES
            ).hash,
        )
        for record in read_records(tmp_path)
    ]
    write_records(hashed, tmp_path / "records" / "simulated.parquet")
    return tmp_path


def shown(folder) -> str:
    results = read(folder, Origin("x"))
    return exact_prompt(PageContext(results, Shelf(results)), results.keys[0], "explain", "en")


def test_with_the_examples_kept_the_prompt_matches_its_hash(folder):
    write_examples(EXAMPLES, folder / "aside")
    (folder / "exemplars").mkdir()
    (folder / "aside" / "questions" / "q.parquet").rename(folder / "exemplars" / "kakuu.parquet")
    text = shown(folder)
    assert words()["prompt_exact"]["en"] in text
    assert text.count("昔の問題") == 3


def test_without_them_it_says_that_it_is_a_reconstruction(folder):
    text = shown(folder)
    assert words()["prompt_unsure"]["en"] in text
    assert SHOWN[0].text in text


@pytest.mark.parametrize("shots", [None, 0])
@pytest.mark.parametrize("template", ["paper", "igakuqa"])
def test_a_prompt_has_the_template_of_its_record_and_as_many_examples(folder, template, shots):
    results = read(folder, Origin("x"))
    found = results.record(results.keys[0], results.models[0], "explain")
    record = replace(found, template=template, shots=3)
    with_examples = replace(results, exemplars={record.benchmark: EXAMPLES})
    assert isinstance(with_examples, RecordedResults)
    prompt = with_examples.prompt_of(record, shots=shots)
    examples = EXAMPLES if shots is None else []
    assert prompt == render(SHOWN[0], prompt="explain", template=template, exemplars=examples)
    assert prompt.completion(" 答え ") == prompt.joint + "答え"
