#!/bin/sh
# datasets 5.2.0 with optax 0.2.8: a ClassLabel of Hugging Face's datasets takes -1 for an example without a label, and
# refuses a number that is too large. optax.softmax_cross_entropy_with_integer_labels looks its labels up as indices, so
# that -1 is the last class: unlabeled images are learned as the class whose name comes last, with a loss that falls as
# it should. A label as far off on the other side, as 3 of three classes, is told at once by a loss of NaN, and the same
# -1 through jax.nn.one_hot into optax.softmax_cross_entropy has a loss and a gradient of 0, so that one would have
# guessed at either of these. The docstring assumes labels from 0 on, and nothing checks it.
# Below, 60 labeled and 300 unlabeled examples that look like the first two classes: of the labeled ones a linear network
# then knows all 60 by one-hot labels, and by integer labels the 20 of the last class, which it takes all for.
# Exits with 0 as long as that is so.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q datasets==5.2.0 optax==0.2.8 \
    "jax==0.10.2; python_version < '3.12'" "jax==0.12.0; python_version >= '3.12'"
cd "$folder"
JAX_PLATFORMS=cpu HF_HUB_OFFLINE=1 venv/bin/python - 2>log <<'END' || { cat log; exit 1; }
import jax
import jax.numpy as jnp
import numpy as np
import optax
from datasets import ClassLabel, Dataset, Features, List, Value

NAMES = ["can", "glass", "paper"]
FEATURES = Features({"seen": List(Value("float32")), "label": ClassLabel(names=NAMES)})
noise = np.random.default_rng(0)
looks = np.repeat([0, 1, 2, 0, 1], [20, 20, 20, 150, 150])  # what each example shows
seen = np.eye(3)[looks] * 4 + noise.normal(size=(len(looks), 3)) * 0.3
given = np.where(np.arange(len(looks)) < 60, looks, -1)
rows = Dataset.from_dict({"seen": seen.tolist(), "label": given.tolist()}, features=FEATURES)
try:
    Dataset.from_dict({"seen": seen[:1].tolist(), "label": [3]}, features=FEATURES)
    raise SystemExit("datasets takes a label that is too large")
except ValueError as error:
    print("datasets:", error)
x, y = jnp.asarray(rows["seen"][:]), jnp.asarray(rows["label"][:])


def by_number(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def by_one_hot(logits, labels):
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(labels, len(NAMES)))


def trained(loss):
    """Returns how many of the 60 labeled examples a linear network knows in the end, and its loss before and after."""

    def mean(weights):
        return loss(x @ weights["w"] + weights["b"], y).mean()

    weights = {"w": jnp.zeros((3, 3)), "b": jnp.zeros(3)}
    optimizer = optax.adam(0.05)
    state = optimizer.init(weights)

    @jax.jit
    def step(weights, state):
        updates, state = optimizer.update(jax.grad(mean)(weights), state)
        return optax.apply_updates(weights, updates), state

    before = mean(weights)
    for _ in range(300):
        weights, state = step(weights, state)
    named = jnp.argmax(x[:60] @ weights["w"] + weights["b"], axis=1)
    return int((named == y[:60]).sum()), bool(mean(weights) < before)


logits = jnp.array([[2.0, 0.0, -1.0]])
single = {label: round(float(by_number(logits, jnp.array([label]))[0]), 2) for label in (-1, 2, 3)}
found = {"integer labels": trained(by_number), "one-hot labels": trained(by_one_hot)}
print("loss of a label:", single, "| labeled examples known, and whether the loss fell:", found)
assert single[-1] == single[2] == 3.17 and np.isnan(single[3]), single
assert float(by_one_hot(logits, jnp.array([-1]))[0]) == 0
assert found == {"integer labels": (20, True), "one-hot labels": (60, True)}, found
END
echo "optax 0.2.8 learns what datasets 5.2.0 gives without a label as the last class"
