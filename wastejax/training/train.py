"""A training run: from a recipe and a folder of images to a bundle and a report."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from wastejax import config as configs
from wastejax import machine
from wastejax.data.cache import cache_dir
from wastejax.data.collections.places import is_url
from wastejax.data.collections.shards import PREFIX
from wastejax.data.corrections import KEY as CORRECTIONS
from wastejax.data.corrections import NAME, load_corrections
from wastejax.data.description import is_description
from wastejax.data.formats.boxes import MULTILABEL
from wastejax.data.prepare import Dataset, prepare
from wastejax.data.prepare.kept import load_kept, save_kept
from wastejax.data.sources import check_outside
from wastejax.data.taxonomy import COUNTRIES, load_taxonomy
from wastejax.errors import ConfigError, UserError
from wastejax.files import check_folder, user_path, write_bytes, write_json, write_text
from wastejax.progress import Say
from wastejax.training.claim import (
    BEGUN,
    IDENTITY,
    RULES,
    SHARDS,
    TEACHER,
    begun,
    claim,
    is_longer,
    renew,
    unused,
)

if TYPE_CHECKING:
    from wastejax.runtime.stop import Stop
    from wastejax.training.devices import Cluster

# What makes a full-size recipe end within minutes on two cores; a flag of the user's wins over each.
DEMO = {
    "data.augmentation": "basic",
    "data.image_size": 64,
    "data.min_crop_area": 0.6,
    "model.size": "tiny",
    "optim.warmup_epochs": 1.0,
    "optim.ema_decay": 0.0,
    "train.epochs": 45,
    "train.batch_size": 32,
}
# Published weights are of a larger network than the demo's, and without them there is nothing to be careful with.
FROM_SCRATCH = {
    "init.weights": "",
    "data.progressive": (),
    "optim.backbone_lr_factor": 1.0,
    "optim.frozen_blocks": 0,
    "optim.layer_decay": 1.0,
}
# Keys that need one known class for every image.
_OF_ONE_LABEL = ("loss.class_weights", "data.balanced_sampling", "data.leave_out")


def resolve(recipe: str, overrides: Sequence[str], say: Say, workdir: str | Path | None = None) -> ConfigDict:
    """Returns the checked config of a recipe under the user's overrides, and the demo's where no data is given.

    Args:
        recipe: path or name.
        overrides: `--config.key=value` arguments.
        say: prints a line.
        workdir: as for `train`; a run in there is resumed without the weights that it began from.

    Raises:
        UserError: the recipe, a key or a value is wrong.
    """
    from wastejax import models
    from wastejax.training.init import follow_preprocessing

    config = configs.load_recipe(recipe)
    given = configs.apply_overrides(config, overrides)
    if is_demo(config):
        say("No images given: using the drawn set of 30 classes. To use your own, one folder per class:")
        say(f"  python -m wastejax.main --config={recipe} --config.data.dir=DIR")
        demo, usual = _demonstration(config, given), configs.flatten(config)
        changed = {key: value for key, value in demo.items() if usual.get(key) != value}
        arguments = configs.as_arguments(changed)
        configs.apply_overrides(config, arguments)
        given |= demo.keys()
        say(f"For a small variant that finishes in minutes, add {shlex.join(arguments)}")
    elif config.data.dir and not is_url(config.data.dir):
        config.data.dir = str(user_path(config.data.dir).resolve())
    if config.data.source.startswith(PREFIX):
        folder = user_path(config.data.source.removeprefix(PREFIX)).resolve()
        config.data.source = f"{PREFIX}{folder}"
        config.data.cache = False  # decoded images would take a hundred times the room
    if config.data.taxonomy and config.data.taxonomy not in COUNTRIES:
        config.data.taxonomy = str(user_path(config.data.taxonomy).resolve())
    if config.data.corrections:
        config.data.corrections = str(load_corrections(config.data.corrections).path.resolve())
    folder = Path(workdir) if workdir else default_folder(recipe, config)
    if not (folder / RULES).is_file():  # a run keeps those that it began with
        load_taxonomy(config.data.taxonomy)
    configs.check(config)
    _check_labels(config)
    stored = begun(folder, config)
    follow_preprocessing(config, given, say, stored)
    configs.check(config)  # also what the weights say of images
    models.check(config.model, config.data.image_size)
    for size in config.data.progressive:
        try:
            models.check(config.model, size)
        except ConfigError as error:
            raise ConfigError("config.data.progressive", f"training at {size} px: {error}") from None
    _check_fine_tuning(config, begins=stored is None)
    return config


def _demonstration(config: ConfigDict, given: set[str]) -> dict[str, Any]:
    """Returns the demonstration's values by key, but for the keys that the user set."""
    demo: dict[str, Any] = DEMO | FROM_SCRATCH
    if config.init.weights and "init.weights" in given:
        # They are for the recipe's own network, and for learning carefully.
        kept = {*FROM_SCRATCH, "model.size"} - {"data.progressive"}
        demo = {key: value for key, value in demo.items() if key not in kept}
    return {key: value for key, value in demo.items() if key not in given}


