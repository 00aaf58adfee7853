"""A trained model as a folder: weights, config, class names, preprocessing and scores, saved and loaded as one.

    bundle/
      bundle.json                     everything but the weights, and the name of their file
      weights-<sha256, 12>.safetensors  'params/…', 'batch_stats/…', float32; kernels: see `PRECISIONS`

`bundle.json` is replaced in one move and names its weights, so a kill at any moment leaves a whole bundle: the
old or the new one. Nothing here is a pickle.
"""

import hashlib
import importlib.metadata
import json
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from wastejax import __version__
from wastejax.bundled import FOLDER, model_path
from wastejax.data.formats.boxes import MULTILABEL
from wastejax.data.taxonomy import Taxonomy, load_taxonomy, parse_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.errors import ConfigError, UserError
from wastejax.files import write_bytes, write_json
from wastejax.metadata import check_metadata, read_config

# What kernels are stored in; they are computed in float32. 'int8' has one scale for each output channel, a float32
# tensor 'NAME:scale', and keeps depthwise kernels, which weigh little and suffer most, in float16.
PRECISIONS = ("float32", "float16", "int8")
FORMATS = (1, 2, 3)  # 2 has scales; 3 has several labels per image or `familiarity`, and scales perhaps
SCALE = ":scale"
_ORIGIN = "exported_from"  # of an export, until it is calibrated
_WEIGHTS = re.compile(r"weights-[0-9a-f]{12}\.safetensors")


@dataclass(frozen=True)
class Bundle:
    """A trained model and all that is needed to use it.

    Attributes:
        variables: {'params', 'batch_stats'} and perhaps 'familiarity', nested dicts of float32 arrays.
        config: the resolved config of its run, nested dicts.
        classes: class names in the order of the logits.
        preprocessing: what its images go through.
        metrics: validation scores at the time of saving.
        temperature: what logits are divided by before they become probabilities (Guo et al. 2017, section 4.2).
        thresholds: {'0.95': p, …}: the calibrated probability from which on answers were right that often on the
            validation images, None where none was high enough; empty where nobody looked.
        class_thresholds: where images have several labels, the probability from which on each class is named, as
            chosen on validation images; empty where nobody looked.
        confusion: counts [C][C] on validation images, rows are the true classes; None where nobody looked.
        prior: how often training drew each class, in images, which probabilities start from; empty: nobody knows.
        licence: what may be done with the weights; '' where nobody said.
        versions: of Python and the packages that saved it.
        taxonomy: the rules for its classes, as far as there are any.
        path: the folder it came from; '.' where it was not saved yet.
    """

    variables: dict[str, Any]
    config: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    thresholds: dict[str, float | None] = field(default_factory=dict)
    class_thresholds: tuple[float, ...] = ()
    confusion: list[list[int]] | None = None
    prior: tuple[float, ...] = ()
    licence: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    taxonomy: Taxonomy = field(default_factory=load_taxonomy)
    path: Path = Path()

    @property
    def multilabel(self) -> bool:
        """Whether images have any number of labels, so that a class's probability is the sigmoid of its logit."""
        return bool(self.config.get("loss", {}).get("kind") == MULTILABEL)

    def calibrated(self, logits: Any) -> Any:
        """Returns the probabilities of logits, jax arrays [B, C]."""
        import jax

        return jax.nn.sigmoid(logits) if self.multilabel else jax.nn.softmax(logits / self.temperature)

    def needs_one_label(self, what: str) -> None:
        """Raises a UserError where images have several labels, for what only one makes sense of."""
        if self.multilabel:
            raise UserError(
                f"{what}: {self.path} is a multi-label model, whose images show any number of classes; "
                "this needs one class per image"
            )

    @property
    def bins(self) -> tuple[str, ...] | None:
        """The sorting bin of each class; None where the taxonomy does not know them all: no bin can be judged."""
        return self.taxonomy.bins_of(self.classes)

    @property
    def bins_or_own(self) -> tuple[str, ...]:
        """The bin of each class, by whose probability answers are rejected; see `Taxonomy.bins_or_own`."""
        return self.taxonomy.bins_or_own(self.classes)

    @cached_property
    def logits(self) -> Callable[[Any], Any]:
        """The jitted network: uint8 [B, S, S, 3] -> float32 [B, C]."""
        return self._forward("apply")

    @cached_property
    def dense(self) -> Callable[[Any], Any]:
        """The jitted network at every position: uint8 [B, H, W, 3] -> float32 [B, h, w, C], see `Model.dense`.

        H and W may differ from S; every shape is compiled once.
        """
        return self._forward("dense")

    @cached_property
    def features(self) -> Callable[[Any], Any]:
        """The jitted network without its classifier: uint8 [B, S, S, 3] -> what that sees, float32 [B, D]."""
        return self._forward("pooled")

    @cached_property
    def _folded(self) -> tuple[Any, Any]:
        """The network and its folded variables, on the device; a UserError where these are not of each other."""
        import jax
        from flax.errors import FlaxError

        from wastejax.models import check, create_model
        from wastejax.models.folding import fold_batch_norm

        size = self.preprocessing.image_size
        try:
            check(self.config.get("model", {}), size)
            model = create_model(self.config["model"], len(self.classes))
            folded = fold_batch_norm(model, self.variables, size)
        except ConfigError as error:
            raise UserError(f"{self.path}: {error}") from None
        except (FlaxError, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"{self.path}: config.model is not the network of its weights ({reason})"
            ) from error
        return model, jax.device_put(folded)

    def _forward(self, form: str) -> Callable[[Any], Any]:
        from wastejax.models.folding import apply_folded
        from wastejax.runtime.jit import jit

        model, variables = self._folded
        normalize = self.preprocessing.normalize
        forward = jit(lambda v, images: apply_folded(model, v, normalize(images), form))
        return lambda images: forward(variables, images)


