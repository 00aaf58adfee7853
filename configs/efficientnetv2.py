"""EfficientNetV2-S (Tan & Le 2021), the study's other baseline.

Command: python -m wastejax.main --config=configs/efficientnetv2.py --config.data.dir=DIR
Reproduces: 80.13 % of 30 classes in the study without augmentation (--config.data.augmentation=none).
Costs: 20,215,918 parameters, 3.72 GMACs an image at 256 px, 100 epochs.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = common.get_config()
    common.efficientnetv2(config.model, size="s")
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.5, 0.5, 0.5)
    config.optim.learning_rate = 1e-3
    config.optim.ema_decay = 0.995
    return config
