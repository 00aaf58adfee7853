"""Makes the .npz files beside it: what timm's networks, and torch twins, compute with weights of `rule`.

Run by hand, in an environment with torch and timm; the tests need neither:

    python tests/golden/make_goldens.py [NAME ...]

The references run in float64, so that a test measures our rounding and not theirs. Each file holds the names
and shapes of the state dict, the gain of the rule, seed and shape [B, H, W, C] of the images, the logits in
inference and in training mode (drop rates 0), and per batch norm the updated running statistics (a digest)
and the number of values n that they were taken over.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import timm
import torch
from rule import digest, draw, random_images
from timm.layers import EcaModule
from torch import nn

FOLDER = Path(__file__).parent


def conv_norm_act(inputs: int, outputs: int, kernel: int, groups: int = 1, act: nn.Module | None = None):
    """Returns convolution, batch norm, activation under timm's names: `conv`, `bn`."""
    block = nn.Sequential()
    block.add_module(
        "conv", nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    )
    block.add_module("bn", nn.BatchNorm2d(outputs))
    block.add_module("act", act or nn.Identity())
    return block


class InvertedResidual(nn.Module):
    """Sandler et al. 2018, figure 3b at stride 1: expand, depthwise, linear projection, sum."""

    def __init__(self, width: int, expansion: int):
        super().__init__()
        hidden = expansion * width
        self.conv1_1x1 = conv_norm_act(width, hidden, 1, act=nn.ReLU6())
        self.conv2_kxk = conv_norm_act(hidden, hidden, 3, groups=hidden, act=nn.ReLU6())
        self.conv3_1x1 = conv_norm_act(hidden, width, 1)

    def forward(self, x):
        return x + self.conv3_1x1(self.conv2_kxk(self.conv1_1x1(x)))


class InvertedResidualMixer(nn.Module):
    """A MobileViT block whose transformer is replaced by inverted residuals on the feature map."""

    def __init__(self, block: nn.Module, expansion: int):
        super().__init__()
        self.conv_kxk, self.conv_1x1 = block.conv_kxk, block.conv_1x1
        self.transformer = nn.Sequential(
            *[InvertedResidual(block.conv_1x1.out_channels, expansion) for _ in block.transformer]
        )
        self.conv_proj, self.conv_fusion = block.conv_proj, block.conv_fusion

    def forward(self, x):
        y = self.conv_proj(self.transformer(self.conv_1x1(self.conv_kxk(x))))
        return self.conv_fusion(torch.cat((x, y), dim=1))


class GatedLinearUnit(nn.Module):
    """Dauphin et al. 2017, eq. 1, over channels: first half times sigmoid of the second."""

    def forward(self, x):
        value, gate = x.chunk(2, dim=1)
        return value * torch.sigmoid(gate)


class Cbam(nn.Module):
    """Woo et al. 2018, eq. 2 and 3: channel attention, then spatial attention."""

    def __init__(self, channels: int, reduction: int = 16, kernel: int = 7):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc1 = nn.Linear(channels, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, channels, bias=False)
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x):
        pooled = torch.stack([x.mean((2, 3)), x.amax((2, 3))])
        channel = torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))).sum(0))
        x = x * channel[:, :, None, None]
        return x * torch.sigmoid(self.conv(torch.stack([x.mean(1), x.amax(1)], dim=1)))


def timm_model(name: str, classes: int = 30, **options) -> nn.Module:
    """Returns a timm network without weights and with drop rates of 0."""
    return timm.create_model(name, num_classes=classes, drop_rate=0.0, drop_path_rate=0.0, **options)


def efficientnetv2_eca(name: str) -> nn.Module:
    """The study's form: ECA for every SE and in every fused block, leaky ReLU for SiLU."""
    model = timm_model(name, se_layer=EcaModule, act_layer=nn.LeakyReLU)
    for stage in model.blocks:
        for block in stage:
            if hasattr(block, "conv_exp"):  # fused: timm calls `se` after the expansion's activation
                block.se = EcaModule(block.conv_exp.out_channels)
            elif hasattr(block, "conv"):  # fused with expansion 1: after the only convolution's activation
                block.se = EcaModule(block.conv.out_channels)
                block.bn1.register_forward_hook(lambda _, __, y, eca=block.se: eca(y))
    return model


