"""Attention over a shared prefix: the result of ordinary attention, whichever of its two ways is taken."""

from types import SimpleNamespace

import pytest
import torch

from medllm.generation.engine.attention import Prefix, Rows, Shared, attend

PREFIX, OWN, HEADS, KEYS, SIZE = 11, 7, 6, 2, 8
LENGTHS = (7, 3, 5)
"""Own tokens of three rows; the first asks one model, the others another."""
LAYER = SimpleNamespace(layer_idx=0)


def drawn(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def batch(asked):
    """Query, own keys and values, and the rows laid out as the local maker lays them: padded on the left."""
    torch.manual_seed(0)
    query, key, value = drawn(3, HEADS, asked, SIZE), drawn(3, KEYS, OWN, SIZE), drawn(3, KEYS, OWN, SIZE)
    prefixes = [Prefix([drawn(KEYS, PREFIX, SIZE)], [drawn(KEYS, PREFIX, SIZE)]) for _ in range(2)]
    columns = torch.arange(OWN) - (OWN - torch.tensor(LENGTHS))[:, None]
    shared = Shared(["base", "cpt"], prefixes, [slice(0, 1), slice(1, 3)], PREFIX)
    return query, key, value, Rows(PREFIX + columns.clamp(min=0), columns >= 0, shared)


def ordinary(query, key, value, rows, softcap, window):
    """One row and head after the other, each token's scores written out in full."""
    result = torch.zeros(3, query.shape[2], HEADS, SIZE, dtype=query.dtype)
    for row, length in enumerate(LENGTHS):
        prefix = rows.shared.prefixes[0 if row == 0 else 1]
        for head in range(HEADS):
            of = head // (HEADS // KEYS)
            keys = torch.cat([prefix.keys[0][of], key[row, of, OWN - length :]])
            values = torch.cat([prefix.values[0][of], value[row, of, OWN - length :]])
            for at in range(query.shape[2]):
                place = PREFIX + length - query.shape[2] + at
                if place < PREFIX:
                    continue
                first = 0 if window is None else max(0, place - window + 1)
                scores = keys[first : place + 1] @ query[row, head, at] * 0.3
                scores = scores if softcap is None else (scores / softcap).tanh() * softcap
                result[row, at, head] = scores.softmax(-1) @ values[first : place + 1]
    return result


@pytest.mark.parametrize("window", [None, 4, 9], ids=["all", "no prefix for the last", "some prefix"])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("asked", [1, 3, OWN])
def test_it_is_ordinary_attention(asked, softcap, window):
    query, key, value, rows = batch(asked)
    options = {"scaling": 0.3, "medllm_rows": rows, "softcap": softcap, "sliding_window": window}
    found, _ = attend(LAYER, query, key, value, None, **options)
    wanted = ordinary(query, key, value, rows, softcap, window)
    real = rows.real[:, -asked:]
    torch.testing.assert_close(found[real], wanted[real], atol=1e-6, rtol=0)
    assert found.isfinite().all(), "padding must not become a number that is none"


def test_a_single_token_and_many_agree_to_rounding():
    query, key, value, rows = batch(OWN)
    options = {"scaling": 0.3, "medllm_rows": rows}
    many, _ = attend(LAYER, query, key, value, None, **options)
    one, _ = attend(LAYER, query[:, :, -1:], key, value, None, **options)
    torch.testing.assert_close(many[:, -1:], one, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_numbers_round_and_no_more(dtype):
    query, key, value, rows = batch(OWN)
    wide, _ = attend(LAYER, query, key, value, None, scaling=0.3, medllm_rows=rows)
    narrow = Rows(rows.positions, rows.real, rows.shared)
    narrow.shared.prefixes = [Prefix([p.keys[0].to(dtype)], [p.values[0].to(dtype)]) for p in narrow.shared.prefixes]
    given = [tensor.to(dtype) for tensor in (query, key, value)]
    found, _ = attend(LAYER, *given, None, scaling=0.3, medllm_rows=narrow)
    assert found.dtype == dtype
    tolerance = 8 * torch.finfo(dtype).eps
    torch.testing.assert_close(found[rows.real].double(), wide[rows.real], atol=tolerance, rtol=tolerance)
