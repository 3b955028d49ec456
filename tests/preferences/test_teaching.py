"""What is read of a teacher's reply, and what it is shown."""

import pytest

from medllm.exam.prompts import render
from medllm.exam.question import Question
from medllm.generation.types import Reply
from medllm.preferences.questions import question_hash
from medllm.preferences.teaching import (
    conversation_row,
    explanation_of,
    judged,
    with_view,
    without_leaks_and_copies,
)
from medllm.recipe.settings import DataSource, Teach

WHY = "血圧が下がり続けるため、まず輸液で循環を保つ必要がある。"


def question(**changed):
    given = {
        "question_id": "q1",
        "benchmark": "own",
        "text": "初期対応はどれか。",
        "choices": ("輸液", "手術", "経過観察"),
    }
    given |= {"gold": (frozenset("a"),), "key": ("a",), "explanation": "循環を保つことが先である。"}
    return Question(**{**given, **changed})


def reply(text, **changed):
    given = {"key": "k", "text": text, "finish_reason": "stop", "prompt_tokens": 1, "completion_tokens": 1}
    return Reply(**{**given, **changed})


def verdicts(*replies, asked=None, **settings):
    wanted = Teach(model="big", data="./exam", engine="http://127.0.0.1:1/v1", **settings)
    drawn = [(number, None, text if isinstance(text, Reply) else reply(text)) for number, text in enumerate(replies)]
    samples = judged(asked or question(), drawn, wanted, revision=None, prompt_hash="h", answer_keys={})
    return [sample.verdict for sample in without_leaks_and_copies(samples, {}, wanted)]


@pytest.mark.parametrize(
    "closing",
    [
        "答え: a", "答え：a", "**答え: a**", "【答え】a", "正解は a", "最終的な答え: a", "Answer: A",
        "**Final answer:** A.", "\\boxed{a}", "$\\boxed{a}$", "\n\n答え:a\n",
    ],
)  # fmt: skip
def test_the_line_that_gives_the_answer_is_no_part_of_the_explanation(closing):
    assert explanation_of(f"{WHY}\n{closing}") == WHY


@pytest.mark.parametrize(
    "last",
    [
        "したがって輸液を選ぶ。",
        "答えを選ぶには、循環と呼吸と意識の三つを順に確かめて、重いものから扱うと考えるのが臨床では大切になる。",
    ],
)
def test_a_last_line_that_explains_stays(last):
    assert explanation_of(f"{WHY}\n{last}\n答え: a") == f"{WHY}\n{last}"


def test_thinking_is_no_part_of_the_explanation_and_a_bare_answer_is_none():
    assert explanation_of(f"<think>a か b か</think>\n{WHY}\n答え: a") == WHY
    assert explanation_of("答え: a") == ""
    assert explanation_of("<think>まだ考えている") == ""


def test_a_reply_is_kept_only_when_finished_right_and_explained():
    right = f"{WHY}\n答え: a"
    assert verdicts(right) == ["kept"]
    assert verdicts(reply(right, finish_reason="length")) == ["truncated"]
    assert verdicts(reply("", finish_reason="too_long")) == ["too_long"]
    assert verdicts(reply("", finish_reason="refused")) == ["refused"]
    assert verdicts(f"{WHY}\n答え: b", "わからない。", "答え: a") == ["wrong", "unparsed", "short"]
    assert verdicts("短い。\n答え: a") == ["short"]
    assert verdicts("短い。\n答え: a", min_chars=0) == ["kept"]
    assert verdicts(f"{right}\n問題: 次の設問はどれか。\na: 輸液\n答え: b") == ["untidy"]


def test_a_filter_that_is_left_out_keeps_what_it_would_drop():
    turned = f"したがって正解はbです。{WHY}\n\n答え: a"
    assert verdicts(turned) == ["contradiction"]
    assert verdicts(turned, filters=()) == ["kept"]
    named = f"虫垂炎ではないため、{WHY}\n答え: a"
    assert verdicts(named) == ["kept"]
    assert verdicts(named, filters=("foreign_disease",)) == ["foreign_disease"]


def test_the_row_ends_in_the_answer_that_the_teacher_gave_where_two_are_accepted():
    both = question(gold=(frozenset("a"), frozenset("c")), key=("a or c",))
    wanted = Teach(model="big", data="./exam", engine="http://127.0.0.1:1/v1")
    samples = judged(
        both, [(0, None, reply(f"{WHY}\n答え: c"))], wanted, revision=None, prompt_hash="h", answer_keys={}
    )
    bare = render(both, prompt="explain")
    row = conversation_row(both, samples[0], bare, DataSource(source="./exam"), wanted)
    assert row["messages"][-1] == {"role": "assistant", "content": f"{WHY}\n答え:c"}
    assert row["answer"] == "c" and row["license"] is None


def test_a_licence_of_the_catalogue_counts_where_the_recipe_states_none():
    wanted = Teach(model="big", data="./exam", engine="http://127.0.0.1:1/v1")
    asked = question()
    samples = judged(
        asked, [(0, None, reply(f"{WHY}\n答え: a"))], wanted, revision=None, prompt_hash="h", answer_keys={}
    )
    source = DataSource(source="./yaku", exam="yakugakuqa")
    assert conversation_row(asked, samples[0], render(asked), source, wanted)["license"].startswith("CC-BY-SA-4.0")


def test_the_view_comes_before_the_question_in_text_and_conversation_and_nowhere_else():
    asked, shown = question(), question(question_id="q0", text="別の設問はどれか。")
    prompt = render(asked, prompt="explain", exemplars=[shown])
    viewed = with_view(prompt, asked)
    assert viewed.messages[:-1] == prompt.messages[:-1]
    assert viewed.messages[-1]["content"].endswith(prompt.messages[-1]["content"])
    assert (
        "循環を保つことが先である。" in viewed.messages[-1]["content"] and "正解はa" in viewed.messages[-1]["content"]
    )
    assert viewed.text.endswith(viewed.messages[-1]["content"])
    assert viewed.text.startswith(prompt.text[: prompt.text.index("初期対応")].rsplit("問題:", 1)[0])
    english = with_view(render(question(language="en"), prompt="explain"), question(language="en"))
    assert "the answer is a" in english.text
    with pytest.raises(ValueError, match="no explanation"):
        with_view(prompt, question(explanation=None))


def test_a_question_is_known_whatever_its_print_its_set_and_its_id():
    assert question_hash(question()) == question_hash(
        question(question_id="x", benchmark="y", text="初期対応は どれか｡")
    )
    assert question_hash(question()) != question_hash(question(choices=("輸液", "手術", "安静")))
