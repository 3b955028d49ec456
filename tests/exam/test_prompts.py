"""Prompts say what their template says, never show a test item's answer, and are held by golden files."""

from datetime import date
from pathlib import Path

import pytest

from medllm.errors import DataError
from medllm.exam.benchmarks import load
from medllm.exam.prompts import (
    exemplars_before,
    question_block,
    refuse_test_items,
    render,
    split_item,
    system_of,
    target_completion,
)
from medllm.exam.question import own_question
from tests.exam.making import question
from tests.refusals import refused

GOLDEN = Path(__file__).parent.parent / "golden" / "prompts"

EXAMPLES = [
    question("b", question_id="e1", text="胆汁を作るのはどれか。", explanation="胆汁は肝細胞が作り、胆嚢が蓄える。"),
    question("a,c", question_id="e2", text="腹部にあるのはどれか。2つ選べ。", explanation="心臓と肺は胸部にある。"),
    question("d", question_id="e3", text="血液を送り出すのはどれか。", explanation="心臓がポンプとして働く。"),
]
ASKED = question(
    "b,e",
    question_id="q",
    text="この患者で侵されているのはどれか。2つ選べ。",
    vignette_text="60歳の男性。黄疸と呼吸困難を主訴に来院した。",
)
NUMBER = question("2.1", question_id="n", text="1日尿蛋白量(g/日)を求めよ。解答：①.②g/日", choices=())
CASES = {
    f"{template}-{style}-{shots}shot-{context}": (template, style, shots, context)
    for template in ("igakuqa", "paper")
    for style in ("plain", "explain")
    for shots, context in ((0, "original"), (3, "original"), (3, "linked"))
}


def rendered(template, style, shots, context):
    prompt = render(ASKED, prompt=style, template=template, exemplars=EXAMPLES, shots=shots, context=context)
    chat = "\n".join(f"[{message['role']}]\n{message['content']}" for message in prompt.messages)
    return f"=== text ===\n{prompt.text}\n=== chat ===\n{chat}\n=== stop ===\n{prompt.stop!r}\n"


@pytest.mark.parametrize("name", CASES)
def test_a_prompt_is_what_its_golden_file_shows(name):
    assert rendered(*CASES[name]) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_every_golden_file_has_a_case():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(CASES)


def test_the_original_s_wording_is_kept_to_the_letter():
    assert question_block(ASKED, "plain", "igakuqa") == (
        "問題: この患者で侵されているのはどれか。2つ選べ。\na: 胃\nb: 肝臓\nc: 腎臓\nd: 心臓\ne: 肺"
        "\n必ずa,b,c,d,eの中からちょうど2個選んでください。\n答え:"
    )
    assert question_block(NUMBER, "plain", "igakuqa") == "問題: 1日尿蛋白量(g/日)を求めよ。解答：①.②g/日"
    three_shot = render(ASKED, exemplars=EXAMPLES)
    assert three_shot.messages[0] == {"role": "system", "content": "医師国家試験を解きます。"}
    assert [message["content"] for message in three_shot.messages if message["role"] == "assistant"] == [
        "b",
        "a,c",
        "d",
    ]
    assert three_shot.text.endswith("選んでください。\n答え:")


def test_only_igakuqa_itself_names_five_letters_whatever_the_choices():
    six = question("f", choices=("ア", "イ", "ウ", "エ", "オ", "カ"))
    assert "必ずa,b,c,d,e,fの中から" in question_block(six, "plain", "igakuqa")
    published = question("f", choices=six.choices, benchmark="igakuqa")
    assert "必ずa,b,c,d,eの中から" in question_block(published, "plain", "igakuqa")


def test_linked_puts_the_lost_case_before_the_question_and_original_does_not():
    assert "60歳の男性" not in render(ASKED).text
    assert "問題: 60歳の男性。黄疸と呼吸困難を主訴に来院した。\nこの患者で" in render(ASKED, context="linked").text


def test_a_passage_published_with_the_question_always_comes_before_it():
    passage = question(context="次の要旨を読め。")
    assert "Question: 次の要旨を読め。\n胆汁" in render(passage, template="paper").text


