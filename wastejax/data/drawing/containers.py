"""Sketches of what held something: cans, bottles, jars, cups, boxes, trays and bags.

A sketch draws one object about the origin, -1..1 both ways, upright; where it lies, how large and how turned, is
the scene's business. All variety comes from the pen's random state.
"""

from collections.abc import Callable

import numpy as np

from wastejax.data.drawing.pen import (
    BLACK,
    GLINT,
    GOLD,
    GRAY,
    KRAFT,
    RED,
    SHADE,
    SILVER,
    WHITE,
    Color,
    Pen,
    Points,
    tone,
)

# Cans, bottles, jars and cups: bodies of revolution


def _aerosol_can(p: Pen) -> None:
    r, color = p.u(0.24, 0.34), p.pick([p.hue(), p.hue(), SILVER, WHITE])
    p.lathe([(-0.55, r), (0.9, r)], color, "gloss")
    p.label(p.u(-0.3, -0.1), p.u(0.5, 0.75), r, "gloss")
    p.lathe([(-0.7, 0.55 * r), (-0.62, 0.85 * r), (-0.55, r)], SILVER, "metal")
    if p.chance(0.5):
        p.drum(-1.0, -0.6, 0.85 * r, p.pick([p.hue(), WHITE, BLACK]))
    else:
        p.drum(-0.92, -0.7, 0.4 * r, p.pick([WHITE, BLACK, p.hue()]))
        p.blob(0.1 * r, -0.82, 0.03, 0.03, RED)


def _can_top(p: Pen, y: float, r: float, color: Color, tab: bool) -> None:
    for inset, gain in ((1, 1.15), (0.88, 0.75), (0.82, 1.0)):
        p.disc(y, inset * r, tone(color, gain))
    p.ring(y, 0.6 * r, tone(color, 0.8), 0.02, turns=1)
    if tab:
        p.blob(0, y + 0.2 * r * p.tilt, 0.16 * r, 0.36 * r * p.tilt, tone(color, 0.6))
        p.blob(0, y + 0.28 * r * p.tilt, 0.09 * r, 0.18 * r * p.tilt, tone(color, 1.3))


def _soda_can(p: Pen) -> None:
    r, h, color = p.u(0.38, 0.5), p.u(0.72, 0.85), p.pick([p.hue(), p.hue(), p.hue(), SILVER])
    p.tilt = max(p.tilt, 0.2)
    if p.chance(0.3):  # crushed
        dents = [(y, r * p.u(0.72, 1)) for y in np.linspace(-h + 0.2, h - 0.15, 6)]
        p.lathe([(-h, 0.8 * r), *dents, (h, 0.76 * r)], color, "gloss")
        p.folds(4, (-0.5 * h, 0.6 * r), (0.5 * h, 0.2 * r), SHADE)
    else:
        p.lathe([(-h + 0.12, r), (h - 0.12, r)], color, "gloss")
        p.label(-0.6 * h, 0.6 * h, r, "gloss")
        p.lathe([(-h, 0.8 * r), (-h + 0.12, r)], SILVER, "metal")
        p.lathe([(h - 0.12, r), (h, 0.76 * r)], SILVER, "metal")
    _can_top(p, -h, 0.8 * r, SILVER, tab=True)
    p.blob(0, -h - 0.35 * r * p.tilt, 0.25 * r, 0.2 * r * p.tilt, BLACK)  # drunk up


def _food_can(p: Pen, r: float, h: float, color: Color, ribs: int, tab: bool) -> None:
    if p.chance(0.3):  # opened: the lid stands up behind, and one looks in
        p.blob(p.u(-0.1, 0.1), -h - r * (p.tilt + 0.5), 0.85 * r, 0.6 * r, tone(color, 1.1))
        p.drum(-h, h, r, color, "metal")
        p.disc(-h + 0.02, 0.92 * r, p.pick([(60, 60, 64), (90, 50, 30), (110, 40, 30)]))
    else:
        p.drum(-h, h, r, color, "metal")
        _can_top(p, -h, r, color, tab)
    for y in np.linspace(-0.5 * h, 0.5 * h, ribs):
        p.ring(y, r, (70, 70, 75, 150), 0.025)
        p.ring(y + 0.03, r, GLINT, 0.02)
    if p.chance(0.45):
        p.label(-0.8 * h, 0.8 * h, r)
    p.ring(h - 0.03, r, tone(color, 0.7), 0.04)


