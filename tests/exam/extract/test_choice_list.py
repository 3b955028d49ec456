"""What an explanation says of each choice is read only where it says so plainly."""

import json

import pytest

from medllm.exam.extract.answer import read_completion
from medllm.exam.extract.choice_list import agrees, verdicts
from medllm.exam.stability.report import stability_report
from tests.exam.making import record

SAID = {
    "answer book": ("ａ～ｄ　誤り。ｅ　正しい。\n答え: e", {"a": False, "b": False, "c": False, "d": False, "e": True}),
    "pharmacist's": ("a:誤\n酸性である。b:正\nそのとおり。", {"a": False, "b": True}),
    "markdown": ("- **a 胃炎** → **不適切**\n- **b 胃癌** → 正解\n\n【回答】b", {"a": False, "b": True}),
    "marks": ("a. ○ そのとおり\nb. × 逆である", {"a": True, "b": False}),
    "at the end": (
        "a: 高齢者に多いが、本例では適切ではありません。\nb: 若年者に多く、最も適切です。",
        {"a": False, "b": True},
    ),
    "English": ("a: incorrect, since it is rare.\nb: correct.", {"a": False, "b": True}),
    "in passing": ("a: 適切な治療法が確立していない疾患である。\nb: 糖尿病の既往がある。", {}),
    "nothing": ("この症例では肺塞栓を疑う。答え: b", {}),
}


@pytest.mark.parametrize("name", SAID)
def test_verdicts_are_read_where_they_are_plain(name):
    completion, expected = SAID[name]
    assert verdicts(read_completion(completion).text) == expected


@pytest.mark.parametrize(
    ("answer", "verdicts", "expected"),
    [
        ("b", {"a": False, "b": True, "c": False}, True),
        ("b", {"a": True, "b": False, "c": True}, True),
        ("b", {"a": True, "b": True, "c": False}, False),
        ("a,b", {"a": True, "b": True, "c": False}, True),
        ("a,b", {"a": True, "b": False, "c": False}, False),
        ("b", {"a": False}, None),
        ("b", {"b": True}, None),
        ("b", {}, None),
    ],
)
def test_an_answer_agrees_when_its_letters_are_set_apart(answer, verdicts, expected):
    assert agrees(answer, verdicts) is expected


def test_the_report_counts_agreement_over_the_explanations_that_judge():
    texts = ["a 誤り。b 正しい。\n答え:b", "a 正しい。b 誤り。c 正しい。\n答え:a", "理由は不明。\n答え:a"]
    records = [record(str(n), prompt="explain", completion=text, answer=text[-1]) for n, text in enumerate(texts)]
    records += [record(str(n), prompt="plain") for n in range(3)]
    change = stability_report(records).models[0].change
    assert (change.judged, change.agreeing) == (2, 1)


def test_real_explanations_rarely_contradict_their_answer(shared_data):
    file = shared_data / "jmle2026" / "model_outputs" / "Qwen_Qwen3.5-27B_nothink.json"
    replies = json.loads(file.read_text(encoding="utf-8"))["results"]
    found = [
        agrees(",".join(reply["predicted"]), verdicts(read_completion(reply["raw_response"]).text)) for reply in replies
    ]
    judged = [one for one in found if one is not None]
    assert len(judged) >= 20
    assert sum(judged) / len(judged) > 0.9
