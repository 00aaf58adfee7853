"""A trained model for use from Python: an image in, an answer out."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from os import PathLike
from typing import Any, overload

import numpy as np
from PIL import Image

from wastejax.data import images
from wastejax.data.images.opened import file_of
from wastejax.deployment.answers import interpret
from wastejax.deployment.predictor import Predictor
from wastejax.errors import UserError
from wastejax.files import user_path

ImageLike = str | PathLike[str] | Image.Image | np.ndarray | bytes
BATCH = 32  # images that are computed at once


@dataclass(frozen=True)
class Prediction:
    """A model's answer for an image.

    Attributes:
        label: the likeliest class.
        bin: the sorting bin of that class, by the model's taxonomy; '' where it has no rule.
        probability: of that class, calibrated.
        rejected: not even the bin reaches the threshold: better ask a person. For a multi-label model: it names
            no class.
        probabilities: of all classes, the likeliest first.
        labels: the classes that a multi-label model names, likeliest first; for other models, only `label`.
        bins: their bins, each once.
        bin_probability: of the bin: the sum over its classes; 0 for a multi-label model.
        class_sure: the class itself reaches the threshold, not only its bin.
    """

    label: str
    bin: str
    probability: float
    rejected: bool
    probabilities: Mapping[str, float] = field(repr=False)
    labels: tuple[str, ...] = field(default=(), repr=False)
    bins: tuple[str, ...] = field(default=(), repr=False)
    bin_probability: float = 0.0
    class_sure: bool = False


class Classifier:
    """A trained model in any form it comes in, see `wastejax.load`.

    Attributes:
        predictor: what computes the probabilities.

    Example:
        >>> model = wastejax.load()
        >>> model(np.zeros((480, 640, 3), np.uint8), reject_below=0.99).rejected
        True
        >>> len(model.classes), model.bins["shoes"]
        (30, 'textiles')
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def __repr__(self) -> str:
        path, side = self.predictor.path, self.predictor.preprocessing.image_size
        name = path.parent if path.name == "bundle" else path.name
        return f"<Classifier {name}: {len(self.classes)} classes, {side} px, {self.predictor.runtime}>"

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.predictor.classes

    @property
    def bins(self) -> dict[str, str]:
        """The sorting bin of each class; '' where the taxonomy has no rule for it."""
        return {label: self.predictor.bin_of(label) for label in self.classes}

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a path is a sequence too
        self, image: ImageLike, *, accuracy: float | None = None, reject_below: float | None = None
    ) -> Prediction: ...

    @overload
    def __call__(
        self, image: Iterable[ImageLike], *, accuracy: float | None = None, reject_below: float | None = None
    ) -> list[Prediction]: ...

    def __call__(
        self,
        image: ImageLike | Iterable[ImageLike],
        *,
        accuracy: float | None = None,
        reject_below: float | None = None,
    ) -> Prediction | list[Prediction]:
        """Answers an image, or several at once, which is faster.

        Args:
            image: the path of a file or its bytes, a PIL image of any mode, a uint8 array [H, W, 3] in RGB
                ([H, W, 4] with transparency, [H, W] in gray), or any number of these: a list, a generator,
                an array of paths, …, of which a few are in memory at a time. What PIL opened and nobody changed
                is answered as its file is.
            accuracy: reject unsure answers, so that the others are right this often: 0.9, 0.95 or 0.99 (0.95).
            reject_below: reject answers less likely than this instead.

        Returns:
            One answer, or a list of them in the same order.

        Raises:
            UserError: an image is not there or cannot be decoded, or the model was never calibrated for `accuracy`.
        """
        if accuracy is not None and reject_below is not None:
            raise UserError("accuracy and reject_below: give one of them")
        predictor, least = self.predictor.naming(accuracy, reject_below)
        several = _several(image)
        given: Iterator[Any] = iter(image if several else [image])  # type: ignore[arg-type]
        found: list[Prediction] = []
        with ThreadPoolExecutor() as pool:
            while squares := list(pool.map(self._square, islice(given, BATCH))):
                # In batches of few sizes, as each size is compiled once.
                size = BATCH if found else 1 << (len(squares) - 1).bit_length()
                rows = self.predictor.batched(squares, size)
                found += [_prediction(predictor, row, least) for row in rows]
        return found if several else found[0]

    def _square(self, image: Any) -> np.ndarray:
        """Returns what the network sees of an image, uint8 [S, S, 3]."""
        if isinstance(image, str | PathLike):
            path = user_path(image)
            try:
                return self.predictor.preprocessing.of_file(images.read_file(path))
            except images.BadImage as error:
                raise UserError(f"{path}: {error}") from None
            except OSError as error:
                raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from None
        if isinstance(image, bytes | bytearray | memoryview):
            try:
                return self.predictor.preprocessing.of_file(bytes(image))
            except images.BadImage as error:
                raise UserError(f"the bytes of an image: {error}") from None
        data = file_of(image) if isinstance(image, Image.Image) else None
        if data is not None:
            with suppress(images.BadImage):  # PIL may read more than is read here, or says why it cannot
                return self.predictor.preprocessing.of_file(data)
        return self.predictor.preprocessing(_open(image))


def _several(image: Any) -> bool:
    """Returns whether what is given is any number of images, and none itself."""
    one = str | bytes | bytearray | memoryview | PathLike | Image.Image | Mapping
    if isinstance(image, one) or hasattr(image, "read") or not isinstance(image, Iterable):
        return False
    if hasattr(
        image, "__array__"
    ):  # of NumPy, JAX, pandas, …: numbers are an image, texts and objects are several
        array = np.asarray(image)
        return array.ndim == 1 and array.dtype.kind in "OUT"
    return True


def _prediction(predictor: Predictor, row: np.ndarray, least: float) -> Prediction:
    answer = interpret(predictor, "", row, len(row), least)
    named = answer.guesses[:1] if answer.named is None else answer.named
    best = answer.guesses[0]
    return Prediction(
        best.label,
        best.bin,
        best.probability,
        answer.rejected,
        {guess.label: guess.probability for guess in answer.guesses},
        tuple(guess.label for guess in named),
        tuple(dict.fromkeys(guess.bin for guess in named if guess.bin)),
        answer.bin_probability,
        answer.class_sure,
    )


def _open(image: Any) -> Image.Image:
    """Returns an image or an array as RGB, upright."""
    if isinstance(image, Image.Image):
        try:
            return images.upright(image)
        except Exception as error:  # PIL reads what it has opened only now, and raises nearly anything
            raise UserError(f"{image!r}: cannot be read: {error}") from error
    array = np.asarray(image)
    colors = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not colors or not array.size:
        raise UserError(
            "an array must be uint8 [H, W, 3] (RGB), [H, W, 4] (RGBA) or [H, W] (gray), "
            f"is {array.dtype} {list(array.shape)}"
        )
    return images.to_rgb(Image.fromarray(array))
