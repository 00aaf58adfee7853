"""Where the bundled model is, and what names it."""

import shutil
from pathlib import Path

NAME = "bundled"  # what --model and config.init.weights may say for its folder, which differs by installation
LICENSE = "LICENSE-MODEL"  # beside weights that have one of their own, which bundle.json then names
FOLDER = Path(__file__).parent / "default_model"


def model_path(model: str | Path | None) -> Path:
    """Returns the path of a run, a bundle or a file; of the bundled model for None, and for its name.

    Only the text names it: a path of that name, also './bundled', is a folder of one's own.
    """
    if model is None or (model == NAME and not Path(NAME).is_dir()):
        return FOLDER
    return Path(model)


def copy_license(model: Path, folder: Path) -> None:
    """Copies the license that lies in the folder of a model, if any, to that of what is made of it."""
    if (model / LICENSE).is_file():
        shutil.copyfile(model / LICENSE, folder / LICENSE)


def name_of(model: str | Path | None) -> str:
    """Returns what results call a model: 'bundled', or the name of a run, a bundle's folder or a file."""
    path = model_path(model).resolve()
    if path == FOLDER.resolve():
        return NAME
    return path.parent.name if path.name == "bundle" else path.name
