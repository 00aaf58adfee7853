"""What `wastejax predict --regions` says: the objects of each image, as a table, JSON or CSV, or drawn."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from wastejax.data.images import MAX_PIXELS, BadImage
from wastejax.deployment.answers import csv_line, json_lines, printable
from wastejax.deployment.camera import frames
from wastejax.deployment.heatmaps import LARGEST, save_drawn
from wastejax.deployment.images import read
from wastejax.deployment.predictor import Predictor
from wastejax.deployment.regions import Region, Settings, find_regions
from wastejax.deployment.regions.tracking import track

# Okabe & Ito (2008): apart from each other for color-blind readers too.
COLORS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7")


class RegionAnswer(NamedTuple):
    """What a model finds in an image.

    Attributes:
        file: its name.
        regions: the objects, the surest first; empty where there are none.
        error: why the image cannot be read; '' where it can.
    """

    file: str
    regions: tuple[Region, ...] = ()
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns what `--format=json` says."""
        if self.error:
            return {"file": self.file, "error": self.error}
        objects = [
            {"class": label, "bin": bin_name, "probability": round(probability, 6), "box": list(box)}
            for label, bin_name, probability, box in self.regions
        ]
        return {"file": self.file, "objects": objects}


def region_answers(
    predictor: Predictor,
    names: Sequence[str],
    least: float | None = None,
    folder: str | Path | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[RegionAnswer]:
    """Yields one answer per image, in order.

    Args:
        predictor: one with class maps of images of any sides.
        names: of `images.find`.
        least: probability under which an object is not reported; None for that of `Settings`.
        folder: where the images are written with their boxes, if anywhere.
        max_pixels: see `images.decode`.

    Raises:
        UserError: the model is an exported file that has no such maps, or the folder cannot be written.
    """
    settings = Settings() if least is None else Settings(least=least)
    for name in names:
        try:
            image = read(name, max_pixels)
        except BadImage as error:
            yield RegionAnswer(name, error=str(error))
            continue
        except OSError as error:
            yield RegionAnswer(name, error=(error.strerror or str(error)).lower())
            continue
        regions = find_regions(predictor, image, settings)
        if folder:
            save_drawn(draw(image, regions), folder, name, "regions")
        yield RegionAnswer(name, tuple(regions))


def object_answers(
    predictor: Predictor, video: str, every: float, least: float | None = None
) -> Iterator[RegionAnswer]:
    """Yields each object of a video once, when it is gone; its name says when it was there (clip.mp4#t=1.2,3.4).

    What frames are missing comes at the end, as errors.

    Args:
        predictor: one with class maps of images of any sides.
        video: a file or camera, see `camera.frames`.
        every: seconds between the frames that are looked at.
        least: see `region_answers`.

    Raises:
        UserError: as of `region_answers` and `camera.frames`.
    """
    settings = Settings() if least is None else Settings(least=least)
    missing: list[RegionAnswer] = []

    def found() -> Iterator[tuple[float, list[Region]]]:
        for seconds, image in frames(video, every):
            if isinstance(image, BadImage):
                missing.append(RegionAnswer(f"{video}#t={seconds:.3f}", error=str(image)))
            else:
                yield seconds, find_regions(predictor, image, settings)

    for one in track(found()):
        region = Region(one.label, predictor.bin_of(one.label), one.probability, one.best.box)
        yield RegionAnswer(f"{video}#t={one.first:.3f},{one.last:.3f}", (region,))
    yield from missing


def draw(image: Image.Image, regions: Sequence[Region]) -> Image.Image:
    """Returns the image, at most `LARGEST` pixels a side, with a labeled box around each object."""
    factor = min(1.0, LARGEST / max(image.size))
    sides = [max(1, round(factor * side)) for side in image.size]
    drawn = image.resize((sides[0], sides[1]), Image.Resampling.LANCZOS)
    pen, unit = ImageDraw.Draw(drawn), max(1, round(max(sides) / 300))
    font = ImageFont.load_default(max(11, 5 * unit))
    for i, region in reversed(list(enumerate(regions))):  # the surest on top
        color = COLORS[i % len(COLORS)]
        left, top, right, bottom = (round(factor * x) for x in region.box)
        pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=color, width=unit)
        text = f"{region.label.replace('_', ' ')} {region.probability:.0%}"
        _, _, x1, y1 = pen.textbbox((left + 2 * unit, top + unit), text, font=font)
        pen.rectangle((left, top, x1 + 2 * unit, y1 + unit), fill=color)
        pen.text((left + 2 * unit, top + unit), text, fill="black", font=font)
    return drawn


def table(rows: Iterable[RegionAnswer], names: Sequence[str]) -> Iterator[str]:
    """Yields lines for people: a line per object, the file's name on its first."""
    width = max(len("file"), *(len(printable(name)) for name in names))
    yield f"{'file':{width}}  {'class':26} {'bin':16} {'p':>6}  left top right bottom"
    for name, regions, error in rows:
        file = printable(name)
        if error or not regions:
            yield f"{file:{width}}  - {error or 'nothing found'}"
        for i, (label, bin_name, probability, box) in enumerate(regions):
            where = " ".join(map(str, box))
            yield f"{'' if i else file:{width}}  {label:26} {bin_name:16} {probability:6.1%}  {where}"


def csv_lines(rows: Iterable[RegionAnswer], names: Sequence[str]) -> Iterator[str]:
    """Yields CSV: a header, and one line per object; one with empty cells for an image without any."""
    yield csv_line("file", "object", "class", "bin", "probability", "left", "top", "right", "bottom", "error")
    for file, regions, error in rows:
        if error or not regions:
            yield csv_line(file, *[""] * 8, error)
        for number, (label, bin_name, probability, box) in enumerate(regions, 1):
            yield csv_line(file, number, label, bin_name, f"{probability:.6f}", *box, "")


WRITERS: dict[str, Callable[[Iterable[RegionAnswer], Sequence[str]], Iterator[str]]] = {
    "table": table,
    "json": json_lines,
    "csv": csv_lines,
}
