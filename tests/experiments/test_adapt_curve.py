import numpy as np

from experiments.adapt_curve import of_each


def test_a_seed_says_which_images_of_each_label_are_drawn():
    labels = np.array(["jar", "can", "종이", "bag", "lid", "cup"] * 50)
    pool = np.arange(1000, 1000 + len(labels))
    rng = np.random.default_rng(5)
    parts = [
        rng.permutation(pool[labels == name])[:4] for name in ("bag", "can", "cup", "jar", "lid", "종이")
    ]
    drawn = of_each(pool, labels, 4, np.random.default_rng(5))
    np.testing.assert_array_equal(drawn, np.concatenate(parts))
    assert len(of_each(pool, labels, 99, rng)) == len(pool)  # no more than there are