def _aluminum_food_can(p: Pen) -> None:
    p.tilt = p.u(0.35, 0.6)
    _food_can(p, p.u(0.65, 0.85), p.u(0.14, 0.36), p.pick([SILVER, SILVER, GOLD]), ribs=0, tab=True)


def _steel_food_can(p: Pen) -> None:
    p.tilt = max(p.tilt, 0.2)
    _food_can(p, p.u(0.42, 0.58), p.u(0.5, 0.8), tone(SILVER, p.u(0.75, 1)), p.pick([5, 7, 9]), tab=False)


def _bottle(
    p: Pen, profile: Points, color: Color, opacity: float, label: tuple[float, float], cap: Color
) -> None:
    r = profile[-1][1]
    with p.glaze(opacity):
        p.lathe(profile, color, "glass", rounds=2)
    p.line([(-0.55 * r, label[1]), (-0.55 * r, 0.85)], GLINT, 0.05)
    p.label(*label, r * 1.02)
    p.drum(-1.0, -0.87, 1.15 * profile[0][1], cap)


def _glass_beverage_bottle(p: Pen) -> None:
    r, shoulder, clear = p.u(0.25, 0.34), p.u(-0.35, -0.05), p.chance(0.3)
    color = (195, 210, 205) if clear else p.pick([(34, 92, 48), (96, 52, 20), (60, 110, 150)])
    profile = [(-0.98, 0.09), (-0.6, 0.1), (shoulder, r), (0.5, r), (0.92, r)]
    label = (max(shoulder + 0.2, 0.1), 0.65)
    _bottle(p, profile, color, 0.6 if clear else 0.92, label, p.pick([GOLD, SILVER, RED, p.hue()]))
    if p.chance(0.6):
        p.lathe([(-0.72, 0.105), (-0.55, 0.115)], p.hue())


def _plastic_water_bottle(p: Pen) -> None:
    r, color = p.u(0.26, 0.34), p.pick([(170, 205, 230), (200, 220, 228), (150, 200, 235)])
    profile = [(-0.9, 0.12), (-0.72, 0.12), (-0.35, r), (0.3, 0.93 * r), (0.6, r), (0.93, r)]
    _bottle(p, profile, color, p.u(0.45, 0.65), (-0.2, p.u(0.0, 0.15)), p.pick([WHITE, p.hue(0.55, 0.65)]))
    for y in np.linspace(0.3, 0.8, p.pick([4, 5, 6])):
        p.ring(y, 0.96 * r, (90, 130, 160, 150), 0.02)


def _plastic_soda_bottle(p: Pen) -> None:
    r = p.u(0.32, 0.4)
    drink = p.pick([(52, 22, 12), (220, 110, 20), (60, 130, 50), (150, 20, 40), (200, 190, 60)])
    profile = [(-0.9, 0.12), (-0.72, 0.12), (-0.35, r), (0.1, r), (0.45, 0.85 * r), (0.6, r), (0.93, r)]
    _bottle(p, profile, drink, p.u(0.85, 0.95), (-0.2, p.u(0.2, 0.35)), p.hue())
    for x in (-0.5, 0, 0.5):  # the feet
        p.line([(x * r, 0.75 + p.tilt * r), (0.7 * x * r, 0.93 + p.tilt * r)], tone(drink, 0.5), 0.03)


