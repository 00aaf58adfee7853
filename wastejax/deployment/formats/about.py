"""What an exported file says of itself, read back."""

import json
from pathlib import Path
from typing import Any

from wastejax.bundle import parse_class_thresholds, parse_thresholds
from wastejax.data.taxonomy import parse_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.errors import ConfigError, UserError

ABOUT = "wastejax"  # the key of the JSON text in an exported file that says what `export.about` writes


def parse_about(path: Path, text: str | bytes | None) -> dict[str, Any]:
    """Returns what an exported file says of itself.

    Raises:
        UserError: nothing, or nothing that `export` wrote.
    """
    if text is None:
        raise UserError(f"{path}: not exported by wastejax: it does not say what its classes are")
    try:
        about = json.loads(text)
        Preprocessing.from_dict(about["preprocessing"])
        parse_taxonomy(about["taxonomy"], str(path), "taxonomy")
        parse_thresholds(about.get("thresholds", {}))
        parse_class_thresholds(about.get("class_thresholds", ()), about["classes"])
        if about["input"] not in ("uint8", "float32") or not about["classes"]:
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError, ConfigError):
        raise UserError(f"{path}: what it says of itself is damaged; export it again") from None
    return about


def damaged(path: Path, kind: str, error: Exception) -> UserError:
    """Returns the error for a file that its runtime does not take."""
    return UserError(f"{path}: damaged, or no {kind} file ({str(error).strip().splitlines()[0]})")
