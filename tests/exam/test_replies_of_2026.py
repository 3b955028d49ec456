"""Replies as models of 2026 write them: each kind with its siblings, on invented questions."""

import pytest

from medllm.exam.extract.answer import parse
from tests.exam.making import question

ONE = question("b", text="胆汁について正しいのはどれか。")
TWO = question("b,d", text="消化に関わるのはどれか。2つ選べ。")
WRONG = question("b", text="胆汁について誤っているのはどれか。")
ENGLISH = question(
    "b", text="Which is correct?", choices=("Aspirin", "Insulin", "Dialysis", "Surgery", "Rest"), language="en"
)
NUMBER = question("2.1", choices=())
CHOICES = list(zip("abcde", ONE.choices, strict=True))

READ = {
    "tags": (
        ONE,
        "b",
        [
            "<answer>b</answer>",
            "<answer>肝臓</answer>",
            "<ANSWER>\nB. 肝臓\n</ANSWER>",
            "考える。<final_answer> ｂ </final_answer>",
            "<answer>b",
            "<answer>a</answer>訂正します。<answer>b</answer>",
            "<answer>答えは b です</answer>",
            "[ANSWER]b[/ANSWER]",
            "<|begin_of_box|>b<|end_of_box|>",
        ],
    ),
    "thinking": (
        ONE,
        "b",
        [
            "<|channel|>analysis<|message|>答え: a<|end|><|start|>assistant<|channel|>final<|message|>b<|return|>",
            "thought\n答え: a<unused95>b",
            "<seed:think>x<seed:cot_budget_reflect>100 tokens</seed:cot_budget_reflect>答え: a</seed:think>b",
            "<think_on>答え: a</think_on>b",
            "<think/>b",
            "commentaryWe search.assistantfinal答え: b",
        ],
    ),
    "more tags": (
        ONE,
        "b",
        [
            '<answer letter="b">肝臓</answer>',
            "［回答］ b ［/回答］",
            "<answer>\\boxed{b}</answer>",
            "<answer>[b]</answer>",
        ],
    ),
    "headings": (
        ONE,
        "b",
        [
            "答：b",
            "答. b",
            "［答］b",
            "〔答〕 b",
            "[解答] b",
            "結論: b",
            "選択肢: b",
            "解：b",
            "こたえ: b",
            "A：ｂ",
            "A: 肝臓",
            "## 最終回答\n- b. 肝臓",
            "**最終回答**\n\nb",
            "### Final Response\n\n肝臓",
            "正解番号: 2",
            "解答欄: b",
            "答え、b",
            "《解答》b",
            "≪正解≫ b",
            "〈答え〉b",
            "結論：bが正しい",
        ],
    ),
    "two answers": (
        TWO,
        "b,d",
        [
            "答え:\n- b\n- d",
            "答え:\n1. b\n2. d",
            "答え: b\n答え: d",
            "答え: b\nd",
            "答え：2、4の2つ",
            "答え: 肝臓、心臓",
            "肝臓と心臓",
            "正解は以下の2つです。\n・b 肝臓\n・d 心臓",
            "1つ目: b\n2つ目: d",
            "<answer>b</answer><answer>d</answer>",
            "該当するのは b と d です。",
        ],
    ),
    "marks": (
        ONE,
        "b",
        [
            "答え: イ",
            "イ",
            "答え: ㋑",
            "⑵",
            "答え: Ⓑ",
            "答え: 🅱️",
            "答え: ➁",
            "2番",
            "答え：（２）",
            "②肝臓",
            "イ．肝臓",
            "2番目の選択肢",
        ],
    ),
    "verdict first": (
        ONE,
        "b",
        [
            "正しいのは b です。",
            "よって、正しい選択肢は b。",
            "正しいものは b",
            "正しいのは、b（肝臓）です。",
            "正しい選択肢はbの肝臓です。",
            "この中で正しいのはbだけです。",
            "選ぶなら b",
            "最も適切な選択肢はbです。",
        ],
    ),
    "sentences": (
        ONE,
        "b",
        [
            "b だと思います。",
            "bと考えます",
            "bになります。",
            "おそらくbです",
            "私はbを選びます。",
            "消去法でb",
            "bが最も適切です。",
        ],
    ),
    "asked for the wrong one": (
        WRONG,
        "b",
        [
            "誤っているのは b です。",
            "誤りは b。",
            "bが誤りである。",
            "誤っている選択肢: b",
            "a: ○\nb: ×\nc: ○\nd: ○\ne: ○",
        ],
    ),
    "conditions": (
        ONE,
        "b",
        [
            "もし胃を問うなら答えは a だが、本問では b が正解である。",
            "答え: b\n補足: 答えが a となるのは胃を問われた場合です。",
            "答えは b。ただし、胃を問うなら答えは a である。",
            "答え: b\nなお、答えが a になるのは胃の場合である。",
        ],
    ),
    "English conditions": (
        ENGLISH,
        "b",
        [
            "If it asked about pain, the answer would be A, but here the answer is B.",
            "Answer: B\nNote: the answer would be A if the question asked about pain.",
            "The answer is B. The answer is A only if pain is asked for.",
        ],
    ),
    "corrections": (
        ONE,
        "b",
        [
            "答え: a。いや、b です。",
            "答え: a\n訂正: b",
            "答えは a です。失礼しました、b です。",
            "正解は a じゃなくて b です。",
            "答えは a ではない。b です。",
            "答えは a ではありません。正解は b です。",
            "答え: a → b に訂正",
            "答え: a（誤り）→ b",
            "【回答】a\n【訂正】b",
            "答え：a　※訂正：b",
            "正解は a でも c でもなく b です。",
        ],
    ),
    "English corrections": (
        ENGLISH,
        "b",
        [
            "Answer: A. Wait, no, it's B.",
            "The answer is A. Actually, the answer is B.",
            "Answer: A\nCorrection: B",
            "Answer: A (correction: B)",
            "The answer is not A but B.",
            "The correct answer isn't A; it's B.",
            "**Answer: ~~A~~ B**",
            "Answer: <del>A</del> B",
        ],
    ),
    "verdicts": (
        ONE,
        "b",
        [
            "a: ×\nb: ○\nc: ×\nd: ×\ne: ×",
            "a. 誤り\nb. 正しい\nc. 誤り\nd. 誤り\ne. 誤り",
            "| 肢 | 判定 |\n|---|---|\n| a | × |\n| b | ○ |\n| c | × |\n| d | × |\n| e | × |",
            "❌ a. 胃\n✅ b. 肝臓\n❌ c. 腎臓\n❌ d. 心臓\n❌ e. 肺",
            "| 肢 | 正誤 | 理由 |\n|-|-|-|\n"
            + "".join(f"| {letter} {word} | {'正' if letter == 'b' else '誤'} | x |\n" for letter, word in CHOICES),
        ],
    ),
    "keys": (
        ONE,
        "b",
        [
            '{"answer": "b"}',
            "{'answer': 'b', 'explanation': \"a is wrong\"}",
            '```json\n{"answer": "b", "why": "答え: a"}\n```',
            '{"explanation": "答え: a ではない", "answer": "b"}',
            '{"answer": "b", "explanation": "途中で',
            '{"回答": "肝臓"}',
            '[{"answer": "b"}]',
            '{"answer": {"letter": "b", "text": "肝臓"}}',
            '{"final_answer": 2}',
            '{"why": "x", "final": "b"}',
            '{"a": false, "b": true, "c": false, "d": false, "e": false}',
            "answer: b\nconfidence: 0.9\nexplanation: 答え: a",
            '{"answer": "b"}\n\n問題: 次\n{"answer": "a"}',
        ],
    ),
    "markup": (
        ENGLISH,
        "b",
        [
            "__Answer__: B",
            "Answer: __B__",
            "Answer - B",
            "Answer — (B)",
            "Ans: B",
            "Correct: B",
            "Option (B) is correct.",
            "It is neither A nor C, so the answer must be B.",
            "\\fbox{B}",
            "$\\boxed{\\textbf{(B)}}$",
            "\\[ \\boxed{\\mathrm{B}} \\]",
            "\\(B\\)",
            "<b>B</b>",
            "```\nB\n```",
            "> Answer: B",
            "The answer is insulin.",
            "Answer: insulin (a hormone)",
            "It has to be B.",
            "".join(f"{letter}. x - {'Correct' if letter == 'B' else 'Incorrect'} because y.\n" for letter in "ABCDE"),
        ],
    ),
    "stop marks": (
        ONE,
        "b",
        [
            "b<|im_end|>",
            "b<｜end▁of▁sentence｜>",
            "b[|endofturn|]",
            "b<|END_OF_TURN_TOKEN|>",
            "b<|plamo:eos|>答え: a",
            "b<EOD|LLM-jp>答え: a",
            "b<turn|>\n<|turn>user\n答え: a",
        ],
    ),
    "run on": (
        ONE,
        "b",
        [
            "答え: b\nuser\n次の問題 答え: a",
            "答え: b\n\n### 指示:\n次\n### 応答:\n答え: a",
            "答え: b\n<|user|>\n答え: a",
            "答え: b\n45歳の女性。正しいのはどれか。\na: 鼻\nb: 耳\nc: 舌\nd: 目\ne: 皮膚\n答え: c",
            "答え: b\n45歳の女性。腹痛で来院した。診断はどれか。\n(1) 鼻\n(2) 耳\n(3) 舌\n答え: (1)",
            "答え: b\n45歳の女性。腹痛で来院した。診断はどれか。\n① 鼻\n② 耳\n③ 舌\n答え: ①",
            "答え: b\n問2 45歳の女性に行う検査はどれか。\n答え: a",
            "答え: b\n第2問 45歳の女性に行う検査はどれか。\n答え: a",
            "答え: b\n## 問題2\n45歳の女性に行う検査はどれか。\n答え: a",
            "答え: b\n問題文: 45歳の女性に行う検査はどれか。\n答え: a",
        ],
    ),
    "numbers": (
        NUMBER,
        "2.1",
        [
            "答え: 4.2 ÷ 2 = 2.1",
            "正解は 21 ではなく 2.1",
            "計算すると 4.2/2=2.1\n\n2.1",
            "4.2÷2=2.1",
            "答えは 4.2 ÷ 2 で 2.1 です。",
            "答え: 2.07 ≒ 2.1",
            "\\boxed{4.2/2 = 2.1}",
            '{"answer": 2.1}',
            "<answer>2.1</answer>",
            "答 2.1",
            "答え: 21/10=2.1 (mg)",
            "BMI = 48.5 / 23.1 = 2.1 kg/m2",
            "答え: 2.08 を四捨五入して 2.1",
            "答え: 2.08（小数第2位を四捨五入すると 2.1）",
            "Answer: 2.08 (rounded to 2.1)",
        ],
    ),
    "cells": (NUMBER, "28", ["答え: 2 8", "答え：２　８", "①2 ②8", "①: 2\n②: 8", "答え: 28.4 → 28"]),
    "powers, signs and points": (NUMBER, "0.5", ["答え: .5", ".5", "答え: 1/2 = 0.5", "答え: 5×10^-1"]),
}

