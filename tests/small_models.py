"""Bundles of networks that nobody trained, with variables spread out so that images have answers of their own."""

from pathlib import Path

import jax
import numpy as np
from PIL import Image

from wastejax.bundle import Bundle, save_bundle
from wastejax.data.transforms import Preprocessing
from wastejax.models import MODELS, create_model

CLASSES = ("eggshells", "glass", "paper_cups", "tea_bags", "종이")  # the last has no rule


def write_bundle(
    path: Path, name: str = "efficientnetv2_tiny", image_size: int = 64, precision: str = "float32", **options
) -> Path:
    """Saves a network of `MODELS` with random weights and statistics at `path`."""
    config = {"model": MODELS[name], "data": {"on_bad_image": "raise"}, "eval": {"batch_size": 4}}
    model = create_model(config["model"], len(CLASSES))
    rng = np.random.default_rng(3)
    variables = jax.tree.map(np.asarray, model.init(jax.random.key(1), image_size))
    variables["batch_stats"] = jax.tree.map(
        lambda a: a + rng.uniform(0, 0.3, a.shape).astype(np.float32), variables["batch_stats"]
    )
    variables["params"]["classifier"]["kernel"] = rng.normal(
        0, 2, variables["params"]["classifier"]["kernel"].shape
    ).astype(np.float32)
    bias = variables["params"]["classifier"]["bias"]  # trained networks have one that is not 0
    variables["params"]["classifier"]["bias"] = rng.normal(0, 1, bias.shape).astype(np.float32)
    preprocessing = Preprocessing(image_size, mean=(0.5, 0.4, 0.3), std=(0.3, 0.25, 0.2), channels="bgr")
    bundle = Bundle(variables, config, CLASSES, preprocessing, {"val_top1": 0.25}, **options)
    save_bundle(path, bundle, precision)
    return path


def draw_images(folder: Path, count: int = 6) -> Path:
    """Saves `count` images of smooth colors, of differing sizes, as JPEG and PNG, one folder for each class."""
    rng = np.random.default_rng(7)
    for i in range(count):
        name = CLASSES[i % len(CLASSES)]
        coarse = Image.fromarray(rng.integers(0, 256, (5, 4, 3), dtype=np.uint8))
        path = folder / name / f"{i:02}.{'jpg' if i % 2 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse.resize((90 + 10 * i, 120), Image.Resampling.BICUBIC).save(path)
    return folder
