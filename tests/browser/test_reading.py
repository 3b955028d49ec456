"""Reading in the browser: many models, long replies, a phone, a printer, and results of one prompt alone."""

from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.page.html import words
from tests.browser.conftest import opened, served
from tests.browser.test_ways import query
from tests.page.simulated import TWELVE, write

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def twelve(tmp_path_factory):
    """The address of a page with twelve models of long names."""
    folder = write(tmp_path_factory.mktemp("twelve"), per_section=3, models=TWELVE)
    yield from served(tmp_path_factory, results=str(folder))


BOXES = """() => [...document.querySelectorAll('#grid .columns .model')].filter(m => m.offsetParent)
  .sort((a, b) => a.getBoundingClientRect().x - b.getBoundingClientRect().x)
  .map(m => m.querySelector('h2').firstChild.textContent.trim())"""
"""The shown models' names from left to right."""


@pytest.mark.parametrize("size", ["desktop", "tablet", "phone"])
@pytest.mark.parametrize("language", ["ja", "en"])
def test_twelve_models_keep_their_names_whole_words_and_lines_at_one_height(chromium, twelve, size, language):
    for seen in opened(chromium, twelve, size=size, language=language):
        seen.open("?q=kakuu/115A1")
        seen.page.locator("#grid .columns .model").nth(11).wait_for(state="attached")
        assert seen.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        tops = seen.page.evaluate(
            "[...document.querySelectorAll('#grid .line.explain')].map(l => Math.round(l.getBoundingClientRect().y))"
        )
        assert len(tops) == 12 and len(set(tops)) == 1, "explanations begin at one height"
        heads = seen.page.eval_on_selector_all("#grid .matrix .name", "names => names.map(n => n.offsetHeight)")
        assert max(heads) < 70, "no name is written one letter a line"
        first = seen.page.locator("#grid .reply.explain").first.bounding_box()["y"]
        assert first + 20 < seen.page.locator("#bar").bounding_box()["y"], "it begins on the first screen"
        assert seen.page.get_by_role("tab").count() == 6, "no tab is hidden in a menu"
        seen.open("?tab=flips&model=base&outcome=asked")
        seen.page.wait_for_selector("#list .list button", state="visible")
        rows = seen.page.eval_on_selector_all("#list .list .text", "texts => texts.map(t => t.offsetWidth)")
        assert min(rows) > 200, "a question has room for its text"
        clipped = seen.page.evaluate(TEXT_UNDER_ARROW)
        assert clipped == [], "the text of a list ends before its arrow"
        assert seen.complaints == []


def test_five_models_are_in_one_row_and_their_lines_at_one_height_whatever_is_known_of_each(
    chromium, tmp_path_factory, tmp_path
):
    folder = write(tmp_path / "five", per_section=2, models=("base", "cpt", "final", "cpt-dpo", "rpo-only"))
    runs = folder / "runs" / "runs.parquet"
    rows = pq.read_table(runs).to_pylist()[:3]  # nothing is recorded of the last two
    pq.write_table(pa.Table.from_pylist([{**row, "source": f"organisation/{row['model']}" * 3} for row in rows]), runs)
    for address in served(tmp_path_factory, results=str(folder)):
        for seen in opened(chromium, address):
            seen.open("?q=kakuu/115A1")
            for part in ("h2", ".line.explain", ".reply.explain", ".line.plain"):
                tops = seen.page.eval_on_selector_all(
                    f"#grid .columns .model {part}", "all => all.map(p => Math.round(p.getBoundingClientRect().y))"
                )
                assert len(tops) == 5 and len(set(tops)) == 1, part
            assert seen.complaints == []


