"""Sharpness-aware minimisation: the step of SAM and ASAM up to the worst point nearby."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict


def ascend(params: Any, grads: Any, sharpness: ConfigDict) -> Any:
    """Returns the parameters moved to where the loss is about highest in a small neighborhood.

    Args:
        params: w.
        grads: g, the gradient at w.
        sharpness: name, rho and eta.

    SAM (Foret et al. 2021, eq. 2) moves by rho * g / ||g||. ASAM (Kwon et al. 2021, eq. 9) by
    rho * T^2 g / ||T g|| with T = |w| + eta, so that the neighborhood scales with the weights; T is 1 for
    biases and normalization parameters, which are no weights in its sense.
    """
    if sharpness.name == "asam":
        scale = jax.tree.map(lambda w: jnp.abs(w) + sharpness.eta if w.ndim > 1 else jnp.ones_like(w), params)
    else:
        scale = jax.tree.map(jnp.ones_like, params)
    scaled = jax.tree.map(jnp.multiply, scale, grads)
    factor = sharpness.rho / (optax.tree.norm(scaled) + 1e-12)
    return jax.tree.map(lambda w, t, tg: w + factor * t * tg, params, scale, scaled)
