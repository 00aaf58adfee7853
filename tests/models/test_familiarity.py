import numpy as np

from wastejax.models.familiarity import familiarity
from wastejax.models.layers.plain import composites


def test_the_form_for_eight_bits_is_the_same_function():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(20, 7)).astype(np.float32)
    known = {
        "prototypes": centers / np.linalg.norm(centers, axis=0),
        "slope": np.float32(4),
        "usual": np.float32(0.6),
    }
    features = rng.normal(size=(50, 20)).astype(np.float32)
    cosines = features @ known["prototypes"] / np.linalg.norm(features, axis=1, keepdims=True)
    expected = np.exp(4 * (cosines.max(axis=1, keepdims=True) - 0.6))
    np.testing.assert_allclose(familiarity(known, features), expected, rtol=1e-5)
    with composites():
        np.testing.assert_allclose(familiarity(known, features), expected, rtol=1e-5)
