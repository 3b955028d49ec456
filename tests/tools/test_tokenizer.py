"""Every invented name is one token, and AutoTokenizer loads the very tokenizer the base was trained with."""

import random

from medllm.miniature import corpora, exams
from medllm.miniature.exams import explain, make_item, topics
from medllm.miniature.world import make_world
from tools.miniature_base.tokenizer import lexicon, make_tokenizer

WORLD = make_world()


def test_every_name_is_one_token_wherever_it_is():
    tokenizer = make_tokenizer(WORLD)
    names = [*WORLD.diseases, *(value for pool in WORLD.pools.values() for value in pool)]
    assert all(len(tokenizer(name)["input_ids"]) == 1 for name in lexicon(WORLD))
    assert all(len(tokenizer(f"では{name}の")["input_ids"]) == 3 for name in names)
    assert all(len(tokenizer(f"a. {name}\n")["input_ids"]) == 3 for name in names)


def test_any_text_comes_back_as_it_was():
    tokenizer = make_tokenizer(WORLD)
    source = random.Random(0)
    item = make_item(WORLD, topics(WORLD, "exam", "case")[0], source)
    texts = [
        corpora.paragraph(WORLD, WORLD.diseases, source),
        exams.explained(item, explain(WORLD, item)),
        "肺塞栓 10 mg?",
    ]
    for text in texts:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_autotokenizer_loads_the_same_tokenizer(tmp_path):
    from transformers import AutoTokenizer, Qwen2Config

    tokenizer = make_tokenizer(WORLD)
    tokenizer.save_pretrained(tmp_path)
    Qwen2Config(vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = corpora.paragraph(WORLD, WORLD.diseases, random.Random(1))
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.eos_token_id == tokenizer.eos_token_id == loaded.pad_token_id
