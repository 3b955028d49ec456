"""What a model thinks is no answer, whatever marks its family puts around it and wherever it breaks off."""

import pytest

from medllm.exam.extract.answer import parse
from medllm.exam.extract.reply import split_thinking, thinks_aloud, without_thinking
from tests.exam.making import question

PAIRS = {
    "think": ("<think>", "</think>"),
    "thinking": ("<thinking>", "</thinking>"),
    "thought": ("<thought>", "</thought>"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "upper case": ("<THINK>", "</THINK>"),
    "with attributes": ('<think effort="high">', "</think>"),
    "full width": ("＜think＞", "＜/think＞"),
    "escaped": ("&lt;think&gt;", "&lt;/think&gt;"),
    "seed": ("<seed:think>", "</seed:think>"),
    "longcat": ("<longcat_think>", "</longcat_think>"),
    "mistral": ("[THINK]", "[/THINK]"),
    "kimi": ("◁think▷", "◁/think▷"),
    "thought tokens": ("<|begin_of_thought|>", "<|end_of_thought|>"),
    "command": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "medgemma": ("<unused94>thought\n", "<unused95>"),
    "gemma": ("<|channel>thought\n", "<channel|>"),
    "pangu": ("[unused16]", "[unused17]"),
    "solar": ("<|think|>", "<|end|><|begin|>assistant<|content|>"),
    "apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "open web": ('<details type="reasoning" done="true">\n<summary>Thought</summary>\n', "</details>"),
    "harmony": ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    "harmony, json": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>",
    ),
    "harmony without marks": ("analysis", "assistantfinal"),
    "huatuo": ("## Thinking\n\n", "\n\n## Final Response\n\n"),
    "granite": ("Here is my thought process:\n", "\nHere is my response:\n"),
    "ollama": ("Thinking...\n", "\n...done thinking.\n\n"),
}
THOUGHTS = ("We weigh them. The answer is a? Probably.", "答え: a だろうか。いや。", "【回答】a")
REPLIES = ("答え: c", "c", "The answer is C.", '{"answer": "c"}', "<answer>c</answer>", r"\boxed{c}")


@pytest.mark.parametrize("family", sorted(set(PAIRS) - {"full width"}))  # those marks are read after NFKC alone
def test_the_thinking_of_every_family_is_kept_apart_from_the_reply_closed_or_cut(family):
    begin, end = PAIRS[family]
    thought = "まず a を疑う。\nいや、c だ。"
    kept, reply = split_thinking(f"{begin}{thought}{end}答え: c")
    assert reply.strip() == "答え: c"
    assert kept.endswith(thought) and begin not in kept
    cut, nothing = split_thinking(f"{begin}{thought}")
    assert nothing is None and cut.endswith(thought)


def test_thinking_that_the_template_opened_is_kept_to_its_end_or_as_a_whole():
    assert split_thinking("考える\n</think>\n\nb", thinks=True) == ("考える", "\n\nb")
    assert split_thinking("考える", thinks=True) == ("考える", None)
    assert split_thinking("b") == ("", "b")
    two = "<|channel|>analysis<|message|>一<|end|><|start|>assistant<|channel|>commentary<|message|>二<|end|>"
    assert split_thinking(f"{two}<|start|>assistant<|channel|>final<|message|>b") == ("一\n二", "b")


@pytest.mark.parametrize("family", PAIRS)
def test_only_what_follows_the_thinking_is_read(family):
    begin, end = PAIRS[family]
    for thought in THOUGHTS:
        for reply in REPLIES:
            parsed = parse(f"{begin}{thought}{end}{reply}")
            assert (parsed.answer, parsed.status) == ("c", "answered"), (thought, reply)
            assert parse(f"{begin}{thought}{end}{reply}", thinks=True).answer == "c"


@pytest.mark.parametrize("family", PAIRS)
def test_a_completion_that_ends_while_it_thinks_is_truncated(family):
    begin, _ = PAIRS[family]
    for thought in THOUGHTS:
        for reason in ("length", "stop", None):
            parsed = parse(begin + thought, finish_reason=reason)
            assert (parsed.answer, parsed.status, parsed.truncated) == (None, "truncated", True), thought


@pytest.mark.parametrize("family", [name for name in PAIRS if name not in ("open web", "huatuo", "granite", "ollama")])
def test_thinking_that_the_template_opened_needs_only_its_end(family):
    _, end = PAIRS[family]
    for thought in THOUGHTS:
        assert parse(f"{thought}{end}答え: c", thinks=True).answer == "c"
        cut = parse(thought, thinks=True)
        assert (cut.answer, cut.status) == (None, "truncated")


def test_thinking_between_two_parts_of_a_reply_is_left_out_and_both_parts_are_seen():
    text = "まず述べる。<think>a?</think>次に<think>b?</think>述べる。"
    assert without_thinking(text) == without_thinking(text, thinks=True) == "まず述べる。次に述べる。"
    assert without_thinking("x<think>y<think>z</think>w</think>答え") == "答え"
    assert (without_thinking("答え: b"), without_thinking("答え: b", thinks=True)) == ("答え: b", None)


def test_a_reply_that_ended_before_it_began_to_think_again_is_kept():
    parsed = parse("答え: b<|im_end|>\n<|im_start|>assistant\n<think>a?")
    assert (parsed.answer, parsed.run_on) == ("b", True)
    parsed = parse(
        "<think>x</think>b<|im_end|>\n<|im_start|>user\n次は?<|im_end|>\n<|im_start|>assistant\n<think>a</think>a"
    )
    assert (parsed.answer, parsed.run_on) == ("b", True)


def test_words_about_an_analysis_are_no_channel():
    assert parse("analysis of the sputum was normal. Answer: b").answer == "b"
    assert parse("Analysis: the sputum is normal.\nAnswer: b").answer == "b"
    assert parse("final answer: b").answer == "b"


CHAIN = (
    "Okay, let's see. The sputum is clear, so maybe the answer is a. Wait, the fever speaks against it. "
    "Alternatively the culture may help, and I think it was taken before the drug was given."
)


def test_a_cut_reply_counts_only_where_its_answer_has_a_form_of_its_own():
    for cut in (
        CHAIN,
        "まず病歴をみる。正解は a のように思えるので、正解は a と考え、次に検査を",
    ):
        assert parse(cut, finish_reason="length").status == "truncated", cut
    for whole in (
        "答え: b\n解説: まず",
        "b\n\n解説: まず",
        "検査を行う。\n【回答】b\n補足として",
        r"So \boxed{b} and then",
    ):
        parsed = parse(whole, finish_reason="length")
        assert (parsed.answer, parsed.truncated) == ("b", True), whole


def test_thinking_without_marks_that_breaks_off_is_no_answer_even_where_nobody_says_so():
    assert thinks_aloud(CHAIN)
    assert not thinks_aloud("この症例では感染を考える。したがって答えは b である。")
    assert parse(CHAIN).status == "truncated"
    assert parse(CHAIN, finish_reason="stop").status == "unparsed"
    assert parse(CHAIN + " So the answer is b.").answer == "b"
    assert parse(CHAIN + "\n\nAnswer: b\n\n" + "The rest is an explanation of the choice. " * 5).answer == "b"


def test_a_question_of_two_answers_is_read_behind_its_thinking():
    asked = question("b,d")
    assert parse("<think>a, c?</think>\n- b\n- d", asked, thinks=True).answer in (None, "b,d")
    assert parse("<think>a, c?</think>答え:\n- b\n- d", asked, thinks=True).answer == "b,d"
