"""Whose a work directory is: a new run's, or one that a config resumes, as it is or with more epochs."""

from pathlib import Path

from ml_collections import ConfigDict

from wastejax import config as configs
from wastejax.data.corrections import NAME as CORRECTIONS
from wastejax.data.prepare.kept import NAME as DATA
from wastejax.errors import UserError
from wastejax.files import write_text

EPOCHS = "train.epochs"
SHARDS = "shards.txt"  # in a run: the digest of the shards that it began with
TEACHER = "teacher.txt"  # in a run: the digest of the weights of the teacher that it began with
RULES = "taxonomy.json"  # in a run: the rules for its classes as it began, whatever becomes of their file
BEGUN = "config.json.partial"  # is there while a run takes its folder, and stays if it is killed then
# What a run takes its folder with, before config.json.
IDENTITY = ("manifest.csv", DATA, RULES, SHARDS, TEACHER, CORRECTIONS)
_REPLACED = ("report.md", "report.json", "metrics.csv", "bundle", "checkpoints", "figures")


def claim(workdir: Path, config: ConfigDict, anew: str = "") -> bool:
    """Returns whether `workdir` already holds this run; takes nothing and changes nothing.

    Args:
        workdir: the folder.
        config: the run's.
        anew: the command that begins it in another folder, for the message.

    Raises:
        UserError: it holds what is no run's, or a run with another config; the keys that differ are named. Images
            that were moved are no hindrance to resuming: its manifest tells whether they are the same.
    """
    stored = _stored(workdir)
    if stored is None:
        return False
    changed = configs.hindrances(stored, config)
    longer = is_longer(workdir, config)
    if (workdir / "manifest.csv").is_file() and (longer or not (workdir / "report.json").is_file()):
        changed = [line for line in changed if not line.startswith("config.data.dir ")]
    if not changed or (longer and len(changed) == 1):
        return True
    ways = ["the same values resume it", f"another folder begins anew: {anew or '--workdir=NEW'}"]
    if config.train.epochs > stored.train.epochs:
        ways.append(
            f"{EPOCHS} alone may grow where data.progressive is empty and optim.schedule 'constant' or 'plateau'; "
            f"with another folder, --config.init.weights={workdir} starts from this run's weights"
        )
    raise UserError(
        f"--workdir={workdir}: holds a run with another config: {', '.join(changed)}; {'; '.join(ways)}"
    )


def begun(workdir: Path, config: ConfigDict) -> ConfigDict | None:
    """Returns the config of the run in `workdir` where that began from the same `init.weights`, None elsewhere.

    It has no need of them any more. What cannot be read there is for `claim` to refuse.
    """
    try:
        stored = configs.from_json((workdir / "config.json").read_text(encoding="utf-8"))
        same = stored.init.weights == config.init.weights and isinstance(stored.data, ConfigDict)
    except (OSError, ValueError, AttributeError, TypeError):
        return None
    return stored if same else None


def is_longer(workdir: Path, config: ConfigDict) -> bool:
    """Returns whether a config asks for more epochs than the run there, which began as it would have itself.

    A cosine, sizes that grow along the epochs, and a warm-up that was cut short depend on the number of epochs.
    """
    stored = _stored(workdir)
    return (
        stored is not None
        and config.train.epochs > stored.train.epochs
        and config.optim.schedule in ("constant", "plateau")
        and not config.data.progressive
        and config.optim.warmup_epochs <= stored.train.epochs - 1
    )


def renew(workdir: Path, config: ConfigDict) -> None:
    """Replaces the stored config of a run that resumes, with more epochs or with its images in another place.

    A kill in between leaves the run that it was, or one that is not finished.
    """
    (workdir / "report.json").unlink(missing_ok=True)
    write_text(workdir / "config.json", configs.to_json(config))


def unused(workdir: Path) -> Path:
    """Returns the first of workdir-2, workdir-3, … that is not there yet."""
    number = 2
    while (path := workdir.with_name(f"{workdir.name}-{number}")).exists():
        number += 1
    return path


def _stored(workdir: Path) -> ConfigDict | None:
    path = workdir / "config.json"
    if not path.is_file():
        _refuse_others_files(workdir)
        return None
    try:
        stored = configs.from_json(path.read_text(encoding="utf-8"))
        int(stored.train.epochs)
    except (ValueError, AttributeError, TypeError):
        raise UserError(
            f"--workdir={workdir}: its config.json is another program's, or damaged; name another folder"
        ) from None
    return stored


def _refuse_others_files(workdir: Path) -> None:
    """Raises where there is no run, and yet what a run would replace, unless one left it that was killed there."""
    names = _REPLACED if (workdir / BEGUN).is_file() else (*_REPLACED, *IDENTITY)
    there = next((name for name in names if (workdir / name).exists()), None)
    if there:
        raise UserError(
            f"--workdir={workdir}: holds no run, and a {there} that a run would replace; name another folder"
        )
