"""The server's answers: what a request must be, what it may cost, and what is said to it.

Nothing that a client sends is written to a file unless `--collect` asks for it, and no name that a client gives is
ever opened.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wastejax.data import images
from wastejax.deployment.answers import Answer, interpret
from wastejax.deployment.heatmaps import heat_map
from wastejax.deployment.labels import describe
from wastejax.deployment.predictor import Predictor
from wastejax.deployment.server.api import openapi
from wastejax.deployment.server.batching import Batches
from wastejax.deployment.server.collecting import Collector
from wastejax.deployment.server.metrics import CONTENT_TYPE, Metrics
from wastejax.deployment.server.requests import HOW, ReadOn, mistaken
from wastejax.deployment.website import page_files

DECODERS = 2  # threads
LONGEST_NAME = 200  # characters of a file name that are repeated in the answer


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes:
        body: bytes of a request.
        pixels: of an image; its header tells, before it is decoded.
        files: images in a request.
        waiting: images taken and not answered; further requests are refused with 503.
        seconds: to receive a request and to answer it.
        batch: images that the network computes at once.
    """

    body: int = 16 * 2**20
    pixels: int = 50_000_000
    files: int = 16
    waiting: int = 32
    seconds: float = 30.0
    batch: int = 8


class Upload(NamedTuple):
    """An image as it came: the name that the client gave ('' for none) and the encoded bytes."""

    name: str
    data: bytes


class Service:
    """A model that answers requests."""

    def __init__(
        self,
        predictor: Predictor,
        reject_below: float,
        limits: Limits,
        collector: Collector | None = None,
    ) -> None:
        self.predictor, self.reject_below, self.limits = predictor, reject_below, limits
        self.metrics = Metrics()
        self.collector = collector
        if collector is not None:
            self.metrics.collected(collector.counts)
        self.batches = Batches(predictor.probabilities, limits.batch, self.metrics.batch)
        self.decoders = ThreadPoolExecutor(DECODERS, "decode")
        self.about = describe(predictor, reject_below) | {
            "heatmap": predictor.dense is not None,
            "collects": collector is not None,
        }

    def warm_up(self) -> None:
        """Computes one batch of every size, so that programs are compiled before anyone waits for them."""
        size = self.predictor.preprocessing.image_size
        for count in self.batches.sizes:
            self.predictor.probabilities(np.zeros((count, size, size, 3), np.uint8))
        if self.predictor.dense is not None:
            heat_map(self.predictor, Image.new("RGB", (size, size)))

    async def predict(self, request: Request) -> Response:
        """Answers POST /predict."""
        start = time.perf_counter()
        received = False
        try:
            top = self._top(request)
            heatmap = self._heatmap(request)
            with self._places() as take:
                take(1)
                async with asyncio.timeout(self.limits.seconds):
                    uploads = await self._uploads(request)
                    received = True
                    take(len(uploads) - 1)
                    found = await asyncio.gather(*(self._answer(upload, top, heatmap) for upload in uploads))
        except TimeoutError:
            if received:
                raise HTTPException(
                    503, f"no answer within {self.limits.seconds:g} s; try again later"
                ) from None
            raise HTTPException(408, f"the request did not arrive within {self.limits.seconds:g} s") from None
        answers = [answer for answer, _ in found]
        if all(status for _, status in found):
            raise HTTPException(found[0][1], "; ".join(dict.fromkeys(answer["error"] for answer in answers)))
        self.metrics.duration(time.perf_counter() - start)
        return JSONResponse({"answers": answers})

    def _top(self, request: Request) -> int:
        text = request.query_params.get("top", "3")
        if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text)):
            raise HTTPException(400, "top: must be a whole number from 1 on")
        return int(text)

    def _heatmap(self, request: Request) -> bool:
        text = request.query_params.get("heatmap", "0")
        if text not in ("0", "1"):
            raise HTTPException(400, "heatmap: must be 0 or 1")
        wanted = text == "1"
        if wanted and self.predictor.dense is None:
            raise HTTPException(400, "heatmap: this model is an exported file without a class map")
        return wanted

    @contextlib.contextmanager
    def _places(self) -> Any:
        """Gives a function that takes places in the queue, and frees them all at the end."""
        held = 0

        def take(count: int) -> None:
            nonlocal held
            if self.metrics.waiting + count > self.limits.waiting:
                raise HTTPException(
                    503, f"busy: {self.metrics.waiting} images are waiting; try again in a second"
                )
            held += count
            self.metrics.waiting += count

        try:
            yield take
        finally:
            self.metrics.waiting -= held

    async def _uploads(self, request: Request) -> list[Upload]:
        """Returns the images of a request: the files of a multipart form, or its body."""
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.limits.body:
            raise self._too_long()
        if not request.headers.get("content-type", "").lower().startswith("multipart/"):
            return [Upload("", b"".join([chunk async for chunk in self._body(request)]))]
        parser = MultiPartParser(
            request.headers, self._body(request), max_files=self.limits.files, max_fields=self.limits.files
        )
        parser.spool_max_size = self.limits.body + 1  # never on disk
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise HTTPException(400, f"the form cannot be read: {error.message}") from None
        except (ValueError, KeyError, AssertionError, UnicodeError, IndexError) as error:
            raise HTTPException(400, f"the form cannot be read: {type(error).__name__}") from None
        async with contextlib.AsyncExitStack() as opened:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            for file in files:
                opened.push_async_callback(file.close)
            if not files:
                raise HTTPException(400, f"no image among the form's fields; {HOW}")
            return [Upload(_name(file.filename), await file.read()) for file in files]

    async def _body(self, request: Request) -> AsyncGenerator[bytes, None]:
        total = 0
        async for chunk in request.stream():
            total += len(chunk)
            if total > self.limits.body:
                raise self._too_long()
            yield chunk

    def _too_long(self) -> HTTPException:
        return HTTPException(
            413,
            f"the request is too long: at most {self.limits.body / 2**20:g} MiB (--max-body of the server)",
        )

    async def _answer(self, upload: Upload, top: int, heatmap: bool) -> tuple[dict[str, Any], int]:
        """Returns what an image shows and 0, or why it cannot be read and the status that says so."""
        loop = asyncio.get_running_loop()
        try:
            square = await loop.run_in_executor(self.decoders, self._square, upload.data)
        except HTTPException as refused:
            self.metrics.image("unreadable")
            return Answer(upload.name, error=refused.detail).to_dict(), refused.status_code
        row = await self.batches.row(square)
        answer = interpret(self.predictor, upload.name, row, top, self.reject_below)
        self.metrics.image("rejected" if answer.rejected else "answered")
        if self.collector is not None:
            self.collector.offer(upload.data, answer)
        entry = answer.to_dict()
        if heatmap:
            label = answer.guesses[0].label
            entry["heatmap"] = await loop.run_in_executor(self.decoders, self._drawn, upload.data, label)
        return entry, 0

    def _drawn(self, data: bytes, label: str) -> str:
        """Returns a heat map as a data URL."""
        image = images.decode(data, max_pixels=self.limits.pixels)
        return images.data_url(heat_map(self.predictor, image, label), quality=85)

    def _square(self, data: bytes) -> np.ndarray:
        try:
            return self.predictor.preprocessing.of_file(data, self.limits.pixels)
        except images.BadImage as error:
            option = " (--max-pixels of the server)" if error.kind == "size" else ""
            status = {"format": 415, "size": 413, "damage": 400}[error.kind]
            instead = mistaken(data) if status != 413 else ""
            raise HTTPException(415 if instead else status, instead or f"{error}{option}") from None
        except MemoryError:
            raise HTTPException(413, "too large") from None

    async def health(self, request: Request) -> Response:
        """Answers GET /healthz."""
        return JSONResponse({"status": "ok", "waiting": self.metrics.waiting})

    async def counts(self, request: Request) -> Response:
        """Answers GET /metrics."""
        return Response(self.metrics.text(), headers={"content-type": CONTENT_TYPE})


