"""Sketches of sheets, cloth, cutlery, crumbs and scraps; see `containers` for what a sketch is."""

import math
from collections.abc import Callable

import numpy as np

from wastejax.data.drawing.pen import BLACK, GLINT, GRAY, RED, SHADE, WHITE, Color, Pen, rounded, tone

# Paper and cloth


def _magazine(p: Pen) -> None:
    ink, x = p.pick([WHITE, p.hue(0.1, 0.17), RED]), p.u(-0.2, 0.2)
    s = p.sheet(0.68, 0.9, p.hue(value=0.9))
    s.rect(0.98, -0.98, 0.05, 2, WHITE)  # the edges of its pages
    s.rect(-1, p.u(-0.5, 0.3), 2, 0.7, p.hue(value=0.9))
    s.shape([(x - 0.75, 1), (x - 0.5, 0.4), (x + 0.5, 0.4), (x + 0.75, 1)], p.hue(), rounds=2)
    s.blob(x, -0.15, 0.42, 0.4, p.pick([BLACK, (90, 50, 25), (225, 190, 100)]), p.pick([0, 0.1]))
    s.blob(x, 0.02, 0.33, 0.4, p.pick([(236, 190, 160), (190, 130, 95), (110, 70, 50)]))
    s.text(-0.9, -0.96, 1.8, 0.42, 1, ink)
    for y in (-0.3, 0.15, 0.6):
        s.text(p.pick([-0.92, 0.4]), y, 0.5, 0.28, 3, ink)
    s.shape([(-0.2, -1), (0.15, -1), (-0.5, 1), (-0.85, 1)], (255, 255, 255, 40))


def _pile(p: Pen, n: int, w: float, h: float, paper: Color) -> Pen:
    """Some sheets thrown upon each other; returns a pen for the uppermost."""
    for _ in range(n - 1):
        p.at(p.u(-0.1, 0.1), p.u(-0.1, 0.1), 1, p.u(-0.3, 0.3)).sheet(w, h, tone(paper, p.u(0.9, 0.98)))
    return p.sheet(w, h, paper)


def _newspaper(p: Pen) -> None:
    paper = p.pick([(222, 218, 206), (208, 205, 198), (228, 220, 196)])
    s, n, photo = _pile(p, p.pick([1, 2, 3]), 0.72, 0.88, paper), p.pick([3, 4]), p.pick([0, 1, 2])
    s.text(-0.9, -0.95, 1.8, 0.3, 1, BLACK)
    s.rect(-0.92, -0.61, 1.84, 0.02, BLACK)
    s.text(-0.9, -0.56, 1.4, 0.24, 1, (50, 50, 52))
    for k in range(n):
        x, y, w = -0.92 + 1.86 * k / n, 0.34 if k == photo else -0.22, 1.7 / n
        s.text(x, y, w, 0.94 - y, int(14 * (0.94 - y)), (95, 95, 98))
    x = -0.92 + 1.86 * photo / n
    s.rect(x, -0.22, w, 0.5, p.pick([(110, 110, 110), (150, 145, 140), (70, 70, 75)]))
    s.blob(x + w / 2, 0.1, 0.25 * w, 0.18, (190, 185, 180))
    s.rect(-1, p.u(-0.1, 0.1), 2, 0.05, SHADE)  # the fold


def _office_paper(p: Pen) -> None:
    paper = p.pick([(250, 250, 250), (250, 250, 250), (244, 246, 252)])
    if p.chance(0.2):  # crumpled into a ball
        p.blob(0, 0, 0.7, 0.65, paper, 0.16)
        p.grains(40, 0.5, 0.45, [(60, 60, 80, 40), (60, 60, 80, 25), GLINT], 0.28)
        return
    s, y = _pile(p, p.pick([1, 2, 4, 6]), 0.64, 0.88, paper), -0.6
    s.text(-0.75, -0.82, p.u(0.5, 1.1), 0.12, 1, (60, 60, 70))
    while y < 0.7:
        h = p.u(0.2, 0.45)
        if p.chance(0.15):
            s.rect(-0.75, y, 1.5, h, p.pick([(190, 205, 230), (215, 215, 215)]))
        else:
            s.text(-0.75, y, 1.5, h, int(16 * h), (150, 150, 156))
        y += h + 0.1


