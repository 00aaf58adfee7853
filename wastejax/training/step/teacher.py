"""Distillation: a trained model whose answers a smaller or a newer one learns beside the labels."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from wastejax.bundle import Bundle, load_bundle
from wastejax.bundled import model_path
from wastejax.data.transforms import Preprocessing
from wastejax.errors import ConfigError, UserError
from wastejax.files import user_path
from wastejax.models import Model, check, create_model
from wastejax.models.folding import apply_folded, fold_batch_norm

KEY = "config.distill.teacher"


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


def open_teacher(distill: ConfigDict, sizes: Iterable[int] = ()) -> Bundle:
    """Returns the bundle that a recipe names as its teacher.

    Args:
        distill: the config's section.
        sizes: sides of the images to train with, which it must be able to take.

    Raises:
        UserError: there is none, it names several classes per image, or it cannot take such images.
    """
    try:
        bundle = load_bundle(user_path(model_path(distill.teacher)))
    except UserError as error:
        raise ConfigError(KEY, str(error)) from None
    bundle.needs_one_label(KEY)
    for size in sizes:
        try:
            check(bundle.config.get("model", {}), size)
        except ConfigError as error:
            problem = f"{distill.teacher} cannot take images of {size} px, as this recipe trains with"
            raise ConfigError(KEY, f"{problem}: {error.problem}") from None
    return bundle


def load_teacher(distill: ConfigDict, classes: tuple[str, ...]) -> Teacher | None:
    """Returns the teacher of a recipe, None where it names none.

    Args:
        distill: the config's section.
        classes: the student's, in the order of its logits.

    Raises:
        UserError: there is no such model, it names several classes per image, or it tells other classes apart.
    """
    if not distill.teacher:
        return None
    bundle = open_teacher(distill)
    if bundle.classes != classes:
        other = sorted(set(bundle.classes) ^ set(classes))
        named = ", ".join(other[:5]) or "the same in another order"
        raise ConfigError(
            KEY, f"{distill.teacher} was trained for other classes than these images have: {named}"
        )
    model = create_model(bundle.config["model"], len(classes))
    variables = fold_batch_norm(model, bundle.variables, bundle.preprocessing.image_size)
    return Teacher(model, variables, bundle.preprocessing)
