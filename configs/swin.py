"""Swin-T (Liu et al. 2021) with windows of 8 for 256 px, a baseline of the study.

Command: python -m wastejax.main --config=configs/swin.py --config.data.dir=DIR
Costs: 27,550,152 parameters, 5.92 GMACs an image at 256 px, 100 epochs.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = common.get_config()
    common.swin(config.model, size="t")
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.augmentation = "strong"
    config.optim.learning_rate = 5e-4
    config.optim.warmup_epochs = 10.0
    config.optim.ema_decay = 0.995
    return config