def efficientnetv2_glu(name: str) -> nn.Module:
    """SE replaced by a gated linear unit; the projection reads half the channels."""
    model = timm_model(name)
    for stage in model.blocks:
        for block in stage:
            if hasattr(block, "conv_dw"):
                block.se = GatedLinearUnit()
                half, outputs = block.conv_dw.out_channels // 2, block.conv_pwl.out_channels
                block.conv_pwl = nn.Conv2d(half, outputs, 1, bias=False)
    return model


def mobilevit_ir(name: str, expansion: int) -> nn.Module:
    """Self-attention replaced by inverted residuals, in each of the three MobileViT blocks."""
    model = timm_model(name)
    for stage in model.stages[2:]:
        stage[1] = InvertedResidualMixer(stage[1], expansion)
    return model


def mobilevit_5x5(name: str, add: bool, depthwise: bool) -> nn.Module:
    """A 5x5 convolution after the local representation's 3x3, or in its place."""
    model = timm_model(name)
    for stage in model.stages[2:]:
        width = stage[1].conv_kxk.conv.in_channels
        wide = conv_norm_act(width, width, 5, groups=width if depthwise else 1, act=nn.SiLU())
        if not add:
            stage[1].conv_kxk = nn.Identity()
        stage[1].conv_5x5 = wide
        stage[1].conv_kxk.register_forward_hook(lambda _, __, y, wide=wide: wide(y))
    return model


def swin(window: int, height: int, width: int) -> nn.Module:
    """Swin-T for images of one size, which timm wants to know."""
    return timm_model("swin_tiny_patch4_window7_224", img_size=(height, width), window_size=window)


# Name -> (gain of the rule, what to build, shape of the images). Sides differ, so that a swapped height and
# width shows; odd sides show SAME padding; every batch norm sees 16 values or more.
GOLDENS: dict[str, tuple[float, Callable[[], nn.Module], tuple[int, int, int, int]]] = {
    "efficientnetv2_b0": (1.5, lambda: timm_model("tf_efficientnetv2_b0"), (4, 75, 98, 3)),
    "efficientnetv2_s": (1.2, lambda: timm_model("tf_efficientnetv2_s"), (4, 64, 96, 3)),
    "efficientnetv2_b0_eca": (2.2, lambda: efficientnetv2_eca("tf_efficientnetv2_b0"), (4, 64, 96, 3)),
    "efficientnetv2_b0_glu": (1.5, lambda: efficientnetv2_glu("tf_efficientnetv2_b0"), (4, 64, 96, 3)),
    "efficientnet_lite0": (1.8, lambda: timm_model("tf_efficientnet_lite0", 1000), (4, 75, 98, 3)),
    "efficientnet_lite1": (1.8, lambda: timm_model("tf_efficientnet_lite1"), (4, 75, 98, 3)),
    "efficientnet_lite2": (1.8, lambda: timm_model("tf_efficientnet_lite2"), (4, 75, 98, 3)),
    "mobilevit_xxs": (1.6, lambda: timm_model("mobilevit_xxs"), (2, 128, 192, 3)),
    "mobilevit_xs": (1.8, lambda: timm_model("mobilevit_xs"), (2, 128, 192, 3)),
    "mobilevit_s": (1.9, lambda: timm_model("mobilevit_s"), (2, 128, 192, 3)),
    "mobilevit_xxs_ir": (1.4, lambda: mobilevit_ir("mobilevit_xxs", 2), (2, 128, 192, 3)),
    "mobilevit_xxs_conv5": (
        1.6,
        lambda: mobilevit_5x5("mobilevit_xxs", add=True, depthwise=True),
        (2, 128, 192, 3),
    ),
    "mobilevit_xxs_conv5_only": (
        1.7,
        lambda: mobilevit_5x5("mobilevit_xxs", add=False, depthwise=False),
        (2, 128, 192, 3),
    ),
    "swin_t_w7": (2.0, lambda: swin(7, 224, 448), (2, 224, 448, 3)),
    "swin_t_w8": (2.0, lambda: swin(8, 256, 256), (2, 256, 256, 3)),
    "eca": (2.0, lambda: EcaModule(192), (2, 2, 3, 192)),
    "cbam": (2.0, lambda: Cbam(96), (2, 3, 4, 96)),
}


