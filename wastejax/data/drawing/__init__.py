"""Thirty kinds of household waste as sketches: class name -> function that draws one with a pen."""

from collections.abc import Callable

from wastejax.data.drawing.containers import CONTAINERS
from wastejax.data.drawing.loose import LOOSE
from wastejax.data.drawing.pen import Pen

SKETCHES: dict[str, Callable[[Pen], None]] = CONTAINERS | LOOSE
