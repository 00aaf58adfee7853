"""Near hashes: against comparing all of them, and against counts worked out by hand."""

from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wastejax.data.duplicates import MIN_AGREEMENT, comparing, group_duplicates, hamming


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
    across = found(hamming._by_parts(a, b, most, parts, None))
    assert sorted(across) == sorted(by_brute_force(a, b, most))
    inside = found(hamming._by_parts(a, a, most, parts, None))
    assert sorted(inside) == sorted((i, j) for i, j in by_brute_force(a, a, most) if i < j)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(2, 60),
    parts=st.sampled_from((0, 3, 4, 8)),
    groups=st.integers(1, 5),
    long=st.sampled_from((0, 5, 64)),
)
def test_pairs_of_one_group_are_left_out_and_no_others(seed, count, parts, groups, long):
    a, b = planted(count, seed, 6), planted(count, seed + 1, 6)
    # Much alike, so that many share a part.
    a, b = a & np.uint64(0xFF00FF00FF00FF), b & np.uint64(0xFF00FF00FF00FF)
    group = np.random.default_rng(seed).integers(groups, size=count)
    with mock.patch.multiple(hamming, _LONG=long, _best_parts=lambda n, m, bits: parts):
        across, inside = (found(hamming.near_pairs(a, other, 8, group)) for other in (b, None))
    assert sorted(across) == sorted((i, j) for i, j in by_brute_force(a, b, 8) if group[i] != group[j])
    assert sorted(inside) == sorted(
        (i, j) for i, j in by_brute_force(a, a, 8) if i < j and group[i] != group[j]
    )


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
    most = max(len(some) for some in hamming._by_parts(a, a, 8, 4, None))
    assert most <= 300  # a row alone may exceed the bound, two may not
    assert sorted(found(hamming._by_parts(a, a, 3, 4, None))) == sorted(
        (i, j) for i, j in by_brute_force(a, a, 3) if i < j
    )


def test_groups_of_many_images_are_those_that_were_planted():
    rng = np.random.default_rng(3)
    count, copies = 6000, 900
    phash = rng.integers(2**64, size=count, dtype=np.uint64)
    gray = rng.integers(256, size=(count, 8, 8), dtype=np.uint8)
    truth = np.arange(count)
    for copy, original in enumerate(rng.choice(np.arange(copies, count), copies, replace=False)):
        turned = rng.choice(64, copy % 9, replace=False)
        phash[copy] = phash[original] ^ np.uint64(sum(1 << int(bit) for bit in turned))
        gray[copy] = gray[original]
        truth[original] = copy
    _, first, inverse = np.unique(truth, return_index=True, return_inverse=True)
    assert group_duplicates(phash, gray).tolist() == np.argsort(np.argsort(first))[inverse].tolist()


def frames(count: int, scenes: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and gray versions of what fixed cameras see: a few scenes, each image with noise of its own."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (scenes, 8, 8)).astype(float).repeat(4, 1).repeat(4, 2)
    scene = rng.integers(scenes, size=count)
    gray = coarse[scene] + rng.normal(0, noise, (count, 32, 32))
    hashes = rng.integers(2**64, size=scenes, dtype=np.uint64)[scene]
    hashes ^= np.uint64(1) << rng.integers(64, size=count, dtype=np.uint64)
    return hashes, gray.clip(0, 255).astype(np.uint8)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(1, 16),
    scenes=st.integers(1, 4),
    noise=st.sampled_from((1, 40, 80)),
    one_hash=st.booleans(),
)
def test_groups_are_those_of_comparing_every_near_pair(seed, count, scenes, noise, one_hash):
    hashes, gray = frames(count, scenes, noise, seed)
    hashes = hashes if not one_hash else np.full_like(hashes, hashes[0])
    groups = np.arange(count)
    pairs = np.array([(i, j) for i, j in by_brute_force(hashes, hashes, 8) if i < j], int).reshape(-1, 2)
    for i, j in pairs[comparing.agreement(gray[pairs[:, 0]], gray[pairs[:, 1]]) >= MIN_AGREEMENT]:
        groups[groups == groups[j]] = groups[i]
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    assert group_duplicates(hashes, gray).tolist() == np.argsort(np.argsort(first))[inverse].tolist()


def test_frames_of_a_fixed_camera_are_not_all_compared_with_each_other(monkeypatch):
    """3,000 frames are 4.5 million pairs; what joins them takes a few times as many comparisons as frames."""
    hashes, gray = frames(3000, 2, 1)
    compared = []
    agree = comparing.agreement
    monkeypatch.setattr(comparing, "agreement", lambda a, b: compared.append(len(a)) or agree(a, b))
    assert len(np.unique(group_duplicates(hashes, gray))) == 2
    assert sum(compared) < 20 * len(hashes)
