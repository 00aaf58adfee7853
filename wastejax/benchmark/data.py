"""How fast images come: files to augmented batches, against torchvision; and what training loses by waiting."""

import itertools
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wastejax.benchmark.about import facts
from wastejax.benchmark.networks import Case, config_of, training
from wastejax.benchmark.peer_worker import seconds_of
from wastejax.benchmark.peers import Peer, PeerError
from wastejax.benchmark.report import Rounds
from wastejax.benchmark.timing import Runner, Settings, interleave, ratio
from wastejax.data import images, pipeline
from wastejax.data.sources import Source, open_data, open_folder
from wastejax.data.transforms import AUGMENTATIONS, Preprocessing
from wastejax.deployment.answers import printable
from wastejax.errors import UserError
from wastejax.models import check
from wastejax.models.cost import image_size
from wastejax.progress import Say
from wastejax.training.devices import on_devices, use_devices

SIDE = 256  # of the images, pixels
COUNT = 480  # images of each format
BATCH = 32
MIN_AREA = 0.35  # of a random crop, the recipes' default
STEPS, STRETCH = 16, 6.0  # least steps and seconds of one measured stretch of training
WORKERS = 1  # processes that read, the recipes' default
ENDLESS = 1 << 40  # batches
READY = 8  # batches that may lie ready, at most
REFILL = 1.0  # seconds
NAMED = 5  # images that cannot be read
FORMATS: dict[str, dict[str, Any]] = {"png": {}, "jpeg": {"quality": 90}}


