"""What the page makes of probabilities and of an image, and how bins look, in node."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from wastejax.data.taxonomy import COUNTRIES, SIGNS, load_taxonomy
from wastejax.deployment import regions
from wastejax.evaluation import heatmaps

SCRIPT = """
const { interpret, obstacle, reasonOf, verdict } = await import(process.argv[1] + "/answers.js");
const { inkOn, lookOf } = await import(process.argv[1] + "/signs.js");
const { wrap } = await import(process.argv[1] + "/share.js");
const { choose, distinct, propose, surroundings } = await import(process.argv[1] + "/regions.js");
const { evidence } = await import(process.argv[1] + "/drawings.js");
const classes = [{ name: "a", bin: "x" }, { name: "b", bin: "x" }, { name: "c", bin: "y" }];
const labels = { classes, reject_below: 0.7 };
const answer = (...p) => interpret(p, labels);
const from = [0.3, 0.5, 0.5];
const several = { ...labels, classes: classes.map((c, i) => ({ ...c, named_from: from[i] })), multilabel: true };
const measure = (text) => 10 * text.length;
const { colors, signs, logits, boxes, sure, settings } = JSON.parse(process.argv[2]);
const shape = [logits.length, logits[0].length, logits[0][0].length];
const map = { data: Float32Array.from(logits.flat(2)), height: shape[0], width: shape[1], classes: shape[2] };
console.log(JSON.stringify({
  sure: [verdict(answer(0.1, 0.8, 0.1)), answer(0.15, 0.15, 0.7).rejected, answer(0.15, 0.16, 0.69).rejected],
  bin: verdict(answer(0.65, 0.3, 0.05)),
  several: [[0.4, 0.9, 0.2], [0.4, 0.1, 0.5], [0.2, 0.4, 0.4]].map((p) => interpret(p, several)),
  all: verdict(interpret([0.4, 0.1, 0.5], several)),
  none_named: [verdict(interpret([0.2, 0.4, 0.4], several)).kind, reasonOf(interpret([0.2, 0.45, 0.4], several))],
  nothing: verdict(answer(0.35, 0.25, 0.4)),
  reasons: [
    reasonOf(answer(0.65, 0.3, 0.05)),
    reasonOf(answer(0.45, 0.4, 0.15)),
    reasonOf(answer(0.34, 0.33, 0.33), "dark"),
    reasonOf({ top: [0.2, 0.15, 0.1].map((probability) => ({ probability })) }),
  ],
  obstacles: [
    obstacle([10, 60, 5, 20]), obstacle([200, 201, 200, 199]), obstacle([90, 200, 30, 120]),
  ],
  proposed: propose(map, settings.levels, settings.prominence),
  evidence: [[...evidence(map, 2)], [...evidence(map, 2, true)]],
  distinct: distinct(boxes),
  chosen: choose(boxes.map((box, i) => ({ box, probability: sure[i] })), 1, settings).map(({ box }) => box),
  around: boxes.map((box) => surroundings(box, 1, 0.8, 0.1)),
  inks: colors.map(inkOn),
  known: signs.map((sign) => lookOf({ sign }).path),
  none: [lookOf({ sign: "" }).path, lookOf(null).path],
  lines: [wrap("one two three", 80, measure), wrap("あいうえおか", 30, measure), wrap("", 30, measure)],
}));
"""


def luminance(color: str) -> float:
    """WCAG 2.2, relative luminance."""
    levels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in levels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


COLORS = sorted({b.color for name in COUNTRIES for b in load_taxonomy(name).bins.values()})


RNG = np.random.default_rng(4)
SETTINGS = regions.Settings(overlap=0.3, least=0.3)
LOGITS = RNG.normal(size=(7, 9, 4)).astype(np.float32) ** 3
CORNERS = RNG.uniform(0, 0.7, (40, 2))
BOXES = np.hstack([CORNERS, CORNERS + RNG.uniform(0.05, 0.3, (40, 2))]) * (1, 0.8, 1, 0.8)
SURE = RNG.uniform(0, 1, 40)


@pytest.fixture(scope="module")
def found(node):
    asked = json.dumps(
        {
            "colors": COLORS,
            "signs": SIGNS,
            "logits": LOGITS.tolist(),
            "boxes": BOXES.tolist(),
            "sure": SURE.tolist(),
            "settings": asdict(SETTINGS),
        }
    )
    return node(SCRIPT, asked)


def test_an_answer_is_sure_of_a_class_of_a_bin_or_of_nothing(found):
    sure, at, below = found["sure"]
    assert (sure["kind"], sure["bin"], sure["probability"]) == ("class", "x", 0.8)
    assert [guess["class"] for guess in sure["candidates"]] == ["b", "a", "c"]
    assert (at, below) == (False, True)
    assert found["bin"]["kind"] == "bin" and found["bin"]["probability"] == pytest.approx(0.95)
    assert [guess["class"] for guess in found["bin"]["candidates"]] == ["a", "b"]  # not c, of another bin
    assert found["nothing"]["kind"] == "nothing" and found["nothing"]["bin"] == ""


def test_a_multi_label_answer_is_every_class_above_its_own_threshold_and_their_bins(found):
    named = [([guess["class"] for guess in answer["classes"]], answer["bins"]) for answer in found["several"]]
    assert named == [(["b", "a"], ["x"]), (["c", "a"], ["y", "x"]), ([], [])]
    assert [answer["rejected"] for answer in found["several"]] == [False, False, True]
    assert found["all"]["kind"] == "several" and found["all"]["bins"] == ["y", "x"]
    assert found["none_named"] == ["nothing", "strange"]


def test_not_sure_says_why(found):
    assert found["reasons"] == ["likely", "alike", "dark", "strange"]
    assert found["obstacles"] == ["dark", "blank", ""]


def test_every_bin_has_letters_that_can_be_read_on_its_color_and_a_sign_of_its_own(found):
    for color, ink in zip(COLORS, found["inks"], strict=True):
        light, dark = sorted((luminance(color), luminance(ink)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (color, ink)  # WCAG 2.2, level AA
    assert len(set(found["known"])) == len(SIGNS)
    assert found["none"][0] == found["known"][SIGNS.index("trash")] != found["none"][1]
    for name in COUNTRIES:
        looks = [(b.color, b.sign) for b in load_taxonomy(name).bins.values()]
        assert len(set(looks)) == len(looks) and all(map(all, looks))


def test_lines_of_a_shared_image_are_broken_between_words_or_else_anywhere(found):
    assert found["lines"] == [["one two", "three"], ["あいう", "えおか"], []]


def test_objects_are_found_as_in_python(found):
    proposed = regions.propose(LOGITS, SETTINGS.levels, SETTINGS.prominence)
    assert len(proposed) > 20
    np.testing.assert_allclose(found["proposed"], proposed, atol=1e-9)
    np.testing.assert_allclose(found["distinct"], BOXES[regions.distinct(BOXES)])
    chosen = BOXES[regions.choose(BOXES, SURE, 1, SETTINGS)]
    assert 3 < len(chosen) < 30
    np.testing.assert_allclose(found["chosen"], chosen)
    np.testing.assert_allclose(found["around"], [regions.surroundings(box, 1, 0.8, 0.1) for box in BOXES])


def test_what_speaks_for_an_answer_is_the_same_as_in_python(found):
    for several, heat in zip((False, True), found["evidence"], strict=True):
        np.testing.assert_allclose(heat, heatmaps.evidence(LOGITS, 2, several).ravel(), atol=1e-6)