# The right half of an outline, from the neck down.
_SHIRT = [(0.2, -0.8), (0.45, -0.72), (0.98, -0.25), (0.72, 0.02), (0.5, -0.25), (0.52, 0.85)]
_DRESS = [(0.18, -0.9), (0.4, -0.85), (0.36, -0.4), (0.3, -0.15), (0.75, 0.85)]
_TROUSERS = [(0.45, -0.9), (0.62, 0.9), (0.2, 0.92), (0.02, -0.25)]


def _clothing(p: Pen) -> None:
    color, ink = p.pick([p.hue(), p.hue(saturation=0.4), (50, 60, 95), GRAY, WHITE]), p.hue()
    right, w = p.pick([(_SHIRT, 0.47), (_DRESS, 0.3), (_TROUSERS, 0.45)])
    p.shape(right + [(-x, y) for x, y in right[::-1]], color)
    if right is _TROUSERS:
        p.rect(-w, -0.9, 2 * w, 0.1, tone(color, 0.7))
    else:
        p.blob(0, right[0][1], 0.2, 0.12, tone(color, 0.5))
        for k in range(p.pick([0, 0, 1, 5])):  # stripes
            p.rect(-w, 0.2 * k - 0.2, 2 * w, 0.09, ink)
    p.folds(7, (-0.6, 0.3), (0.8, 0.5), SHADE)
    p.folds(3, (-0.5, 0.3), (0.7, 0.5), (255, 255, 255, 60))


def _shoe(p: Pen) -> None:
    color = p.pick([p.hue(), p.hue(saturation=0.4), BLACK, (110, 70, 40), WHITE])
    sole, top = p.pick([WHITE, BLACK, (150, 100, 60)]), p.pick([-0.85, -0.45, -0.4])
    p.blob(-0.52, top + 0.04, 0.28, 0.08, tone(color, 0.4))
    heel = [(-0.88, 0.45), (-0.86, 0.1), (-0.85, top), (-0.25, top)]
    p.shape([*heel, (-0.2, -0.15), (0.25, 0.02), (0.75, 0.05), (1.0, 0.25), (0.98, 0.45)], color, rounds=2)
    toe = [(0.55, 0.06), (0.8, 0.08), (0.98, 0.25), (0.96, 0.45), (0.5, 0.45)]
    p.shape(toe, p.pick([sole, tone(color, 0.7)]), rounds=1)
    p.line([(-0.6, 0.3), (-0.25, 0.3), (0.1, p.u(0, 0.2))], p.pick([sole, p.hue()]), 0.1, rounds=1)
    lace = p.pick([WHITE, BLACK, p.hue()])
    for x in np.linspace(-0.2, 0.25, 4):
        p.line([(x, 0.35 * x - 0.1), (x - 0.16, 0.35 * x + 0.1)], lace, 0.05)
    p.shape([(-0.9, 0.4), (1.0, 0.4), (1.04, 0.5), (0.9, 0.6), (-0.9, 0.6)], sole, rounds=1)
    p.rect(-0.86, 0.57, 1.75, 0.05, (70, 70, 70))


# Small and loose things


def _cutlery(p: Pen) -> None:
    color, n = p.pick([WHITE, WHITE, BLACK, p.hue(saturation=0.4)]), p.pick([1, 2, 3, 3])
    for k, kind in enumerate(p.rng.sample(["fork", "spoon", "knife"], n)):
        x = k - (n - 1) / 2
        s = p.at(0.5 * x, 0, 1, p.u(-0.2, 0.2) + 0.15 * x)
        s.shape([(-0.06, -0.5), (0.06, -0.5), (0.09, 0.95), (-0.09, 0.95)], color, rounds=1)
        if kind == "spoon":
            s.blob(0, -0.64, 0.18, 0.3, color)
            s.blob(0, -0.64, 0.12, 0.22, tone(color, 0.75))
        elif kind == "knife":
            s.shape(
                [(-0.07, -0.2), (-0.07, -0.9), (0.02, -0.98), (0.14, -0.6), (0.07, -0.2)], color, rounds=1
            )
        else:
            s.shape([(-0.17, -0.7), (0.17, -0.7), (0.12, -0.4), (-0.12, -0.4)], color, rounds=1)
            for tine in (-0.13, -0.043, 0.043, 0.13):
                s.line([(tine, -0.6), (tine, -0.96)], color, 0.05)
        s.line([(0, -0.3), (0, 0.85)], tone(color, 0.75 if color != BLACK else 2), 0.03)


