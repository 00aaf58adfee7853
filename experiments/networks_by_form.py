"""Every family of networks in every form: what works, and how far its answers are from the model's own.

    python experiments/networks_by_form.py [NETWORK…]

It writes experiments/results/networks_by_form.json and docs/results/networks-by-form.md.

The networks are the smallest of their families, with drawn weights; tests/experiments/test_networks_by_form.py
asks the same of them.
"""

import argparse
import datetime
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.provenance import head
from wastejax.bundle import Bundle, load_bundle, save_bundle
from wastejax.config import apply_overrides, load_recipe
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.export import SUFFIXES, Sample, write_export
from wastejax.deployment.export.checking import LIMITS
from wastejax.deployment.formats import load_jax, load_predictor
from wastejax.models import MODELS, create_model
from wastejax.models.structure import layer_index, parts
from wastejax.runtime.jit import jit
from wastejax.training.step import make_train_step, optim
from wastejax.training.step.state import create_train_state
from wastejax.training.step.teacher import load_teacher

RESULT = Path(__file__).resolve().parent / "results" / "networks_by_form.json"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "results" / "networks-by-form.md"
CLASSES = ("can", "jar", "lid")
BATCH = 4


class Network(NamedTuple):
    """A row of the table: its model config and the size of its images."""

    model: dict[str, Any]
    size: int


NETWORKS = {
    "EfficientNetV2, SE and SiLU": Network(MODELS["efficientnetv2_tiny"], 32),
    "EfficientNetV2, ECA and Leaky ReLU": Network(MODELS["efficientnetv2_tiny_eca"], 32),
    "EfficientNetV2, GLU": Network(MODELS["efficientnetv2_tiny_glu"], 32),
    "EfficientNetV2, hard swish, CBAM": Network(
        MODELS["efficientnetv2_tiny"] | {"activation": "hard_swish", "head_attention": "cbam"}, 32
    ),
    "EfficientNet-Lite (no attention, ReLU6)": Network(
        MODELS["efficientnetv2_tiny"] | {"activation": "relu6", "attention": "none"}, 32
    ),
    "MobileViT": Network(MODELS["mobilevit_tiny"] | {"depths": (1, 1, 1)}, 64),
    "MobileViT, inverted residuals": Network(MODELS["mobilevit_tiny_ir"] | {"depths": (1, 1, 1)}, 32),
    "MobileViT, 5x5": Network(
        MODELS["mobilevit_tiny_conv5"] | {"depths": (1, 1, 1), "mixer": "inverted_residual"}, 32
    ),
    "PyramidNet, CIFAR stem": Network(MODELS["pyramidnet_tiny"], 31),
    "PyramidNet, ImageNet stem": Network(MODELS["pyramidnet_18_a48"] | {"alpha": 16}, 50),
    "Swin": Network(MODELS["swin_tiny"], 32),
}


def drawn_bundle(network: Network, folder: Path) -> Bundle:
    """Returns a network with drawn weights as a bundle on disk."""
    path = folder / "bundle"
    if path.is_dir():
        return load_bundle(path)
    model, rng = create_model(network.model, len(CLASSES)), np.random.default_rng(3)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(1), network.size))
    head_shape = variables["params"]["classifier"]["kernel"].shape
    # Answers of their own for different images, and none that is certain: it would hide what differs.
    variables["params"]["classifier"]["kernel"] = rng.normal(0, 1, head_shape).astype(np.float32)
    preprocessing = Preprocessing(network.size, mean=(0.5, 0.4, 0.3), std=(0.3, 0.25, 0.2), channels="bgr")
    entry = preprocessing.normalize(images(network, BATCH))
    scale = float(np.std(jit(model.apply)(variables, entry)))
    config = {"model": network.model, "data": {}, "eval": {"batch_size": BATCH}}
    save_bundle(path, Bundle(variables, config, CLASSES, preprocessing, temperature=scale))
    return load_bundle(path)


