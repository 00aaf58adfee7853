"""Distillation: a trained model whose answers a smaller or a newer one learns beside the labels."""

from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from wastejax.bundle import Bundle, load_bundle
from wastejax.bundled import model_path
from wastejax.data.transforms import Preprocessing
from wastejax.errors import ConfigError, UserError
from wastejax.files import user_path
from wastejax.models import Model, create_model
from wastejax.models.folding import apply_folded, fold_batch_norm


class Teacher(NamedTuple):
    """A trained model as the train step needs it.

    Attributes:
        model: its network.
        variables: with batch normalization folded.
        preprocessing: how it wants images; their size is the student's, so that both see the same pixels.
    """

    model: Model
    variables: dict[str, Any]
    preprocessing: Preprocessing

    def logits(self, variables: dict[str, Any], images: jax.Array) -> jax.Array:
        """Returns logits, float32 [B, C], of images [B, S, S, 3] of 0 to 255 at any size that it takes."""
        return jax.numpy.asarray(
            apply_folded(self.model, variables, self.preprocessing.normalize(images)), jax.numpy.float32
        )


def open_teacher(distill: ConfigDict) -> Bundle:
    """Returns the bundle that a recipe names as its teacher.

    Raises:
        ConfigError: there is none.
    """
    try:
        return load_bundle(user_path(model_path(distill.teacher)))
    except UserError as error:
        raise ConfigError("config.distill.teacher", str(error)) from None


def load_teacher(distill: ConfigDict, classes: tuple[str, ...]) -> Teacher | None:
    """Returns the teacher of a recipe, None where it names none.

    Args:
        distill: the config's section.
        classes: the student's, in the order of its logits.

    Raises:
        ConfigError: there is no such model, or it tells other classes apart.
    """
    if not distill.teacher:
        return None
    bundle = open_teacher(distill)
    if bundle.classes != classes:
        other = sorted(set(bundle.classes) ^ set(classes))
        named = ", ".join(other[:5]) or "the same in another order"
        raise ConfigError(
            "config.distill.teacher",
            f"{distill.teacher} was trained for other classes than these images have: {named}",
        )
    model = create_model(bundle.config["model"], len(classes))
    variables = fold_batch_norm(model, bundle.variables, bundle.preprocessing.image_size)
    return Teacher(model, variables, bundle.preprocessing)
