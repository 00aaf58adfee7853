"""Small, fast image classifiers that sort waste.

Example:
    >>> import wastejax
    >>> model = wastejax.load()
    >>> model("photo.jpg").label
    'aluminum_soda_cans'

The names below are imported when they are first used, so that `import wastejax` is fast and needs no jax.
"""

from importlib import import_module

# Type checkers take it to be true; the module `typing` takes longer to import than all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from wastejax.api import audit, create_model, evaluate, export, load, load_recipe, train
    from wastejax.deployment.classifier import Classifier, Prediction
    from wastejax.errors import UserError

__version__ = "0.1.0"
__all__ = [
    "Classifier",
    "Prediction",
    "UserError",
    "__version__",
    "audit",
    "create_model",
    "evaluate",
    "export",
    "load",
    "load_recipe",
    "train",
]
_HOMES = {
    "Classifier": "wastejax.deployment.classifier",
    "Prediction": "wastejax.deployment.classifier",
    "UserError": "wastejax.errors",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'wastejax' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "wastejax.api")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
