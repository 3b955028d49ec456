"""Pages give the text that a reader sees, with their own date and licence; hostile ones are refused."""

import pytest

from medllm.corpus.documents import UnreadableError
from medllm.corpus.read.text_files import DEEPEST, read_html, read_markdown
from tests.refusals import refused


def test_a_page_without_its_menus_scripts_and_readings():
    head = (
        '<script>alert("x")</script><meta property="article:published_time" content="2016-05-01">'
        '<link rel="license" href="https://creativecommons.org/licenses/by/4.0/">'
    )
    menu = '<nav><a href="/">ホーム</a></nav>'
    reading = "<p>肺の<ruby>炎症<rp>(</rp><rt>えんしょう</rt></ruby>である。\n</p>"
    rest = "<ul><li>細菌<li>ウイルス</ul><p>A &lt; B&amp;C</p>"
    page = read_html(
        f"<html><head>{head}</head><body>{menu}<h1>肺炎</h1>{reading}{rest}<footer>©</footer></body></html>"
    )
    assert page.text.split("\n") == ["肺炎", "肺の炎症である。", "細菌", "ウイルス", "A < B&C"]
    assert page.published == "2016-05-01"
    assert page.license == "https://creativecommons.org/licenses/by/4.0/"


def test_tags_that_are_never_closed_or_never_opened_do_not_swallow_the_text():
    assert read_html("</div></p><b>発熱<i>と咳</b>がある</i><nav>メニュー</nav>。").text == "発熱と咳がある。"


def test_a_page_nested_too_deeply_is_refused():
    with refused("corpus.nested-too-deeply", "2,000", kind=UnreadableError):
        read_html("<div>" * 1_000_000 + "肺炎" + "</div>" * 1_000_000)
    assert read_html("<div>" * DEEPEST + "肺炎").text == "肺炎"


def test_front_matter_that_is_no_yaml_is_text():
    assert read_markdown("---\n: : :\n---\n本文").published is None
    assert read_markdown("本文だけ").text == "本文だけ"
    assert read_markdown("---\npublished: 2015\n---\n本文").published == "2015"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("本文。<![よくない[", "よくない"),
        ("<a " * 100_000, "500 tags"),
        ('<a b="' * 100_000, "500 tags"),
        ("<!--" * 100_000, "500 tags"),
    ],
)
def test_a_page_that_breaks_the_parser_or_would_keep_it_busy_for_hours_is_named(text, value):
    with refused("corpus.broken-html", value, kind=UnreadableError):
        read_html(text)


def test_a_script_that_compares_a_lot_is_no_broken_page():
    script = "for (i = 0; i < n; i++) " * 400
    assert read_html(f"<p>本文。</p><script>{script}</script>").text == "本文。"


def test_front_matter_that_would_be_endless_states_nothing():
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    page = read_markdown(f"---\n{laughs}date: *i\nlicence: cc-by-4.0\n---\n本文。")
    assert (page.text, page.published, page.license) == ("本文。", None, "cc-by-4.0")
    assert read_markdown("---\ndate: " + "[" * 5000 + "\n---\n本文。").published is None
