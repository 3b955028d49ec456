"""The pieces of HTML: hostile text stays text, every state has a word, and the lists stay short."""

import csv
import io
import itertools
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest

from medllm.page.components import LABELS
from medllm.page.context import LONGEST_LIST, Shelf
from medllm.page.grid import TEMPLATE, grid_value
from medllm.page.html import LANGUAGES, LONGEST_CARD, both, question_card, safe, words
from medllm.page.routes import COLUMNS, columns_of, comparison, lines
from medllm.page.scores import scores
from medllm.page.selection import OUTCOMES, Filter, Wanted, records_of, rows
from medllm.side_by_side import Cell
from tests.page.simulated import HOSTILE, MODELS

ALLOWED = {
    "section", "div", "h2", "h3", "span", "p", "ol", "ul", "li", "b", "strong", "small", "details", "summary", "table",
    "caption", "thead", "tbody", "tr", "th", "td", "em", "pre", "br", "code", "button", "a", "i",
    "aside", "header", "nav", "h1", "select", "option",
}  # fmt: skip


class Tags(HTMLParser):
    """Collects what a browser would see as markup."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], []

    def handle_starttag(self, tag, attrs):
        """Note a tag."""
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        """Note a text."""
        self.text.append(data)


def seen(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    return tags


def flat(value: object) -> str:
    if isinstance(value, dict):
        return "".join(flat(inner) for inner in value.values())
    return "".join(flat(inner) for inner in value) if isinstance(value, list) else str(value)


def hostile_key(page):
    return next(key for key, q in zip(page.results.keys, page.results.questions, strict=True) if q.text == HOSTILE)


def test_hostile_text_is_shown_word_for_word_and_is_neither_markup_nor_template(page):
    key = hostile_key(page)
    grid = flat(grid_value(page.results.replies(key), key=key, models=MODELS, notes={}))
    for html in (question_card(key, page.results.question(key)), grid):
        tags = seen(html)
        assert HOSTILE.replace("`", "") in "".join(tags.text).replace("`", "")
        assert tags.tags <= ALLOWED
        assert not [name for name, _ in tags.attributes if name.startswith("on")]
        assert not re.search(r"[{}`$]", html)


def test_the_template_holds_no_double_braces():
    assert "{{" not in TEMPLATE
    assert "}}" not in TEMPLATE


def test_escaping_a_growing_text_only_ever_appends():
    text = HOSTILE * 2
    parts = [safe(text[:end]) for end in range(len(text))]
    assert all(later.startswith(earlier) for earlier, later in itertools.pairwise(parts))


@pytest.mark.parametrize("state", ["absent", "waiting", "running", "stopped", "failed"])
def test_every_unfinished_state_has_a_word_in_both_languages(state):
    cells = {("base", "plain"): Cell("base", "plain", state)}
    text = flat(grid_value(cells, key="x", models=["base"], notes={}))
    assert all(words()[state][language] in text for language in LANGUAGES)


@pytest.mark.parametrize("status", ["unparsed", "truncated", "run_on", "loop", "wrong_count"])
def test_what_is_no_plain_answer_is_a_state_of_its_own_and_explained(status):
    cells = {("base", "explain"): Cell("base", "explain", "done", text="…", status=status, correct=False)}
    text = flat(grid_value(cells, key="x", models=["base"], notes={}))
    assert words()[status]["ja"] in text
    assert words()[f"{status}_long"]["en"] in text
    assert 'class="badge wrong"' not in text


def test_a_prohibited_choice_is_warned_of_in_matrix_and_column():
    cell = Cell("base", "plain", "done", text="a", status="answered", answer="a", correct=False, prohibited="a")
    value = grid_value({("base", "plain"): cell}, key="x", models=["base"], notes={})
    assert words()["prohibited"]["en"] in value["matrix"]
    assert words()["prohibited_long"]["en"] in flat(value["columns"])


def test_a_reply_of_a_hundred_kilobytes_is_cut_in_the_middle_and_keeps_its_answer():
    text = "長" * 100_000 + "答え:a"
    cell = Cell("base", "explain", "done", text=text, status="answered", answer="a", correct=True)
    body = flat(grid_value({("base", "explain"): cell}, key="x", models=["base"], notes={}))
    assert len(body) < LONGEST_CARD * 2
    assert "答え:a" in body
    assert "80,004" in body


def test_lists_for_choosing_stay_short_whatever_the_exam(page):
    shelf = Shelf(page.results)
    for place in shelf.places:
        assert len(shelf.numbers(place.exam, place.year, place.section)) <= LONGEST_LIST
    assert [shelf.beside(place.key, 0) for place in shelf.places] == [place.key for place in shelf.places]
    assert shelf.beside(shelf.places[-1].key, 1) == shelf.places[0].key


def test_every_sentence_is_there_in_both_languages_and_they_differ():
    same = [key for key, sentence in words().items() if sentence["ja"] == sentence["en"]]
    assert same == []
    assert all(set(sentence) == set(LANGUAGES) for sentence in words().values())
    assert 'class="ja"' in both("title")


def test_scores_lead_to_lists_with_exactly_as_many_questions(page):
    html = scores(page.results, Filter(), "accuracy")
    for model, outcome, number in re.findall(r'data-model="(\w+)" data-outcome="(lost|gained)">(\d+)<', html):
        assert len(Wanted(model, outcome).keys(page.results)) == int(number)
    assert len(re.findall(r'data-outcome="lost">\d+<', html)) == len(MODELS)


def test_prohibited_choices_are_counted_by_prompt_and_lead_to_their_list(page):
    html = scores(page.results, Filter(), "accuracy")
    shown = re.findall(r'data-model="(\w+)" data-outcome="prohibited">(\d+) → (\d+)<', html)
    chosen = {
        (model, prompt): {key for key in page.results.keys if page.results.record(key, model, prompt).prohibited}
        for model in MODELS
        for prompt in ("plain", "explain")
    }
    assert any(chosen.values())
    assert shown == [(m, str(len(chosen[m, "plain"])), str(len(chosen[m, "explain"]))) for m in MODELS]
    for model in MODELS:
        listed = Wanted(model, "prohibited").keys(page.results)
        assert set(listed) == chosen[model, "plain"] | chosen[model, "explain"]


def test_the_list_counts_filters_and_leaves_as_a_file(page):
    wanted = Wanted("base", "lost", Filter(year="2022"))
    keys = wanted.keys(page.results)
    assert keys
    assert all(page.results.question(key).year == 2022 for key in keys)
    assert f"<b>{len(keys)}</b>" in rows(page.results, wanted, 20)
    assert Wanted.read({"model": "base", "outcome": "lost", "year": "2022"}, page.results) == wanted
    assert len("".join(lines(records_of(page.results, wanted), "jsonl")).splitlines()) == len(keys) * 6
    alone = list(csv.DictReader(io.StringIO("".join(lines(records_of(page.results, wanted, only=True), "csv")))))
    assert len(alone) == len(keys) * 2 and {row["model"] for row in alone} == {"base"}


def test_a_download_has_the_columns_that_are_chosen(page):
    wanted = Wanted("base", "lost")

    def header(chosen):
        text = "".join(lines(records_of(page.results, wanted), "csv", columns_of(chosen)))
        return text.removeprefix("\ufeff").splitlines()[0].split(","), len(text)

    whole, size = header("")
    short, less = header("no-texts")
    assert whole == list(COLUMNS) and set(whole) - set(short) == {"completion", "reasoning"} and less < size
    assert header("answer,question_id,nonsense")[0] == ["question_id", "answer"], "in the schema's order"
    assert header("nonsense")[0] == whole
    assert "columns=no-texts" in rows(page.results, wanted, 1)


def test_a_long_list_leaves_in_pieces_and_a_row_names_its_letters(page):
    wanted = Wanted("base", "lost")
    records = list(records_of(page.results, wanted)) * 40
    pieces = list(lines(records, "csv"))
    assert len(pieces) > 2 and max(map(len, pieces)) < 80_000
    key = wanted.keys(page.results)[0]
    plain, explained = (page.results.record(key, "base", prompt) for prompt in ("plain", "explain"))
    row = re.sub("<[^>]+>", "", rows(page.results, wanted, 1))
    assert f"base{plain.answer.upper()}✓" in row and f"→{(explained.answer or '').upper()}" in row


def test_a_question_of_any_characters_is_opened_from_a_list(page):
    odd = "115\u202eA'1\""
    first = page.results.questions[0].question_id
    ids = [odd if name == first else name for name in page.results.table.column("question_id").to_pylist()]
    at = page.results.table.column_names.index("question_id")
    table = page.results.table.set_column(at, "question_id", pa.array(ids))
    questions = (replace(page.results.questions[0], question_id=odd), *page.results.questions[1:])
    results = replace(page.results, questions=questions, table=table, _memory={})
    html = rows(results, Wanted("base", "asked"), 1)
    (named,) = re.findall(r'data-key="([^"]*)"', html)
    assert unquote(named) == results.keys[0] == f"kakuu/{odd}"
    assert "\u202e" not in html


def test_a_cell_that_a_spreadsheet_would_run_is_made_inert(page):
    record = page.results.record(page.results.keys[0], "base", "plain")
    risky = type(record)(
        **{name: getattr(record, name) for name in record.__dataclass_fields__} | {"completion": "=1+1"}
    )
    assert "'=1+1" in "".join(lines([risky], "csv"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_saved_comparison_holds_question_key_all_replies_and_the_disclaimer(page, language):
    key = hostile_key(page)
    text = comparison(page, key, language)
    assert words()["disclaimer"][language] in text
    assert text.count("## ") == 6
    assert HOSTILE in text


def test_no_value_of_a_control_is_a_key_of_the_translations():
    # Gradio translates any such value on its way to the browser, and then refuses what comes back.
    assert not {"accuracy", "points", *OUTCOMES} & set(LABELS)


def test_a_change_names_its_pairs_and_only_an_interval_without_zero_is_coloured(page):
    html = scores(page.results, Filter(), "accuracy")
    total = len(page.results.keys)
    assert html.count(f"<small>n = {total}</small>") >= len(MODELS)
    cells = re.findall(r'--v:(-?[\d.]+)">.*?\[([+−][\d.]+), ([+−][\d.]+)\]', html)
    assert cells
    for strength, low, high in cells:
        spans = low.startswith("−") and high.startswith("+")
        assert not (spans and float(strength))
    assert any(float(strength) for strength, _, _ in cells)
    assert words()["many_comparisons"]["en"].split("{n}")[0] in html


def test_a_change_over_a_part_of_the_questions_is_marked(page):
    results = page.results
    explained = np.asarray([prompt == "explain" for prompt in results.table.column("prompt").to_pylist()])
    late = np.asarray([year == 2022 for year in results.table.column("year").to_pylist()])
    partial = replace(results, table=results.table.filter(pa.array(~(explained & late))), _memory={})
    assert words()["pairs_of"]["en"].format(n=40, all=80) in scores(partial, Filter(), "accuracy")
    assert words()["pairs_of"]["en"].format(n=80, all=80) not in scores(results, Filter(), "accuracy")