def _plastic_detergent_bottle(p: Pen) -> None:
    color, w, top = p.pick([p.hue(), p.hue(), WHITE]), p.u(0.42, 0.55), p.u(-0.45, -0.25)
    p.line([(0, -0.62), (w, -0.55), (w, 0.1), (w - 0.15, 0.3)], tone(color, 0.8), 0.16, rounds=2)
    body = [(-0.18, -0.7), (0.14, -0.7), (0.16, top), (0.2, 0), (w, 0.2), (w, 0.9), (-w, 0.9), (-w, top)]
    p.shape(body, color, rounds=2)
    p.shape([(0.2, 0.1), (w, 0.25), (w, 0.9), (0.3, 0.88)], SHADE, rounds=2)
    p.shape([(-w + 0.06, top + 0.1), (-w + 0.2, top), (-w + 0.16, 0.8), (-w + 0.07, 0.8)], GLINT, rounds=2)
    p.blob(
        -0.05, 0.42, 0.75 * w, p.u(0.2, 0.34), p.pick([WHITE, p.hue(), p.hue(0.1, 0.17)]), p.pick([0, 0.25])
    )
    p.text(-0.25, 0.34, 0.42, 0.18, 2, tone(color, 0.6))
    p.drum(-1.0, -0.68, 0.18, p.pick([p.hue(), WHITE, RED]))


def _glass_food_jar(p: Pen) -> None:
    r, h, level = p.u(0.45, 0.6), p.u(0.6, 0.8), p.u(-0.6, 0.3)
    food = p.pick([(160, 20, 30), (220, 120, 20), (90, 130, 30), (225, 205, 150), (80, 35, 15)])
    if p.chance(0.8):
        p.drum(level * h, h - 0.06, 0.94 * r, food, "matte")
        p.at(0, (level + 1) * h / 2).grains(24, 0.75 * r, 0.3 * h, [tone(food, 0.7), tone(food, 1.25)], 0.08)
    with p.glaze(0.35):
        glass = [(-h, 0.8 * r), (-h + 0.1, 0.8 * r), (-h + 0.25, r), (h - 0.1, r), (h, 0.9 * r)]
        p.lathe(glass, (200, 220, 216), "glass", rounds=1)
    p.line([(-0.6 * r, -0.5 * h), (-0.62 * r, 0.8 * h)], GLINT, 0.06)
    if p.chance(0.4):
        p.label(-0.1 * h, 0.5 * h, r)
    p.drum(-h - 0.16, -h + 0.06, 0.87 * r, p.pick([SILVER, GOLD, p.hue(), RED]), "metal")


def _glass_cosmetic_container(p: Pen) -> None:
    cap = p.pick([GOLD, SILVER, BLACK, WHITE, (190, 130, 110)])
    glass = p.pick([(225, 232, 228), (235, 200, 205), (150, 90, 40), (190, 215, 225), (60, 70, 110)])
    kind = p.pick(["cream", "dropper", "flacon"])
    r, top, foot = {"cream": (0.7, 0.0, 0.5), "dropper": (0.32, -0.1, 0.8), "flacon": (0.38, -0.35, 0.8)}[
        kind
    ]
    with p.glaze(0.85):
        p.lathe([(top, 0.88 * r), (top + 0.1, r), (foot - 0.05, r), (foot, 0.9 * r)], glass, "glass")
    p.text(-0.4 * r, (top + foot) / 2 + p.tilt * r - 0.1, 0.8 * r, 0.2, 2, p.pick([BLACK, GOLD, GRAY]))
    if kind == "cream":
        p.drum(-0.36, 0.02, 0.97 * r, cap, "metal")
    elif kind == "dropper":
        p.lathe([(-0.42, 0.17), (top, 0.19)], cap, "metal")
        p.lathe([(-0.85, 0.04), (-0.78, 0.11), (-0.42, 0.11)], p.pick([BLACK, WHITE]), "gloss", rounds=1)
    else:
        p.lathe([(-0.5, 0.13), (top, 0.15)], GOLD, "metal")
        p.drum(-0.9, -0.45, 0.2, cap, "metal")


def _cup(p: Pen, top: float, foot: float, h: float, color: Color, lip: float) -> None:
    p.tilt = max(p.tilt, 0.15)
    p.lathe([(-h, top), (h, foot)], color)
    p.drum(-h - lip, -h + lip, 1.06 * top, color, "matte")
    p.disc(-h - lip + 0.01, 0.96 * top, tone(color, 0.62))