def test_an_exemplar_that_is_a_test_item_is_refused_by_its_text_however_it_is_printed():
    disguised = question(question_id="other", text="胆汁を作るのは　どれか｡")
    with refused("exam.exemplar-is-asked", " e1 ", " other ", kind=DataError):
        render(disguised, exemplars=EXAMPLES)
    with refused("exam.exemplar-is-asked", " e1 ", " other ", kind=DataError):
        refuse_test_items(EXAMPLES, [ASKED, disguised])


def test_more_shots_than_exemplars_and_explanations_that_are_missing_are_faults():
    with refused("exam.too-few-exemplars", "4 shots", "there are 3"):
        render(ASKED, exemplars=EXAMPLES, shots=4)
    with refused("exam.no-explanation", "question bare:"):
        render(ASKED, prompt="explain", exemplars=[question(question_id="bare", text="別の問題")])


def test_exemplars_from_another_set_are_those_sat_by_the_cutoff():
    dated = [
        question(question_id=str(year), text=f"{year}年の問題", exam_date=date(year, 2, 1), explanation="解説")
        for year in (2019, 2016, 2017)
    ]
    assert [q.question_id for q in exemplars_before(dated, date(2017, 12, 31), 2, "explain")] == ["2016", "2017"]
    with refused("exam.too-few-exemplars", "2 of 3 questions", "2017-12-31"):
        exemplars_before(dated, date(2017, 12, 31), 3)


def test_a_right_reply_has_the_form_the_exemplars_show():
    assert target_completion(EXAMPLES[1], "explain", "igakuqa") == "心臓と肺は胸部にある。\n答え:a,c"
    assert target_completion(EXAMPLES[1], "explain", "paper", "別の解説") == "別の解説\nAnswer: a,c"
    text = render(ASKED, prompt="explain", template="paper", exemplars=EXAMPLES).text
    assert f"Explanation: {target_completion(EXAMPLES[1], 'explain', 'paper')}\n\n" in text


def test_the_hash_tells_prompts_apart():
    hashes = {render(ASKED, prompt=p, template=t).hash for p in ("plain", "explain") for t in ("igakuqa", "paper")}
    assert len(hashes) == 4


def test_a_question_of_ones_own_is_asked_in_the_exams_wording_without_a_form_for_the_reply():
    own = own_question("かぜの治療は？")
    texts = {(t, p): render(own, prompt=p, template=t).text for p in ("plain", "explain") for t in ("igakuqa", "paper")}
    assert texts == {
        ("igakuqa", "plain"): "問題: かぜの治療は？\n答え:",
        ("igakuqa", "explain"): "問題: かぜの治療は？\n解説:",
        ("paper", "plain"): "Question: かぜの治療は？\nAnswer:",
        ("paper", "explain"): "Question: かぜの治療は？\nExplanation:",
    }
    assert render(own, template="paper").stop == ("\nQuestion:",)
    lettered = render(own_question("どれか。", ("肺炎", "肺癌")), template="paper").text
    assert lettered.startswith("答えは記号だけ")


def test_thinking_is_asked_for_in_the_words_of_a_plain_prompt():
    plain, think = (render(ASKED, prompt=prompt, exemplars=EXAMPLES) for prompt in ("plain", "think"))
    assert (think.text, think.messages, think.hash) == (plain.text, plain.messages, plain.hash)
    assert (plain.style, think.style) == ("plain", "think")


def test_the_system_message_is_the_templates_a_given_one_or_none():
    asked = {system: render(ASKED, system=system).messages for system in (None, "簡潔に。", "")}
    assert asked[None][0] == {"role": "system", "content": "医師国家試験を解きます。"}
    assert asked["簡潔に。"][0] == {"role": "system", "content": "簡潔に。"}
    assert [message["role"] for message in asked[""]] == ["user"] and system_of("paper") == []
    assert asked[""][0] == asked[None][1], "the question does not change"


@pytest.mark.parametrize("name", ["igakuqa", "jmle2026", "yakugakuqa"])
def test_an_item_that_was_written_out_as_one_text_is_split_at_its_reply_again(shared_data, name):
    items = 0
    for one in load(name, shared_data / name):
        for prompt in ("plain", "explain") if one.explanation else ("plain",):
            for template in ("igakuqa", "paper"):
                asked, joint = question_block(one, prompt, template, "linked"), render(one, template=template).joint
                answered = target_completion(one, prompt, template)
                items += 1
                assert split_item(asked + joint + answered, prompt) == (template, asked, answered.strip())
    assert items >= 400
