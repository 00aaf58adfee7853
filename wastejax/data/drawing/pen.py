"""A pen that draws round bodies, boxes, print, folds and crumbs: the vocabulary of the sketches."""

import colorsys
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, ...]  # RGB or RGBA, 0..255
Points = Any  # whatever numpy reads as float [N, 2]

WHITE, GRAY, BLACK = (246, 246, 243), (120, 120, 124), (30, 30, 33)
SILVER, GOLD, RED = (190, 194, 199), (206, 178, 112), (205, 40, 45)
KRAFT = [(193, 152, 104), (176, 132, 84), (206, 170, 125), (160, 120, 78)]  # cardboard, wood
SHADE, GLINT = (20, 20, 30, 70), (255, 255, 255, 110)

# How bright a round body is at angle `a` around its axis (0 faces the viewer) when the light comes from `b`.
FINISHES: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "matte": lambda a, b: 0.68 + 0.32 * np.cos(a - b),
    "gloss": lambda a, b: 0.58 + 0.4 * np.cos(a - b) + 0.6 * np.exp(-(((a - b) / 0.16) ** 2)),
    "metal": lambda a, b: 0.78 + 0.2 * np.cos(4.5 * (a - b)) + 0.3 * np.exp(-(((a - b) / 0.2) ** 2)),
    "glass": lambda a, b: 1.1 - 0.6 * np.sin(a) ** 6 + 0.7 * np.exp(-(((a - 1.4 * b) / 0.14) ** 2)),
}


def tone(color: Color, gain: float) -> Color:
    """Returns the color darkened (gain < 1) or moved towards white (gain > 1)."""
    mix = min(max(gain - 1, 0), 1)
    return tuple(int(c * min(gain, 1) * (1 - mix) + 255 * mix) for c in color[:3])


def rounded(points: Points, rounds: int, closed: bool = True) -> np.ndarray:
    """Returns the line or polygon [N, 2] with its corners cut off `rounds` times (Chaikin 1974)."""
    p = np.asarray(points, float)
    for _ in range(rounds):
        q = np.roll(p, -1, axis=0)
        cut = np.stack([0.75 * p + 0.25 * q, 0.25 * p + 0.75 * q], axis=1)
        p = cut.reshape(-1, 2) if closed else np.concatenate([p[:1], cut[:-1].reshape(-1, 2), p[-1:]])
    return p


