"""An image that PIL has opened -> the file it came from, as long as it still shows what is in that."""

import io
from pathlib import Path
from threading import Lock

from PIL import Image, ImageFile

# A list may hold an image twice, and images may share an open file: of each only one thread reads.
_LOCKS = tuple(Lock() for _ in range(64))


def file_of(image: Image.Image) -> bytes | None:
    """Returns the content of the file that an image was opened from.

    PIL drops what a file has beyond 8 bits and reads it whole, so that an answer is only the file's own where the
    file itself is decoded.

    Args:
        image: any image.

    Returns:
        None where there is no such file any more, or where the image was changed or shows a later frame.
    """
    if not isinstance(image, ImageFile.ImageFile) or image.format is None:
        return None
    with _LOCKS[id(image.fp or image) // 16 % len(_LOCKS)]:
        try:
            data = None if image.tell() else _content(image)
            if not data or not _shows(image, data):
                return None
            if image.filename:
                image.load()  # has PIL close the file, which it opened; one of the user's it would forget
            return data
        except Exception:  # PIL's plugins raise nearly anything; whoever reads the pixels says what is wrong
            return None


def _content(image: ImageFile.ImageFile) -> bytes | None:
    file = image.fp
    if file is not None and not file.closed:
        at = file.tell()
        file.seek(0)  # where PIL began
        data = file.read()
        file.seek(at)
        return data
    return Path(image.filename).read_bytes() if image.filename else None  # type: ignore[arg-type]


def _shows(image: ImageFile.ImageFile, data: bytes) -> bool:
    """Returns whether the image is what the file holds, of which it may not have read the pixels yet."""
    with Image.open(io.BytesIO(data), formats=(image.format or "",)) as again:
        if not image.tile:
            again.load()
        same = (image.size, image.mode, image.info) == (again.size, again.mode, again.info)
        return same and (image.tile == again.tile if image.tile else image.tobytes() == again.tobytes())