def _check_labels(config: ConfigDict) -> None:
    """Raises a ConfigError where keys that need one known class for every image meet data of others."""
    if is_description(config.data.dir):
        _refuse(config, ("loss.mixup", "loss.cutmix", *_OF_ONE_LABEL), "a data description")
    if config.loss.kind != MULTILABEL:
        return
    if config.data.source.startswith(PREFIX):
        raise ConfigError("config.data.source", "shards hold one label per image; 'multilabel' needs several")
    _refuse(config, (*_OF_ONE_LABEL, "distill.teacher"), "config.loss.kind=multilabel")


def _refuse(config: ConfigDict, keys: Sequence[str], what: str) -> None:
    """Raises a ConfigError for those of the keys that are set, by the user or the recipe; none is by default."""
    known, values = configs.keys(config), configs.flatten(config)
    off = {key: known[key].default for key in keys if values[key]}
    if off:
        arguments = shlex.join(configs.as_arguments(off))
        raise ConfigError(f"config.{next(iter(off))}", f"does not work with {what}; set {arguments}")


def _check_fine_tuning(config: ConfigDict, begins: bool) -> None:
    """Raises a UserError, before any slow work, where teacher, weights or frozen blocks are not for the network."""
    from wastejax.models import create_model
    from wastejax.models.structure import first_blocks
    from wastejax.training.init import check_weights
    from wastejax.training.step.teacher import open_teacher

    if config.distill.teacher:
        open_teacher(config.distill, config.data.progressive or (config.data.image_size,))
    weights = begins and bool(config.init.weights)
    if weights or config.optim.frozen_blocks:
        import jax

        init = create_model(config.model, 2).init
        shapes = jax.eval_shape(lambda key: init(key, config.data.image_size), jax.random.key(0))
        first_blocks(shapes["params"], config.optim.frozen_blocks)
        if weights:
            check_weights(config, shapes)


def train(
    recipe: str,
    overrides: Sequence[str] = (),
    workdir: str | Path | None = None,
    say: Say = lambda line: None,
    cluster: "Cluster | None" = None,
    stop: "Stop | None" = None,
) -> Path:
    """Trains, or resumes, the run in a work directory.

    Args:
        recipe: path or name.
        overrides: `--config.key=value` arguments.
        workdir: None for runs/<recipe>, or runs/<recipe>-demo where no images are given.
        say: prints a line.
        cluster: None for one process. Several ones must see the same work directory and the same images.
        stop: what answers SIGTERM and Ctrl-C; None for one that ends no process, and hands a signal on after the
            checkpoint that it asks for.

    Returns:
        The work directory.

    Raises:
        UserError: the recipe, a key, a value or the data are wrong, or the work directory holds another run.
    """
    from wastejax.runtime.stop import Stop

    with nullcontext(stop) if stop is not None else Stop(say) as answering:
        return _train(recipe, overrides, workdir, say, cluster, answering)


