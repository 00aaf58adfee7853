"""The page's icon, drawn: a bin on green, for home screens of any shape."""

import io
from functools import cache

from PIL import Image, ImageDraw

SIZES = (192, 512)
GREEN, WHITE = "#0b6b3a", "#ffffff"
_FINE = 4  # drawn so many times larger, then reduced, for smooth edges


@cache
def icon(size: int) -> bytes:
    """Returns a PNG of size x size; what matters lies in the middle 60 %, which every launcher's mask shows."""
    side = size * _FINE
    image = Image.new("RGB", (side, side), GREEN)
    draw = ImageDraw.Draw(image)

    def at(*points: float) -> list[int]:
        return [round(point / 24 * side) for point in points]

    (line,) = at(0.9)
    draw.rounded_rectangle(at(6.2, 7.2, 17.8, 9.2), radius=line, fill=WHITE)  # the lid
    draw.rounded_rectangle(at(10, 5.4, 14, 7.8), radius=line, outline=WHITE, width=line)  # its handle
    draw.polygon(at(7.2, 10.2, 16.8, 10.2, 15.9, 19, 8.1, 19), fill=WHITE)
    # A check mark: the bin that is right.
    draw.line(at(9.7, 14.4, 11.5, 16.3, 14.5, 12.6), fill=GREEN, width=at(1.3)[0], joint="curve")
    file = io.BytesIO()
    image.resize((size, size), Image.Resampling.LANCZOS).quantize(64).save(file, "PNG", optimize=True)
    return file.getvalue()
