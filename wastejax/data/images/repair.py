"""Files that are nearly whole: what is missing at the end, and what is too much in the middle."""

import re
from collections.abc import Iterator

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
_END_OF_JPEG = b"\xff\xd9"
# A marker: not a stuffed zero, no restart within a scan, no fill byte (ITU-T T.81, B.1.1).
_MARKER = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_ALONE = (0x01, 0xD8)  # markers that no length follows
_TEXT = (b"tEXt", b"zTXt", b"iTXt")


def jpeg_has_end(data: bytes) -> bool:
    """Returns whether an end marker follows the JPEG's last scan; what comes after it does not count."""
    if data.endswith(_END_OF_JPEG):
        return True
    at = 2
    while marker := _MARKER.search(data, at):
        kind, at = marker[1][0], marker.end()
        if kind == _END_OF_JPEG[1]:
            return True
        if kind not in _ALONE:
            at += max(2, int.from_bytes(data[at : at + 2]))
    return False


def jpeg_endings(data: bytes) -> tuple[bytes, bytes]:
    """Returns a JPEG without end marker with two ends: their pixels are equal where no pixel was missing.

    Missing bits of the last scan are read from what is appended, zeros or a pattern, before the marker stops it.
    """
    data = data.removesuffix(b"\xff")  # half of the marker
    return data + bytes(64) + _END_OF_JPEG, data + bytes((0x5A, 0xC3, 0x96, 0x3C) * 16) + _END_OF_JPEG


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields the kind of each chunk of a PNG, and where the chunk starts and ends, which may be after the file."""
    at = len(PNG)
    while at + 8 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : at + 8], at, end
        at = end


def without_texts(data: bytes) -> bytes:
    """Returns a PNG without texts: Pillow refuses a file over long ones, and none of them is shown."""
    chunks = list(png_chunks(data))
    if not any(kind in _TEXT for kind, _, _ in chunks):
        return data
    return PNG + b"".join(data[start:end] for kind, start, end in chunks if kind not in _TEXT)


def png_exif(data: bytes) -> bytes:
    """Returns the content of a PNG's eXIf chunk, wherever it lies; b'' for none."""
    return next((data[start + 8 : end - 4] for kind, start, end in png_chunks(data) if kind == b"eXIf"), b"")
