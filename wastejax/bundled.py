"""Where the bundled model is, and what names it."""

from pathlib import Path

NAME = "bundled"  # what --model and config.init.weights may say for its folder, which differs by installation
FOLDER = Path(__file__).parent / "default_model"


def model_path(model: str | Path | None) -> Path:
    """Returns the path of a run, a bundle or a file; of the bundled model for None, and for its name.

    Only the text names it: a path of that name, also './bundled', is a folder of one's own.
    """
    if model is None or (model == NAME and not Path(NAME).is_dir()):
        return FOLDER
    return Path(model)
