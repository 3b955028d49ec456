"""Texts of people as tokens: names of marks in them stay text, whatever kind of tokenizer reads them."""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from medllm.generation.engine.batching import BatchLimits, PromptReader, plan
from medllm.generation.types import Request
from medllm.training.cpt import make_rows
from medllm.training.pair_batches import encode_pairs
from medllm.weights.load import TextTokens

TEXT = "用量は<s>10 mg</s>5 mg<|im_end|>、<|endoftext|>と<end_of_turn>。"
MARKS = ("<s>", "</s>", "<|im_end|>", "<|endoftext|>", "<end_of_turn>")


def byte_level(**options):
    """As Qwen2 and Llama 3; `<end_of_turn>` is an added token that the file does not call special."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=list(MARKS[:-1]), initial_alphabet=alphabet)
    words.train_from_iterator(["用量は10 mg"], trainer)
    words.add_tokens([AddedToken("<end_of_turn>", special=False), AddedToken("    ", special=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="</s>", **options
    )


def sentencepiece():
    """As Llama 2 and Mistral: a mark for the space before each text, bytes for what has no word."""
    bytes_ = {f"<0x{number:02X}>": 3 + number for number in range(256)}
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, **bytes_}
    for word in ("▁", "m", "g", "1", "0", "5", "<", ">", "s", "/", "mg", "用"):
        vocabulary[word] = len(vocabulary)
    words = Tokenizer(models.BPE(vocabulary, [("m", "g")], unk_token="<unk>", byte_fallback=True))
    words.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    words.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    words.add_special_tokens(list(MARKS))
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def putting(tokenizer, form):
    """The tokenizer with a post-processor, as files of models bring it: `form` is what it makes of a text."""
    vocabulary = tokenizer.get_vocab()
    marks = [(mark, vocabulary[mark]) for mark in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=marks)
    return tokenizer


KINDS = {"byte level": byte_level, "SentencePiece": sentencepiece}


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_named_in_a_text_does_not_become_the_mark(kind):
    tokenizer = KINDS[kind]()
    marks = {tokenizer.get_vocab()[mark] for mark in MARKS}
    assert marks & set(tokenizer(TEXT)["input_ids"]), "the tokenizer alone must take them for marks"
    ids = TextTokens(tokenizer).plain(TEXT)
    assert not marks & set(ids)
    assert tokenizer.decode(ids).strip() == TEXT


def test_added_tokens_that_are_no_marks_stay_as_the_model_knows_them():
    tokenizer = byte_level()
    spaces = tokenizer.get_vocab()["    "]
    assert spaces in TextTokens(tokenizer).plain("用    量")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["$A", "<s> $A", "<s> $A </s>", "$A </s>", "<s> <s> $A"])
def test_a_prompt_begins_as_the_tokenizer_begins_texts_with_one_mark_and_does_not_end(kind, form):
    tokenizer = putting(KINDS[kind](), form)
    begin, end = (tokenizer.get_vocab()[mark] for mark in ("<s>", "</s>"))
    words = TextTokens(tokenizer)
    plain = words.plain("10 mg")
    assert words.prompt("10 mg") == [*([begin] if form.startswith("<s>") else []), *plain]
    assert words.prompts(["10 mg", "<s>5 mg"]) == [words.prompt("10 mg"), words.prompt("<s>5 mg")]
    assert end not in words.prompt("10 mg") and words.prompt("<s>5 mg").count(begin) == form.startswith("<s>")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["$A", "<s> $A </s>"])
def test_documents_questions_and_pairs_have_their_marks_where_we_put_them(kind, form):
    from datasets import Dataset

    tokenizer = putting(KINDS[kind](), form)
    begin, end = (tokenizer.get_vocab()[mark] for mark in ("<s>", "</s>"))
    begun = int(form.startswith("<s>"))
    rows, _ = make_rows(Dataset.from_list([{"text": TEXT}]), tokenizer, 512, packing=True)
    [ids] = rows["input_ids"]
    assert (ids.count(begin), ids.count(end), ids[-1]) == (begun, 1, end)
    request = Request(key="q", text=TEXT, max_new_tokens=4)
    [batch], _ = plan([request], PromptReader(tokenizer), BatchLimits(4, 4096, 4096))
    asked = [*batch.prefix, *batch.tokens[0]]
    assert (asked.count(begin), asked.count(end)) == (begun, 0)
    table = Dataset.from_list([{"prompt": TEXT, "chosen": "5 mg</s>", "rejected": "10 mg"}])
    pairs, tally = encode_pairs(table, tokenizer, 512)
    assert pairs[0]["prompt_ids"] == asked and tally.split_at_prompt == 0
    assert pairs[0]["chosen_ids"].count(end) == pairs[0]["rejected_ids"].count(end) == 1
    assert tokenizer.decode(pairs[0]["chosen_ids"][:-1]).strip() == "5 mg</s>"


def test_an_answer_that_merges_with_its_prompt_gets_no_space_of_sentencepiece_before_it():
    tokenizer = sentencepiece()
    words = TextTokens(tokenizer)
    assert tokenizer.convert_ids_to_tokens(words.plain("g"))[0] == "▁"
    assert tokenizer.convert_ids_to_tokens(words.continued("g")) == ["g"]
