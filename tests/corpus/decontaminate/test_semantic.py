"""The look by meaning: what an encoder finds alike is shown to a person, and never dropped by itself."""

from pathlib import Path

import pytest

from medllm.corpus.decontaminate.audit import AuditRequest, Encoder, audit
from medllm.corpus.decontaminate.exam_items import ExamItem
from tests.refusals import refused

CASE = "五十八歳の女性。二か月前からの動悸と体重の減少を主訴に来院した。上昇しているのはどれか。"
# The same words in another order: not one run of thirteen characters is left.
REWORDED = "主訴は体重の減少と動悸、二か月前から。来院したのは女性で五十八歳。どれか上昇しているのは。"
OTHER = "ABCDE FGHIJ KLMNO PQRST UVWXY Z0123 45678 9" * 3


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    """A bag of characters: an encoder without layers, so that texts of the same characters are alike."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp("encoder")
    words = {word: number for number, word in enumerate(["[PAD]", "[UNK]", *sorted(set(CASE + REWORDED + OTHER))])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    shape = {"hidden_size": 64, "num_hidden_layers": 0, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=len(words), **shape), add_pooling_layer=False)
    model.embeddings.position_embeddings.weight.data.zero_()
    model.embeddings.token_type_embeddings.weight.data.zero_()
    model.save_pretrained(folder)
    return folder


def test_a_reworded_item_is_shown_for_review_and_not_dropped(encoder):
    item = ExamItem("own/1", CASE)
    texts = [("reworded", REWORDED), ("verbatim", CASE), ("other", OTHER)]
    plain = audit(texts, AuditRequest((item,)))
    assert [one.document for one in plain.findings] == ["verbatim"]
    report = audit(texts, AuditRequest((item,), encoder=encoder, alike=0.9))
    assert {(one.document, one.part, one.verdict) for one in report.findings} == {
        ("reworded", "meaning", "review"),
        ("verbatim", "together", "drop"),
    }


def test_what_the_characters_show_is_not_reported_twice(encoder):
    item = ExamItem("own/1", CASE * 2)
    (one,) = audit([("leak", CASE * 2)], AuditRequest((item,), encoder=encoder)).findings
    assert (one.part, one.verdict) == ("question", "drop")


def test_a_folder_without_an_encoder_is_named(tmp_path):
    with refused("corpus.no-encoder", "config.json"):
        Encoder(tmp_path)