def _paper_cup(p: Pen) -> None:
    top, foot, h = p.u(0.46, 0.58), p.u(0.34, 0.42), p.u(0.65, 0.85)
    _cup(p, top, foot, h, p.pick([WHITE, WHITE, p.hue(), *KRAFT[:2]]), lip=0.02)
    ink, middle = p.pick([p.hue(), KRAFT[1], (90, 60, 45)]), (top + foot) / 2
    if p.chance(0.5):  # sleeve
        p.lathe([(-0.4 * h, middle + 0.2 * (top - foot)), (0.5 * h, middle - 0.25 * (top - foot))], ink)
    elif p.chance(0.5):
        for y in np.linspace(-0.6, 0.8, 5):
            p.ring(y * h, middle - y * (top - foot) / 2, ink, 0.08)
    p.blob(0, 0.1 + p.tilt * foot, 0.2, 0.22, p.pick([(40, 90, 60), BLACK, WHITE, p.hue()]))


def _styrofoam_cup(p: Pen) -> None:
    top, foot, h = p.u(0.5, 0.62), p.u(0.34, 0.42), p.u(0.6, 0.8)
    _cup(p, top, foot, h, (240, 240, 236), lip=0.05)
    p.ring(-h + 0.2, 0.96 * top, (150, 150, 150, 160), 0.02)
    p.at(0, 0.1 + 0.3 * p.tilt).grains(50, 0.8 * foot, 0.75 * h, [(205, 205, 205), (255, 255, 255)], 0.014)


def _plastic_cup_lid(p: Pen) -> None:
    p.tilt, r, color = p.u(0.4, 0.9), p.u(0.7, 0.9), p.pick([WHITE, BLACK, (120, 80, 55), (205, 215, 220)])
    dome = p.chance(0.35)
    with p.glaze(0.65 if dome else 0.93):
        p.drum(0, 0.14, r, color)
        p.disc(0.02, 0.88 * r, tone(color, 0.75))
        if dome:  # level circles upon each other
            for k in range(8):
                p.disc(-0.08 * k, 0.86 * r * (1 - (k / 8) ** 3), tone(color, 0.8 + 0.06 * k))
        else:
            p.drum(-0.12, 0.02, 0.78 * r, color)
            p.ring(-0.12, 0.6 * r, tone(color, 0.7), 0.025, turns=1)
    hole = (-0.58, 0.15 * r, 0.15 * r * p.tilt) if dome else (-0.12 + 0.45 * r * p.tilt, 0.13, 0.05)
    p.blob(0, *hole, GRAY if color == BLACK else tone(color, 0.3))


# Boxes, trays and bags


def _cardboard_box(p: Pen) -> None:
    w, h, color = p.u(0.45, 0.65), p.u(0.3, 0.5), p.pick(KRAFT)
    top = p.prism(w, h, p.u(0.5, 0.9), color)
    if p.chance(0.5):  # open: a dark inside and four flaps
        top.rect(-1, -1, 2, 2, tone(color, 0.4))
        lift = p.u(1.5, 2.1)
        top.shape([(-1, -1), (1, -1), (0.9, -lift), (-0.9, -lift)], color)
        top.shape([(-1, -1), (-1, 1), (-1.4, 1.2), (-1.4, -0.7)], tone(color, 1.1))
        top.shape([(1, -1), (1, 1), (1.4, 0.8), (1.4, -1.1)], tone(color, 0.85))
        top.shape([(-1, 1), (1, 1), (0.95, lift), (-0.95, lift)], tone(color, 1.15))
    else:  # closed with tape
        top.rect(-0.16, -1, 0.32, 2, tone(color, 1.25))
        p.rect(-0.16 * w, -h, 0.32 * w, 0.4 * h, tone(color, 1.15))
    p.text(-0.8 * w, 0.4 * h, 0.6 * w, 0.4 * h, p.pick([0, 2, 3]), tone(color, 0.5))


