"""The embedded data set: thirty kinds of waste, drawn, in the folder layout of the Kaggle set.

    ROOT/<class>/{default,real_world}/Image_<n>.png

256x256 RGB. `default` images stand on plain ground; `real_world` ones lie on wood, grass, gravel, tiles or in a
room, among litter and in worse light. What is drawn depends on (seed, class, domain, index) alone.
"""

import os
import random
import tempfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from wastejax.data import drawing
from wastejax.data.cache import cache_dir
from wastejax.data.drawing.pen import BLACK, KRAFT, WHITE, Pen, tone
from wastejax.errors import UserError
from wastejax.files import check_folder
from wastejax.progress import Count

CLASSES: tuple[str, ...] = tuple(sorted(drawing.SKETCHES))
DOMAINS = ("default", "real_world")
SIZE = 256
_OVERSAMPLING = 2  # drawn larger, then averaged: ImageDraw itself does not smooth edges
_MARK = ".drawn"  # a file in the root of a finished set that says what it was drawn with


def _plain(p: Pen) -> None:
    p.rect(-2, -2, 4, 4, p.pick([WHITE, WHITE, WHITE, p.hue(saturation=0.25, value=0.95), p.hue(), BLACK]))
    for y in np.arange(-1, 2, 0.25):  # light falls off by steps too faint to see
        p.rect(-2, y, 4, 4, (0, 0, 0, 6))


def _planks(p: Pen) -> None:
    wood, n = p.pick([*KRAFT, (96, 70, 50), (150, 145, 138)]), p.pick([4, 6, 8])
    for y in np.arange(-1.6, 1.6, 3 / n):
        p.rect(-1.7, y, 3.4, 3 / n, tone(wood, p.u(0.85, 1.1)))
        for _ in range(5):
            x, g = p.u(-1.6, 1), y + p.u(0.1, 0.9) * 3 / n
            p.line([(x, g), (x + 0.4, g + 0.02), (x + p.u(0.6, 1.2), g)], tone(wood, 0.8), 0.012)
        p.line([(-1.7, y), (1.7, y)], tone(wood, 0.5), 0.02)


def _grass(p: Pen) -> None:
    green = p.hue(0.2, 0.36, 0.6, 0.5)
    p.rect(-2, -2, 4, 4, green)
    for _ in range(350):
        x, y = p.u(-1.5, 1.5), p.u(-1.5, 1.5)
        p.line([(x, y), (x + p.u(-0.08, 0.08), y - p.u(0.08, 0.2))], tone(green, p.u(0.6, 1.4)), 0.02)


def _gravel(p: Pen) -> None:
    gray = p.pick([(128, 126, 122), (150, 138, 120), (92, 92, 96), (120, 96, 72)])
    p.rect(-2, -2, 4, 4, gray)
    p.grains(400, 1.7, 1.7, [tone(gray, gain) for gain in (0.65, 0.8, 0.9, 1.1, 1.25)], p.u(0.03, 0.08))


def _tiles(p: Pen) -> None:
    stone, s = p.pick([WHITE, (200, 190, 170), (150, 110, 90), p.hue(saturation=0.3)]), p.u(0.5, 1.1)
    p.rect(-2, -2, 4, 4, tone(stone, 0.6))
    for x in np.arange(-1.6, 1.6, s):
        for y in np.arange(-1.6, 1.6, s):
            p.rect(x, y, 0.97 * s, 0.97 * s, tone(stone, p.u(0.88, 1.05)))


def _room(p: Pen) -> None:
    p.rect(-2, -2, 4, 4, p.hue(saturation=0.3, value=0.75))
    for _ in range(8):  # things on a shelf
        p.rect(p.u(-1.4, 1.2), p.u(-1.2, -0.6), p.u(0.1, 0.5), 1.2, p.hue(saturation=0.5, value=0.7))
    p.rect(-2, p.u(-0.4, 0.1), 4, 4, p.pick([*KRAFT, WHITE, (90, 66, 50)]))


GROUNDS: dict[str, list[Callable[[Pen], None]]] = {
    "default": [_plain],
    "real_world": [_planks, _grass, _gravel, _tiles, _room],
}


def _litter(p: Pen, n: int) -> None:
    """Leaves, twigs, pebbles and scraps, which belong to no class."""
    for _ in range(n):
        s = p.at(p.u(-1.1, 1.1), p.u(-1.1, 1.1), p.u(0.06, 0.22), p.u(0, 6.3))
        color = p.pick([p.hue(0.05, 0.3, 0.6, 0.55), p.hue(saturation=0.5), (140, 138, 134), WHITE])
        kind = p.pick(["leaf", "twig", "pebble", "scrap"])
        if kind == "leaf":
            s.shape([(-1, 0), (-0.3, -0.5), (1, 0), (-0.3, 0.5)], color, rounds=2)
            s.line([(-1, 0), (0.9, 0)], tone(color, 0.6), 0.08)
        elif kind == "twig":
            s.line([(-1.5, 0), (0, 0.2), (1.5, -0.1)], (86, 62, 42), 0.16)
        elif kind == "pebble":
            s.blob(0, 0, 0.6, 0.45, color, 0.1)
        else:
            s.shape([(-0.8, -0.5), (0.7, -0.7), (0.9, 0.6), (-0.5, 0.8)], color)


def _object(p: Pen, class_name: str) -> None:
    """Draws an object together with the shadow that it casts."""
    canvas, below = p.canvas, p.canvas.copy()
    drawing.SKETCHES[class_name](p)
    # Whatever the sketch has changed is the object; its shadow falls on what was there before.
    body = ImageChops.difference(below, canvas).convert("L").point([0] + [255] * 255)
    dx, dy = (-16 if p.light > 0 else 16), 14
    shadow = body.crop((-dx, -dy, body.width - dx, body.height - dy)).reduce(4).filter(ImageFilter.BoxBlur(3))
    shadow = shadow.resize(body.size, Image.Resampling.BILINEAR).point([int(0.45 * v) for v in range(256)])
    below.paste((10, 10, 20), mask=shadow)
    canvas.paste(Image.composite(canvas, below, body))


