"""Preferences and RPO by chat, from folder to folder: pairs are conversations, and the model learns them as asked."""

import json

import pyarrow.parquet as pq
import pytest

from medllm.recipe.base import settings_for_digest
from medllm.recipe.settings import Preferences
from medllm.stages import preferences, rpo
from tests import tiny
from tests.generation.serving import ChatServer
from tests.refusals import refused

THINKING_OFF = {"enable_thinking": False, "thinking": False}


def settings(**changed):
    common = {"model": "cpt", "data": {"source": "own", "exam": "own"}, "held_out": (), "cutoff": "2017-12-31"}
    common |= {
        "shots": 1,
        "samples": 1,
        "temperature": 0,
        "max_new_tokens": 16,
        "dtype": "float32",
        "format": "chat",
        "template": "igakuqa",
    }
    return Preferences(**{**common, **changed})


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    base = tiny.make_scripted(folder / "base")
    cpt = tiny.make_adapter(folder / "cpt", base, std=0.0)
    return {"base": base, "cpt": cpt, "own": tiny.make_exam(folder / "own", 8)}


@pytest.fixture(autouse=True)
def no_kept_answers(monkeypatch):
    monkeypatch.setenv("MEDLLM_ANSWERS", "none")


def rows_of(folder):
    return pq.read_table(folder / "data").to_pylist()


def test_pairs_of_a_chat_are_conversations_that_rpo_trains_on_by_the_models_template(sources, tmp_path):
    preferences.make(settings(system_prompt="簡潔に。"), sources, tmp_path / "preferences")
    pairs = rows_of(tmp_path / "preferences")
    assert pairs and {tuple(message["role"] for message in row["prompt"]) for row in pairs} == {
        ("system", "user", "assistant", "user")
    }
    assert {row["prompt"][0]["content"] for row in pairs} == {"簡潔に。"}
    assert all(len(row["prompt_without_shots"]) == 2 for row in pairs)
    assert {row["rejected"][0]["content"] for row in pairs if row["pair"] == "gt>rejected"} == {"b"}
    assert all("答え:" in row["chosen"][0]["content"] for row in pairs)
    assert all(row["chat_template_kwargs"] == THINKING_OFF for row in pairs)
    given = {**sources, "preferences": tmp_path / "preferences"}
    rpo.make(tiny.RPO.model_copy(update={"max_length": 900}), given, tmp_path / "rpo")
    facts = json.loads((tmp_path / "rpo" / "facts.json").read_text("utf-8"))
    assert facts["steps"] == 6 and facts["trained"] == len(pairs)
    assert (tmp_path / "rpo" / "chat_template.jinja").read_text("utf-8") == tiny.published_template("qwen3")
    stops = json.loads((tmp_path / "rpo" / "generation_config.json").read_text("utf-8"))["eos_token_id"]
    assert len(stops) == 2


def test_a_model_that_thinks_all_the_same_is_labelled_by_its_reply_and_keeps_its_thinking(sources, tmp_path):
    thinking = settings(chat_template_kwargs={"enable_thinking": True})
    preferences.make(thinking, sources, tmp_path / "out")
    samples = pq.read_table(tmp_path / "out" / "samples").to_pylist()
    assert {(one["completion"], one["reasoning"], one["answer"]) for one in samples} == {("b", "患者答えa", "b")}
    pairs = rows_of(tmp_path / "out")
    assert all(row["rejected"][0]["reasoning_content"] == "患者答えa" for row in pairs if row["pair"] == "gt>rejected")
    assert all(row["chat_template_kwargs"] == {"enable_thinking": True, "thinking": False} for row in pairs)


def test_a_sample_whose_thinking_was_cut_is_unread_and_makes_no_pair(sources, tmp_path):
    cut = settings(chat_template_kwargs={"enable_thinking": True}, max_new_tokens=4)
    with refused("preferences.no-pair"):
        preferences.make(cut, sources, tmp_path / "out")


