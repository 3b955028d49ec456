"""Any letters written in any of our styles are read back, and nothing whatever makes the reader fail."""

import random
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.exam_parsing import PIECES
from medllm.exam.extract.answer import parse
from medllm.exam.question import LETTERS
from medllm.exam.record import STATUSES
from tests.exam.making import question

SEPARATORS = [",", ", ", "、", "・", "と", " と ", "/", "／", "，", " and ", ", and ", " & ", " "]
WIDE = str.maketrans("abcdefghABCDEFGH", "ａｂｃｄｅｆｇｈＡＢＣＤＥＦＧＨ")
CIRCLED = str.maketrans("abcdefgh", "①②③④⑤⑥⑦⑧")
DRESSES = [str.lower, str.upper, lambda text: text.translate(WIDE), lambda text: text.translate(CIRCLED)]
FRAMES = [
    "{}",
    "{}。",
    "({})",
    "答え:{}",
    "答え：{}",
    "答え: {}です。",
    "解答：{}",
    "正解は{}である。",
    "正答は{}です",
    "正解：{}",
    "【回答】{}",
    "【答え】 {}",
    "**答え: {}**",
    "最終回答：**{}**",
    "症状から判断する。\n答え:{}",
    "Answer: {}",
    "answer: {}.",
    "The answer is {}.",
    "The correct answer is: {}",
    "**Final answer:** {}",
    r"\boxed{{{}}}",
    r"So $\boxed{{\text{{{}}}}}$.",
    '{{"answer": "{}"}}',
    '{{"explanation": "a is wrong", "answer": "{}"}}',
    "ａ 誤り。ｂ 正しい。\n\n答え：{}",
    "解説: 選択肢aは誤りである。\n{}",
    "したがって、{}が正しい。",
    "答え:{}\n\n問題: 次はどれか。\n答え:a",
    "答え:{}<|im_end|>",
]

letters = st.sets(st.sampled_from("abcde"), min_size=1, max_size=3).map(sorted)


@settings(max_examples=1500, deadline=None)
@given(letters, st.sampled_from(SEPARATORS), st.sampled_from(DRESSES), st.sampled_from(FRAMES), st.randoms())
def test_letters_written_in_any_style_are_read_back(chosen, separator, dress, frame, order):
    order.shuffle(chosen)
    reply = frame.format(separator.join(map(dress, chosen)))
    assert parse(reply).answer == ",".join(sorted(chosen)), reply


@settings(max_examples=300, deadline=None)
@given(
    st.sets(st.sampled_from(LETTERS), min_size=1, max_size=3).map(sorted),
    st.sampled_from(["答え:{}", "Answer: {}", "{}"]),
)
def test_eight_choices_are_read_when_the_question_has_them(chosen, frame):
    asked = question(",".join(chosen), choices=tuple("アイウエオカキク"))
    parsed = parse(frame.format(",".join(chosen)), asked)
    assert (parsed.answer, parsed.status) == (",".join(chosen), "answered")


@settings(max_examples=300, deadline=None)
@given(
    st.decimals(min_value=0, max_value=99999, places=2),
    st.sampled_from(["答え:{}", "{}", "答え：約{}mLです", "The answer is {} mg."]),
)
def test_numbers_written_in_any_style_are_read_back(number, frame):
    asked = question(str(number), choices=())
    for written in (str(number), f"{number:,}", unicodedata.normalize("NFKC", str(number)).translate(WIDE)):
        assert parse(frame.format(written), asked).answer == str(number), written


@settings(max_examples=500, deadline=None)
@given(st.text(max_size=400))
def test_any_text_gets_a_status_and_only_an_answered_one_has_letters(text):
    parsed = parse(text)
    assert parsed.status in STATUSES
    assert (
        (parsed.answer is None)
        == (parsed.extraction_rule is None)
        == (parsed.status not in ("answered", "wrong_count"))
    )


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_thousands_of_random_strings_are_read_without_failing(count):
    chance = random.Random(20260207)
    asked = [None, question("b"), question("b,d"), question("2.1", choices=())]
    for number in range(count):
        if number % 2:
            text = "".join(chance.choices(PIECES, k=chance.randrange(30)))
        else:
            text = "".join(map(chr, chance.choices(range(0x20, 0x3100), k=chance.randrange(60))))
        assert parse(text, asked[number % 4]).status in STATUSES


LONG = (
    "答え",
    "a, ",
    "(",
    "a",
    "\\boxed{",
    "1",
    "① ",
    "b\n",
    "a: x\n",
    "よって",
    "bが正解",
    " ",
    "\n",
    "選択肢",
    "<think>",
    "</think>",
    "b (",
    "\n問題:x",
    "aが正解。",
    "answer is ",
    "1,",
    "0.1",
    "{",
    "-",
    "正解は",
    "ではなく",
    "a ",
)


@pytest.mark.parametrize("unit", LONG)
def test_very_long_replies_are_read_in_time_that_grows_with_their_length(unit):
    text = unit * (60_000 // len(unit))
    assert parse(text).status in STATUSES
    assert parse(text, question("2.1", choices=())).status in STATUSES


UNITS = (
    "\n1. x\n2. y\n3. z",
    "四捨五入して",
    "2.08 を",
    "a でも ",
    "a → ",
    "(訂正",
    "| 誤 |",
    "aの",
    "問2 ",
    "答え:",
    "答え",
    "正解は",
    "answer is ",
    "{",
    "[",
    "(",
    "**",
    "__",
    "~~",
    "`",
    "<think>",
    "</think>",
    "[THINK]",
    "<answer>",
    "<answer>b",
    "<|channel|>",
    "assistantfinal",
    "1",
    "1 ",
    "1=",
    "1,",
    ".",
    "❶",
    "ア",
    "もし",
    "いや、",
    "wait, ",
    "正しいのは",
    "a b ",
    "|a|○|\n",
    "- b\n",
    '{"answer":',
    "\\text{",
    "\\boxed{",
    "\\frac{1}",
    "\nuser",
    "Q: ",
    "\na: x\nb: y\nc: z",
    "答え: b\n",
    "not A but ",
    "ではなく",
    "\n",
    " ",
)


@pytest.mark.parametrize("unit", UNITS)
def test_four_times_the_length_takes_about_four_times_as_long(unit):
    def cost(length, asked):
        text = unit * (length // len(unit))
        begin = time.process_time()
        parse(text, asked)
        return time.process_time() - begin

    for asked in (question("b,d"), question("2.1", choices=())):
        short = max(min(cost(10_000, asked) for _ in range(2)), 0.002)
        assert min(cost(40_000, asked) for _ in range(2)) < 10 * short, "twice the square's growth would be 16 times"