def _train(
    recipe: str,
    overrides: Sequence[str],
    workdir: str | Path | None,
    say: Say,
    cluster: "Cluster | None",
    stop: "Stop",
) -> Path:
    """Trains as `train` does, with what answers signals."""
    from wastejax.training import devices

    if cluster is not None:
        devices.connect(cluster)
    mesh = devices.use_devices()
    say = say if mesh.first else lambda line: None
    config = resolve(recipe, overrides, say, workdir)
    devices.check(config, mesh)
    folder = Path(workdir) if workdir else default_folder(recipe, config)
    _check_place(folder, config)
    from wastejax.training.advice import advice
    from wastejax.training.loop import fit
    from wastejax.training.run import set_up

    anew = command_line(recipe, overrides, str(unused(folder)))
    known = mesh.agreed(claim(folder, config, anew))
    longer = mesh.agreed(is_longer(folder, config))
    if known:
        _check_corrections(folder, config, anew)
    if known and not longer and (folder / "report.json").is_file():
        say(f"this run is finished: see {folder / 'report.md'}; to train again: {anew}")
        return folder
    if known:
        _check_teacher(folder, config, anew)
    dataset = _data(config, folder, known, say)
    for line in advice(config, dataset):
        say(f"note: {line}")
    if known and mesh.first:
        renew(folder, config)
    with _taken(folder, config, dataset) if not known and mesh.first else nullcontext():
        run, state = set_up(config, folder, dataset, mesh, say)
    record = fit(run, state, stop)
    if record.stopped and mesh.first:
        from wastejax.training.finish import finish

        stop.kept, stop.code = (
            "all epochs are done; the same command continues with the test and the report",
            0,
        )
        say("scoring the best model on the test images")
        settings = shlex.join(configs.settings(config))
        finish(run, record, facts(recipe, overrides, workdir) | {"settings": settings})
    return folder


def default_folder(recipe: str, config: ConfigDict) -> Path:
    """Returns runs/<recipe>; the demonstration on drawn images has a folder of its own, not to be in the way."""
    return Path("runs") / (Path(recipe).stem + ("-demo" if is_demo(config) else ""))


def _check_place(folder: Path, config: ConfigDict) -> None:
    """Raises a UserError where a run cannot be written, or where its figures would become images of a class."""
    check_folder(folder, "--workdir")
    if config.data.source == "folder" and config.data.dir:
        held = (folder / "config.json").is_file()
        todo = "move the run out of it, and name it there" if held else "name a folder outside of it"
        check_outside(folder, "--workdir", config.data.dir, "its figures", todo)


def is_demo(config: ConfigDict) -> bool:
    """Returns whether no images were given."""
    return not config.data.dir and config.data.source == "folder"


def command_line(recipe: str, overrides: Sequence[str], workdir: str | Path | None) -> str:
    """Returns the command that trains so, to be copied."""
    where = [f"--workdir={workdir}"] if workdir else []
    return shlex.join(["python", "-m", "wastejax.main", f"--config={recipe}", *where, *overrides])


def _data(config: ConfigDict, folder: Path, known: bool, say: Say) -> Dataset:
    """Returns the checked and split images; a resumed run keeps the split it began with."""
    data = config.data.copy_and_resolve_references()
    if not data.dir and data.source == "folder":
        from wastejax.data.drawing.dataset import embedded

        data.dir = str(embedded())
    kept = None
    if known and (folder / "manifest.csv").is_file() and not data.source.startswith(PREFIX):
        kept = load_kept(folder)
        data.split.manifest = str(folder / "manifest.csv")
        data.corrections = str(folder / NAME) if (folder / NAME).is_file() else ""
    try:
        dataset = prepare(data, config.seed, cache_dir(), say, config.loss.kind == MULTILABEL, kept)
    except ConfigError as error:
        if not known or error.key != "config.data.split.manifest":
            raise
        raise UserError(
            f"--workdir={folder}: holds a run whose images are not those of {data.dir}: {error.problem}; give "
            "another --workdir, or set --config.data.dir to the folder where the run's images are now"
        ) from None
    if known and (folder / SHARDS).is_file() and (folder / SHARDS).read_text() != dataset.digest:
        raise UserError(
            f"--workdir={folder}: holds a run whose images are not those of {data.source}, which "
            "were written anew; give another --workdir"
        )
    dataset.tell(say)
    return dataset