def benchmark_data(data: str, cases: Sequence[Case], settings: Settings, say: Say) -> dict[str, Any]:
    """Measures the pipeline on images, and what training loses by waiting for them.

    Args:
        data: labeled images, see `open_data`; or 'drawn'.
        cases: what is trained, see `trained`.
        settings: how.
        say: prints a line.

    Raises:
        UserError: there are no images, or none that can be read.
    """
    if data == "drawn":
        from wastejax.data.drawing.dataset import embedded

        source = open_folder(embedded())
    else:
        source = open_data(data, "--data")
    about = facts(settings.threads)
    for note in about["notes"]:
        say(f"note: {note}")
    with tempfile.TemporaryDirectory() as folder, own_cache(Path(folder) / "cache"):
        say(f"writing {COUNT} images of {SIDE} px as {' and '.join(FORMATS)}")
        bad: dict[str, str] = {}
        for name, options in FORMATS.items():
            bad |= write_images(source, Path(folder) / name, name, options)
        for name, why in list(bad.items())[:NAMED]:
            say(f"note: passed over {printable(name)}: {why}")
        if len(bad) > NAMED:
            say(f"note: passed over {len(bad) - NAMED:,} more that cannot be read")
        result: dict[str, Any] = {"about": about, "pipeline": [], "missing": []}
        for name in FORMATS:
            rows, missing = measure_pipeline(Path(folder) / name, settings, say)
            result["pipeline"] += rows
            result["missing"] += missing
        result["feeding"] = [measure_feeding(case, Path(folder) / "jpeg", settings, say) for case in cases]
    return result


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """Keeps decoded images in `folder` for as long as it is open, away from the user's."""
    before = os.environ.get("WASTEJAX_CACHE")
    os.environ["WASTEJAX_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["WASTEJAX_CACHE"]
        if before is not None:
            os.environ["WASTEJAX_CACHE"] = before


def write_images(
    source: Source, folder: Path, kind: str, options: dict[str, Any], count: int = COUNT
) -> dict[str, str]:
    """Writes `count` images of a source, square, into two class folders, taking some twice where it has fewer.

    Returns:
        Why images that were passed over cannot be read, by name.

    Raises:
        UserError: none can be.
    """
    bad: dict[str, str] = {}
    squares = _squares(source, bad)
    for n in range(count):
        image = next(squares, None)
        if image is None:
            name, why = next(iter(bad.items()))
            raise UserError(
                f"--data: none of {len(bad):,} images can be read, such as {printable(name)}: {why}"
            )
        path = folder / f"class_{n % 2}" / f"{n:04}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, **options)
    return bad


def _squares(source: Source, bad: dict[str, str]) -> Iterator[images.Image.Image]:
    """Yields images of a source again and again, square; those that cannot be read go to `bad`."""
    square = Preprocessing(image_size=SIDE, crop=1.0)
    step = 7 if len(source) % 7 else 1  # neighbors are of one class, or look alike
    for n in itertools.count():
        index = n * step % len(source)
        name = source.names[index]
        if name in bad:
            if len(bad) == len(source):
                return
            continue
        try:
            yield images.Image.fromarray(square(images.decode(source.read(index))))
        except (OSError, images.BadImage) as error:
            bad[name] = (error.strerror if isinstance(error, OSError) else None) or str(error)


def batches(read: pipeline.Reader, count: int, size: int, batch: int, workers: int = 0) -> Any:
    """Returns so many batches as training gets them, from a pipeline that starts anew."""
    augment = AUGMENTATIONS["basic"](Preprocessing(image_size=size), MIN_AREA)
    indices = np.arange(len(read.source))
    drawn = pipeline.TrainingImages(read, indices, augment, batch, seed=0)
    return pipeline.train_batches(drawn, 0, count, workers)


def measure_pipeline(folder: Path, settings: Settings, say: Say) -> tuple[list[dict[str, Any]], list[Any]]:
    """Times passes over a folder of images: decoding, augmentation to `SIDE` px and batching.

    Returns:
        A row per way with images/s, and its time over that of ours from files; what could not be run, and why.
    """
    source = open_folder(folder)
    indices = np.arange(len(source))
    count = len(source) // BATCH

    def passes(cache: bool, workers: int) -> Runner:
        read = pipeline.reader(source, indices, cache)

        def one() -> None:
            assert sum(1 for _ in batches(read, count, SIDE, BATCH, workers)) == count

        return lambda calls: seconds_of(one, calls)

    runners: dict[str, Runner] = {
        "files": passes(False, 0),
        f"files, {settings.threads} processes": passes(False, settings.threads),
        "decoded cache": passes(True, 0),
    }
    missing = []

    def lost(what: str, why: str) -> None:
        missing.append({"format": folder.name, "what": what, "why": why})
        say(f"  not measured: {what}: {why}")

    with ExitStack() as stack:
        try:
            case = Case("", SIDE, BATCH, mode="data", runtime="torchvision")
            peer = stack.enter_context(Peer(case, settings.threads, settings.peer_python, folder=str(folder)))
            for form in peer.forms:
                runners[f"torchvision, {form}"] = partial(peer.run, form)
        except PeerError as error:
            lost("torchvision", str(error))
        times = interleave(runners, settings.rounds, settings.seconds, lost=lost)
    rows = []
    for name, rounds in times.items():
        rate = count * BATCH / float(np.median(np.concatenate(rounds)))
        against = ratio(rounds, times["files"])
        rows.append({"format": folder.name, "what": name, "images_per_second": rate, **against._asdict()})
        say(
            f"{folder.name:5} {name:28} {rate:8.0f} images/s   {against.value:.3f} of the time from files "
            f"({against.low:.3f} to {against.high:.3f})"
        )
    return rows, missing


def trained(models: Sequence[str], sizes: Sequence[int], batches: Sequence[int]) -> list[Case]:
    """Returns what is to be trained: each model at each size, where that is 0 at its own, with each batch size.

    Raises:
        ConfigError: a model is unknown, or cannot be had at that size.
    """
    cases = []
    for model, side, batch in itertools.product(models, sizes, batches):
        config = config_of(model)
        cases.append(Case(model, side or image_size(config), batch, mode="train"))
        check(config, cases[-1].size)
    return cases


def measure_feeding(
    case: Case,
    folder: Path,
    settings: Settings,
    say: Say,
    stretch: tuple[int, float] = (STEPS, STRETCH),
    workers: int = WORKERS,
) -> dict[str, Any]:
    """Times training steps on images from the decoded cache, and on one batch that lies on the device.

    Both keep one step in flight, as the trainer does. Images come from one pipeline, whose process starts once,
    as in training. As many steps as batches may lie ready go before each stretch, of either kind, and are not
    counted; nothing is read while the fixed batch is timed, as the pipeline has filled its buffers by then.

    Args:
        case: what is trained.
        folder: class folders.
        settings: how.
        say: prints a line.
        stretch: least steps and seconds of one measured stretch.
        workers: processes that read.

    Returns:
        `rate`: images per second with data, as a share of those without; with `low` and `high`, 95 % bootstrap.
        `images_per_second`: without.
    """
    step, (state, fixed), _ = training(case)
    source = open_folder(folder)
    side = pipeline.cached_side(case.size, Preprocessing(case.size).crop, MIN_AREA)
    read = pipeline.reader(source, np.arange(len(source)), cache=True, side=side)
    devices = use_devices(jax.devices()[:1])
    feed = batches(read, ENDLESS, case.size, case.batch, workers)

    def run(fed: bool, steps: int) -> None:
        nonlocal state
        last = None
        for _ in range(steps):
            given = on_devices(devices, next(feed)) if fed else fixed
            state, metrics = step(state, given)
            if last is not None:
                float(last["loss"])
            last = metrics
        float(last["loss"]) if last else None

    def stretches(fed: bool, calls: int) -> list[float]:
        times = []
        for _ in range(calls):
            run(fed, READY)
            times += seconds_of(lambda: run(fed, steps), 1)
        time.sleep(REFILL if fed else 0)
        return times

    run(False, 2)  # compiles
    least, seconds = stretch
    (took,) = seconds_of(lambda: run(False, least), 1)
    steps = max(least, math.ceil(seconds / took * least))
    runners = {"data": partial(stretches, True), "fixed": partial(stretches, False)}
    with closing(feed):
        times = interleave(runners, settings.rounds, settings.seconds)
    return _fed_row(case, times, steps, say) | {"workers": workers}


def _fed_row(case: Case, times: Mapping[str, Rounds], steps: int, say: Say) -> dict[str, Any]:
    """Returns what `measure_feeding` returns, and says it."""
    inverse = ratio(times["fixed"], times["data"])
    say(
        f"training {case.model} at {case.size} px, batch {case.batch}: with data {inverse.value:.1%} of the rate "
        f"on one fixed batch ({inverse.low:.1%} to {inverse.high:.1%})"
    )
    return {
        "model": case.model,
        "size": case.size,
        "batch": case.batch,
        "steps": steps,
        "images_per_second": steps * case.batch / float(np.median(np.concatenate(times["fixed"]))),
        "rate": inverse.value,
        "low": inverse.low,
        "high": inverse.high,
    }
