"""Which requests are answered together: all of them once, like lengths, a batch that fits."""

import pytest

from medllm.generation.engine.batching import BatchLimits, PromptReader, pieces, plan
from medllm.generation.types import Request
from tests import tiny

EXAMPLES = "".join(tiny.sentences(3, seed=9))
LIMITS = BatchLimits(prompts=4, tokens=65_536, context=4096)


def planned(lengths, limits=LIMITS, **changed):
    """The batches for prompts of so many words after the worked examples, each asked of two models."""
    texts = [EXAMPLES + f"\n問題{number}: " + "心電図。" * length for number, length in enumerate(lengths)]
    asked = [
        Request(key=f"{model} {number}", model=model, text=text, shared=len(EXAMPLES), **changed)
        for number, text in enumerate(texts)
        for model in ("base", "cpt")
    ]
    batches, unfit = plan(asked, PromptReader(tiny.make_tokenizer()), limits)
    keys = [one.key for batch in batches for one in batch.requests] + [request.key for request, _ in unfit]
    assert sorted(keys) == sorted(request.key for request in asked), "each request is asked once"
    return batches, unfit


def test_both_models_of_a_prompt_stand_in_one_batch_which_holds_so_many_prompts():
    batches, _ = planned([10] * 10)
    assert [len(batch.requests) for batch in batches] == [8, 8, 4]
    assert all(
        [one.model for one in batch.requests] == sorted(one.model for one in batch.requests) for batch in batches
    )
    assert len({batch.prefix for batch in batches}) == 1 and len(batches[0].prefix) > 10


def test_a_short_prompt_is_written_beside_a_long_one_but_not_padded_to_its_length_while_it_is_read():
    batches, _ = planned([400, 10, 380, 12], max_new_tokens=8)
    assert [len(batch.requests) for batch in batches] == [8]
    prompts = batches[0].prompts
    read = pieces(prompts, 65_536)
    assert [prompt for piece in read for prompt in piece] == prompts, "each prompt is read once, in order"
    assert [len(piece) for piece in read] == [2, 2, 2, 2]
    for piece in read:
        lengths = [len(tokens) for _, tokens in piece]
        assert max(lengths) - min(lengths) <= 0.25 * max(lengths) or max(lengths) <= 128


@pytest.mark.parametrize("most", [1, 100, 10_000])
def test_a_piece_asks_one_model_and_has_no_more_tokens_than_allowed_but_for_a_single_prompt(most):
    prompts = [(model, (7,) * length) for model in ("base", "cpt") for length in (40, 39, 38, 12, 11)]
    read = pieces(prompts, most)
    assert [prompt for piece in read for prompt in piece] == prompts
    for piece in read:
        assert len({model for model, _ in piece}) == 1
        assert len(piece) == 1 or len(piece) * max(len(tokens) for _, tokens in piece) <= most
    assert len(read) == {1: 10, 100: 6, 10_000: 2}[most]


def test_a_batch_has_no_more_tokens_than_fit():
    rooms = BatchLimits(prompts=16, tokens=2000, context=4096)
    batches, unfit = planned([100] * 6, rooms, max_new_tokens=100)
    assert len(batches) > 1 and not unfit
    for batch in batches:
        assert sum(len(own) + one.max_new_tokens for one, own in zip(batch.requests, batch.tokens, strict=True)) <= 2000


def test_what_exceeds_the_context_is_reported_with_its_length_and_not_cut():
    batches, unfit = planned([10, 3000], BatchLimits(prompts=4, tokens=65_536, context=600), max_new_tokens=8)
    assert [request.key for request, _ in unfit] == ["base 1", "cpt 1"]
    assert all(length > 600 for _, length in unfit) and len(batches) == 1
