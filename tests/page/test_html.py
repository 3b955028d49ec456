"""A reply for reading: Markdown becomes paragraphs, lists and tables; thinking is folded; hostile text stays text."""

import re
import time

import pytest

from medllm.page.difference import aligned
from medllm.page.html import safe
from medllm.page.markdown import DRAWN, formatted, mathml, reply_html
from tests.page.simulated import HOSTILE


def words_of(html: str) -> str:
    return re.sub(r"\s+", "", re.sub(r"<[^>]+>", "", html))


def test_headings_lists_bold_and_tables_are_rendered():
    html = formatted("## 解説\n- **発熱**\n- 咳\n\n| 項目 | 値 |\n|---|---|\n| a | 1 |\n\n1. 一\n2. 二\n\n答え：a")
    for tag in ('<p class="heading">解説</p>', "<strong>発熱</strong>", "<li>咳</li>", "<td>1</td>", "<ol>", "<ul>"):
        assert tag in html
    assert "<h2" not in html, "headings are the page's own"


def test_formulas_become_mathml_and_prices_and_code_stay_text():
    pytest.importorskip("latex2mathml")
    half = "<math><mrow><mfrac><mrow><mn>1</mn></mrow><mrow><mn>2</mn></mrow></mfrac></mrow></math>"
    for written in (r"値は $\frac{1}{2}$ です", r"値は \(\frac{1}{2}\) です", r"値は $$\frac{1}{2}$$ です"):
        assert formatted(written) == f"<p>値は {half} です</p>\n"
    assert half in formatted("$$\n\\frac{1}{2}\n$$") and half in formatted("\\[\n\\frac{1}{2}\n\\]")
    for plain in ("$5 と $10 です", "`$x$`"):
        assert "<math" not in formatted(plain)


@pytest.mark.parametrize(
    "latex", [r"\frac{1}{", r"\begin{matrix}1", "{" * 900, r"\sqrt{" * 160, r"\frac" * 190, "x" * 1001]
)
def test_broken_or_endless_latex_stays_the_text_that_was_written(latex):
    assert mathml(latex) is None
    assert words_of(formatted(f"値は ${latex}$ です")) == words_of(f"<p>値は {safe(f'${latex}$')} です")


@pytest.mark.parametrize(
    ("text", "bold"),
    [
        (
            "本症例では**「左下肢で温痛覚が低下」**しています。これは**右側の脊髄**を示す。",
            ["「左下肢で温痛覚が低下」", "右側の脊髄"],
        ),
        ("**発熱。**よって**肺炎（細菌性）**である。", ["発熱。", "肺炎（細菌性）"]),
        ("**CT（造影）**で**90%**以上", ["CT（造影）", "90%"]),
        ("a **bold** word, not 2 ** 3 ** 4", ["bold"]),
        ("snake_case_name と _強調_", []),
    ],
)
def test_bold_ends_where_the_writer_of_japanese_ended_it(text, bold):
    assert re.findall(r"<strong>(.*?)</strong>", formatted(text)) == bold
    assert "<em>case</em>" not in formatted(text)


def test_line_breaks_of_a_model_stay_line_breaks():
    assert formatted("一行目\n二行目").count("<br />") == 1


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        "<script>alert(1)</script>",
        "[x](javascript:alert(1)) ![y](http://outside.example/p.png) <http://outside.example>",
        "[x]: http://outside.example\n\n[x]",
        "<details open ontoggle=alert(1)>",
        "```html\n<img src=x onerror=alert(1)>\n```",
        "| <b onmouseover=alert(1)> |\n|---|\n| ${alert(1)} |",
        "&lt;script&gt; &#36;{alert(1)}",
        r"$\text{<img src=x onerror=alert(1)>}$ \(\href{javascript:alert(1)}{x}\) $${{a}}$${b}$$ $<img src=x>$",
    ],
)
def test_nothing_that_a_model_writes_becomes_markup_address_or_template(text):
    html = reply_html(text)
    tags = {tag.lower() for tag in re.findall(r"<\s*/?\s*([a-zA-Z0-9]+)", html)}
    assert tags <= {
        "div",
        "p",
        "br",
        "code",
        "pre",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "em",
        "strong",
        *DRAWN,
    }
    assert not re.search(r"<[^>]*(href|src|on\w+)=", html)
    assert not set("${}`") & set(html)


@pytest.mark.parametrize(
    "text", ["<think>あ" + "い" * 7599 + "</think>\n答え：a", "<think>あ\n</think>b", "<think>途中"]
)
def test_thinking_is_folded_with_its_length_and_never_read_as_the_reply(text):
    html = reply_html(text)
    folded, _, rest = html.partition("</details>")
    assert folded.startswith('<details class="thinking">') and "答え" not in folded
    thinking = re.search("<think>(.*?)(</think>|$)", text, re.DOTALL).group(1).strip()
    assert f"{len(thinking):,}" in folded
    assert ("formatted" in rest) == ("</think>" in text)


@pytest.mark.parametrize(
    "bomb",
    [
        "**" * 9_000,
        "[" * 19_000,
        "> " * 9_000,
        "|a" * 500 + "\n" + "|-" * 500,
        "*a_ " * 4_900,
        "`" * 19_999,
        "- " * 9_999,
    ],
)
def test_a_bomb_of_markdown_is_shown_within_seconds(bomb):
    formatted.cache_clear()
    begun = time.process_time()
    html = reply_html(bomb)
    assert time.process_time() - begun < 5 and html


def test_a_reply_of_a_megabyte_is_shown_as_written_without_its_middle():
    html = reply_html("# あ\n" + "い" * 1_000_000)
    assert 'class="raw"' in html and len(html) < 200_000


def test_no_word_is_lost():
    text = "結論：**b** が正しい。\n\n1. a は誤り\n2. b は正しい\n\n> 注意\n\n`CT` で確認"
    assert words_of(formatted(text)) == re.sub(r"\s+|[*>`]|\d\. ", "", text)


@pytest.mark.parametrize("sign", ["\x00", "\x1b", "\x7f", "\x9b", "\u202e", "\u202a", "\u2066", "\u2069"])
@pytest.mark.parametrize("show", [safe, formatted, reply_html, lambda text: difference_of(text)])
def test_characters_that_hide_or_reorder_text_are_shown_as_a_sign_of_their_own(sign, show):
    html = show(f"答え：a{sign}b 終わり")
    assert sign not in html
    assert "答え：a�b 終わり" in re.sub(r"<[^>]+>", "", html)


def difference_of(text: str) -> str:
    (row,) = aligned([text], [text])
    return row.left


def test_arabic_and_hebrew_words_stay_as_they_were_written():
    assert safe("سكر مرتفع \u200f חום") == "سكر مرتفع \u200f חום"
