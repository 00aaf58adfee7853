"""Which files are images, by ending and by content; what is not read is known by name, so that it can be told."""

import importlib.util
from functools import cache

# Decoded in process, by Pillow's names. Its full list would hand a PostScript file named .jpg to Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI")
NAMES = "JPEG, PNG, WebP, AVIF, GIF, BMP, TIFF, JPEG 2000, PPM, QOI; HEIC with pillow-heif"  # for people
HEIF = "HEIF"  # by pillow-heif, which brings HEVC's patents along: an extra

# Pillow's name -> the endings that such files have.
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "MPO": (".mpo", ".jpg", ".jpeg"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "QOI": (".qoi",),
    HEIF: (".heic", ".heif", ".hif"),
}
_RAW = (
    ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw",
)  # fmt: skip
_VIDEO = (".3gp", ".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".mts", ".webm", ".wmv")
_OTHER = (
    ".ai", ".eps", ".exr", ".hdr", ".icns", ".ico", ".jxl", ".jxr", ".pdf", ".psd", ".svg", ".svgz", ".tga", ".xcf",
)  # fmt: skip

# Endings of files that show something and are not read, whatever is installed; a folder's are counted and named.
KNOWN_UNREADABLE = frozenset((*_RAW, *_VIDEO, *_OTHER))

# How files begin that Pillow's plugins take for theirs: what begins so and is not read is damaged, not foreign.
MAGIC = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"qoif": "QOI",
}
_FOREIGN = {b"\xff\x0a": "JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL"}


@cache
def reads_heif() -> bool:
    """Returns whether pillow-heif is installed."""
    return importlib.util.find_spec("pillow_heif") is not None


@cache
def extensions() -> frozenset[str]:
    """Returns the endings of files that are read, in lower case; those of HEIF where pillow-heif is installed."""
    return frozenset(e for kind, ends in ENDINGS.items() if kind != HEIF or reads_heif() for e in ends)


def why_unreadable(ending: str) -> str:
    """Returns what to do about files of an ending (lower case) that is not in `extensions`, '' where nothing is."""
    if ending in ENDINGS[HEIF]:
        return "to read them: pip install pillow-heif"
    if ending in _RAW:
        return "raw files of a camera: develop them to JPEG"
    if ending in _VIDEO:
        return "videos: `wastejax predict FILE` reads one"
    return "convert them to JPEG or PNG" if ending in KNOWN_UNREADABLE else ""


def heif_brand(data: bytes) -> str:
    """Returns 'AVIF' or 'HEIF' where a file is one of these by its first box (ISO/IEC 23008-12), else ''."""
    if data[4:8] != b"ftyp":
        return ""
    brands = {data[8:12], *(data[i : i + 4] for i in range(16, min(int.from_bytes(data[:4]), 256), 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    return HEIF if brands & {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"} else ""


def foreign(data: bytes) -> str:
    """Returns the name of a format that is known and not read, else ''."""
    return next((name for magic, name in _FOREIGN.items() if data.startswith(magic)), "")
