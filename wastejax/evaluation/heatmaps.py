"""Where in an image the evidence for a class lies: exact class activation maps, and how they are drawn.

All networks here end in a linear layer on averaged features, so the layer can come first and the average after it:
the map is no approximation, its mean is the logit (Zhou et al. 2016, CAM, section 2), but for the factor of
`models.familiarity`, which is the same for all classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

# Matplotlib's 'inferno' (van der Walt & Smith 2015, CC0) at equal steps: monotone in brightness, in gray print too.
COLORS = np.array(
    [(0, 0, 4), (51, 10, 95), (120, 28, 109), (188, 55, 84), (237, 105, 37), (251, 180, 26), (252, 255, 164)]
)
OPACITY = 0.7  # of the color where the evidence is largest; none where there is none


def evidence(logits: np.ndarray, label: int, several: bool = False) -> np.ndarray:
    """Returns how much each position speaks for a class rather than for the average class.

    What a position adds to all classes alike changes no probability, so the mean over classes is taken away; not so
    in a multi-label model, where each class has a probability of its own.

    Args:
        logits: at every position, float [h, w, C].
        label: index of the class.
        several: of a multi-label model.

    Returns:
        float32 [h, w], from 0 to 1 where anything speaks for the class, else all 0. Evidence against is 0.
    """
    common = 0 if several else logits.mean(axis=-1)
    heat = np.maximum(logits[..., label] - common, 0)
    return (heat / max(float(heat.max()), 1e-12)).astype(np.float32)


def blend(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lays a map over an image: the more evidence, the brighter and the more opaque its color.

    Args:
        image: uint8 [H, W, 3].
        heat: float [h, w], 0 to 1; stretched over the image.

    Returns:
        uint8 [H, W, 3].
    """
    H, W = image.shape[:2]
    smooth = Image.fromarray(heat.astype(np.float32)).resize((W, H), Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(smooth), 0, 1)
    steps = np.linspace(0, 1, len(COLORS))
    color = np.stack([np.interp(share, steps, COLORS[:, i]) for i in range(3)], axis=-1)
    opacity = OPACITY * share[..., None]
    return np.rint((1 - opacity) * image + opacity * color).astype(np.uint8)


def explain(
    dense: Callable[[Any], Any], squares: Sequence[np.ndarray], labels: Sequence[int] | np.ndarray
) -> list[np.ndarray]:
    """Returns squares as the network sees them with the evidence for one class laid over each.

    Args:
        dense: of a bundle: uint8 [B, S, S, 3] -> logits [B, h, w, C].
        squares: uint8 [S, S, 3].
        labels: one class index per square, int [B].
    """
    # One at a time: a figure has few images, and its program is the one of a single image.
    maps = [np.asarray(dense(square[None]))[0] for square in squares]
    rows = zip(squares, maps, labels, strict=True)
    return [blend(square, evidence(logits, label)) for square, logits, label in rows]
