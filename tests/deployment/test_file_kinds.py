"""Every kind of file in every form: `predict`, the server, an exported file and the page see the same pixels.

docs/results/file-kinds.md is made here: WASTEJAX_WRITE_DOCS=1 python -m pytest tests/deployment/test_file_kinds.py
"""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from file_kinds import CUT, KINDS, ORIENTATION, encode, photo
from PIL import Image
from small_models import write_bundle
from test_serve import form, post, server, stand_in

from wastejax.bundle import load_bundle
from wastejax.cli import predict as command
from wastejax.data.images import BadImage, decode
from wastejax.data.transforms import Preprocessing
from wastejax.deployment import website
from wastejax.deployment.export import write_export
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.server.app import Limits
from wastejax.main import parser

TABLE = Path(__file__).parents[2] / "docs" / "results" / "file-kinds.md"
UNREAD_BY_BROWSERS = ("TIFF", "JPEG 2000", "PPM", "QOI", "HEIC")
# In levels: what the page may differ by, where a browser reads a file otherwise. See the table's notes.
KNOWN = {"AVIF, alpha": 20, "JPEG, CMYK with a profile": 60}
LOOK = """
const [data, preprocessing, done] = arguments;
(async () => {
  const { squareOf } = await import("./local.js");
  const blob = new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]);
  const square = await squareOf(blob, preprocessing);
  let text = "";
  for (let i = 0; i < square.length; i += 8192) text += String.fromCharCode(...square.subarray(i, i + 8192));
  done({ square: btoa(text) });
})().catch((error) => done({ error: error.reason ?? "not read" }));
"""
INTRODUCTION = """\
# Kinds of files

What each form of wastejax makes of {count} kinds of files that phones, scrapers and cameras write, each made
from one small image. Written by `tests/deployment/test_file_kinds.py`, which fails when a row is no longer true.

- **`predict`**: whether it is read, else the reason that is given. What is read is also compared with the
  image that the file was made from.
- **server**, **exported**: probabilities of `serve`, and of an ONNX file on ONNX Runtime, against those of
  `predict` with the bundle: the same within 1e-4.
- **page**: the square that the page hands to the network in a browser ({browser}), against Python's, in
  levels of 255.

Where the page differs: browsers read no TIFF, JPEG 2000, PPM, QOI or HEIC (the page that `serve` gives out
sends the file to the server, which does). They keep the upper 8 of 16 bits, so the page refuses a file that
uses only the lower. Chromium mixes black ink into the other three before it applies a CMYK profile, and takes the
alpha channel of an AVIF for one of limited range. A WebP turned by EXIF, and files that lack only their end marker,
the page mends itself.

Large JPEGs, of which Python decodes no more than it needs, the page decodes whole: there the squares differ by
a few levels.

| kind | ending | `predict` | server | exported | page |
|---|---|---|---|---|---|
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("kinds")
    paths = {}
    for number, (name, (ending, make)) in enumerate(KINDS.items()):
        paths[name] = folder / f"{number:02}{ending}"
        paths[name].write_bytes(make())
    return paths


def answers(files: dict[str, Path], model: Any, monkeypatch) -> dict[str, dict[str, Any]]:
    """Returns what `wastejax predict` says of each kind; `model` is a path or a predictor."""
    arguments = ["predict", "--format=json", "--top=5", *map(str, files.values())]
    if isinstance(model, Path):
        arguments += [f"--model={model}", *(["--engine=jax"] if model.is_dir() else [])]
    else:
        monkeypatch.setattr(command, "load_engine", lambda *_, **__: model)
    lines: list[str] = []
    command.run(parser("predict").parse_args(arguments), lines.append)
    return dict(zip(files, json.loads("\n".join(lines)), strict=True))


def served(files: dict[str, Path], port: int) -> dict[str, dict[str, Any]]:
    """Returns what the server says of each kind."""
    found = {}
    for name, path in files.items():
        body, kind = form((str(path), path.read_bytes()))
        status, answer = post(port, body, "/predict?top=5", content_type=kind)
        found[name] = answer["answers"][0] if status == 200 else {"file": str(path), "error": answer["error"]}
    return found


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Returns the largest difference of two answers' probabilities."""
    a, b = ({guess["class"]: guess["probability"] for guess in answer["top"]} for answer in (one, other))
    return max(abs(a[name] - b[name]) for name in a)


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_shows_the_image_that_it_was_made_from(name):
    data = KINDS[name][1]()
    if name in CUT:
        with pytest.raises(BadImage, match="truncated"):
            decode(data)
        return
    shown = np.asarray(decode(data), np.float64)
    wanted = expected(name)
    assert shown.shape == (72, 96, 3)
    if name == "PNG, 1 bit":  # dithered: right in the mean
        assert set(np.unique(shown)) == {0, 255}
        wanted, shown = (a.reshape(4, 18, 4, 24, 3).mean((1, 3)) for a in (wanted, shown))
    coarse = {
        "PNG, 16 colors": 13,
        "PNG, 1 bit": 20,
        "JPEG, CMYK with a profile": 8,
        "TIFF, CMYK with a profile": 8,
    }
    assert np.abs(shown - wanted).mean() < coarse.get(name, 4)


