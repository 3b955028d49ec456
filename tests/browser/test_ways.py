"""The ways through the page: choosing, links, numbers that open questions, hostile text, votes that are kept."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest

from medllm.page.html import words
from medllm.page.loading import load
from medllm.page.selection import Wanted
from tests.browser.conftest import opened, served
from tests.page.simulated import HOSTILE

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def query(seen) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(seen.page.url).query).items()}


def test_next_moves_on_and_the_link_shows_the_same_question_again(tab, chromium, site):
    tab.open()
    before = tab.page.inner_text("#card h2")
    tab.page.get_by_role("button", name=words()["next"]["ja"], exact=True).click()
    tab.wait("before => document.querySelector('#card h2').innerText !== before", before)
    tab.wait("() => new URL(location).searchParams.get('q')")
    shown, link = tab.page.inner_text("#card h2"), query(tab)["q"]
    for again in opened(chromium, site, language="en"):
        again.open(f"?q={link}&lang=en")
        again.wait("shown => document.querySelector('#card h2').innerText === shown", shown)
        assert again.page.evaluate("document.documentElement.lang") == "en"
        assert words()["plain"]["en"] in again.page.inner_text(".matrix")


def test_a_link_to_a_question_that_is_not_there_says_so_and_shows_another(tab):
    tab.open("?q=no-such-question<img src=x onerror=alert(1)>")
    tab.page.wait_for_selector("text=この記録にありません")
    assert tab.page.inner_text("#card h2")
    assert tab.page.evaluate("window.ran") == []
    assert tab.complaints == []


def test_the_language_is_switched_and_remembered(tab):
    tab.open()
    tab.page.click("[data-speak=en]")
    tab.wait(
        "() => document.documentElement.lang === 'en' && document.documentElement.classList.contains('medllm-ready')"
    )
    assert words()["title"]["en"] in tab.page.inner_text("h1")
    assert tab.page.get_by_role("tab", name="Scores").count()
    tab.open()
    assert tab.page.evaluate("document.documentElement.lang") == "en"
    assert tab.page.get_attribute("[data-speak=en]", "aria-pressed") == "true"


def test_a_switch_of_language_keeps_what_is_typed_chosen_and_shown(tab):
    tab.open("?tab=flips&model=final&outcome=gained")
    tab.page.get_by_label(words()["find"]["ja"]).fill("架空")
    tab.page.evaluate("window.same = true")
    tab.page.click("[data-speak=en]")
    tab.page.get_by_role("tab", name=words()["flips"]["en"]).wait_for()
    assert tab.page.evaluate("window.same"), "no page was loaded"
    assert tab.page.get_by_label(words()["find"]["en"]).input_value() == "架空"
    assert tab.page.get_by_label(words()["outcome"]["en"]).input_value() == words()["gained_long"]["en"]
    assert tab.page.get_by_role("button", name=words()["more"]["en"]).count() == 1
    chrome = tab.page.evaluate(WITHOUT_OWN_HTML)
    assert [text for text in chrome if any("ぁ" <= letter <= "ん" for letter in text)] == []
    tab.page.get_by_label(words()["outcome"]["en"]).click()
    tab.page.get_by_role("option", name=words()["kept_long"]["en"]).wait_for()
    tab.page.keyboard.press("Escape")
    tab.page.click("[data-speak=ja]")
    tab.page.get_by_label(words()["find"]["ja"]).wait_for()
    tab.page.get_by_role("tab", name=words()["review"]["ja"]).click()
    tab.page.fill("#vote-note", "途中")
    tab.page.click("[data-speak=en]")
    tab.wait("text => document.querySelector('#vote-role')?.innerText.includes(text)", words()["role_nurse"]["en"])
    assert tab.page.input_value("#vote-note") == "途中"
    assert tab.complaints == []


WITHOUT_OWN_HTML = """() => [...document.querySelectorAll('.gradio-container :is(label, button, span)')]
  .filter(part => part.offsetParent && !part.closest('.html-container, footer')).map(part => part.innerText)"""


def test_a_number_opens_its_questions_and_a_question_opens_compare(tab):
    tab.open("?tab=scores")
    number = tab.page.locator("#figures [data-model=base][data-outcome=lost]").nth(1)
    count = int("".join(letter for letter in number.text_content().split("（")[0] if letter.isdigit()))
    number.click()
    tab.page.wait_for_selector("#list .list button", state="visible")
    tab.wait("count => Number(document.querySelector('#list .count b').innerText) === count", count)
    tab.wait("() => new URL(location).searchParams.get('outcome') === 'lost'")
    row = tab.page.locator("#list .list button").first
    name = row.locator(".id").inner_text()
    row.click()
    tab.wait("name => document.querySelector('#card h2')?.innerText === name", name)
    tab.page.wait_for_selector(".matrix td:is(.lost, .harmed, .unread, .cut)", state="visible")
    assert query(tab)["tab"] == "compare"


def test_a_list_is_walked_with_its_place_and_the_way_back_by_buttons_keys_and_history(tab):
    tab.open("?tab=flips&model=base&outcome=lost")
    tab.wait("() => document.querySelectorAll('#list [data-key]').length === 10")
    keys = tab.page.eval_on_selector_all("#list [data-key]", "rows => rows.map(row => row.dataset.key)")
    total = tab.page.inner_text("#list .count b")
    tab.page.locator("#list [data-key]").nth(1).click()
    tab.wait("text => document.querySelector('#place').innerText.includes(text)", f"2 / {total}")
    assert query(tab)["q"] == keys[1]
    tab.page.locator("#go-next").click()
    tab.wait("text => document.querySelector('#place').innerText.includes(text)", f"3 / {total}")
    tab.wait("key => new URLSearchParams(location.search).get('q') === key", keys[2])
    tab.page.locator("#card").click()
    tab.page.keyboard.press("k")
    tab.wait("text => document.querySelector('#place').innerText.includes(text)", f"2 / {total}")
    tab.page.go_back()
    tab.wait("text => document.querySelector('#place').innerText.includes(text)", f"3 / {total}")
    tab.page.keyboard.press("u")
    tab.page.locator("#list [data-key].seen").wait_for()
    assert query(tab)["tab"] == "flips"
    tab.page.go_back()
    tab.page.locator("#place").wait_for()
    tab.wait("text => document.querySelector('#place').innerText.includes(text)", f"3 / {total}")
    assert tab.complaints == []


def test_a_link_restores_an_ordered_list(tab, evaluation_folder):
    recorded = load(str(evaluation_folder))
    for sort in ("hardest", "longest"):
        first = Wanted("base", "asked", sort=sort).keys(recorded)[0]
        tab.open(f"?tab=flips&model=base&outcome=asked&sort={sort}")
        tab.wait("key => document.querySelector('#list [data-key]')?.dataset.key === key", first)
        tab.page.wait_for_timeout(1000)  # a value that is set late would order the list again
        assert tab.page.get_attribute("#list [data-key]", "data-key") == first


def test_a_search_finds_words_of_stem_choice_and_reply_in_any_width_as_one_types(tab):
    tab.open("?tab=flips&model=base&outcome=asked")
    field = tab.page.locator("label", has_text=words()["find"]["ja"]).locator("textarea, input").first
    for text, least, most in (
        ("１１５Ａ３", 1, 1),
        ("架空検査乙 発熱", 20, 48),
        ("ない語 発熱", 0, 0),
        ("画像の所見", 40, 48),
    ):
        field.fill(text)
        tab.wait(
            "([low, high]) => (n => low <= n && n <= high)(Number(document.querySelector('#list .count b').innerText))",
            [least, most],
        )
    field.fill("架空病")
    tab.page.locator("#list mark", has_text="架空病").first.wait_for()


def test_the_keyboard_reaches_tabs_replies_and_the_key(tab):
    tab.open()
    tab.page.focus("[role=tab][aria-selected=true]")
    for _ in range(60):
        tab.page.keyboard.press("Tab")
        if tab.page.evaluate("document.activeElement.tagName") == "SUMMARY":
            break
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("details.key[open]")
    tab.page.focus(".reply.explain")
    assert tab.page.evaluate("document.activeElement.classList.contains('explain')")


def test_tab_leads_from_a_list_to_the_control_beside_it_and_an_opened_question_has_the_focus(tab):
    tab.open()
    tab.page.get_by_label(words()["which"]["ja"], exact=True).first.focus()
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.id") == "go-previous"
    tab.page.keyboard.press("Shift+Tab")
    assert tab.page.evaluate("document.activeElement.getAttribute('aria-label')") == words()["which"]["ja"]
    tab.open("?tab=flips")
    row = tab.page.locator("#list [data-key]").first
    row.focus()
    name = row.locator(".id").inner_text()
    tab.page.keyboard.press("Enter")
    tab.wait("name => document.activeElement.tagName === 'H2' && document.activeElement.innerText === name", name)
    assert tab.complaints == []


def test_at_four_hundred_percent_no_tab_is_wider_than_the_screen_and_the_bar_covers_nothing(tab):
    tab.page.set_viewport_size({"width": 360, "height": 225})
    for name in ("compare", "scores", "flips", "ask", "review", "about"):
        tab.open(f"?tab={name}")
        assert tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name
        assert tab.page.locator("#bar").evaluate("bar => getComputedStyle(bar).position") == "static"


def test_hostile_output_is_inert_text_on_every_tab(tab, evaluation_folder):
    tab.open("?q=kakuu/115A3")
    tab.wait("text => document.querySelector('.stem').textContent === text", HOSTILE)
    assert HOSTILE.replace("`", "") in tab.page.text_content(".reply.explain").replace("`", "")
    tab.open("?tab=flips&outcome=asked&model=base&find=alert")
    tab.wait("text => document.querySelector('#list .text')?.textContent.startsWith(text.slice(0, 40))", HOSTILE)
    assert tab.page.evaluate("window.ran") == []
    assert tab.page.evaluate("document.querySelectorAll('#card img, #grid img, #grid script, #list img').length") == 0
    assert tab.complaints == []
    assert tab.foreign == []


def test_two_replies_are_compared_on_request_and_others_can_be_chosen(tab):
    tab.open("?q=kakuu/115A3")
    tab.page.click("#grid .differ summary")
    tab.page.wait_for_selector(".differ-table table")
    assert tab.page.locator(".differ-table thead th").all_inner_texts()[0].startswith("base")
    assert tab.page.locator(".differ-table td.read").count() <= 2
    tab.page.select_option("[data-reply=b]", "plain final")
    tab.wait("() => document.querySelector('.differ-table thead th:last-child').innerText.startsWith('final')")
    assert tab.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert tab.page.evaluate("window.ran") == []
    assert tab.complaints == []


def test_the_exact_prompt_comes_when_it_is_opened(tab):
    tab.open("?q=kakuu/115A1")
    tab.page.locator("details.prompt summary").last.click()
    tab.wait("() => document.querySelectorAll('details.prompt pre')[1].textContent.includes('Explanation:')")


@pytest.mark.long
@pytest.mark.parametrize("language", ["ja", "en"])
def test_a_connection_that_is_lost_is_reported_in_the_readers_language(
    chromium, tmp_path_factory, evaluation_folder, language
):
    serving = served(tmp_path_factory, results=str(evaluation_folder))
    for seen in opened(chromium, next(serving), language=language):
        seen.open("?q=kakuu/115A1")
        next(serving, None)  # closes the server
        seen.page.click("#go-next")
        seen.page.locator("[class*=toast-title]").first.wait_for()
        text = seen.page.locator("[class*=toast-body]").first.inner_text()
        # Gradio's title is "Connection Lost" or "Error", by what notices the loss first.
        assert ("接続が切れました" if language == "ja" else "Connection") in text
        assert bool(re.search("[A-Za-z]{3}", text)) == (language == "en"), text


@pytest.mark.parametrize("language", ["ja", "en"])
def test_results_that_are_not_there_are_a_panel_in_the_reader_s_language(chromium, tmp_path_factory, language):
    for address in served(tmp_path_factory, results="./no-such-results"):
        for seen in opened(chromium, address, language=language):
            seen.open()
            assert seen.page.evaluate("performance.now()") < 50_000, "shown only when waiting for the page was given up"
            assert words()["fault_title"][language] in seen.page.inner_text(".panel")
            assert seen.complaints == []
