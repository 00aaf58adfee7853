"""How a run was trained, for its report: what it started from, what it saw, and the whole recipe in a line."""

from collections.abc import Mapping
from typing import Any

from wastejax.evaluation.report.markdown import code

Config = Mapping[str, Any]

AUGMENTATIONS = {
    "none": "none",
    "basic": "random resized crops and flips",
    "strong": "random resized crops, flips, color jitter, rotation and random erasing",
}


def recipe_lines(config: Config, settings: str = "") -> list[str]:
    """Returns the lines of a list, one for each part of the config that is there.

    Args:
        config: the resolved config as nested dicts.
        settings: all that differs from the defaults, as arguments; '' where nobody said.
    """
    lines = []
    if "init" in config:
        lines.append(f"- Started from: {_start(config['init'], config.get('optim', {}))}.")
    if "train" in config and "optim" in config:
        lines.append(f"- Training: {_training(config['train'], config['optim'])}.")
    if "loss" in config:
        lines.append(f"- Loss: {_loss(config['loss'], config.get('distill', {}))}.")
    if "augmentation" in config.get("data", {}):
        lines.append(f"- Training images: {_images(config['data'])}.")
    if settings:
        lines.append(f"- The whole recipe: {code(settings)}; all else is as `configs/common.py` has it.")
    return lines


def _start(init: Config, optim: Config) -> str:
    weights = init.get("weights")
    if not weights:
        return "random weights; nothing was learned from other images"
    return f"the weights {code(weights)}, which have seen other images before{_kept(optim)}"


def _kept(optim: Config) -> str:
    """Returns which parts are frozen: the stem is the first, each block is one more."""
    if optim.get("backbone_lr_factor") == 0:
        return "; all but the last layer stays as it was"
    frozen = optim.get("frozen_blocks") or 0
    if frozen < 2:
        return "; the stem stays as it was" if frozen else ""
    return f"; the stem and the first {'block' if frozen == 2 else f'{frozen - 1} blocks'} stay as they were"


def _training(train: Config, optim: Config) -> str:
    words = {"cosine": "falling as a cosine", "plateau": "reduced on plateaus"}
    schedule = words.get(optim["schedule"], optim["schedule"])
    warmup = f" after {optim['warmup_epochs']:g} epochs of warm-up" if optim["warmup_epochs"] else ""
    parts = [
        f"up to {train['epochs']} epochs, batches of {train['batch_size']}",
        f"{optim['name']} with a learning rate of {optim['learning_rate']:g}, {schedule}{warmup}",
        f"weight decay {optim['weight_decay']:g}",
    ]
    if optim.get("ema_decay"):
        parts.append(f"weights averaged with a decay of {optim['ema_decay']:g}")
    if optim.get("sharpness", {}).get("name", "none") != "none":
        parts.append(f"{optim['sharpness']['name'].upper()} with a radius of {optim['sharpness']['rho']:g}")
    return ", ".join(parts)


def _loss(loss: Config, distill: Config) -> str:
    parts = ["binary cross-entropy of each class" if loss.get("kind") == "multilabel" else "cross-entropy"]
    parts += [
        f"{name.replace('_', ' ')} {loss[name]:g}"
        for name in ("label_smoothing", "mixup", "cutmix")
        if loss.get(name)
    ]
    if loss.get("class_weights"):
        parts.append("rare classes weigh more")
    if distill.get("teacher"):
        parts.append(f"{distill['weight']:g} of it by the teacher {code(distill['teacher'])}")
    return ", ".join(parts)


def _images(data: Config) -> str:
    sizes = ", then ".join(str(side) for side in data.get("progressive") or [data["image_size"]])
    augmentation = AUGMENTATIONS.get(data["augmentation"], data["augmentation"])
    balanced = "; every class equally often" if data.get("balanced_sampling") else ""
    return f"{sizes} pixels a side, augmentation {code(data['augmentation'])} ({augmentation}){balanced}"