def test_on_a_phone_the_question_is_folded_called_back_and_solved_before_anything_is_shown(chromium, twelve):
    for seen in opened(chromium, twelve, size="phone"):
        seen.open("?q=kakuu/115A1")
        assert not seen.page.locator("#go-random").is_visible()
        seen.page.tap("[data-switch=lists]")
        assert seen.page.locator("#go-random").is_visible()
        seen.page.tap("[data-switch=unfolded]")
        assert seen.page.locator("#card .who").first.is_visible() and seen.page.locator("#card .key").is_visible()
        seen.page.evaluate("window.scrollTo(0, 1200)")
        assert seen.page.locator("#card .stem").bounding_box()["y"] < 0
        seen.page.tap("#card .recall")
        assert 0 < seen.page.locator("#card .choices").bounding_box()["y"] < 600, "the choices lie over the replies"
        assert seen.page.get_attribute("#card .recall", "aria-expanded") == "true"
        seen.page.evaluate("window.scrollTo(0, 0)")
        seen.wait("() => document.querySelector('#card .recall').getAttribute('aria-expanded') === 'false'")
        seen.page.tap("[data-switch=solving]")
        seen.page.tap("#go-next")
        seen.wait("() => document.querySelector('#card h2').innerText === '115A2'")
        assert not seen.page.locator("#grid").is_visible() and not seen.page.locator("#card .who").first.is_visible()
        seen.page.tap("#card [data-letter=c]")
        assert seen.page.locator("#grid").is_visible()
        assert "C ✓" in seen.page.inner_text(".own-answer")
        seen.page.tap("#go-next")
        seen.wait("() => document.querySelector('#card h2').innerText === '115A3'")
        assert not seen.page.locator("#grid").is_visible(), "the next question is asked first, too"
        assert seen.complaints == []


TEXT_UNDER_ARROW = """() => [...document.querySelectorAll('.controls input[role=combobox]')].filter(i => i.offsetParent)
  .filter(i => { const arrow = i.closest('.wrap-inner').querySelector('.icon-wrap').getBoundingClientRect();
    return i.getBoundingClientRect().right - parseFloat(getComputedStyle(i).paddingRight) > arrow.left; })
  .map(i => i.value)"""


def test_models_are_hidden_pinned_and_ordered_and_a_link_and_a_later_visit_show_the_same(chromium, twelve):
    for seen in opened(chromium, twelve):
        seen.open("?q=kakuu/115A1")
        seen.page.click("#grid .chips summary")
        seen.page.click("#grid .chips [data-name='o1'] [data-pin]")
        seen.page.click("#grid .chips [data-name='base'] [data-hide]")
        seen.page.click("#grid .chips [data-name='final'] [data-earlier]")
        order = ["o1", "final", "cpt", *(name for name in TWELVE[3:] if name != "o1")]
        assert seen.page.evaluate(BOXES) == order
        heads = seen.page.eval_on_selector_all(
            "#grid .matrix .name", "names => names.filter(n => n.offsetParent).length"
        )
        assert heads == 11
        assert seen.page.inner_text("[data-shown-models]") == "11"
        before = seen.page.inner_text("#card h2")
        seen.page.click("#go-next")
        seen.wait("before => document.querySelector('#card h2').innerText !== before", before)
        assert seen.page.evaluate(BOXES) == order, "another question keeps them"
        link = query(seen)
        seen.open("?q=kakuu/115A2")
        assert seen.page.evaluate(BOXES) == order
        for other in opened(chromium, twelve):
            other.open(f"?q={link['q']}&models={quote(link['models'])}")
            assert other.page.evaluate(BOXES) == order
        seen.page.click("#grid .chips summary")
        seen.page.click("[data-all-models]")
        assert seen.page.evaluate(BOXES) == [*TWELVE]
        assert "models" not in query(seen)
        assert seen.complaints == []


def test_a_reply_is_read_as_it_was_meant_beside_its_question_and_as_written_on_request(
    chromium, tmp_path_factory, tmp_path
):
    text = "<think>" + "考え。" * 900 + "</think>## 所見\n- **発熱**\n- 咳\n\n答え：a"
    folder = write(tmp_path / "shown", per_section=1)
    file = folder / "records" / "simulated.parquet"
    table = pq.read_table(file)
    written = [text if prompt == "explain" else "答え：a" for prompt in table.column("prompt").to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("completion"), "completion", pa.array(written)), file)
    for address in served(tmp_path_factory, results=str(folder)):
        for seen in opened(chromium, address):
            seen.open()
            reply = seen.page.locator("#grid .reply.explain").first
            assert reply.locator("strong").inner_text() == "発熱" and reply.locator("li").count() == 2
            assert "2,700" in reply.locator("summary").inner_text() and not reply.locator(".thinking .raw").is_visible()
            assert reply.bounding_box()["y"] < 600, "the first explanation begins on the first screen"
            seen.page.mouse.wheel(0, 900)
            seen.wait("() => window.scrollY > 300")
            assert 0 <= seen.page.locator("#card").bounding_box()["y"] < 100, "the question stays in view"
            seen.page.locator("details.as-written summary").first.click()
            seen.wait("text => document.querySelector('details.as-written pre').textContent === text", text)
            assert seen.complaints == []


