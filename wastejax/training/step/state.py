"""Everything that a run needs to resume, as one pytree."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from wastejax.training.step.optim import make_plateau


class TrainState(flax.struct.PyTreeNode):
    """State of training. Randomness needs no state: each step folds its number into the seed's key.

    Attributes:
        step: int32 [], optimizer steps done.
        params: the network's parameters, float32.
        batch_stats: moving statistics of batch normalization.
        opt_state: optax's state.
        ema: float32 [N], params and batch_stats averaged over steps, as one vector; or None.
        plateau: state of reduce-on-plateau; its `scale` multiplies every update.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    plateau: Any

    def eval_variables(self) -> dict[str, Any]:
        """Returns the variables to evaluate and to ship: the averaged ones where there are any."""
        now = {"params": self.params, "batch_stats": self.batch_stats}
        return now if self.ema is None else _shaped(self.ema, now)


@jax.jit
def _shaped(vector: jax.Array, like: Any) -> Any:
    """Returns the vector as a tree of arrays shaped like these."""
    return ravel_pytree(like)[1](vector)


def create_train_state(variables: dict[str, Any], tx: optax.GradientTransformation, optim: Any) -> TrainState:
    """Returns the state before the first step, from a model's variables."""
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    copy = lambda tree: jax.tree.map(jnp.array, tree)  # noqa: E731 - donated buffers must not be shared
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=copy(params),
        batch_stats=copy(batch_stats),
        opt_state=tx.init(params),
        ema=ravel_pytree({"params": params, "batch_stats": batch_stats})[0] if optim.ema_decay else None,
        plateau=make_plateau(optim).init(params),
    )
