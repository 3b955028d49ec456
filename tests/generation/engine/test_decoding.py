"""The draw of the next token: the same as if the whole vocabulary had been put in order."""

import pytest
import torch

from medllm.generation.engine import decoding
from medllm.generation.engine.decoding import Decoder, next_tokens
from medllm.generation.types import Request

VOCABULARY = 5000


def of_all_in_order(logits, temperature, top_p, number):
    """Every token, most likely first and of equals the lower number first; the first whose mass exceeds the number."""
    likely = (logits.float() / temperature).softmax(-1)
    order = sorted(range(len(likely)), key=lambda token: (-float(likely[token]), token))
    kept, mass = [], 0.0
    for token in order:
        kept.append(token)
        mass += float(likely[token])
        if top_p < 1 and mass >= top_p:
            break
    at, wanted = 0.0, number * (mass if top_p < 1 else 1.0)
    for token in kept:
        at += float(likely[token])
        if at > wanted:
            return token
    return kept[-1]


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
@pytest.mark.parametrize("spread", [0.5, 6.0], ids=["flat", "steep"])
def test_a_draw_is_that_from_the_whole_vocabulary_in_order(top_p, spread):
    torch.manual_seed(0)
    # bfloat16 as models give it: many tokens are exactly as likely as others.
    logits = (torch.randn(VOCABULARY) * spread).to(torch.bfloat16)
    numbers = [0.0, 0.004, 0.2, 0.5, 0.77, 0.93, 0.9999]
    drawn = [decoding._sample_token(logits, 1.3, top_p, number) for number in numbers]
    assert drawn == [of_all_in_order(logits, 1.3, top_p, number) for number in numbers]
    assert len(set(drawn)) > 3 or (spread > 1 and top_p < 0.5), "one token has it all"


def test_a_draw_among_the_likeliest_does_not_sort_the_rest(monkeypatch):
    sorted_lengths = []
    sort = torch.Tensor.sort

    def watched(tensor, *rest, **options):
        sorted_lengths.append(len(tensor))
        return sort(tensor, *rest, **options)

    monkeypatch.setattr(torch.Tensor, "sort", watched)
    torch.manual_seed(0)
    logits = torch.randn(1, VOCABULARY) * 6
    request = Request(key="a", text="", temperature=1.0, seed=3)
    next_tokens(logits, [Decoder(request, 0, None, frozenset())])
    assert sorted_lengths == [decoding.LIKELIEST]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_of_equally_likely_tokens_a_greedy_answer_takes_the_first(dtype):
    torch.manual_seed(0)
    logits = torch.randint(0, 200, (40, VOCABULARY)).to(dtype)
    writings = [Decoder(Request(key=str(row), text=""), 0, None, frozenset()) for row in range(len(logits))]
    firsts = [row.index(max(row)) for row in logits.tolist()]
    assert next_tokens(logits, writings) == firsts and len(set(firsts)) > 20


class PlainTokenizer:
    """Writes each token as its number."""

    def decode(self, tokens, **_):
        return " ".join(map(str, tokens))


def written(tokens, room=2000):
    decoder = Decoder(Request(key="a", text="", max_new_tokens=room), 0, PlainTokenizer(), frozenset())
    for token in tokens:
        if decoder.finished is None:
            decoder.take(token)
    return decoder


@pytest.mark.parametrize("size", [1, 2, 7, 50, 64])
def test_a_reply_that_repeats_one_pattern_for_256_tokens_ends_there_and_is_no_whole_reply(size):
    before = list(range(1000, 1100))
    decoder = written(before + list(range(size)) * 2000)
    assert decoder.finished == "repetition" and decoder.reply().finish_reason == "repetition"
    assert 0 <= len(decoder.tokens) - len(before) - 256 < decoding.LOOP_STEP, "at the first look after 256 of them"


@pytest.mark.parametrize(
    "tokens",
    [
        list(range(65)) * 20,  # a table's rows may be long
        ([7] * 250 + [8]) * 6,  # a rule across the page, then text
        [token % 97 for token in range(1500)],
    ],
    ids=["longer pattern", "interrupted", "no pattern in reach"],
)
def test_what_only_resembles_a_loop_is_written_to_its_end(tokens):
    assert written([*tokens], room=len(tokens)).finished == "length"
