"""The readable part of a completion, and the loops that are told from mere repetition."""

import pytest

from medllm.exam.extract.answer import read_completion
from medllm.exam.extract.completion import ends_in_loop, normal, sentences


def test_full_width_becomes_plain_and_circled_digits_stay_apart():
    assert normal("ＡＢＣ１２：①②\r\nﾊﾟﾝ") == "ABC12:❶❷\nパン"


def test_only_the_final_channel_of_a_reply_is_read():
    text = "<|channel|>analysis<|message|>answer: a<|end|><|start|>assistant<|channel|>final<|message|>答え: b"
    assert read_completion(text).text == "答え: b"
    assert read_completion("<think>a?</think>\n\n答え: b").text == "答え: b"


@pytest.mark.parametrize(
    "text",
    [
        "よって、" + "ビタミンの欠乏である。" * 12,
        "答えはaである。" * 30,
        "\n".join(["- 検査を行う", "- 治療を行う"] * 12),
    ],
)
def test_a_reply_that_says_the_same_again_and_again_is_a_loop(text):
    assert ends_in_loop(text)


@pytest.mark.parametrize(
    "text",
    ["", "b", "aは誤り。bは誤り。cは正しい。dは誤り。eは誤り。", "| --- | --- | --- | --- |" * 4, "-" * 200, "\n" * 300,
     "答え: b\n\n答え: b", "腎機能を評価する。" * 2 + "以上から、最も適切な治療は血液透析である。"],
)  # fmt: skip
def test_tables_rules_and_an_answer_given_twice_are_no_loops(text):
    assert not ends_in_loop(text)


def test_a_text_cut_into_sentences_is_the_same_text_again():
    for text in ("", "一文。", "肺炎か？はい！「そう。」\n\n答え:a", "`${alert(1)}`<b>\n\n終わり", "no end"):
        assert "".join(sentences(text)) == text
