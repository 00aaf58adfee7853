"""EfficientNetV2-S from ImageNet weights, with an attention module after the feature extractor.

Command: python -m wastejax.main --config=configs/efficientnetv2_pretrained.py --config.data.dir=DIR
Reproduces: the study's pre-trained variant, which it reports as five times as fast on a GPU.
The weights come from the Hugging Face hub (extra `pretrained`); without a network give a downloaded file:
--config.init.weights=model.safetensors
Costs: 20,420,816 parameters, 3.72 GMACs an image at 256 px, 20 epochs.
"""

from ml_collections import ConfigDict

from configs import efficientnetv2


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = efficientnetv2.get_config()
    config.model.head_attention = "cbam"
    config.init.weights = "timm/tf_efficientnetv2_s.in1k"
    config.data.augmentation = "strong"
    config.optim.backbone_lr_factor = 0.1
    config.train.epochs = 20
    config.train.batch_size = 32
    return config