def _plastic_straw(p: Pen) -> None:
    n, bend, striped = p.pick([2, 3, 5, 8]), p.chance(0.5), p.chance(0.4)
    for k in range(n):
        color, w = p.pick([p.hue(value=0.95), p.hue(value=0.95), WHITE, BLACK]), p.u(0.07, 0.1)
        s = p.at(1.1 * (k + 0.5) / n - 0.55, p.u(-0.1, 0.1), 1, p.u(-0.35, 0.35))
        s.line([(0, 0.95), (0, -0.55), (0.3, -0.85)] if bend else [(0, 0.95), (0, -0.95)], color, w)
        for y in np.arange(-0.35, 0.9, 0.16) if striped else ():
            s.line([(-w / 2, y + 0.05), (w / 2, y - 0.05)], tone(color, 0.5), 0.05)
        for y in (-0.5, -0.45, -0.4) if bend else ():
            s.line([(-w / 2, y), (w / 2, y)], tone(color, 0.5), 0.02)
        s.line([(-0.25 * w, 0.9), (-0.25 * w, -0.5)], GLINT, 0.02)
        s.line([(0.42 * w, 0.95), (0.42 * w, -0.5)], SHADE, 0.02)


def _coffee_grounds(p: Pen) -> None:
    browns = [(38, 24, 16), (58, 36, 22), (76, 48, 30), (28, 18, 12), (96, 64, 42)]
    w, h = p.u(0.7, 0.95), p.u(0.4, 0.7)
    if p.chance(0.35):  # in their paper filter
        p.shape([(-1, -0.5), (0, -0.75), (1, -0.5), (0.6, 0.85), (-0.6, 0.85)], (214, 192, 158), rounds=1)
        p.folds(10, (-0.6, 0.9), (0.85, 0.5), (120, 90, 60, 60))
        w, h = 0.75 * w, 0.75 * h
    p.blob(0, 0, w, h, browns[1], 0.12)
    p.grains(260, 1.08 * w, 1.1 * h, browns, 0.045)
    p.at(-0.2, -0.2 * h).grains(70, 0.5 * w, 0.4 * h, [browns[4], browns[2]], 0.035)


def _eggshell(p: Pen) -> None:
    color = p.pick([(240, 228, 210), (215, 160, 120), (246, 244, 238), (196, 138, 98)])
    spots = [(0, 0.3), (-0.45, -0.35), (0.45, -0.3)][: p.pick([1, 2, 2, 3])]
    a, b = np.linspace(0, 2 * np.pi, 22), np.linspace(0, np.pi, 16)
    for x, y in spots:
        s = p.at(x, y, p.u(0.5, 0.7), p.u(-0.8, 0.8))
        rim = np.stack([0.75 * np.cos(a), 0.22 * np.sin(a) + [p.u(-0.12, 0.12) for _ in a]], axis=1)
        s.shape(np.concatenate([np.stack([0.76 * np.cos(b), 0.95 * np.sin(b)], 1), rim[11:]]), color)
        s.shape([(0.1, 0.9), (0.6, 0.55), (0.74, 0.1), (0.4, 0.45)], SHADE, rounds=2)
        s.blob(-0.3, 0.45, 0.12, 0.2, GLINT)
        s.shape(rim, (250, 244, 230))
        s.blob(0.05, 0.04, 0.5, 0.12, (170, 150, 130, 130))
    p.at(0, 0.5).grains(p.pick([4, 9, 14]), 0.95, 0.4, [color, tone(color, 1.2)], 0.07)


