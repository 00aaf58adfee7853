"""What a client sent in place of an image's bytes, and how to send those; and which other sites may ask.

And what is left unread of a request that is refused.
"""

import asyncio
import base64
import binascii
import ipaddress
import re
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wastejax.errors import UserError

HOW = (
    "send the image file itself: as the body (curl --data-binary @photo.jpg URL/predict), or as a file of a form "
    "(curl -F file=@photo.jpg URL/predict)"
)
MOMENT = 5.0  # seconds for which a refused request is read on
_LOOKED_AT = 4096  # bytes from the start
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}\Z")
_PORTS = {"http": 80, "https": 443}  # browsers leave these out
_DEVIATING = set("ßς\u200c\u200d")  # Python's IDNA (2003) makes others of them than browsers do
_MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*")


class ReadOn:
    """Reads on what is left of a request before it is answered, for `MOMENT` seconds at most, and keeps none of it.

    A connection that is closed while bytes arrive is reset, and a client that reads only once it has sent all, as
    urllib does, then sees that instead of why it was refused.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        left = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
        waits = b"expect" in headers  # for "100 Continue", which reading would send

        async def watched() -> Message:
            nonlocal left, waits
            message = await receive()
            left, waits = bool(message.get("more_body")), False
            return message

        async def answered(message: Message) -> None:
            # Who took too long (408) is not waited for once more.
            if message["type"] == "http.response.start" and not waits and message["status"] != 408:
                with suppress(TimeoutError):
                    async with asyncio.timeout(MOMENT):
                        while left:
                            await watched()
            await send(message)

        return await self.app(scope, watched, answered)


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
    try:
        parts = urlsplit(origin)
        host, port = _as_browsers_have_it(parts.hostname or ""), parts.port
    except ValueError:  # UnicodeError among them
        host = ""
    if not host or parts.scheme not in _PORTS or parts.path.strip("/") or parts.query or parts.fragment:
        raise UserError(
            f"--allow-origin={origin}: give what the browser's address begins with, as https://example.org, or *"
        )
    if set(host) & _DEVIATING:
        raise UserError(f"--allow-origin={origin}: give the host as browsers send it, xn--…")
    return f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, _PORTS[parts.scheme]) else "")


def _as_browsers_have_it(host: str) -> str:
    """Returns a host as the header Origin has it: IPv6 in brackets and short, names in ASCII (Punycode)."""
    if ":" in host:
        return f"[{ipaddress.IPv6Address(host).compressed}]"
    return host if host.isascii() or set(host) & _DEVIATING else host.encode("idna").decode()
