"""The numbers that both sides of a golden test draw: weights from parameter names, images from a seed.

numpy alone, so that `make_goldens.py` (torch) and `test_golden.py` (JAX) share it and nothing else.
"""

from zlib import crc32

import numpy as np

DIGEST = 4  # values kept of each running statistic


def draw(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """Returns the tensor of one entry of a torch state dict.

    The generator is seeded with the CRC-32 of the entry's name, so that every tensor is its own: two that a
    converter swaps do not go unnoticed. Kernels get variance gain / fan-in and norms stay near one; with the
    gain that suits a network its activations and logits are of order one, and differ between images.

    Args:
        name: the entry's name, e.g. `blocks.3.0.conv_dw.weight`.
        shape: its shape in torch's order (OIHW for a convolution).
        gain: the network's own, kept in its golden file.

    Returns:
        float32, or an int64 zero for `num_batches_tracked`.
    """
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    rng = np.random.default_rng(crc32(name.encode()))
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        values = rng.uniform(0.7, 1.3, shape)
    elif len(shape) == 1:  # biases and running means
        values = 0.2 * rng.standard_normal(shape)
    elif name.endswith("relative_position_bias_table"):
        values = rng.standard_normal(shape)
    else:
        values = rng.standard_normal(shape) * np.sqrt(gain / np.prod(shape[1:]))
    return values.astype(np.float32)


def random_images(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns images, float32 [B, H, W, C]: noise on a coarse pattern, to differ after pooling."""
    rng = np.random.default_rng(seed)
    B, H, W, C = shape
    coarse = rng.standard_normal((B, 4, 4, C)) + rng.standard_normal((B, 1, 1, C))
    rows, columns = np.arange(H) * 4 // H, np.arange(W) * 4 // W
    return (coarse[:, rows][:, :, columns] + 0.5 * rng.standard_normal(shape)).astype(np.float32)


def digest(values: np.ndarray) -> np.ndarray:
    """Returns DIGEST values of a vector, evenly spaced from its first to its last."""
    return values[np.linspace(0, len(values) - 1, DIGEST).round().astype(int)]