UNREAD = {
    "tags": (
        ONE,
        ["<answer></answer>", "<answer>わからない</answer>", '{"answer": null, "why": "答え: a"}', "{'answer': None}"],
    ),
    "sentences": (
        ONE,
        [
            "b が正しいとすると",
            "b が正しいとすると、a は誤りになる。",
            "誤っているのは a です。",
            "不正解は a です。",
            "答え: b かもしれない",
        ],
    ),
    "asked for the wrong one": (WRONG, ["正しいのは a です。"]),
    "choices that are only listed": (
        ONE,
        [
            "選択肢: a. 胃 b. 肝臓",
            "A: 胃\nB: 肝臓\nC: 腎臓\nD: 心臓\nE: 肺",
            "選択肢\na 胃\nb 肝臓",
            "胃、肝臓、腎臓、心臓、肺",
        ],
    ),
    "verdicts": (ONE, ["a: ×\nb: ○\nc: ○\nd: ×\ne: ×", "a: ×\nb: ○"]),
    "withdrawn": (
        ENGLISH,
        [
            "The answer is A. Wait, that's wrong.",
            "Incorrect answer is A.",
            "The options are a) to be weighed, b) and c).",
        ],
    ),
    "numbers": (
        NUMBER,
        [
            "答え: 2.0～2.2",
            "答え: 2-3",
            "答え: 2から3",
            "答え: 1/2",
            "答え: 21 または 22",
            "答え: 2±1",
            "\\boxed{\\frac{1}{2}}",
        ],
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_an_answer_is_read_in_every_form_of_its_kind(kind):
    asked, expected, replies = READ[kind]
    assert {reply: parse(reply, asked).answer for reply in replies} == dict.fromkeys(replies, expected)


@pytest.mark.parametrize("kind", UNREAD)
def test_what_gives_no_single_answer_stays_unread(kind):
    asked, replies = UNREAD[kind]
    assert {reply: parse(reply, asked).answer for reply in replies} == dict.fromkeys(replies)


def test_what_was_cut_within_its_answer_stays_unread():
    cut = [(TWO, "答え: b,"), (TWO, "答え: b と"), (NUMBER, "答え: 2"), (NUMBER, "答え: 2."), (ONE, "thought\n答え: a")]
    assert [parse(reply, asked, finish_reason="length").answer for asked, reply in cut] == [None] * len(cut)
    whole = [(TWO, "答え: b,d", "b,d"), (NUMBER, "答え: 2.1 mg", "2.1"), (NUMBER, '{"answer": 2.1}', "2.1")]
    assert [parse(reply, asked, finish_reason="length").answer for asked, reply, _ in whole] == [w for *_, w in whole]


def test_a_text_that_stops_in_a_sentence_after_its_answer_is_truncated_where_nothing_else_is_known():
    chain = "The liver makes bile. So the answer is b. But the gall bladder stores it. Maybe they wa"
    assert parse(chain, ONE).status == "truncated"
    assert parse(chain, ONE, finish_reason="stop").answer == "b"
    assert parse(f"{chain}nt the organ.", ONE).answer == "b"


def test_kana_that_label_something_in_the_question_stand_for_no_choice():
    asked = question(
        "b",
        text="次の記述ア、イ、ウのうち正しいものの組合せはどれか。ア.胃 イ.肝臓 ウ.肺",
        choices=("ア、イ", "イ、ウ", "ア、ウ"),
    )
    assert parse("答え: イ、ウ", asked).answer == "b"
    assert parse("答え: イ", asked).answer is None