@dataclass
class Pen:
    """Draws in an object's coordinates, x to the right and y down, onto a canvas in pixels.

    Attributes:
        canvas: RGB image, drawn upon in place.
        rng: where every random choice of a sketch comes from.
        matrix: float [2, 3], from the object's coordinates to pixels.
        tilt: how far one looks from above, 0 (level) to 1 (straight down): the flatness of level circles.
        light: angle of the light around the upright axis, in radians.
        u, pick: short for `rng.uniform` and `rng.choice`.
    """

    canvas: Image.Image
    rng: random.Random
    matrix: np.ndarray
    tilt: float = 0.2
    light: float = -0.5

    def __post_init__(self) -> None:
        self.ink = ImageDraw.Draw(self.canvas, "RGBA")
        self.u, self.pick = self.rng.uniform, self.rng.choice

    def chance(self, p: float) -> bool:
        """Returns True with probability p."""
        return self.rng.random() < p

    def hue(self, low: float = 0.0, high: float = 1.0, saturation: float = 0.75, value: float = 0.8) -> Color:
        """Returns a random color with its hue between `low` and `high` (0 red, 1/3 green, 2/3 blue)."""
        s, v = min(saturation * self.u(0.75, 1.15), 1), min(value * self.u(0.75, 1.2), 1)
        return tuple(int(255 * c) for c in colorsys.hsv_to_rgb(self.u(low, high), s, v))

    def on(self, origin: Points, u: Points, v: Points) -> "Pen":
        """Returns a pen whose x runs along `u` and y along `v`, e.g. for a slanted face."""
        part = np.array([[u[0], v[0], origin[0]], [u[1], v[1], origin[1]], [0, 0, 1]], float)
        return replace(self, matrix=self.matrix @ part)

    def at(self, x: float, y: float, scale: float = 1.0, turn: float = 0.0) -> "Pen":
        """Returns a pen for a part at (x, y), `scale` times as large and turned by `turn` radians."""
        c, s = scale * math.cos(turn), scale * math.sin(turn)
        return self.on((x, y), (c, s), (-s, c))

    def pixels(self, points: Points) -> list[float]:
        """Returns x0, y0, x1, y1, … on the canvas, as ImageDraw takes them."""
        return (np.asarray(points, float) @ self.matrix[:, :2].T + self.matrix[:, 2]).ravel().tolist()

    def shape(self, points: Points, color: Color, rounds: int = 0) -> None:
        """Fills a polygon; an RGBA color lets the ground shine through."""
        self.ink.polygon(self.pixels(rounded(points, rounds)), fill=color)

    def line(self, points: Points, color: Color, width: float, rounds: int = 0) -> None:
        """Draws an open line, `width` wide in the object's units."""
        thick = width * math.sqrt(abs(np.linalg.det(self.matrix[:, :2])))
        path = self.pixels(rounded(points, rounds, closed=False))
        self.ink.line(path, fill=color, width=max(1, round(thick)), joint="curve")

    def rect(self, x: float, y: float, w: float, h: float, color: Color, rounds: int = 0) -> None:
        """Fills the rectangle from its corner (x, y)."""
        self.shape([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], color, rounds)

    def blob(self, x: float, y: float, rx: float, ry: float, color: Color, wobble: float = 0.0) -> None:
        """Fills an ellipse around (x, y) whose radius varies by the fraction `wobble`."""
        a = np.linspace(0, 2 * np.pi, 12 if wobble else 32, endpoint=False)
        r = np.array([1 + self.u(-wobble, wobble) for _ in a]) if wobble else 1.0
        outline = np.stack([x + rx * r * np.cos(a), y + ry * r * np.sin(a)], axis=1)
        self.shape(outline, color, rounds=1 if wobble else 0)

    def disc(self, y: float, radius: float, color: Color) -> None:
        """Fills a level circle around the upright axis."""
        self.blob(0, y, radius, radius * self.tilt, color)

    def ring(self, y: float, radius: float, color: Color, width: float, turns: float = 0.5) -> None:
        """Draws the near half (or `turns` of it all) of a level circle around the upright axis."""
        a = np.linspace(-np.pi / 2, np.pi * (2 * turns - 0.5), 24)
        self.line(np.stack([radius * np.sin(a), y + radius * self.tilt * np.cos(a)], axis=1), color, width)

    def lathe(self, profile: Points, color: Color, finish: str = "matte", rounds: int = 0) -> None:
        """Draws a body of revolution; `profile` lists (y, radius) from top to bottom."""
        y, radius = rounded(profile, rounds, closed=False).T[:, :, None]
        a = np.linspace(-np.pi / 2, np.pi / 2, 15)
        side = np.stack([radius * np.sin(a), y + self.tilt * radius * np.cos(a)], axis=2)
        for k, gain in enumerate(FINISHES[finish]((a[1:] + a[:-1]) / 2, self.light)):
            self.shape(np.concatenate([side[:, k], side[::-1, k + 1]]), tone(color, gain))

    def drum(self, top: float, bottom: float, radius: float, color: Color, finish: str = "gloss") -> None:
        """Draws an upright cylinder with its upper end: a cap, a lid, a rim."""
        self.lathe([(top, radius), (bottom, radius)], color, finish)
        self.disc(top, radius, tone(color, 1.2))

    def prism(self, w: float, h: float, d: float, color: Color, foot: float = 1.0) -> "Pen":
        """Draws a box: front 2w by 2h around the origin, depth d, `foot` times as wide at the bottom.

        Returns:
            A pen for the upper face, -1..1 both ways.
        """
        dx, dy, b = 0.45 * d, -d * (0.25 + self.tilt), w * foot
        self.shape([(w, -h), (w + dx, dy - h), (b + dx, h + 0.6 * dy), (b, h)], tone(color, 0.68))
        self.shape([(-w, -h), (w, -h), (b, h), (-b, h)], tone(color, 0.9))
        top = self.on((dx / 2, dy / 2 - h), (w, 0), (-dx / 2, -dy / 2))
        top.rect(-1, -1, 2, 2, tone(color, 1.08))
        return top

    def sheet(self, w: float, h: float, color: Color) -> "Pen":
        """Draws a sheet of paper, 2w by 2h, seen aslant; returns a pen with the sheet at -1..1."""
        page = self.on((0, 0), (w, self.u(-0.25, 0.25) * w), (self.u(-0.25, 0.25) * h, h))
        page.rect(-1, -0.97, 2.03, 2, SHADE)
        page.rect(-1, -1, 2, 2, color)
        return page

    def text(self, x: float, y: float, w: float, h: float, rows: int, color: Color) -> None:
        """Draws rows of dashes that look like print, in a block from its corner (x, y)."""
        for row in range(rows):
            left, end, level = x, x + w * self.u(0.75, 1), y + h * (row + 0.5) / rows
            while left < end:
                right = min(left + w * self.u(0.12, 0.4), end)
                self.line([(left, level), (right, level)], color, 0.5 * h / rows)
                left = right + 0.04 * w

    def label(self, top: float, bottom: float, radius: float, finish: str = "matte") -> None:
        """Draws a printed band around an upright body, with an emblem, a wave or lines of print."""
        color, ink = self.pick([(WHITE, self.hue()), (self.hue(), self.pick([WHITE, BLACK, self.hue()]))])
        self.lathe([(top, radius), (bottom, radius)], color, finish)
        h, y, r = bottom - top, (top + bottom) / 2 + radius * self.tilt, radius * self.u(0.45, 0.75)
        kind = self.pick(["emblem", "wave", "print"])
        if kind == "emblem":
            self.blob(0, y, r, min(r, 0.4 * h), ink)
            self.text(-0.7 * r, y - 0.1 * h, 1.4 * r, 0.2 * h, 2, color)
        elif kind == "wave":
            a = np.linspace(-0.9, 0.9, 30)
            self.line(np.stack([radius * a, y + 0.2 * h * np.sin(self.u(2, 5) * a)], 1), ink, 0.25 * h)
        else:
            self.text(-r, y - 0.38 * h, 2 * r, 0.3 * h, 1, ink)
            self.text(-r, y + 0.02 * h, 2 * r, 0.35 * h, 3, ink)

    def grains(self, n: int, rx: float, ry: float, colors: Sequence[Color], size: float) -> None:
        """Scatters n crumbs over an ellipse around the origin, denser in the middle."""
        for _ in range(n):
            r, a, s = self.u(0, 1) ** 0.6, self.u(0, 2 * math.pi), size * self.u(0.4, 1.3)
            x, y = rx * r * math.cos(a), ry * r * math.sin(a)
            crumb = [(x - s, y), (x + self.u(-s, s), y - s), (x + s, y + self.u(-s, s)), (x, y + s)]
            self.shape(crumb, self.pick(colors))

    def folds(self, n: int, start: Points, end: Points, color: Color) -> None:
        """Draws n creases that fan out: from (y, half width) of `start` towards those of `end`."""
        for _ in range(n):
            t, reach, w = self.u(-1, 1), self.u(0.4, 1), self.u(0.02, 0.06)
            x, y = t * start[1], start[0] + 0.3 * self.u(0, 1 - reach)
            dx, dy = reach * (t * end[1] - x) + self.u(-w, w), reach * (end[0] - start[0])
            knee = [(x + dx / 2 - w, y + 0.6 * dy), (x + dx / 2 + w, y + 0.5 * dy)]
            self.shape([(x, y), knee[0], (x + dx, y + dy), knee[1]], color)

    @contextmanager
    def glaze(self, opacity: float) -> Iterator[None]:
        """Makes all that is drawn inside the block see-through as one layer."""
        below = self.canvas.copy()
        yield
        self.canvas.paste(Image.blend(below, self.canvas, opacity))
