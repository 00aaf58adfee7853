"""How familiar an image looks, and how much less sure a network is of one that does not.

A network is as sure of images unlike any that it learned from as of the others. Nearest neighbors in the space of
its features tell them apart better than its own confidence does (Sun et al. 2022, arXiv:2204.06507). Here the
neighbors are the centers of clusters of the training images' features, and the logits are multiplied by

    exp(slope * (largest cosine to a center - the usual one)),

a temperature of the image's own, 1 for the median of the training images. So the answer stays, its probability
changes, and whatever reads probabilities, thresholds and exported files included, knows nothing of it.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.nn import sigmoid

from wastejax.models.layers.plain import has_composites

COLLECTION = "familiarity"  # of the variables


def familiarity(known: Mapping[str, Any], features: Array) -> Array:
    """Returns what the logits of images are multiplied by, float32 [B, 1], above 0.

    Args:
        known: the collection: `prototypes` float32 [D, M], centers of unit length; `slope` and `usual`, float32 [].
        features: what the classifier sees of each image, float32 [B, D].
    """
    length = jnp.sqrt(jnp.sum(features * features, axis=-1, keepdims=True))
    if has_composites():
        # The same in operators that LiteRT also has in 8 bits, which a largest value and exp are not.
        opposite = jnp.min(features @ -known["prototypes"], axis=-1, keepdims=True)
        share = sigmoid(-known["slope"] * (opposite / jnp.maximum(length, 1e-6) + known["usual"]))
        return share / (1 - share)
    nearest = jnp.max(features @ known["prototypes"], axis=-1, keepdims=True) / jnp.maximum(length, 1e-6)
    return jnp.exp(known["slope"] * (nearest - known["usual"]))
