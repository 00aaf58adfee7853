"""What PyTorch state dicts call our parameters: timm's names, and those of the other published weights."""

import re
from collections.abc import Callable, Container, Iterable, Mapping

Module = tuple[str, ...]  # path of a module in our tree, e.g. ('stage3_block0', 'expand', 'conv')
Blocks = Mapping[str, tuple[str, ...]]  # name of a block -> its layers, both in the order they are computed

LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}

# In the order they are computed in; each has a convolution and a batch norm.
_EFFICIENTNET_LAYERS = ("fused", "expand", "depthwise", "project")


def _stage_and_block(name: str) -> tuple[int, int]:
    stage, block = re.findall(r"\d+", name)
    return int(stage), int(block)


def _blocks(modules: Iterable[Module]) -> Blocks:
    """Returns the blocks of a network, and which of EfficientNet's layers each has."""
    found: dict[str, set[str]] = {}
    for module in modules:
        if re.fullmatch(r"stage\d+_block\d+", module[0]):
            found.setdefault(module[0], set()).update(module[1:2])
    return {
        name: tuple(layer for layer in _EFFICIENTNET_LAYERS if layer in found[name])
        for name in sorted(found, key=_stage_and_block)
    }


def _timm_efficientnet(module: Module, blocks: Blocks) -> str:
    ends = {
        ("stem", "conv"): "conv_stem",
        ("stem", "bn"): "bn1",
        ("head", "conv"): "conv_head",
        ("head", "bn"): "bn2",
        ("classifier",): "classifier",
    }
    if module in ends:
        return ends[module]
    stage, block = _stage_and_block(module[0])
    prefix, layers = f"blocks.{stage}.{block}", blocks[module[0]]
    match module[1:]:
        case ("attention",):  # ECA
            return f"{prefix}.se.conv"
        case ("attention", layer):
            return f"{prefix}.se.conv_{layer}"
        case (layer, "bn"):
            return f"{prefix}.bn{layers.index(layer) + 1}"
    convs = {"expand": "conv_pw", "depthwise": "conv_dw", "fused": "conv_exp", "project": "conv_pwl"}
    if layers == ("depthwise", "project"):
        convs["project"] = "conv_pw"
    if layers == ("fused",):
        convs["fused"] = "conv"
    return f"{prefix}.{convs[module[1]]}"


def _efficientnet_pytorch(module: Module, blocks: Blocks) -> str:
    """lukemelas/EfficientNet-PyTorch and its descendants, such as the package with Lite0's weights."""
    ends = {
        ("stem", "conv"): "_conv_stem",
        ("stem", "bn"): "_bn0",
        ("head", "conv"): "_conv_head",
        ("head", "bn"): "_bn1",
        ("classifier",): "_fc",
    }
    if module in ends:
        return ends[module]
    prefix = f"_blocks.{list(blocks).index(module[0])}"
    match module[1:]:
        case ("attention", layer):
            return f"{prefix}._se_{layer}"
        case (layer, "bn"):
            return f"{prefix}._bn{('expand', 'depthwise', 'project').index(layer)}"
    return f"{prefix}._{module[1]}_conv"


def _timm_mobilevit(module: Module, blocks: Blocks) -> str:
    ends = {"stem": "stem", "head": "final_conv", "classifier": "head.fc"}
    if module[0] in ends:
        return ".".join((ends[module[0]], *module[1:]))
    stage, block = _stage_and_block(module[0])
    prefix = f"stages.{stage}.{block}"
    inverted_residual = {"expand": "conv1_1x1", "depthwise": "conv2_kxk", "project": "conv3_1x1"}
    if stage < 2 or block == 0:
        return ".".join((prefix, inverted_residual[module[1]], *module[2:]))
    if module[1].startswith("mixer"):
        sublayers = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
        sublayers |= {"norm1": "norm1", "norm2": "norm2"} | inverted_residual
        prefix = f"{prefix}.transformer.{module[1].removeprefix('mixer')}"
        return ".".join((prefix, sublayers[module[2]], *module[3:]))
    layers = {"local": "conv_kxk", "local_5x5": "conv_5x5", "embed": "conv_1x1", "norm": "norm"}
    layers |= {"project": "conv_proj", "fuse": "conv_fusion"}
    return ".".join((prefix, layers[module[1]], *module[2:]))


def _pyramidnet(module: Module, blocks: Blocks) -> str:
    """dyhan0920/PyramidNet-PyTorch, by an author of the paper."""
    ends = {
        ("stem", "conv"): "conv1",
        ("stem", "bn"): "bn1",
        ("norm",): "bn_final",
        ("classifier",): "fc",
    }
    if module in ends:
        return ends[module]
    stage, block = _stage_and_block(module[0])
    return f"layer{stage + 1}.{block}.{module[1]}"


def _timm_swin(module: Module, blocks: Blocks) -> str:
    ends = {
        "patch_embed": "patch_embed.proj",
        "patch_norm": "patch_embed.norm",
        "norm": "norm",
        "classifier": "head.fc",
    }
    if module[0] in ends:
        return ends[module[0]]
    if module[0].endswith("merge"):
        return f"layers.{module[0][len('stage')]}.downsample.{module[1]}"
    stage, block = _stage_and_block(module[0])
    layers = {"attention": "attn", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
    return ".".join((f"layers.{stage}.blocks.{block}", layers.get(module[1], module[1]), *module[2:]))


STYLES: dict[str, Callable[[Module, Blocks], str]] = {
    "efficientnetv2": _timm_efficientnet,
    "mobilevit": _timm_mobilevit,
    "pyramidnet": _pyramidnet,
    "swin": _timm_swin,
}


def torch_names(family: str, paths: Iterable[Module], known: Container[str]) -> dict[Module, str]:
    """Returns what a state dict calls each of a network's parameters and statistics.

    Args:
        family: key of `wastejax.models.FAMILIES`.
        paths: of the arrays in the network's tree, e.g. ('stem', 'conv', 'kernel'). Those of `head_attention` are
            left out: no published weights have it.
        known: the names in the state dict; they tell the style of naming where a family has several.

    Returns:
        The names by path, without those of modules for which that naming has no word, such as a mixer of one's own.
    """
    paths = [path for path in paths if path[0] != "head_attention"]
    style = STYLES[family]
    if family == "efficientnetv2" and "_conv_stem.weight" in known:
        style = _efficientnet_pytorch
    blocks = _blocks(path[:-1] for path in paths)
    names = {path: _name(style, path[:-1], blocks) for path in paths}
    return {path: f"{name}.{LEAVES.get(path[-1], path[-1])}" for path, name in names.items() if name}


def _name(style: Callable[[Module, Blocks], str], module: Module, blocks: Blocks) -> str:
    """Returns what a style calls a module, '' where the networks that it was made for have no such module."""
    try:
        return style(module, blocks)
    except (LookupError, ValueError):
        return ""


def swin_as_timm(name: str) -> str:
    """Returns timm's name for a parameter of the original Swin, which merges patches at the end of a stage."""
    name = re.sub(r"^layers\.(\d+)\.downsample", lambda match: f"layers.{int(match[1]) + 1}.downsample", name)
    return re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", name)