def _egg_tray(p: Pen, color: Color) -> None:
    tray, n = p.sheet(0.85, 0.65, tone(color, 0.8)), p.pick([3, 4, 5])
    for y in np.linspace(-0.66, 0.66, 3):
        for x in np.linspace(-1, 1, n) * (1 - 1 / n):
            tray.blob(x, y, 0.85 / n, 0.26, tone(color, 1.15))
            tray.blob(x, y + 0.04, 0.6 / n, 0.18, tone(color, 0.55))


def _carton(p: Pen, color: Color) -> None:
    ink, w, h = p.hue(), p.u(0.28, 0.5), p.u(0.45, 0.65)
    top = p.prism(w, h, p.u(0.3, 0.5), color)
    top.shape([(-1, -1), (1, -1), (0.85, -2.2), (-0.85, -2.2)], tone(color, 1.1))
    top.rect(-0.95, -0.9, 1.9, 1.8, tone(color, 0.45))
    p.rect(-w, -0.2 * h, 2 * w, p.u(0.5, 0.9) * h, ink)
    p.blob(0, -0.55 * h, 0.5 * w, 0.2 * h, ink, 0.1)
    p.text(-0.7 * w, -0.1 * h, 1.4 * w, 0.35 * h, 3, WHITE)


def _corrugated_sheets(p: Pen, color: Color) -> None:
    x = np.linspace(-0.8, 0.8, 60)
    for k in range(p.pick([3, 4, 5])):
        s = p.at(p.u(-0.1, 0.1), 0.5 - 0.25 * k)
        s.shape([(-0.8, 0), (0.8, 0), (0.98, -0.42), (-0.5, -0.42)], tone(color, p.u(0.95, 1.15)))
        s.rect(-0.8, 0, 1.6, 0.12, tone(color, 0.55))
        s.line(np.stack([x, 0.06 + 0.045 * np.sin(40 * x)], 1), tone(color, 1.1), 0.025)


def _cardboard_packaging(p: Pen) -> None:
    p.pick([_egg_tray, _carton, _corrugated_sheets])(p, p.pick([*KRAFT, (160, 160, 155), WHITE]))


def _plastic_food_container(p: Pen) -> None:
    w, h, d, lid = p.u(0.55, 0.75), p.u(0.22, 0.4), p.u(0.5, 0.8), p.pick([p.hue(), WHITE, (190, 215, 230)])
    if p.chance(0.7):
        p.at(0.15 * d, 0.25 * h - 0.1).grains(
            40, 0.75 * w, 0.6 * h, [p.hue(0, 0.4), p.hue(0, 0.15), WHITE], 0.12
        )
    with p.glaze(0.5):
        p.prism(w, h, d, (222, 232, 238), foot=0.85)
    p.line([(-0.9 * w, -0.7 * h), (-0.78 * w, 0.8 * h)], GLINT, 0.05)
    with p.glaze(0.85):
        p.at(0, -h).prism(1.05 * w, 0.06, 1.05 * d, lid).rect(-0.8, -0.7, 1.6, 1.4, tone(lid, 0.88), rounds=2)


def _styrofoam_food_container(p: Pen) -> None:
    color, w, d = p.pick([(242, 242, 238), (242, 242, 238), (232, 226, 205)]), p.u(0.6, 0.75), p.u(0.6, 0.9)
    if p.chance(0.35):  # closed
        p.at(0, 0.2).prism(w, 0.16, d, color, foot=0.88)
        p.at(0, -0.1).prism(0.86 * w, 0.14, 0.9 * d, color, foot=1.16)
        p.line([(-w, 0.04), (w, 0.04)], tone(color, 0.6), 0.03)
        return
    lid = p.on((0.25 * d, -0.28 * d - 0.2), (w, 0), (p.u(-0.1, 0.2), 0.42))
    lid.shape([(-1, 0.6), (1, 0.6), (0.95, -1), (-0.95, -1)], tone(color, 0.95), rounds=1)
    lid.shape([(-0.8, 0.5), (0.8, 0.5), (0.75, -0.75), (-0.75, -0.75)], tone(color, 0.84), rounds=1)
    top = p.at(0, 0.2).prism(w, 0.2, d, color, foot=0.88)
    halves = [(-0.9, 0.85), (0.05, 0.85)]
    for x, wide in p.pick([[(-0.9, 1.8)], halves, halves]):
        top.rect(x, -0.85, wide, 1.7, tone(color, 0.72), rounds=1)
        top.rect(x + 0.08, -0.6, wide - 0.16, 1.45, tone(color, 0.86), rounds=1)


