"""Preference pairs from real replies: the visible explanations that were published for the 120th exam."""

import json
from collections import Counter

import pytest

from medllm.exam.benchmarks import load
from medllm.exam.prompts import Prompt
from medllm.exam.question import index
from medllm.generation.types import Reply
from medllm.preferences.pairs import RankedAnswers, labelled, make_pairs

FILES = ("Qwen_Qwen3.5-27B_nothink", "Qwen_Qwen3.5-35B-A3B_nothink", "tokyotech-llm_GPT-OSS-Swallow-120B-RL-v0.1")
"""The models of this copy that explain in what they say, not in hidden reasoning."""


@pytest.fixture(scope="module")
def samples(shared_data):
    folder = shared_data / "jmle2026"
    questions = index(load("jmle2026", folder))
    replies = {}
    for seed, name in enumerate(FILES):
        for row in json.loads((folder / "model_outputs" / f"{name}.json").read_text("utf-8"))["results"]:
            if row["question_id"] in questions:
                text = row["raw_response"] or ""
                reply = Reply(key="", text=text, finish_reason="stop", prompt_tokens=0, completion_tokens=0)
                replies.setdefault(row["question_id"], []).append((seed, seed, reply))
    return {
        name: labelled(questions[name], given, model="real", revision=None, prompt_hash="-", max_similarity=0.95)
        for name, given in replies.items()
    }


def test_real_replies_are_labelled_as_their_publisher_judged_them(shared_data, samples):
    judged = Counter()
    for seed, name in enumerate(FILES):
        values = json.loads((shared_data / "jmle2026" / "model_outputs" / f"{name}.json").read_text("utf-8"))
        for row in values["results"]:
            mine = next((s for s in samples.get(row["question_id"], ()) if s.sample == seed), None)
            if mine is not None and mine.label != "unparsed":
                judged[(mine.label != "rejected") == row["correct"]] += 1
    assert sum(judged.values()) > 1000
    assert judged[True] / sum(judged.values()) > 0.99


def test_right_and_wrong_replies_to_one_question_become_pairs(samples):
    prompt = Prompt("-", (), (), "\n")
    labels = Counter(sample.label for of in samples.values() for sample in of)
    both = 0
    pairs = []
    for of in samples.values():
        kinds = {sample.label for sample in of}
        both += {"chosen", "rejected"} <= kinds
        ranked = RankedAnswers(prompt, prompt, "-", of)
        pairs += make_pairs(ranked, steps=("chosen>rejected",), most=9, max_similarity=0.95, seed=0, number=1)
    print(f"labels {dict(labels)}, questions with both {both}, pairs {len(pairs)}")
    assert labels["chosen"] > 1000 and labels["rejected"] > 50
    assert both <= len(pairs) <= 2 * both
    assert {pair.pair for pair in pairs} == {"chosen>rejected"}
