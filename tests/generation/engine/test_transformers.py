"""The engine for any model: it answers as the local engine does, in batches as alone, whatever the model's type."""

import json

import pytest

from medllm.generation.engine.local import LocalGenerator
from medllm.generation.engine.transformers import TransformersGenerator
from medllm.generation.types import Request
from tests import tiny

EXAMPLES = "".join(tiny.sentences(3, seed=9))
QUESTIONS = [f"\n問題: {sentence}" for sentence in tiny.sentences(5, seed=11)]
MODELS = ("base", "cpt", "final")


def requests(models=MODELS, **changed):
    options = {"max_new_tokens": 10, "stop": ("。", "a"), **changed}
    return [
        Request(
            key=f"{model} {number}", model=model, text=EXAMPLES + text, shared=len(EXAMPLES), seed=number, **options
        )
        for model in models
        for number, text in enumerate(QUESTIONS)
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    base = tiny.make_base(folder / "base")
    return base, {name: tiny.make_adapter(folder / name, base, seed=n) for n, name in enumerate(MODELS[1:], 1)}


@pytest.fixture(scope="module")
def plain(folders):
    return TransformersGenerator(*folders, dtype="float32", batch_size=3)


@pytest.fixture(scope="module")
def local(folders):
    return LocalGenerator(*folders, dtype="float32", batch_size=3)


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
def test_each_model_gives_the_replies_tokens_and_ends_of_the_local_engine(plain, local, temperature):
    asked = requests(temperature=temperature, top_p=0.9)
    before = (plain.read, plain.written, local.written)
    ours, theirs = ({reply.key: reply for reply in one.generate(asked)} for one in (plain, local))
    assert ours == theirs
    assert plain.read - before[0] == sum(reply.prompt_tokens for reply in ours.values())
    assert (
        plain.written - before[1]
        == local.written - before[2]
        >= sum(reply.completion_tokens for reply in ours.values())
    )
    assert 0 < local.read < plain.read, "what prompts share is read once"
    assert {reply.finish_reason for reply in ours.values()} == {"stop", "length"}
    assert len({ours[f"{model} 0"].text for model in MODELS}) > 1, "the adapters change what is written"


def test_the_pieces_of_a_stream_are_the_replies(plain):
    asked = requests(models=("final",))
    whole = {reply.key: reply for reply in plain.generate(asked)}
    pieces, replies = dict.fromkeys(whole, ""), {}
    for delta in plain.stream(asked):
        pieces[delta.key] += delta.text
        if delta.reply is not None:
            replies[delta.key] = delta.reply
    assert replies == whole and pieces == {key: reply.text for key, reply in whole.items()}


def test_a_reader_that_leaves_ends_the_writing(plain):
    stream = plain.stream(requests(models=("base",), max_new_tokens=500, stop=()))
    next(stream)
    stream.close()  # returns only when the thread that writes has ended


def test_a_prompt_that_does_not_fit_is_reported_and_not_cut(plain):
    (reply,) = plain.generate([Request(key="long", text=EXAMPLES * 60, max_new_tokens=8)])
    assert reply.finish_reason == "too_long" and reply.text == "" and reply.prompt_tokens > 1024


def test_what_a_publisher_recommends_for_sampling_is_no_part_of_a_greedy_reply(folders, plain, tmp_path):
    base = tiny.make_base(tmp_path / "base")
    advice = {"do_sample": True, "temperature": 5.0, "repetition_penalty": 9.0, "top_k": 3, "eos_token_id": [0, 2]}
    (base / "generation_config.json").write_text(json.dumps(advice))
    asked = requests(models=("base",))
    assert list(TransformersGenerator(base, dtype="float32", batch_size=3).generate(asked)) == list(
        plain.generate(asked)
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gpt_oss", "mixtral", "gpt2", "mamba", "falcon_h1", "deepseek_v3", "qwen3_5_text"])
def test_a_model_of_another_type_answers_in_a_batch_as_it_does_alone(family, tmp_path):
    generator = TransformersGenerator(tiny.make_base(tmp_path / "base", family=family), dtype="float32")
    asked = requests(models=("base",))
    alone = [reply for one in asked for reply in generator.generate([one])]
    assert sorted(generator.generate(asked), key=lambda reply: reply.key) == alone