def save_bundle(path: Path, bundle: Bundle, precision: str = "float32", exported_from: str = "") -> None:
    """Writes a bundle over what is at `path`, if anything.

    Of its taxonomy the rules for its classes are kept; its versions become those that save it.

    Kernels are stored in one of `PRECISIONS`: float16 halves the file and changes logits by about 1e-3, int8
    quarters it. Vectors stay float32: they weigh nothing, and a variance may not fit. Scores are those of the
    weights as stored only where they were taken from the loaded bundle.

    Args:
        path: the folder.
        bundle: the model.
        precision: of its kernels.
        exported_from: the SHA-256 of the weights that it is an export of; empty for a model of its own.

    Raises:
        UserError: a kernel has a value that float16 cannot hold, or one that is no number.
    """
    from flax.traverse_util import flatten_dict
    from safetensors.numpy import save

    flat = {k: np.ascontiguousarray(v) for k, v in flatten_dict(bundle.variables, sep="/").items()}
    data = save(_stored(flat, precision))
    digest = hashlib.sha256(data).hexdigest()
    weights = path / f"weights-{digest[:12]}.safetensors"
    path.mkdir(parents=True, exist_ok=True)
    write_bytes(weights, data)
    newest = bundle.multilabel or "familiarity" in bundle.variables
    about = {
        "format": 3 if newest else 2 if precision == "int8" else 1,
        "weights": weights.name,
        "sha256": digest,
        "classes": list(bundle.classes),
        "preprocessing": bundle.preprocessing.to_dict(),
        "temperature": bundle.temperature,
        "thresholds": bundle.thresholds,
        "class_thresholds": list(bundle.class_thresholds),
        "metrics": bundle.metrics,
        "licence": bundle.licence,
        "taxonomy": bundle.taxonomy.only(bundle.classes).to_dict(),
        "config": bundle.config,
        "versions": versions(),
        **({} if bundle.confusion is None else {"confusion": bundle.confusion}),
        **({} if not bundle.prior else {"prior": bundle.prior}),
    }
    write_json(path / "bundle.json", about | ({_ORIGIN: exported_from} if exported_from else {}))
    for old in path.glob("weights-*.safetensors"):
        if old != weights and _WEIGHTS.fullmatch(old.name):
            old.unlink()