def expected(name: str) -> np.ndarray:
    """Returns what a kind should show, float64 [72, 96, 3], by formulas of its own."""
    image = np.asarray(photo(), np.float64)
    if "gray, 12" in name or "gray of 16" in name or "floats" in name:  # made of the red channel
        image = image[..., :1].repeat(3, -1)
    elif "gray" in name or "1 bit" in name:
        image = (image @ (0.299, 0.587, 0.114))[..., None].repeat(3, -1)
    if "P3" in name or "Adobe RGB" in name:
        image = wide(image, adobe="Adobe" in name)
    elif name == "JPEG, gray with a profile":
        image = encoded(image / 255)  # of linear light
    elif "gamma" in name:
        image = encoded((image / 255) ** 1.8)
    elif name == "JPEG, CMYK":
        image = image * (1 - 30 / 255)
    elif "CMYK with" in name:  # the press of file_kinds.py
        inks = 1 - image / 255
        image = encoded((1 - inks * (1, 0.9, 0.95)) * (1 - 30 / 255) ** 2)
    if "transparent" in name:
        image[10:50, 10:50] = 255
    elif "alpha" in name:
        alpha = np.linspace(0, 255, 96).astype(np.uint8)[:, None] / 255
        image = image * alpha + 255 * (1 - alpha)
    return image


def encoded(light: np.ndarray) -> np.ndarray:
    """Linear light -> sRGB, IEC 61966-2-1."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def wide(image: np.ndarray, adobe: bool) -> np.ndarray:
    """Display P3 or Adobe RGB -> sRGB, by their primaries' chromaticities, all with white D65."""
    v = image / 255
    light = v**2.2 if adobe else np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4)
    given = (
        [(0.64, 0.33), (0.21, 0.71), (0.15, 0.06)] if adobe else [(0.68, 0.32), (0.265, 0.69), (0.15, 0.06)]
    )
    to_xyz, srgb = (matrix(p) for p in (given, [(0.64, 0.33), (0.3, 0.6), (0.15, 0.06)]))
    return encoded(light @ (np.linalg.inv(srgb) @ to_xyz).T)


def matrix(primaries: list[tuple[float, float]]) -> np.ndarray:
    """RGB -> XYZ (Lindbloom's derivation)."""
    xyz = np.array([(x / y, 1, (1 - x - y) / y) for x, y in primaries]).T
    white = np.array([0.3127 / 0.329, 1, (1 - 0.3127 - 0.329) / 0.329])
    return xyz * np.linalg.solve(xyz, white)


def test_predict_and_the_server_read_the_same(files, monkeypatch):
    model = stand_in()
    said = answers(files, model, monkeypatch)
    with server(model, Limits()) as port:
        replied = served(files, port)
    assert replied == said
    assert {name for name, answer in said.items() if "error" in answer} == CUT


