"""Much and long: 200,000 records, and texts of 100 kB, are shown like any others, whole where they are saved."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medllm.page.html import words
from tests.browser.conftest import opened, served
from tests.page.simulated import write

pytestmark = [pytest.mark.browser, pytest.mark.long]

COPIES = 700
LONG = "長い説明。" * 20_000
"""100,000 characters, 300 kB."""


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """The made-up evaluation 700 times over, with long texts in one question."""
    folder = write(tmp_path_factory.mktemp("large"), per_section=12)
    for name in ("records", "questions"):
        (file,) = (folder / name).glob("*.parquet")
        table = pq.read_table(file)
        ids = table.column("question_id").to_pylist()
        copies = [changed(table, "question_id", [f"{one}-{copy}" for one in ids]) for copy in range(COPIES)]
        column = "completion" if name == "records" else "text"
        texts = [f"{LONG}終わり" if one == "115A1" else text
                 for one, text in zip(ids, table.column(column).to_pylist(), strict=True)]  # fmt: skip
        copies[0] = changed(copies[0], column, texts)
        pq.write_table(pa.concat_tables(copies), file)
    return folder


def changed(table: pa.Table, column: str, values: list[str]) -> pa.Table:
    """The table with other values in one column."""
    at = table.schema.get_field_index(column)
    return table.set_column(at, table.schema.field(at), pa.array(values))


def test_two_hundred_thousand_records_and_texts_of_a_hundred_kilobytes(chromium, tmp_path_factory, large):
    assert pq.read_table(large / "records").num_rows > 200_000
    for address in served(tmp_path_factory, results=str(large), votes=tmp_path_factory.mktemp("votes")):
        for seen in opened(chromium, address, size="phone"):
            seen.open("?q=kakuu/115A1-0")
            seen.wait("() => document.querySelector('#card h2')?.innerText === '115A1-0'")
            for place in (".stem", ".reply.explain"):
                assert "終わり" in seen.page.text_content(place)
                assert len(seen.page.text_content(place)) < 25_000
                assert seen.page.locator(f"{place} .gap").count()
            assert seen.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
            seen.page.locator("details.prompt summary").first.click()
            seen.wait("size => document.querySelector('details.prompt pre').textContent.length > size", len(LONG))
            whole = seen.page.request.get(f"{address}medllm/comparison.md?q=kakuu/115A1-0").text()
            assert whole.count(LONG) == 7, "the question and six replies"
            config = seen.page.request.get(f"{address}config").body()
            assert len(config) < len(LONG.encode()), "the page starts without any of its long texts"
            seen.open("?tab=scores&lang=ja")
            seen.page.wait_for_selector("#figures .figures", state="visible")
            assert "33,600" in seen.page.inner_text("#figures")
            seen.open("?tab=flips&find=-699")
            seen.page.wait_for_selector("#list .count", state="visible")
            seen.open("?q=kakuu/115A1-9999")
            seen.page.wait_for_selector(f"text={words()['fault_no_question']['ja'].split('}')[1][:12]}")
            assert seen.complaints == []
