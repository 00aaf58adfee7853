"""What a client sent in place of an image's bytes, and how to send those; and which other sites may ask."""

import base64
import binascii
import re
from urllib.parse import urlsplit

from wastejax.errors import UserError

HOW = (
    "send the image file itself: as the body (curl --data-binary @photo.jpg URL/predict), or as a file of a form "
    "(curl -F file=@photo.jpg URL/predict)"
)
_LOOKED_AT = 4096  # bytes from the start
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}\Z")
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")


def mistaken(data: bytes) -> str:
    """Returns what bytes that are no image look like, and what to send instead; '' where nobody knows."""
    start = data[:_LOOKED_AT].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start:
        return ""
    if start[:5].lower() == b"data:":
        return f"a data URL is not taken; {HOW}"
    if start[:1] in (b"{", b"["):
        return f"JSON is not taken; {HOW}"
    if re.match(rb"[A-Za-z0-9_.-]{1,40}=(?!=)", start) and b"\0" not in start:
        return f"form fields as text are not taken; {HOW}"
    if re.match(rb"https?://", start):
        return f"an address is not fetched; {HOW}"
    line = re.sub(rb"\s", b"", start).strip(b'"')
    if _BASE64.match(line):
        head = line[:64].translate(bytes.maketrans(b"-_", b"+/"))
        try:
            decoded = base64.b64decode(head[: len(head) // 4 * 4])
        except binascii.Error:
            return ""
        if decoded.startswith(_MAGIC):
            return f"base64 is not taken; {HOW}"
    return ""


def check_origin(origin: str) -> str:
    """Returns an origin that may ask, as browsers name it: 'https://example.org', or '*' for all.

    Raises:
        UserError: it is none.
    """
    if origin == "*":
        return origin
    parts = urlsplit(origin)
    host = parts.hostname or ""
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        host, port = "", ""
    if parts.scheme not in ("http", "https") or not host or parts.path.strip("/") or parts.query:
        raise UserError(
            f"--allow-origin={origin}: give what the browser's address begins with, as https://example.org, or *"
        )
    return f"{parts.scheme}://{host}{port}"