def _peel(s: Pen) -> None:
    peel, a = s.pick([(240, 150, 30), (235, 205, 60), (190, 60, 40)]), np.linspace(0, s.u(2, 4), 12)
    s.line(0.8 * np.stack([np.cos(a), np.sin(a)], 1), tone(peel, 0.7), 0.5)
    s.line(0.76 * np.stack([np.cos(a), np.sin(a)], 1), peel, 0.36)


def _leaf(s: Pen) -> None:
    green = s.hue(0.22, 0.36, 0.7, 0.6)
    s.shape([(-1, 0), (-0.3, -0.5), (1, 0), (-0.3, 0.5)], green, rounds=2)
    s.line([(-1, 0), (0.8, 0)], tone(green, 1.4), 0.07)


def _slice(s: Pen) -> None:
    rind = s.pick([(200, 40, 40), (240, 170, 40), (80, 130, 50), (245, 215, 70)])
    for r, gain in ((0.8, 1), (0.66, 1.55), (0.25, 1.2)):
        s.blob(0, 0, r, 0.87 * r, tone(rind, gain))


def _core(s: Pen) -> None:
    s.shape(
        [(-0.4, -0.8), (0.4, -0.8), (0.1, 0), (0.4, 0.8), (-0.4, 0.8), (-0.1, 0)], (238, 222, 170), rounds=2
    )
    s.line([(0, -0.7), (0.15, -1.1)], (80, 50, 30), 0.12)


def _food_waste(p: Pen) -> None:
    p.blob(0, 0.1, 0.85, 0.55, (92, 70, 40), 0.15)
    for _ in range(p.pick([12, 16, 20])):
        r, a = 0.8 * p.u(0, 1) ** 0.6, p.u(0, 6.28)
        s = p.at(r * math.cos(a), 0.05 + 0.6 * r * math.sin(a), p.u(0.25, 0.42), p.u(0, 6.28))
        p.pick([_peel, _leaf, _slice, _core])(s)


def _tea_bag(p: Pen) -> None:
    paper = p.pick([(236, 226, 204), (246, 242, 232), (214, 190, 150)])
    tea, ink = p.pick([(86, 52, 28), (120, 74, 36), (70, 80, 40)]), p.hue()
    square = [(-0.6, -0.4), (0.6, -0.4), (0.6, 0.85), (-0.6, 0.85)]
    bag = p.pick([rounded(square, 1), rounded(square, 3), np.array([(0, -0.5), (0.75, 0.85), (-0.75, 0.85)])])
    x, y = bag.mean(axis=0)
    p.line([(x, bag[:, 1].min()), (p.u(-0.5, 0.2), -0.7), (0.45, -0.9), (0.7, -0.4)], WHITE, 0.03, rounds=3)
    p.shape(bag, paper)
    p.shape((bag - [x, y]) * 0.8 + [x, y + 0.04], tone(tea, 1.3))
    p.at(x, y + 0.1).grains(90, 0.38, 0.36, [tea, tone(tea, 0.7), tone(tea, 1.2)], 0.05)
    p.shape((bag - [x, y]) * 0.8 + [x, y + 0.04], (*paper, 70))
    tag = p.at(0.72, -0.3, 1, p.u(-0.4, 0.4))
    tag.rect(-0.2, -0.12, 0.4, 0.44, ink)
    tag.rect(-0.16, -0.08, 0.32, 0.36, WHITE)
    tag.blob(0, 0.1, 0.1, 0.1, ink)


LOOSE: dict[str, Callable[[Pen], None]] = {
    "clothing": _clothing,
    "coffee_grounds": _coffee_grounds,
    "disposable_plastic_cutlery": _cutlery,
    "eggshells": _eggshell,
    "food_waste": _food_waste,
    "magazines": _magazine,
    "newspaper": _newspaper,
    "office_paper": _office_paper,
    "plastic_straws": _plastic_straw,
    "shoes": _shoe,
    "tea_bags": _tea_bag,
}
