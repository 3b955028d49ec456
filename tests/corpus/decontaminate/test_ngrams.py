"""Hashes are found by their first bits, also where many begin alike, and each place of a text is numbered once."""

import numpy as np
import pytest

from medllm.corpus.decontaminate.ngrams import Numbering, among, distinct_values, fold_audit, hash_grams, marked


def test_exactly_the_known_hashes_are_found_also_where_hundreds_begin_alike():
    draw = np.random.default_rng(1)
    alike = (np.uint64(5) << np.uint64(58)) + draw.integers(0, 1 << 20, 300).astype(np.uint64)
    known = np.unique(np.concatenate([alike, draw.integers(0, 1 << 63, 300).astype(np.uint64)]))
    numbering = Numbering(known)
    asked = np.concatenate([known[::2], alike + np.uint64(1), draw.integers(0, 1 << 63, 500).astype(np.uint64)])
    draw.shuffle(asked)
    places, numbers = numbering.find(asked)
    assert places.tolist() == np.flatnonzero(np.isin(asked, known)).tolist()
    assert known[numbers].tolist() == asked[places].tolist()


def test_nothing_is_found_among_no_hashes():
    places, numbers = Numbering(np.empty(0, np.uint64)).find(np.arange(9, dtype=np.uint64))
    assert (len(places), len(numbers)) == (0, 0)


def test_only_the_stretches_are_numbered():
    codes = fold_audit("急性虫垂炎でみられるのはどれか")
    numbering = Numbering(hash_grams(codes, 4))
    numbers = numbering.along(codes, 4, [(1, 4), (3, 6)])
    assert np.flatnonzero(numbers < len(numbering)).tolist() == [1, 2, 3, 4, 5]
    assert numbering.known[numbers[1:6]].tolist() == hash_grams(codes, 4)[1:6].tolist()
    # Behind the last whole gram there is none, however far a stretch goes.
    assert numbering.along(codes, 4, [(0, len(codes))])[-3:].tolist() == [len(numbering)] * 3


def test_marks_are_off_again_after_they_were_used():
    marks = np.zeros(6, np.bool_)
    assert marked(marks, np.array([5, 2, 2, 0]), np.array([0, 1, 2, 5])).tolist() == [True, False, True, False]
    assert not marks.any()


@pytest.mark.parametrize("count", [0, 1, 5000])
def test_different_values_and_membership_are_those_of_numpy(count):
    draw = np.random.default_rng(3)
    values, known = draw.integers(0, 3000, count).astype(np.uint64), draw.integers(0, 3000, 700).astype(np.uint64)
    assert np.array_equal(distinct_values(values), np.unique(values))
    assert np.array_equal(among(values, known), np.isin(values, known))
    assert not among(values, known[:0]).any()
