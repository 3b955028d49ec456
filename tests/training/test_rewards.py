"""Each part of a reward on replies whose rewards are worked out by hand, and completions read from their tokens."""

import pytest

from medllm.exam.grading import grade
from medllm.exam.question import Question
from medllm.generation.engine.batching import PromptReader
from medllm.generation.types import Request
from medllm.recipe.grpo import Grpo
from medllm.training.rewards import (
    RewardScorer,
    RolloutTask,
    answer_reward,
    form_reward,
    language_reward,
    length_reward,
    loop_reward,
)
from tests import tiny

CHOICES = ("肺塞栓", "心筋梗塞", "気胸", "肺炎", "喘息")
ASKED = Question(
    question_id="1",
    benchmark="own",
    text="診断は何か。",
    choices=CHOICES,
    gold=(frozenset("a"),),
    key=("a",),
)
WHY = "突然の呼吸困難と頻脈があり、下肢の腫脹から肺塞栓症を疑う。"


def graded(text: str, prompt: str = "explain", ended: str = "stop", thought: str = ""):
    return grade(ASKED, text, model="m", prompt=prompt, finish_reason=ended, reasoning=thought)


@pytest.mark.parametrize(
    ("reply", "answer", "form"),
    [
        (f"{WHY}\n答え:a", 1, 1),
        (f"{WHY}\nAnswer: a", 1, 1),
        (f"{WHY}\n答え:b", 0, 1),
        ("答え:a", 1, 0),  # no explanation
        ("疑う。\n答え:a", 1, 0),  # two letters are none
        (f"答え:a\n{WHY}\n答え:a", 1, 0),  # an answer before the explanation
        (f"答え:b\n{WHY}\n答え:a", 1, 0),  # two answers
        (f"{WHY}\n答え:a,b", 0, 0),  # two letters, where one is asked for
        (f"{WHY}", 0, 0),
        ('{"explanation": "' + WHY + '", "answer": "a"}', 1, 0),  # JSON holds an answer, and is not the form
        (
            f"{WHY}\n答え:a\n\nQuestion: 次の診断は何か。\nA. 肺炎\nB. 気胸\nAnswer: b",
            0,
            0,
        ),  # answers a question of its own
    ],
)
def test_an_explanation_before_one_marked_answer_has_the_form_and_the_right_letter_the_answer(reply, answer, form):
    record = graded(reply)
    assert (answer_reward(record), form_reward(record, ASKED)) == (answer, form)


@pytest.mark.parametrize(
    ("reply", "prompt", "form"), [("a", "plain", 1), ("a", "think", 1), (f"{WHY}\n答え:a", "plain", 0)]
)
def test_plain_and_think_ask_for_the_answer_alone(reply, prompt, form):
    assert form_reward(graded(reply, prompt), ASKED) == form


@pytest.mark.parametrize(
    ("reply", "thought"),
    [("", "肺塞栓であり、答え:a"), ("<think>肺塞栓であり、答え:a", ""), ("<think>\n答え:a\n答え:a", "")],
)
@pytest.mark.parametrize("ended", ["length", "repetition"])
def test_thinking_that_is_cut_off_is_never_an_answer(reply, thought, ended):
    record = graded(reply, "think", ended, thought)
    assert record.status in ("thinking", "truncated", "loop") and record.answer is None
    assert (answer_reward(record), form_reward(record, ASKED)) == (0, 0)


def test_a_reply_that_is_cut_off_has_no_form():
    record = graded(f"{WHY}\n答え:a", ended="length")
    assert form_reward(record, ASKED) == 0


def test_a_loop_costs_one_and_a_long_completion_up_to_one():
    looping = graded(WHY + "よって肺塞栓である。" * 20, ended="length")
    assert (loop_reward(looping), loop_reward(graded(f"{WHY}\n答え:a"))) == (-1, 0)
    assert [length_reward(tokens, 512, 100) for tokens in (0, 412, 437, 512, 600)] == [0, 0, -0.25, -1, -1]


@pytest.mark.parametrize(
    ("text", "language", "reward"),
    [
        (WHY, "ja", 0),
        ("The patient has sudden dyspnoea and a swollen leg.", "ja", -1),
        ("患者突然出现呼吸困难和心动过速，下肢肿胀，考虑肺栓塞，应当立即治疗。", "ja", -1),
        ("The patient has sudden dyspnoea and a swollen leg.", "en", 0),
        (WHY, "en", -1),
        ("a", "ja", 0),  # too short to have a language
    ],
)
def test_a_reply_in_another_language_costs_one(text, language, reward):
    assert language_reward(text, language) == reward


@pytest.fixture(scope="module")
def reader():
    return PromptReader(tiny.make_tokenizer())


def scorer_of(reader: PromptReader, **changed) -> RewardScorer:
    settings = Grpo(model="rpo", data=["./exam"], max_completion_length=100, **changed)
    request = Request(key="own/1", text="Question: x\nAnswer:", stop=("\nQuestion:",))
    ends = frozenset([reader.tokenizer.eos_token_id])
    return RewardScorer(settings, {"own/1": RolloutTask(ASKED, request, (1, 2, 3))}, reader, ends)


def test_a_completion_is_read_from_its_tokens_with_the_reason_why_it_ended(reader):
    scorer = scorer_of(reader, prompt="plain")
    end, tokens = reader.tokenizer.eos_token_id, reader.tokenizer.encode(" a")
    whole, cut, running, looping = scorer.score(
        ["own/1"] * 4,
        [
            [*tokens, end],
            tokens,
            [*tokens, *reader.tokenizer.encode("\nQuestion: b"), end],
            reader.tokenizer.encode("痛み") * 300,
        ],
    )
    assert [scored.reply.finish_reason for scored in (whole, cut, running, looping)] == [
        *("stop", "length", "stop", "repetition"),
    ]
    assert whole.reply.text.strip() == running.reply.text.strip() == "a"
    assert whole.parts == {"answer": 1, "form": 1, "length": 0, "loop": 0, "language": 0}
    assert looping.parts["loop"] == -1 and looping.parts["answer"] == 0


def test_each_part_that_counts_is_a_function_of_its_own_with_its_name(reader):
    scorer = scorer_of(
        reader, prompt="plain", rewards={"answer": 2, "form": 0, "length": 0.5, "loop": 0, "language": 0}
    )
    functions = scorer.functions()
    assert [function.__name__ for function in functions] == ["answer", "length"]
    assert list(scorer.weights.values()) == [2, 0.5]
    completion = [*reader.tokenizer.encode(" a"), reader.tokenizer.eos_token_id]
    given = {"prompts": ["own/1"], "completions": [" a"], "completion_ids": [completion], "trainer_state": None}
    assert [function(**given) for function in functions] == [[1.0], [0.0]]