# Where one to three objects are, back to front: x, y, scale; the image is -1..1.
SPOTS = [
    [(0.0, 0.0, 1.0)],
    [(0.0, 0.0, 1.0)],
    [(-0.42, -0.1, 0.7), (0.42, 0.1, 0.7)],
    [(-0.5, -0.1, 0.6), (0.5, -0.15, 0.6), (0.0, 0.25, 0.6)],
]


def _photograph(canvas: Image.Image, rng: random.Random, spread: float, blur: float) -> Image.Image:
    """Takes the image: exposure and tint vary by the fraction `spread`, the focus by `blur` pixels."""
    exposure = 1 + rng.uniform(-spread, 0.4 * spread)
    gains = [exposure * (1 + 0.3 * rng.uniform(-spread, spread)) for _ in range(3)]
    image = canvas.reduce(_OVERSAMPLING).point(
        [min(int(v * gain), 255) for gain in gains for v in range(256)]
    )
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, blur))) if blur else image


def draw(class_name: str, index: int, domain: str, seed: int = 17) -> Image.Image:
    """Draws one image.

    Args:
        class_name: one of `CLASSES`.
        index: number of the image within its class and domain.
        domain: `default` (plain ground) or `real_world` (cluttered ground).
        seed: of the whole set.

    Returns:
        RGB image, 256x256; equal arguments give equal images.

    Raises:
        KeyError: no such class or domain.
    """
    rng = random.Random(f"{seed}/{class_name}/{domain}/{index}")  # a string seeds alike on every platform
    wild, side = domain == "real_world", SIZE * _OVERSAMPLING
    canvas = Image.new("RGB", (side, side))
    view = np.array([[side / 2, 0, side / 2], [0, side / 2, side / 2]])
    scene = Pen(
        canvas, rng, view, tilt=rng.uniform(0.08, 0.4), light=rng.choice([-1, 1]) * rng.uniform(0.2, 0.7)
    )
    rng.choice(GROUNDS[domain])(scene.at(0, 0, 1.1, rng.gauss(0, 0.3)))
    if wild:
        _litter(scene, rng.randint(4, 12))
    size = rng.uniform(0.55, 0.85)
    for x, y, share in rng.choice(SPOTS):
        turn, mirror = rng.gauss(0, 0.6 if wild else 0.22), rng.choice([-1, 1]) * rng.uniform(0.88, 1.12)
        spot = scene.at(x + rng.uniform(-0.2, 0.2), y + rng.uniform(-0.15, 0.15), share * size, turn)
        _object(spot.on((0, 0), (mirror, 0), (0, 1)), class_name)
    if wild:
        _litter(scene, rng.randint(0, 3))
    return _photograph(canvas, rng, spread=0.25 if wild else 0.08, blur=1.2 if wild else 0)


def write(root: Path, per_class: int = 40, seed: int = 17, progress: Count | None = None) -> Path:
    """Draws the set into `root`, unless it is there already.

    The set is drawn beside `root` and moved there when complete: a killed run leaves no half of it.

    Args:
        root: folder to make; one that holds a drawn set of another size, seed or version is replaced.
        per_class: images of each class, half of them in each domain.
        seed: another seed gives another set.
        progress: called with (images drawn, images in all) as they are drawn.

    Returns:
        `root`.

    Raises:
        UserError: `root` is there and is no drawn set.
    """
    root, version = Path(root), _version(per_class, seed)
    if _is_complete(root, version, per_class):
        return root
    if root.exists() and not (root / _MARK).is_file() and not (root.is_dir() and not any(root.iterdir())):
        raise UserError(f"{root} holds something other than a drawn set; name a new or an empty folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as scratch:
        fresh = Path(scratch) / "new"
        _draw_all(fresh, per_class, seed, progress)
        (fresh / _MARK).write_text(version)
        if not _is_complete(root, version, per_class):  # else another run has been faster
            if root.exists():
                root.rename(Path(scratch) / "old")
            fresh.rename(root)
    return root


def _version(per_class: int, seed: int) -> str:
    """Names what is drawn and by which code, so that a set drawn by an older one is drawn anew."""
    code = sorted(Path(__file__).parent.glob("*.py"))
    return f"{per_class} {seed} {zlib.crc32(b''.join(path.read_bytes() for path in code)):08x}"


def _is_complete(root: Path, version: str, per_class: int) -> bool:
    mark = root / _MARK
    if not mark.is_file() or mark.read_text() != version:
        return False
    return sum(1 for _ in root.glob("*/*/Image_*.png")) == per_class * len(CLASSES)


def _draw_all(root: Path, per_class: int, seed: int, progress: Count | None) -> None:
    counts = {"default": per_class - per_class // 2, "real_world": per_class // 2}
    jobs = [(name, domain, n) for name in CLASSES for domain in DOMAINS for n in range(1, counts[domain] + 1)]

    def save(job: tuple[str, str, int]) -> None:
        name, domain, n = job
        path = root / name / domain / f"Image_{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(name, n, domain, seed).save(path, compress_level=3)

    # Threads, not processes: half of the work leaves the interpreter, and JAX must not be forked.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(save, jobs), 1):
            if progress is not None:
                progress(done, len(jobs))


def embedded() -> Path:
    """Returns the set that stands in where no images are given, drawn into the cache folder the first time."""
    check_folder(cache_dir(), "WASTEJAX_CACHE")
    return write(cache_dir() / "synthetic")
