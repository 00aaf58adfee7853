"""How often a model expects each class: the frequencies of training, which its probabilities start from."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def trained_on(bundle: Path, config: Mapping[str, Any], classes: Sequence[str]) -> np.ndarray | None:
    """Returns how often training drew each class of a run, float64 [C], in images; weights of classes count.

    Args:
        bundle: the run's.
        config: of the run.
        classes: of the model.

    Returns:
        None for a bundle without its run, for one that learned from a data description, whose sources weigh what
        they like and whose labels may mean several classes, and where the run's list of images cannot be read.
    """
    run = bundle.resolve().parent
    data, loss = config.get("data", {}), config.get("loss", {})
    if bundle.resolve().name != "bundle" or not (run / "config.json").is_file():
        return None
    if str(data.get("dir", "")).lower().endswith(".toml"):
        return None
    try:
        with (run / "manifest.csv").open(newline="", encoding="utf-8-sig") as text:
            found = Counter(row["label"] for row in csv.DictReader(text) if row["split"] == "train")
    except (OSError, ValueError, KeyError, csv.Error):
        return None
    counts = np.array([found[name] for name in classes], np.float64)
    if not counts.all():
        return None
    drawn = np.ones_like(counts) if data.get("balanced_sampling") else counts
    if loss.get("class_weights"):
        drawn = drawn / counts
    return np.asarray(counts.sum() * drawn / drawn.sum())


def stored_prior(bundle: Path, num_classes: int) -> np.ndarray | None:
    """Returns what `trained_on` said as the bundle was calibrated, or says now."""
    try:
        about: Any = json.loads((bundle / "bundle.json").read_bytes())
        stored = about.get("prior") or trained_on(bundle, about["config"], about["classes"])
        prior = None if stored is None else np.array(stored, np.float64)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if prior is None or prior.shape != (num_classes,):
        return None
    return prior if np.isfinite(prior).all() and (prior > 0).all() else None


def is_balanced(bundle: Path) -> bool:
    """Whether a bundle's recipe weighed all classes alike."""
    try:
        config: Any = json.loads((bundle / "bundle.json").read_bytes())["config"]
        return bool(config["data"].get("balanced_sampling") or config["loss"].get("class_weights"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
