"""Results of models that think: a third row in every view, folded thinking, figures that lead to their questions."""

import re

import numpy as np
import pytest

from medllm.page.context import PageContext, Shelf
from medllm.page.grid import grid_value
from medllm.page.loading import read
from medllm.page.results import Origin
from medllm.page.routes import comparison, exact_prompt
from medllm.page.scores import score_lines, scores
from medllm.page.selection import Filter, Wanted, outcomes, rows
from tests.page.simulated import MODELS, write, write_table
from tests.page.test_pieces import flat, hostile_key, seen

PROMPTS = ("plain", "explain", "think")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("thinking"), prompts=PROMPTS)


@pytest.fixture(scope="module")
def thinking(folder):
    return read(folder, Origin("x"))


def value(results, key):
    return grid_value(results.replies(key), key=key, models=results.models, notes={})


def test_the_grid_has_a_row_for_thinking_only_where_a_model_was_asked_to_think(thinking, page):
    key = thinking.keys[0]
    assert value(thinking, key)["matrix"].count("<tr ") == 1 + 3
    assert [cell["kind"] for cell in value(thinking, key)["columns"][0]["cells"]] == ["explain", "think", "plain"]
    assert value(page.results, key)["matrix"].count("<tr ") == 1 + 2
    assert "think" not in flat(value(page.results, key)).replace("thinking", "")


def test_thinking_is_folded_under_its_reply_and_hostile_thinking_is_text(thinking):
    html = flat(value(thinking, hostile_key(PageContext(thinking, Shelf(thinking)))))
    assert html.count('<details class="thinking">') == len(MODELS)
    assert "かと疑う。" in "".join(seen(html).text) and not {"script", "img"} & seen(html).tags


def test_the_scores_show_what_thinking_brings_and_each_number_leads_to_its_questions(thinking):
    html = scores(thinking, Filter(), "accuracy")
    assert html.count('class="dot think"') == len(MODELS)
    found = re.findall(r'data-model="(\w+)" data-outcome="(think_\w+)">([^<]+)<', html)
    found = [one for one in found if one[1] != "think_unparsed"]
    assert {outcome for _, outcome, _ in found} <= {"think_right", "think_lost", "think_gained"}
    assert len(found) == 2 * len(MODELS)
    for line in score_lines(thinking, np.ones(len(thinking.keys), dtype=bool), "accuracy"):
        change = line.changes["plain", "think"]
        assert change.lost == len(Wanted(line.model, "think_lost").keys(thinking))
        assert change.gained == len(Wanted(line.model, "think_gained").keys(thinking))
        assert line.shares["think"].right == len(Wanted(line.model, "think_right").keys(thinking))
        assert set(line.changes) == {("plain", "explain"), ("plain", "think"), ("explain", "think")}
    assert rows(thinking, Wanted("base", "asked"), 1).count("→") == 2 * len(MODELS), "three verdicts each"


def test_outcomes_of_thinking_are_offered_only_where_there_are_some(thinking, page):
    assert {"think_lost", "think_right"} <= set(outcomes(thinking))
    assert not any(one.startswith("think") for one in outcomes(page.results))


def test_a_saved_comparison_holds_the_thinking_under_its_own_heading(thinking):
    text = comparison(PageContext(thinking, Shelf(thinking)), thinking.keys[0], "en")
    assert len(re.findall(r"^Thinking, [\d,]+ characters$", text, re.MULTILINE)) == len(MODELS)


def test_the_exact_prompt_of_a_chat_is_the_conversation_with_its_system_message(folder):
    runs = [
        {"model": model, "benchmark": "kakuu", "prompt": "think", "format": "chat", "system_prompt": "簡潔に。"}
        for model in MODELS
    ]
    write_table(runs, folder / "runs" / "runs.parquet")
    results = read(folder, Origin("x"))
    page = PageContext(results, Shelf(results))
    text = exact_prompt(page, results.keys[0], "think", "en")
    assert "[system]\n簡潔に。\n\n[user]\n" in text and "chat template" in text
    assert "[user]" not in exact_prompt(page, results.keys[0], "plain", "en")