def _check_corrections(folder: Path, config: ConfigDict, anew: str) -> None:
    """Raises a UserError where a run is to be resumed with other corrections than it began with."""
    kept, path = folder / NAME, config.data.corrections
    if kept.is_file() and not path:
        problem = f"the run has corrections, {kept}, and none are given"
    elif path and not kept.is_file():
        problem = "the run has none"
    elif path and Path(path).read_bytes() != kept.read_bytes():
        problem = f"{path} has changed since the run began"
    else:
        return
    raise UserError(f"{CORRECTIONS}: {problem}; give those it began with, or train again: {anew}")


def _check_teacher(folder: Path, config: ConfigDict, anew: str) -> None:
    """Raises a UserError where a run is to be resumed with another teacher than it began with."""
    kept = folder / TEACHER  # a run of an earlier version has none
    if config.distill.teacher and kept.is_file() and kept.read_text() != _digest_of_teacher(config):
        raise UserError(
            f"config.distill.teacher: {config.distill.teacher} has changed since the run began; give the one "
            f"it began with, or train again: {anew}"
        )


def _digest_of_teacher(config: ConfigDict) -> str:
    """Returns the SHA-256 of the weights of a run's teacher."""
    from wastejax.bundle import digests
    from wastejax.training.step.teacher import open_teacher

    return digests(open_teacher(config.distill).path)[0]


def _take(folder: Path, config: ConfigDict, dataset: Dataset) -> None:
    """Writes what identifies a run; config.json has its name last, since it is what makes the folder a run."""
    from wastejax.data.split import save_manifest

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / BEGUN, configs.to_json(config))
    save_manifest(folder / "manifest.csv", dataset.source, dataset.groups, dataset.splits, dataset.phash)
    save_kept(folder, dataset.kept)
    rules = load_taxonomy(config.data.taxonomy).only(dataset.source.classes)
    write_json(folder / RULES, rules.to_dict())
    if dataset.digest:
        write_text(folder / SHARDS, dataset.digest)
    if config.distill.teacher:
        write_text(folder / TEACHER, _digest_of_teacher(config))
    if dataset.corrections is not None:
        write_bytes(folder / NAME, dataset.corrections.content)
    (folder / BEGUN).replace(folder / "config.json")


@contextmanager
def _taken(folder: Path, config: ConfigDict, dataset: Dataset) -> Iterator[None]:
    """Takes a folder for a run; where that cannot be set up, the folder is free for what is asked for next."""
    _take(folder, config, dataset)
    try:
        yield
    except Exception:
        (folder / "config.json").replace(folder / BEGUN)
        for name in (*IDENTITY, BEGUN):
            (folder / name).unlink(missing_ok=True)
        raise


def facts(recipe: str, overrides: Sequence[str], workdir: str | Path | None) -> dict[str, Any]:
    """Returns what a report says about how a run was made."""
    from importlib.metadata import version

    import jax

    device = jax.devices()[0]
    return {
        "command": command_line(recipe, overrides, workdir),
        "hardware": machine.hardware("" if device.platform == "cpu" else device.device_kind),
        "versions": {
            "python": sys.version.split()[0],
            **{p: version(p) for p in ("wastejax", "jax", "flax", "optax")},
        },
    }