class Counted:
    """Counts requests by path and status, and says to browsers what the answers are not to be taken for."""

    HEADERS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-cache"))

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app, self.metrics, self.paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        path = scope["path"] if scope["path"] in self.paths else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.metrics.request(path, message["status"])
                message["headers"] = [*message["headers"], *self.HEADERS]
            await send(message)

        return await self.app(scope, receive, counted)


def create_app(
    predictor: Predictor,
    reject_below: float,
    limits: Limits,
    ready: Callable[[], None] = lambda: None,
    origins: Sequence[str] = (),
    collector: Collector | None = None,
) -> ASGIApp:
    """Returns the server as an ASGI application.

    Args:
        predictor: the model; its programs are compiled when the application starts.
        reject_below: probability under which answers are marked as rejected.
        limits: what it takes on.
        ready: is called when it answers.
        origins: of other sites whose pages may ask from a browser, see `requests.check_origin`.
        collector: what keeps images for a person to look at; None keeps none.
    """
    service = Service(predictor, reject_below, limits, collector)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(service.warm_up)
        worker = asyncio.create_task(service.batches.work())
        ready()
        yield
        worker.cancel()  # by now everything that was taken is answered
        if collector is not None:
            await asyncio.to_thread(collector.close)

    about = JSONResponse(service.about)
    always_the_same = {
        "/labels": about,
        "/labels.json": about,
        "/openapi.json": JSONResponse(openapi(limits.body, limits.pixels, limits.files)),
        **{path: Response(data, media_type=kind) for path, data, kind in page_files()},
    }
    routes = [
        Route("/predict", service.predict, methods=["POST"]),
        Route("/healthz", service.health),
        Route("/metrics", service.counts),
        *(Route(path, answer, methods=["GET"]) for path, answer in always_the_same.items()),
    ]
    handlers: dict[Any, Any] = {
        HTTPException: lambda request, error: _error(error.status_code, error.detail, error.headers),
        ClientDisconnect: lambda request, error: _error(400, "the connection was closed"),
        Exception: lambda request, error: _error(500, "the server failed; its log says more"),
    }
    app: ASGIApp = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    if origins:
        app = CORSMiddleware(app, origins, allow_methods=("GET", "POST"), allow_headers=("*",))
    return ReadOn(Counted(app, service.metrics, frozenset(route.path for route in routes)))


def _name(given: str | None) -> str:
    """Returns what is repeated of a name that a client gave, which may hold what no answer can."""
    return (given or "")[:LONGEST_NAME].encode(errors="replace").decode()


def _error(status: int, reason: str, headers: Any = None) -> Response:
    retry = {"retry-after": "1"} if status == 503 else {}
    return JSONResponse({"error": reason}, status, {**(headers or {}), **retry})
