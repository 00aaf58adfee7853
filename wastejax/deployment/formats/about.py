"""What an exported file says of itself, and the predictor that follows from it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wastejax import __version__
from wastejax.bundle import Bundle, parse_thresholds
from wastejax.data.formats.boxes import MULTILABEL
from wastejax.data.taxonomy import parse_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.predictor import Predictor, named_from
from wastejax.errors import ConfigError, UserError
from wastejax.metadata import check_metadata

ABOUT = "wastejax"  # the key of the JSON text in an exported file that holds what `describe` returns
ANY_SIDE = "any_side"  # in that text, of a .tflite file with a class map: see `Predictor.any_side`
STRIDE = 32  # of every network: where it divides the sides of images, padding is the same whatever they are


def describe(bundle: Bundle, entry: str, precision: str) -> str:
    """Returns what an exported file says of itself, JSON: all of the bundle but its weights and training."""
    several = {"kind": MULTILABEL, "class_thresholds": bundle.class_thresholds} if bundle.multilabel else {}
    return json.dumps(
        {
            "format": 1,
            "input": entry,
            "precision": precision,
            "classes": list(bundle.classes),
            "preprocessing": bundle.preprocessing.to_dict(),
            "temperature": bundle.temperature,
            "thresholds": bundle.thresholds,
            **several,
            "taxonomy": bundle.taxonomy.to_dict(),
            "metrics": bundle.metrics,
            "licence": bundle.licence,
            "versions": bundle.versions | {"exported_by": __version__},
        },
        ensure_ascii=False,
    )


def parse_about(path: Path, text: str | bytes | None) -> dict[str, Any]:
    """Returns what an exported file says of itself.

    Raises:
        UserError: nothing, or nothing that `export` wrote.
    """
    if text is None:
        raise UserError(f"{path}: not exported by wastejax: it does not say what its classes are")
    try:
        about: dict[str, Any] = json.loads(text)
        check_metadata(about, ("classes", "preprocessing", "input", "taxonomy"))
        parse_taxonomy(about["taxonomy"], "it", "taxonomy")
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
        raise UserError(f"{path}: what it says of itself is damaged ({error}); export it again") from None
    return about


def check_fit(
    path: Path, about: Mapping[str, Any], entry: Sequence[Any], dtype: Any, result: Sequence[Any]
) -> None:
    """Checks what an exported file says of itself against the network in it.

    Args:
        path: the file.
        about: what it says.
        entry: shape of the images that the network takes, [B, H, W, 3]; what is no integer is open.
        dtype: of them, as text that ends with its name in NumPy.
        result: shape of its answer, [B, C].

    Raises:
        UserError: they are of different images, or of different numbers of classes.
    """
    side, classes = about["preprocessing"]["image_size"], len(about["classes"])
    sides = {length for length in entry[1:3] if isinstance(length, int) and length > 0}
    problem = ""
    if sides - {side}:
        problem = f"preprocessing.image_size is {side}, the network takes {max(sides - {side})}"
    elif str(dtype) != about["input"]:
        problem = f"input is {about['input']}, the network takes {dtype}"
    elif result[-1] != classes:
        problem = f"classes: has {classes} names, the network answers with {result[-1]}"
    if problem:
        raise UserError(f"{path}: what it says of itself is damaged ({problem}); export it again")


def damaged(path: Path, kind: str, error: Exception) -> UserError:
    """Returns the error for a file that its runtime does not take."""
    return UserError(f"{path}: damaged, or no {kind} file ({str(error).strip().splitlines()[0]})")


def exported(
    path: Path,
    runtime: str,
    about: Mapping[str, Any],
    compute: Callable[[np.ndarray], Sequence[Any]],
    results: int = 1,
    any_side: bool = False,
) -> Predictor:
    """Returns the predictor of an exported file.

    Args:
        path: the file.
        runtime: what computes it.
        about: what the file says of itself.
        compute: its input, [B, H, W, 3] of the dtype that `about` names, -> probabilities [B, C] and, where there
            are two `results`, the logits at every position [B, h, w, C].
        results: how many the file has.
        any_side: whether it takes other images than squares of its own size.
    """
    preprocessing = Preprocessing.from_dict(about["preprocessing"])
    classes, several = tuple(about["classes"]), about.get("kind") == MULTILABEL

    def call(images: np.ndarray) -> Sequence[Any]:
        return compute(images if about["input"] == "uint8" else preprocessing.normalize(images))

    def probabilities(images: np.ndarray) -> np.ndarray:
        rows = np.asarray(call(images)[0], np.float32)
        if about.get("precision") == "integer" and not several:
            # Rounded to 256 steps each, they have to be made to sum to 1 again.
            rows = rows / rows.sum(1, keepdims=True)
        return rows

    def dense(images: np.ndarray) -> np.ndarray:
        return np.asarray(call(images)[1], np.float32)

    taxonomy = parse_taxonomy(about["taxonomy"], str(path), "taxonomy")
    return Predictor(
        path,
        runtime,
        classes,
        preprocessing,
        taxonomy,
        probabilities,
        parse_thresholds(about.get("thresholds", {})),
        dense if results > 1 else None,
        any_side,
        named_from(about.get("class_thresholds", ()), classes) if several else None,
    )
