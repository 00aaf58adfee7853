"""The loop around the training steps."""

from dataclasses import fields
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wastejax.runtime.stop import Stop
from wastejax.training.loop import announced
from wastejax.training.run import Run


def test_a_step_that_needs_arrays_from_the_host_is_refused_once_compiled():
    lines: list[str] = []
    step = jax.jit(lambda at, batch: (at + 1, {"loss": jnp.mean(batch["image"] * 1.0)}))
    given = {"train_step": lambda state, batch: step(state.step, batch), "say": lines.append}
    run = announced(Run(**dict.fromkeys(field.name for field in fields(Run)) | given), Stop(lines.append))
    state = SimpleNamespace(step=jnp.zeros((), jnp.int32))
    pixels = np.ones((2, 4, 4, 3), np.uint8)
    run.train_step(state, {"image": pixels})
    assert [line.split(" in ")[0] for line in lines] == [
        "compiling the training step for 4 px (minutes for a large network)",
        "compiled",
    ]
    _, metrics = run.train_step(state, {"image": jax.device_put(pixels)})
    assert float(metrics["loss"]) == 1 and len(lines) == 2
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run.train_step(state, {"image": pixels})
