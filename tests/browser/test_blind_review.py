"""The blind review in a browser: votes that are kept, names that come late, drafts, texts as the model wrote them."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from medllm.page.html import words
from medllm.votes.journal import Journal
from medllm.votes.vote import counted
from tests.browser.conftest import opened, served
from tests.page.simulated import write

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_a_vote_is_on_the_disk_when_thanks_are_shown_and_names_come_only_then(
    chromium, tmp_path, evaluation_folder, tmp_path_factory
):
    for address in served(tmp_path_factory, results=str(evaluation_folder), votes=tmp_path / "votes"):
        for seen in opened(chromium, address):
            seen.open("?tab=review")
            seen.page.wait_for_selector("form.vote")
            assert "final" not in seen.page.inner_text("form.vote")
            assert "0" in seen.page.inner_text("#agreement") and "1" not in seen.page.inner_text("#agreement")
            assert seen.page.locator("[id=agreement]").count() == 1
            assert seen.page.is_disabled("[data-choose=a]")
            seen.page.locator("[data-side=a] [data-sentence]").first.click()
            seen.page.check("[name=reasons_a][value=omission]")
            seen.page.check("[name=consent]")
            seen.page.click("[data-choose=b]")
            seen.page.wait_for_selector("#saved")
            (vote,) = Journal(tmp_path / "votes").votes()
            assert (vote.choice, vote.reasons_a, len(vote.faulty_a)) == ("b", ("omission",), 1)
            assert "final" not in seen.page.inner_text("#review-box"), "later votes stay blind"
            assert seen.page.inner_text("#agreement").count("1") == 2, "one vote of one rater"
            seen.page.wait_for_selector("form.vote[data-at='1']")
            assert seen.complaints == []


def test_a_review_keeps_profession_and_draft_and_goes_by_keys_back_and_on_to_the_names(
    chromium, tmp_path, evaluation_folder, tmp_path_factory
):
    journal = Journal(tmp_path / "votes")
    for address in served(tmp_path_factory, results=str(evaluation_folder), votes=journal.folder):
        for seen in opened(chromium, address):
            seen.open("?tab=review")
            seen.page.check("[name=consent]")
            seen.page.select_option("#vote-role", "nurse")
            seen.page.locator("[data-side=b] [data-sentence]").first.click()
            seen.page.check("[name=reasons_b][value=fact]")
            seen.page.fill("#vote-note", "注意")
            seen.open("?tab=review")
            seen.page.wait_for_selector(".draft-status", state="visible")
            assert seen.page.input_value("#vote-role") == "nurse"
            assert seen.page.input_value("#vote-note") == "注意"
            assert seen.page.is_checked("[name=reasons_b][value=fact]")
            assert seen.page.get_attribute("[data-side=b] [data-sentence='0']", "aria-pressed") == "true"
            seen.page.fill("#vote-note", "1 2 3")
            assert journal.votes() == [], "keys in a text are text"
            seen.page.locator("[data-side=a] .text").focus()
            for at, key in enumerate("1430"):
                seen.page.wait_for_selector(f"form.vote[data-at='{at}']")
                seen.page.keyboard.press(key)
            seen.page.wait_for_selector("form.vote[data-at='4']")
            assert seen.page.is_hidden(".draft-status"), "a draft belongs to its pair"
            assert [vote.choice for vote in journal.votes()] == ["a", "bad", "tie", "skip"]
            assert [vote.role for vote in journal.votes()] == ["nurse"] * 4
            assert "4 / 20" in seen.page.inner_text("#progress-text")
            seen.page.keyboard.press("z")
            seen.page.wait_for_selector("form.vote[data-at='3']")
            seen.page.keyboard.press("2")
            seen.page.wait_for_selector("form.vote[data-at='4']")
            assert [vote.choice for vote in counted(journal.votes())] == ["a", "bad", "tie", "b"]
            for at in range(4, 20):
                seen.page.wait_for_selector(f"form.vote[data-at='{at}']")
                seen.page.keyboard.press("1")
            seen.page.wait_for_selector("table.judged")
            assert seen.page.locator("table.judged tbody tr").count() == 20
            assert "final" in seen.page.inner_text("table.judged")
            with seen.page.expect_download() as saved:
                seen.page.click("[data-own][download]")
            assert saved.value.path().read_text(encoding="utf-8-sig").count("\n") == 22, "with the corrected one"
            seen.page.click("#review-box [data-own] summary")
            seen.wait("() => document.querySelector('[data-own] pre').textContent.includes('κ') ||"
                      " document.querySelector('[data-own] pre').textContent.includes('votes')")  # fmt: skip
            seen.page.click("#next-block")
            seen.page.wait_for_selector("form.vote[data-at='20']")
            assert seen.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_ticked_box_looks_ticked(chromium, site, scheme):
    for seen in opened(chromium, site, scheme=scheme):
        seen.open("?tab=review")
        box = seen.page.locator("[name=reasons_a][value=omission]")
        box.wait_for()
        empty = np.asarray(Image.open(io.BytesIO(box.screenshot())).convert("L"), dtype=int)
        box.check()
        seen.page.mouse.move(0, 0)
        ticked = np.asarray(Image.open(io.BytesIO(box.screenshot())).convert("L"), dtype=int)
        assert (np.abs(empty - ticked) > 60).mean() > 0.3, "a third of its pixels at least"


def test_the_text_that_is_judged_is_the_text_that_the_model_wrote(chromium, tmp_path_factory, tmp_path):
    texts = {
        "base": "## 解説\n\n- 主訴：発熱\n- 経過：3日\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n答え：a",
        "cpt": "別の説明。\n答え：b",
        "final": "答え：c",
    }
    folder = write(tmp_path / "shown", per_section=1)
    file = folder / "records" / "simulated.parquet"
    table = pq.read_table(file)
    written = pa.array([texts[model] for model in table.column("model").to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("completion"), "completion", written), file)
    for address in served(tmp_path_factory, results=str(folder), votes=tmp_path / "votes"):
        for seen in opened(chromium, address):
            seen.open("?tab=review")
            seen.page.wait_for_selector("form.vote")
            for fold in seen.page.locator(".sentences summary").all():
                fold.click()
            read = {seen.page.inner_text(f"[data-side={side}] .text").strip() for side in "ab"}
            assert len(read) == 2 and read <= {*texts.values()}
            assert seen.page.locator(".shown").count() == sum("##" in text for text in read)
            assert seen.page.locator(".shown td").count() == 2 * seen.page.locator(".shown").count()


def test_a_vote_that_the_server_does_not_answer_is_shown_as_unsaved(tab):
    tab.open("?tab=review")
    tab.page.wait_for_selector("form.vote")
    tab.page.route("**/medllm/vote", lambda route: route.abort())
    tab.page.check("[name=consent]")
    tab.page.click("[data-choose=tie]")
    tab.wait("text => document.querySelector('.vote-status').textContent.includes(text)", words()["not_saved"]["ja"])
    assert tab.page.is_enabled("[data-choose=tie]")
