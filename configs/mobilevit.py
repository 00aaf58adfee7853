"""MobileViT-S (Mehta & Rastegari 2022), the study's baseline before its changes.

Command: python -m wastejax.main --config=configs/mobilevit.py --config.data.dir=DIR
The paper's recipe at the study's size: AdamW with weight decay 0.01, warm-up, cosine from 2e-3, EMA, inputs in
[0, 1] without mean and standard deviation.
Costs: 4,956,862 parameters, 2.00 GMACs an image at 256 px, 100 epochs.
"""

from ml_collections import ConfigDict

from configs import common


def get_config() -> ConfigDict:
    """Returns the recipe."""
    config = common.get_config()
    common.mobilevit(config.model, size="s")
    config.optim.weight_decay = 0.01
    config.optim.ema_decay = 0.995
    return config