def test_a_server_is_asked_not_to_think_as_its_pairs_will_be_trained(sources, tmp_path):
    server = ChatServer({"content": "答え: b"})
    preferences.make(settings(engine=server.url), sources, tmp_path / "out")
    server.close()
    assert all(body["chat_template_kwargs"] == THINKING_OFF for body in server.seen) and server.seen
    assert all(row["chat_template_kwargs"] == THINKING_OFF for row in rows_of(tmp_path / "out"))


def test_votes_join_conversations_as_what_a_user_wrote(sources, tmp_path):
    vote = {"prompt": "問題: 痛み\n解説:", "chosen": "\n良い。\n答え: a", "rejected": "\n悪い。\n答え: b"}
    vote |= {"prompt_without_shots": "問題: 痛み\n解説:", "question_id": "V1", "benchmark": "own", "model": "m"}
    (tmp_path / "votes").mkdir()
    (tmp_path / "votes" / "votes.jsonl").write_text(json.dumps(vote, ensure_ascii=False) + "\n", "utf-8")
    given = {**sources, "votes": tmp_path / "votes"}
    preferences.make(settings(votes=({"source": "votes"},)), given, tmp_path / "out")
    (row,) = [row for row in rows_of(tmp_path / "out") if row["origin"] == "expert"]
    assert row["prompt"] == [{"role": "user", "content": vote["prompt"]}]
    assert row["chosen"][0]["content"] == "良い。\n答え: a"


def test_a_model_without_a_template_is_refused_before_it_is_asked(sources, tmp_path):
    bare = tiny.make_base(tmp_path / "bare")
    given = {**sources, "base": bare, "cpt": tiny.make_adapter(tmp_path / "cpt", bare)}
    with refused("generation.no-chat-template"):
        preferences.make(settings(), given, tmp_path / "out")


def test_preferences_that_name_no_format_keep_their_digest_and_their_columns(sources, tmp_path):
    plain = settings(format="completion", max_new_tokens=40)
    assert not {"format", "system_prompt", "chat_template_kwargs"} & set(settings_for_digest(plain))
    assert settings_for_digest(settings())["format"] == "chat"


TAKES = "よく考える。痛みと発熱と咳嗽がある。"


def thoughts(body):
    """The next reply of a model that thinks: right and wrong by turns, each after thinking of its own."""
    number = thoughts.count = thoughts.count + 1
    return {
        "content": "aab"[number % 3],
        "reasoning_content": f"{number * 37} 回目。{TAKES * (number % 5 + 1)}{number}",
    }


THINKING = {"prompt": "think", "pairs": ("chosen>rejected",), "samples": 6, "temperature": 1.0}


