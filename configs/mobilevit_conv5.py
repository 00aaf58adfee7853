"""MobileViT-S with a 5x5 convolution added to its local representation, a variant of the study.

Command: python -m wastejax.main --config=configs/mobilevit_conv5.py --config.data.dir=DIR
Reproduces: the study reports it 2.4 times as fast on a CPU, which an added convolution cannot explain; the other
readings are --config.model.local_kernel=replace_5x5 and --config.model.local_depthwise=False.
Costs: 4,967,230 parameters, 2.00 GMACs an image at 256 px, 100 epochs.
"""

from ml_collections import ConfigDict

from configs import mobilevit


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = mobilevit.get_config()
    config.model.local_kernel = "add_5x5"
    config.data.augmentation = "strong"
    return config