@pytest.mark.slow
def test_the_table_of_all_forms(files, tmp_path, monkeypatch, browser):
    pytest.importorskip("onnxruntime")
    bundle = load_bundle(write_bundle(tmp_path / "bundle"))
    write_export(bundle, tmp_path / "model.onnx")
    said = answers(files, tmp_path / "bundle", monkeypatch)
    exported = answers(files, tmp_path / "model.onnx", monkeypatch)
    with server(load_predictor(tmp_path / "bundle"), Limits()) as port:
        replied = served(files, port)
    rows = []
    for name, path in files.items():
        error = said[name].get("error", "")
        assert error == replied[name].get("error", "") == exported[name].get("error", "")
        cells = [error] * 3
        if not error:
            assert difference(said[name], replied[name]) <= 1e-4
            assert difference(said[name], exported[name]) <= 1e-4
            cells = ["read", "same", "same"]
        cells.append(looked_at(browser, name, path, bundle.preprocessing))
        rows.append(f"| {' | '.join([name, path.suffix, *cells])} |")
    version = f"Chromium {browser.capabilities['browserVersion'].split('.')[0]}"
    text = INTRODUCTION.format(browser=version, count=len(KINDS)) + "\n".join(rows) + "\n"
    if os.environ.get("WASTEJAX_WRITE_DOCS"):
        TABLE.write_text(text)
    committed = [row for row in TABLE.read_text().splitlines() if row.startswith("| ")]
    if (
        version not in TABLE.read_text()
    ):  # browsers mend their decoders: what the page sees is told of one of them
        committed, rows = ([row.rsplit(" | ", 1)[0] for row in part] for part in (committed, rows))
    assert [row for row in rows if row not in committed] == []


def looked_at(browser: Any, name: str, path: Path, preprocessing: Preprocessing) -> str:
    """Returns the page's cell of a kind, and checks it."""
    data = path.read_bytes()
    preprocessing_ = {k: getattr(preprocessing, k) for k in ("image_size", "crop", "interpolation")}
    found = browser.execute_async_script(LOOK, base64.b64encode(data).decode(), preprocessing_)
    if "error" in found:
        deep = "12 bits in 16" in name
        assert name in CUT or deep or name.startswith(UNREAD_BY_BROWSERS), name
        return "not read by browsers" if name.startswith(UNREAD_BY_BROWSERS) else f"refused: {found['error']}"
    ours = preprocessing(decode(data)).astype(int)
    theirs = np.frombuffer(base64.b64decode(found["square"]), np.uint8).reshape(ours.shape)
    most = np.abs(ours - theirs).max()
    assert most <= KNOWN.get(name, 2), name
    return "same" if most == 0 else f"up to {most}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    """The page's folder in a headless Chromium."""
    pytest.importorskip("selenium")
    from experiments.browser import CHROMIUM, DRIVER, chromium, web_host

    if not (CHROMIUM.is_file() and DRIVER.is_file()):
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    with chromium(str(tmp_path_factory.mktemp("profile"))) as driver, web_host(website.PAGE) as address:
        driver.get(f"{address}style.css")
        yield driver


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_page_turns_a_webp_as_python_does(browser, tmp_path, orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "turned.webp"
    path.write_bytes(encode(photo(), "WEBP", lossless=True, exif=exif))
    assert looked_at(browser, "WebP", path, Preprocessing(64)) == "same"


@pytest.mark.slow
@pytest.mark.parametrize("missing", [1, 2, 3, 4, 8, 12, 13, 16, 20, 60, 400])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_page_and_python_take_the_same_for_truncated(browser, tmp_path, kind, missing):
    data = encode(photo(), kind)[:-missing]
    try:
        decode(data)
        name = kind
    except BadImage:
        name = f"{kind}, cut in the middle"
    (tmp_path / "cut").write_bytes(data)
    cell = looked_at(browser, name, tmp_path / "cut", Preprocessing(64))
    assert cell == "same" if name == kind else cell.startswith("refused")