@pytest.fixture
def thinking_pairs(sources, tmp_path):
    thoughts.count = 0
    server = ChatServer(thoughts)
    preferences.make(settings(**THINKING, engine=server.url, num_concurrent=1), sources, tmp_path / "thought")
    server.close()
    assert all(body["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True} for body in server.seen)
    return tmp_path / "thought"


def test_pairs_of_thinking_replies_hold_the_thinking_on_both_sides_and_rpo_trains_it(
    sources, tmp_path, thinking_pairs, monkeypatch
):
    from medllm.training import pair_batches

    pairs = rows_of(thinking_pairs)
    assert pairs and {row["pair"] for row in pairs} == {"chosen>rejected"}
    assert all(TAKES in row[side][0]["reasoning_content"] for row in pairs for side in ("chosen", "rejected"))
    assert all(row["chosen"][0]["content"] != row["rejected"][0]["content"] for row in pairs)
    read = []
    of_messages = pair_batches._of_messages
    monkeypatch.setattr(pair_batches, "_of_messages", lambda *of: read.append(of_messages(*of)) or read[-1])
    given = {**sources, "preferences": thinking_pairs}
    rpo.make(tiny.RPO.model_copy(update={"max_length": 1500}), given, tmp_path / "rpo")
    facts = json.loads((tmp_path / "rpo" / "facts.json").read_text("utf-8"))
    assert facts["trained"] == len(pairs)
    tokenizer = tiny.make_chat_tokenizer(tiny.published_template("qwen3"))
    learnt = [tokenizer.decode(side) for _, *sides in read for side in sides]
    assert learnt and all(text.startswith("<think>") and TAKES in text.partition("</think>")[0] for text in learnt)


def test_samples_that_answer_alike_after_other_thinking_are_not_one_sample(sources, thinking_pairs):
    samples = pq.read_table(thinking_pairs / "samples").to_pylist()
    assert len({one["answer"] for one in samples}) == 2 and not any(one["duplicate"] for one in samples)


def test_a_sample_that_is_cut_in_its_thinking_is_on_neither_side_of_a_pair(sources, tmp_path):
    whole = [{"content": "a", "reasoning_content": f"{TAKES}。甲"}, {"content": "b", "reasoning_content": "乙。違う。"}]
    cut = {"content": None, "reasoning_content": "答えは a か。丙", "finish_reason": "length"}
    bare = {"content": "答え: a か。丁", "finish_reason": "length"}
    given = iter([*whole, cut, bare] * 8)
    server = ChatServer(lambda body: next(given))
    asked = settings(**{**THINKING, "samples": 4}, engine=server.url, num_concurrent=1)
    preferences.make(asked, sources, tmp_path / "out")
    server.close()
    samples = pq.read_table(tmp_path / "out" / "samples").to_pylist()
    cut_off = [(one["label"], one["completion"]) for one in samples if one["finish_reason"] == "length"]
    assert set(cut_off) == {("unparsed", "")} and len(cut_off) == len(samples) / 2
    sides = [row[side][0]["reasoning_content"] for row in rows_of(tmp_path / "out") for side in ("chosen", "rejected")]
    assert sides and not any("丙" in text or "丁" in text for text in sides)


def test_thinking_that_cannot_be_in_the_pairs_is_refused(sources, tmp_path):
    hidden = {"prompt_tokens": 9, "completion_tokens": 40, "completion_tokens_details": {"reasoning_tokens": 33}}
    for code, message in (
        ("preferences.hidden-thinking", {"content": "a", "usage": hidden}),
        ("preferences.no-thinking", {"content": "a"}),
    ):
        server = ChatServer(message)
        with refused(code, "preferences"):
            preferences.make(settings(**THINKING, engine=server.url), sources, tmp_path / code)
        server.close()


def test_a_template_without_a_place_for_thinking_does_not_train_pairs_that_have_it(thinking_pairs, sources, tmp_path):
    base = tiny.make_scripted(tmp_path / "base", template=tiny.published_template("qwen2_5"))
    cpt = tiny.make_adapter(tmp_path / "cpt", base, std=0.0)
    with refused("weights.template-drops-thinking"):
        rpo.make(tiny.RPO, {"base": base, "cpt": cpt, "preferences": thinking_pairs}, tmp_path / "rpo")
    with refused("weights.template-drops-thinking", "preferences.prompt"):  # before any question is asked
        preferences.make(settings(**THINKING), {**sources, "base": base, "cpt": cpt}, tmp_path / "preferences")
    assert not (tmp_path / "preferences.part" / preferences.REPLIES).exists()


def test_votes_among_thinking_pairs_are_trained_without_thinking(sources, tmp_path):
    vote = {"prompt": "問題: 痛み\n解説:", "chosen": "\n良い。\n答え: a", "rejected": "\n悪い。\n答え: b"}
    vote |= {"prompt_without_shots": "問題: 痛み\n解説:", "question_id": "V1", "benchmark": "own", "model": "m"}
    (tmp_path / "votes").mkdir()
    (tmp_path / "votes" / "votes.jsonl").write_text(json.dumps(vote, ensure_ascii=False) + "\n", "utf-8")
    thoughts.count = 0
    server = ChatServer(thoughts)
    asked = settings(**THINKING, votes=({"source": "votes"},), engine=server.url, num_concurrent=1)
    preferences.make(asked, {**sources, "votes": tmp_path / "votes"}, tmp_path / "out")
    server.close()
    values = {row["origin"]: row["chat_template_kwargs"] for row in rows_of(tmp_path / "out")}
    assert values == {"sampled": {"enable_thinking": True, "thinking": True}, "expert": THINKING_OFF}