def fill(model: nn.Module, gain: float) -> dict[str, tuple[int, ...]]:
    """Fills a network by the rule, in place, and returns the shapes of its state dict by name."""
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(draw(name, shape, gain)) for name, shape in shapes.items()})
    return shapes


def count_values(model: nn.Module) -> dict[str, int]:
    """Returns a dict that the next forward pass fills: name of a batch norm -> values per channel it saw."""
    seen: dict[str, int] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: seen.update({name: inputs[0].numel() // inputs[0].shape[1]})
            )
    return seen


def make(name: str) -> dict[str, np.ndarray]:
    """Returns the arrays of one golden file."""
    gain, build, shape = GOLDENS[name]
    model = build()
    shapes = fill(model, gain)
    model.double()
    seed = len(name)
    inputs = torch.from_numpy(random_images(seed, shape)).double().permute(0, 3, 1, 2)
    seen = count_values(model)
    with torch.no_grad():
        logits = model.eval()(inputs)
        logits_train = model.train()(inputs)
    statistics = {key: value.numpy() for key, value in model.state_dict().items() if "running_" in key}
    return {
        "names": np.array(list(shapes)),
        "shapes": np.array([",".join(map(str, shape)) for shape in shapes.values()]),
        "gain": np.array(gain),
        "seed": np.array(seed),
        "input_shape": np.array(shape),
        "logits": logits.numpy().astype(np.float32),
        "logits_train": logits_train.numpy().astype(np.float32),
        "statistics": np.array([digest(value) for value in statistics.values()], np.float32),
        "n": np.array([seen[key.rsplit(".", 1)[0]] for key in statistics]),
        "versions": np.array(
            [f"torch {torch.__version__}", f"timm {timm.__version__}", f"numpy {np.__version__}"]
        ),
    }


def save_tensors() -> None:
    """Writes a small checkpoint in both of torch's formats: views, every width of number, a parameter, wrapped."""
    numbers = torch.arange(12, dtype=torch.float32)
    tensors = {
        "plain": numbers.reshape(3, 4),
        "transposed": numbers.reshape(3, 4).T,
        "slice": numbers[2:11:3],
        "scalar": torch.tensor(5),
        "empty": torch.zeros(0, 3),
        "parameter": nn.Parameter(torch.ones(2, 2)),
        "half": torch.tensor([0.5, -2.0], dtype=torch.float16),
        "bfloat16": torch.tensor([0.5, -2.0], dtype=torch.bfloat16),
        "double": torch.tensor([1 / 3], dtype=torch.float64),
        "byte": torch.tensor([7, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
    }
    checkpoint = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}
    torch.save(checkpoint, FOLDER / "tensors.pth")
    torch.save(checkpoint, FOLDER / "tensors_legacy.pth", _use_new_zipfile_serialization=False)


def main(names: list[str]) -> None:
    """Writes the named goldens, or all, and the two files of torch."""
    save_tensors()
    for name in names or GOLDENS:
        arrays = make(name)
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
        size, spread, train = (
            np.abs(x).mean() for x in (arrays["logits"], arrays["logits"].std(0), arrays["logits_train"])
        )
        print(f"{name}: logits {size:.3g}, between images {spread:.3g}, in training {train:.3g}")


if __name__ == "__main__":
    main(sys.argv[1:])