def images(network: Network, count: int, seed: int = 0) -> np.ndarray:
    """Returns squares of few colors, uint8 [count, size, size, 3]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    side = -(-network.size // 4)
    return coarse.repeat(side, 1).repeat(side, 2)[:, : network.size, : network.size]


def _train(network: Network, folder: Path, *overrides: str) -> str:
    """Takes one step."""
    config = load_recipe("efficientnetv2_eca")
    apply_overrides(config, [f"--config.{override}" for override in overrides])
    model = create_model(network.model, len(CLASSES))
    start = load_bundle(folder / "bundle").variables
    factors = optim.layer_factors(config.optim, layer_index(start["params"]))
    tx = optim.make_optimizer(config.optim, lambda step: 0.01, factors)
    teacher = load_teacher(config.distill, CLASSES)
    step = make_train_step(model, tx, config, Preprocessing(network.size), teacher=teacher)
    labels = np.arange(BATCH, dtype=np.int32) % len(CLASSES)
    batch = {"image": images(network, BATCH), "label": labels}
    state = create_train_state(start, tx, config.optim)
    state, metrics = step(state, batch)
    if not np.isfinite(metrics["loss"]):
        raise ArithmeticError("the loss is no number")
    moved = {
        name: not all(map(np.array_equal, jax.tree.leaves(tree), jax.tree.leaves(state.params[name])))
        for name, tree in start["params"].items()
    }
    frozen = {m for part in parts(start["params"])[: config.optim.frozen_blocks] for m in part.modules}
    if {name for name, has in moved.items() if not has} != frozen:
        raise ArithmeticError(f"moved: {moved}, frozen: {frozen}")
    return "yes"


def train(network: Network, folder: Path) -> str:
    """Takes a step."""
    return _train(network, folder)


def freeze(network: Network, folder: Path) -> str:
    """Takes a step with all frozen that can be."""
    params = load_bundle(folder / "bundle").variables["params"]
    most = sum(part.freezable for part in parts(params))
    _train(network, folder, f"optim.frozen_blocks={most}")
    return f"up to {most} parts"


def distil(network: Network, folder: Path) -> str:
    """Takes a step with itself as the teacher."""
    return _train(network, folder, f"distill.teacher={folder / 'bundle'}")


def bfloat16(network: Network, folder: Path) -> str:
    """Answers in bfloat16."""
    bundle, config = load_bundle(folder / "bundle"), network.model | {"dtype": "bfloat16"}
    entry = bundle.preprocessing.normalize(images(network, BATCH))
    exact = np.asarray(bundle.logits(images(network, BATCH)))
    found = np.asarray(jit(create_model(config, len(CLASSES)).apply)(bundle.variables, entry))
    error = np.abs(found - exact).max() / np.abs(exact).max()
    if not error < 0.1:
        raise ArithmeticError(f"off by {error:.2g} of the largest logit")
    return "yes"


def predict(network: Network, folder: Path) -> str:
    """Answers by jax."""
    rows = load_jax(folder / "bundle").probabilities(images(network, BATCH))
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-5)
    return "yes"


def _exported(form: str, runtime: str | None, precision: str, network: Network, folder: Path) -> str:
    """Writes a form and compares its answers with the model's."""
    path = folder / f"{precision}{SUFFIXES[form]}"
    if not path.is_file():
        calibration = Sample(images(network, 16, seed=1), None, "")
        write_export(load_bundle(folder / "bundle"), path, "uint8", precision, calibration)
    squares = images(network, BATCH)
    before = load_jax(folder / "bundle").probabilities(squares)
    difference = float(np.abs(load_predictor(path, runtime).probabilities(squares) - before).max())
    if not difference <= LIMITS[precision][1]:
        raise ArithmeticError(f"probabilities differ by {difference:.2g}")
    return "yes" if precision == "none" else f"yes, {difference:.1g}"


def _form(form: str, runtime: str | None = None, precision: str = "none") -> Callable[[Network, Path], str]:
    return lambda network, folder: _exported(form, runtime, precision, network, folder)


FORMS: dict[str, Callable[[Network, Path], str]] = {
    "train": train,
    "frozen blocks": freeze,
    "distil": distil,
    "bfloat16": bfloat16,
    "predict": predict,
    "ONNX Runtime": _form("onnx"),
    "OpenVINO": _form("onnx", "openvino"),
    "ONNX, int8": _form("onnx", precision="int8"),
    "LiteRT": _form("litert"),
    "StableHLO": _form("stablehlo"),
}


def cell(name: str, form: str, folder: Path) -> str:
    """Returns what comes of a network in a form.

    Raises:
        Exception: whatever it fails with.
    """
    drawn_bundle(NETWORKS[name], folder)
    return FORMS[form](NETWORKS[name], folder)


def row(name: str) -> dict[str, Any]:
    """Returns what comes of a network in every form, and when."""
    with tempfile.TemporaryDirectory() as folder:
        cells = {form: cell(name, form, Path(folder)) for form in FORMS}
    return {"cells": cells, "commit": head()[:12], "date": str(datetime.date.today()), "jax": jax.__version__}


def page(rows: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the page."""
    made = {f"commit {row['commit']}, {row['date']}, jax {row['jax']}" for row in rows.values()}
    lines = [
        "# Every network in every form",
        "",
        "Written by `python experiments/networks_by_form.py` (" + "; ".join(sorted(made)) + ").",
        "The smallest network of each kind, drawn weights, images of 31 to 64 pixels. *yes* under the form of a",
        "file: probabilities within 1e-4 of the model's own; under int8: their largest difference, with 16",
        "images to calibrate. `tests/experiments/test_networks_by_form.py` asks the same.",
        "",
        "| | " + " | ".join(FORMS) + " |",
        "|---" * (len(FORMS) + 1) + "|",
    ]
    return lines + [
        f"| {name} | " + " | ".join(rows[name]["cells"][form] for form in FORMS) + " |"
        for name in NETWORKS
        if name in rows
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "networks", nargs="*", metavar="NETWORK", help=f"rows to try anew: {', '.join(NETWORKS)}"
    )
    for name in parser.parse_args().networks or NETWORKS:
        new = {name: row(name)}
        known = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        rows = {n: (known | new)[n] for n in NETWORKS if n in known | new}
        RESULT.write_text(json.dumps(rows, indent=1) + "\n")
        PAGE.write_text("\n".join(page(rows)) + "\n")
        print(name, new[name]["cells"], flush=True)


if __name__ == "__main__":
    main()