def _plastic_shopping_bag(p: Pen) -> None:
    color, w, top = p.pick([WHITE, p.hue(), p.hue(), (60, 60, 64)]), p.u(0.5, 0.65), p.u(-1.05, -0.85)
    with p.glaze(0.9):
        for x in (-0.32, 0.32):
            handle = [(x - 0.16, -0.3), (x - 0.12, top), (x + 0.12, top), (x + 0.16, -0.3)]
            p.line(handle, color, 0.12, rounds=2)
        mouth, out = [(-w, -0.35), (-0.2, -0.25), (0.2, -0.25), (w, -0.35)], w + p.u(0, 0.12)
        p.shape([*mouth, (out, 0.3), (w, 0.9), (0, 0.98), (-w, 0.9), (-out, 0.3)], color, rounds=1)
    p.folds(8, (-0.3, 0.45), (0.9, w), SHADE)
    p.folds(5, (-0.3, 0.45), (0.8, w), GLINT)
    ink = p.pick([p.hue(), WHITE, RED])
    p.blob(0, 0.3, 0.26, 0.22, ink, p.pick([0, 0.2]))
    p.text(-0.3, 0.58, 0.6, 0.14, p.pick([0, 1]), ink)


def _plastic_trash_bag(p: Pen) -> None:
    w, color = p.u(0.65, 0.85), p.pick([BLACK, BLACK, (44, 48, 56), WHITE, (40, 70, 45), (40, 60, 110)])
    tuft = [
        (-0.1, -0.55),
        (-0.3, -0.95),
        (-0.1, -0.85),
        (0.02, -1),
        (0.12, -0.85),
        (0.32, -0.92),
        (0.1, -0.55),
    ]
    p.shape(tuft, tone(color, 0.9))
    right = [(0.12, -0.6), (0.7 * w, -0.2), (w, 0.4), (0.85 * w, 0.88)]
    left = [(-x, y) for x, y in right[::-1]]
    p.shape([(x * p.u(0.9, 1.1), y) for x, y in right + left], color, rounds=2)
    p.folds(9, (-0.55, 0.1), (0.8, 0.8 * w), SHADE)
    p.folds(7, (-0.5, 0.1), (0.5, 0.8 * w), (255, 255, 255, 70))
    p.folds(6, (0.1, 0.7 * w), (0.7, 0.4 * w), (255, 255, 255, 60))
    p.line([(-0.14, -0.57), (0.14, -0.57)], p.pick([RED, GRAY, WHITE]), 0.07)


CONTAINERS: dict[str, Callable[[Pen], None]] = {
    "aerosol_cans": _aerosol_can,
    "aluminum_food_cans": _aluminum_food_can,
    "aluminum_soda_cans": _soda_can,
    "cardboard_boxes": _cardboard_box,
    "cardboard_packaging": _cardboard_packaging,
    "glass_beverage_bottles": _glass_beverage_bottle,
    "glass_cosmetic_containers": _glass_cosmetic_container,
    "glass_food_jars": _glass_food_jar,
    "paper_cups": _paper_cup,
    "plastic_cup_lids": _plastic_cup_lid,
    "plastic_detergent_bottles": _plastic_detergent_bottle,
    "plastic_food_containers": _plastic_food_container,
    "plastic_shopping_bags": _plastic_shopping_bag,
    "plastic_soda_bottles": _plastic_soda_bottle,
    "plastic_trash_bags": _plastic_trash_bag,
    "plastic_water_bottles": _plastic_water_bottle,
    "steel_food_cans": _steel_food_can,
    "styrofoam_cups": _styrofoam_cup,
    "styrofoam_food_containers": _styrofoam_food_container,
}
