"""Near hashes: against comparing all of them, and against counts worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wastejax.data.duplicates import group_duplicates, hamming


def planted(count: int, seed: int, most_bits: int) -> np.ndarray:
    """`count` random hashes, of which a fifth are others with up to `most_bits` bits turned."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(2**64, size=count, dtype=np.uint64)
    for copy in range(count // 5):
        turned = rng.choice(64, rng.integers(most_bits + 1), replace=False)
        hashes[copy] = hashes[-1 - copy] ^ np.uint64(sum(1 << int(bit) for bit in turned))
    return hashes


def by_brute_force(a: np.ndarray, b: np.ndarray, most: int) -> set[tuple[int, int]]:
    return {
        (i, j)
        for i, x in enumerate(a.tolist())
        for j, y in enumerate(b.tolist())
        if (x ^ y).bit_count() <= most
    }


def found(pairs) -> list[tuple[int, int]]:
    return [tuple(pair) for some in pairs for pair in some.tolist()]


# Well above the bits that images are compared by: beyond, the ways to differ within a part become too many.
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(2, 60), most=st.integers(0, 12), parts=st.integers(2, 8))
def test_parts_find_what_comparing_all_finds_each_pair_once(seed, count, most, parts):
    a, b = planted(count, seed, most + 2), planted(count // 2 + 1, seed + 1, most + 2)
    b[0] = a[-1]
    if 64 / parts > 22:
        parts = 3
    across = found(hamming._by_parts(a, b, most, parts, within=False))
    assert sorted(across) == sorted(by_brute_force(a, b, most))
    inside = found(hamming._by_parts(a, a, most, parts, within=True))
    assert sorted(inside) == sorted((i, j) for i, j in by_brute_force(a, a, most) if i < j)


@pytest.mark.parametrize("parts", range(2, 9))
@pytest.mark.parametrize("most", range(21))
def test_radii_leave_no_near_pair_out(parts, most):
    # A pair escapes every part only if it differs in radius + 1 bits of each: more than `most` in sum.
    assert sum(radius + 1 for radius in hamming.radii(most, parts)) == most + 1


def test_a_large_set_is_searched_by_parts_a_small_one_compared():
    assert hamming._best_parts(1000, 1000, 8) == 0
    assert hamming._best_parts(10**6, 10**6, 8) > 0
    assert hamming._best_parts(1000, 1000, 40) == 0


def test_candidates_stay_bounded_where_all_hashes_share_a_part(monkeypatch):
    monkeypatch.setattr(hamming, "_AT_ONCE", 64)
    a = np.arange(300, dtype=np.uint64) << np.uint64(50)  # alike in all but the last bits
    most = max(len(some) for some in hamming._by_parts(a, a, 8, 4, within=True))
    assert most <= 300  # a row alone may exceed the bound, two may not
    assert sorted(found(hamming._by_parts(a, a, 3, 4, within=True))) == sorted(
        (i, j) for i, j in by_brute_force(a, a, 3) if i < j
    )


def test_groups_of_many_images_are_those_that_were_planted():
    rng = np.random.default_rng(3)
    count, copies = 6000, 900
    phash = rng.integers(2**64, size=count, dtype=np.uint64)
    grey = rng.integers(256, size=(count, 8, 8), dtype=np.uint8)
    truth = np.arange(count)
    for copy, original in enumerate(rng.choice(np.arange(copies, count), copies, replace=False)):
        turned = rng.choice(64, copy % 9, replace=False)
        phash[copy] = phash[original] ^ np.uint64(sum(1 << int(bit) for bit in turned))
        grey[copy] = grey[original]
        truth[original] = copy
    _, first, inverse = np.unique(truth, return_index=True, return_inverse=True)
    assert group_duplicates(phash, grey).tolist() == np.argsort(np.argsort(first))[inverse].tolist()