def digests(path: Path) -> tuple[str, str]:
    """Returns the SHA-256 of a bundle's weights, and of those that it is an unchanged export of; '' for none."""
    try:
        about = json.loads((path / "bundle.json").read_bytes())
        return str(about["sha256"]), str(about.get(_ORIGIN, ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "", ""


def keep_calibration(
    path: Path,
    temperature: float,
    thresholds: dict[str, float | None],
    confusion: list[list[int]] | None = None,
    prior: list[float] | None = None,
) -> None:
    """Replaces what validation images say about the bundle in the folder `path`, and nothing else.

    See `Bundle` for the values; None leaves what is there.
    """
    _keep(path, temperature=temperature, thresholds=thresholds, confusion=confusion, prior=prior)


def keep_class_thresholds(path: Path, thresholds: Sequence[float]) -> None:
    """Replaces the probabilities from which on the bundle in `path` names its classes, and nothing else."""
    _keep(path, class_thresholds=list(thresholds))


def keep_config(path: Path, config: dict[str, Any]) -> None:
    """Replaces the config of the bundle in `path`, as where its images have moved, and nothing else."""
    _keep(path, config=config)


def _keep(path: Path, **changed: Any) -> None:
    about = json.loads((path / "bundle.json").read_bytes())
    about.pop(_ORIGIN, None)  # another export would not bring it back
    write_json(path / "bundle.json", about | {k: v for k, v in changed.items() if v is not None})


def parse_thresholds(stored: Any) -> dict[str, float | None]:
    """Returns `Bundle.thresholds` from JSON; raises AttributeError, TypeError or ValueError where it is damaged."""
    return {
        str(float(accuracy)): None if value is None else float(value) for accuracy, value in stored.items()
    }


def versions() -> dict[str, str]:
    """Returns the versions that decide what a model answers: Pillow resizes its images."""
    of_packages = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy", "pillow")}
    return {"wastejax": __version__, "python": platform.python_version(), **of_packages}


def default_bundle() -> Path:
    """Returns the folder of the bundled model; raises a UserError where this copy has none."""
    if not (FOLDER / "bundle.json").is_file():
        raise UserError(
            "--model: this copy of wastejax comes without a trained model; give a run, a bundle or an exported file"
        )
    return FOLDER


def load_bundle(path: str | Path, taxonomy: str | Path | None = None) -> Bundle:
    """Returns the bundle in a folder, or in the `bundle` folder of a run.

    Args:
        path: the folder, or `bundled.NAME`.
        taxonomy: whose rules it follows, see `load_taxonomy`; None for those that it was made with.

    Raises:
        UserError: there is none, or it is damaged or of another format.
    """
    if taxonomy is not None:
        rules = load_taxonomy(taxonomy, "--taxonomy")
        bundle = load_bundle(path)
        return replace(bundle, taxonomy=rules.only(bundle.classes))
    from safetensors.numpy import load

    path = model_path(path)
    if not path.exists():
        raise UserError(f"{path}: no such run or bundle")
    if (path / "bundle" / "bundle.json").is_file():
        path = path / "bundle"
    try:
        about = json.loads((path / "bundle.json").read_bytes())
        version = about["format"]
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: neither a run nor a bundle, there is no bundle.json in it") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path / 'bundle.json'}: damaged, or not written by wastejax") from None
    if version not in FORMATS:
        readable = " and ".join(map(str, FORMATS))
        raise UserError(f"{path}: bundle format {version}; this wastejax {__version__} reads {readable}")
    try:
        check_metadata(about, ("classes", "preprocessing", "config", "weights", "sha256"))
        weights = path / about["weights"]
        if hashlib.sha256(data := weights.read_bytes()).hexdigest() != about["sha256"]:
            raise UserError(f"{weights}: damaged or cut short (its SHA-256 is not the one in bundle.json)")
        variables = _restored(load(data))
        _check_classes(variables, about["classes"])
        return Bundle(
            variables=variables,
            config=read_config(about["config"]),
            classes=tuple(about["classes"]),
            preprocessing=Preprocessing.from_dict(about["preprocessing"]),
            metrics=about.get("metrics", {}),
            temperature=float(about.get("temperature", 1.0)),
            thresholds=parse_thresholds(about.get("thresholds", {})),
            class_thresholds=tuple(map(float, about.get("class_thresholds", ()))),
            confusion=about.get("confusion"),
            prior=tuple(map(float, about.get("prior", ()))),
            licence=about.get("licence", ""),
            versions=about.get("versions", {}),
            taxonomy=_taxonomy(about, path),
            path=path,
        )
    except FileNotFoundError:
        raise UserError(f"{weights}: the bundle's weights are missing") from None
    except ConfigError as error:
        raise UserError(f"{path / 'bundle.json'}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path / 'bundle.json'}: damaged ({error})") from None


def _check_classes(variables: dict[str, Any], classes: Sequence[str]) -> None:
    head = variables.get("params", {}).get("classifier", {})
    if "kernel" in head and head["kernel"].shape[-1] != len(classes):
        raise ValueError(f"classes: has {len(classes)} names, the weights are for {head['kernel'].shape[-1]}")


def _taxonomy(about: dict[str, Any], path: Path) -> Taxonomy:
    stored = about.get("taxonomy")
    if stored is None:  # a bundle from before there were any
        return load_taxonomy().only(about["classes"])
    return parse_taxonomy(stored, str(path / "bundle.json"), "taxonomy")


def _stored(flat: dict[str, np.ndarray], precision: str) -> dict[str, np.ndarray]:
    """Returns the arrays as a file holds them; see `PRECISIONS`."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {PRECISIONS}, is {precision!r}")
    stored: dict[str, np.ndarray] = {}
    for name, array in flat.items():
        if array.ndim < 2 or precision == "float32":
            stored[name] = array
        elif not (np.abs(array) <= np.finfo(np.float16).max).all():
            raise UserError(f"{name}: has a value that {precision} cannot hold; store float32")
        elif precision == "float16" or array.shape[-2] == 1:
            stored[name] = array.astype(np.float16)
        else:
            largest = np.abs(array).max(axis=tuple(range(array.ndim - 1)))
            scale = (np.where(largest, largest, 1) / 127).astype(np.float32)
            stored[name], stored[name + SCALE] = np.rint(array / scale).astype(np.int8), scale
    return stored


def _restored(stored: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns the tree of float32 arrays of which `_stored` took the leaves."""
    from flax.traverse_util import unflatten_dict

    arrays = {name: array.astype(np.float32) for name, array in stored.items()}
    scales = {name: arrays.pop(name) for name in stored if name.endswith(SCALE)}
    for name, scale in scales.items():
        arrays[name.removesuffix(SCALE)] *= scale
    # A network without batch normalization has no statistics to store.
    return {"batch_stats": {}, **unflatten_dict(arrays, sep="/")}
