"""PyramidNet-110 (alpha 48) trained with ASAM, a baseline of the study.

Command: python -m wastejax.main --config=configs/pyramidnet_asam.py --config.data.dir=DIR
At 64 px, since its first stage keeps the full resolution; each step takes two gradients.
Costs: 1,774,006 parameters, 1.62 GMACs an image at 64 px, 100 epochs.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = common.get_config()
    common.pyramidnet(config.model, size="110_a48")
    config.data.image_size = 64
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.25, 0.25, 0.25)
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.weight_decay = 5e-4
    config.optim.clip_norm = 0.0
    config.optim.sharpness.name = "asam"
    return config