def test_a_long_reply_shows_that_it_goes_on_and_is_opened_whole(chromium, tmp_path_factory, tmp_path):
    folder = write(tmp_path / "shown", per_section=2)
    file = folder / "records" / "simulated.parquet"
    table = pq.read_table(file)
    long = "".join(f"{place} 番目の所見を述べる。\n\n" for place in range(90)) + "答え：a"
    written = [long if prompt == "explain" else "答え：a" for prompt in table.column("prompt").to_pylist()]
    pq.write_table(table.set_column(table.column_names.index("completion"), "completion", pa.array(written)), file)
    for address in served(tmp_path_factory, results=str(folder)):
        for size in ("desktop", "phone"):
            for seen in opened(chromium, address, size=size):
                seen.open("?q=kakuu/115A1")
                reply = seen.page.locator("#grid .reply.explain").first
                assert "linear-gradient" in reply.evaluate("box => getComputedStyle(box).maskImage"), "it fades"
                end = seen.page.locator("#grid .more [data-end]").first
                end.scroll_into_view_if_needed()
                end.click()
                seen.wait("() => document.querySelector('#grid .reply.explain').classList.contains('ended')")
                assert reply.evaluate("box => getComputedStyle(box).maskImage") == "none", "its end is reached"
                seen.page.locator("#grid .more [data-switch=whole]").first.click()
                assert reply.evaluate("box => box.scrollHeight - box.clientHeight") <= 1, "the whole text is open"
                seen.page.click("#go-next")
                seen.wait("() => document.querySelector('#card h2').innerText === '115A2'")
                assert reply.evaluate("box => box.scrollHeight - box.clientHeight") <= 1, "and stays so"
                assert not seen.page.locator("#grid .reply.plain + .below [data-end]").first.is_visible()
                assert seen.complaints == []


def test_the_matrix_stays_in_view_on_a_phone_while_replies_are_read(chromium, twelve):
    for seen in opened(chromium, twelve, size="phone"):
        seen.open("?q=kakuu/115A1")
        top = seen.page.locator(".matrix-box").bounding_box()["y"]
        seen.page.evaluate(
            "document.querySelectorAll('.reply').forEach(r => { r.style = 'max-height: none; height: 900px'; })"
        )
        seen.page.evaluate(f"window.scrollTo(0, {top} + 500)")
        seen.wait("() => window.scrollY > 300")
        assert 0 <= seen.page.locator(".matrix-box").bounding_box()["y"] < 60


@pytest.mark.long
def test_what_is_printed_has_every_model_and_whole_texts_and_no_controls(chromium, twelve):
    for seen in opened(chromium, twelve):
        seen.open("?q=kakuu/115A1")
        seen.page.emulate_media(media="print")
        seen.page.set_viewport_size({"width": 720, "height": 1000})
        boxes = seen.page.eval_on_selector_all(
            "#grid .columns .model",
            "all => all.map(m => [m.getBoundingClientRect().left, m.getBoundingClientRect().right])",
        )
        assert len(boxes) == 12 and all(left >= 0 and right <= 720 for left, right in boxes), "none is off the paper"
        hidden = seen.page.eval_on_selector_all(
            "#grid .reply", "all => all.filter(r => r.scrollHeight > r.clientHeight + 1).length"
        )
        assert hidden == 0
        for control in ("#go-next", ".chips", "footer", ".top nav", "[role=tab]"):
            assert not seen.page.locator(control).first.is_visible(), control
        assert seen.page.locator("#bar").evaluate("bar => getComputedStyle(bar).position") == "static"


@pytest.mark.long
def test_results_of_one_prompt_have_its_rows_alone(chromium, tmp_path_factory, tmp_path):
    for prompt, other in (("plain", "explain"), ("explain", "plain")):
        folder = write(tmp_path / prompt, per_section=2, prompts=(prompt,))
        for address in served(tmp_path_factory, results=str(folder)):
            for seen in opened(chromium, address):
                seen.open("?q=kakuu/115A1")
                assert words()[prompt]["ja"] in seen.page.inner_text(".matrix")
                assert words()[other]["ja"] not in seen.page.inner_text("#grid")
                seen.open("?tab=scores")
                seen.page.wait_for_selector("#figures .figures")
                assert words()[other]["ja"] not in seen.page.inner_text("#figures")
                assert words()["retention"]["ja"] not in seen.page.inner_text("#figures")
                seen.open("?tab=flips")
                seen.wait("() => Number(document.querySelector('#list .count b').innerText) > 0")
                assert seen.complaints == []
