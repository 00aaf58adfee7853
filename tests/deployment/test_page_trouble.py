"""What the page makes, in a browser, of damaged files, a busy server, formats of the server alone, and links."""

import io
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_models import CLASSES, write_bundle
from test_serve import server, stand_in

from wastejax.data.taxonomy import load_taxonomy
from wastejax.deployment import website

pytestmark = pytest.mark.slow  # a browser, npm's packages, and an export

pytest.importorskip("selenium", reason="the page's tests need the extra browser: selenium")
from selenium.webdriver.common.by import By  # noqa: E402
from web_page import ask, capital, choose, open_page, status, text, texts, wait  # noqa: E402

from experiments.browser import web_host  # noqa: E402


@pytest.fixture(scope="module")
def site(npm, tmp_path_factory) -> Path:
    """The page with a small model inside that is sure of nothing, and looks for objects at one size."""
    folder = tmp_path_factory.mktemp("site")
    site = website.write_site(write_bundle(folder / "bundle", image_size=64), folder / "site", reject_below=0)
    labels = json.loads((site / website.LABELS).read_text())
    labels["onnx"]["regions"] |= {"scales": [1.0], "levels": [0.5]}
    (site / website.LABELS).write_text(json.dumps(labels))
    return site


def natural_size(driver, selector: str) -> list[int]:
    script = "const i = document.querySelector(arguments[0]); return [i.naturalWidth, i.naturalHeight]"
    return driver.execute_script(script, selector)


def shown(driver, selector: str) -> bool:
    return driver.find_element(By.CSS_SELECTOR, selector).is_displayed()


def test_files_that_lack_their_end_are_answered_and_drawn_as_all_others(driver, site, tmp_path):
    photo = Image.effect_mandelbrot((160, 120), (-3, -2.5, 2, 2.5), 100).convert("RGB")
    paths = []
    for kind, lacking in (("jpeg", 2), ("png", 12), ("png", 4)):
        data = io.BytesIO()
        photo.save(data, kind)
        paths.append(tmp_path / f"{lacking}.{kind}")
        paths[-1].write_bytes(data.getvalue()[:-lacking])
    exif, turned = Image.Exif(), tmp_path / "turned.webp"
    exif[0x0112] = 6
    photo.save(turned, exif=exif, lossless=True)
    with web_host(site) as address:
        open_page(driver, address, "en")
        ask(driver, *map(str, [*paths, turned]), answers=lambda d: status(d) == "4 of 4 images answered.")
        assert driver.execute_script("return document.querySelectorAll('.heatmap:not([hidden])').length") == 4
        wait(driver, lambda d: len(texts(d, "#earlier li")) == 4)
        for path, size in ((paths[0], [160, 120]), (turned, [120, 160])):
            ask(driver, str(path))
            wait(driver, lambda d, size=size: natural_size(d, ".heatmap img") == size)
            driver.find_element(By.CSS_SELECTOR, ".closer").click()
            wait(driver, lambda d: text(d, ".found"))
            wait(driver, lambda d, size=size: natural_size(d, ".image") == size)


def test_an_answer_stands_where_its_drawing_fails(driver, site, dark):
    with web_host(site) as address:
        open_page(driver, address, "en")
        driver.execute_script(
            "OffscreenCanvas.prototype.convertToBlob = () => { throw new Error('no room'); }"
        )
        ask(driver, dark, dark, answers=lambda d: status(d) == "2 of 2 images answered.")
        assert not shown(driver, ".heatmap")
        ask(driver, dark)
        driver.find_element(By.CSS_SELECTOR, ".closer").click()
        wait(driver, lambda d: text(d, ".found"))
        assert shown(driver, ".image") and "…" not in status(driver)


# As for large images.
SLOW = """
const genuine = OffscreenCanvas.prototype.convertToBlob;
OffscreenCanvas.prototype.convertToBlob = async function (...all) {
  await new Promise((done) => setTimeout(done, 1000));
  return genuine.apply(this, all);
};
"""


def test_choosing_again_before_all_are_answered_leaves_nothing_of_the_first_choice(
    driver, site, dark, tmp_path
):
    (tmp_path / "none.png").write_text("hello")
    with web_host(site) as address:
        open_page(driver, address, "en")
        driver.execute_script(SLOW)
        for files, end, cards in (
            ([tmp_path / "none.png"], "(damaged, or of a format that this browser does not know)", 0),
            ([dark], "%.", 1),
            ([dark, tmp_path / "none.png"], "1 of 2 images answered.", 2),
        ):
            driver.find_element(By.ID, "file").send_keys("\n".join([dark] * 3))
            wait(driver, lambda d: d.find_elements(By.CSS_SELECTOR, ".card"))
            driver.find_element(By.ID, "file").send_keys("\n".join(map(str, files)))
            wait(driver, lambda d, end=end: status(d).endswith(end))
            time.sleep(2.5)
            assert status(driver).endswith(end) and len(texts(driver, ".card")) == cards


def drop(driver, *paths: Path) -> None:
    data = {"items": [], "files": list(map(str, paths)), "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        driver.execute_cdp_cmd("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})


DROP_CHOSEN = """
const dataTransfer = new DataTransfer();
dataTransfer.items.add(document.getElementById("mine").files[0]);
document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
"""


def test_folders_and_files_that_are_gone_are_no_fault_of_the_server(driver, served, dark, tmp_path):
    photos, empty, gone = tmp_path / "photos", tmp_path / "empty", tmp_path / "gone.png"
    (photos / "deeper").mkdir(parents=True)
    empty.mkdir()
    for path in (photos / "b.png", photos / "deeper" / "a.png", gone):
        Image.new("RGB", (60, 50)).save(path)
    (photos / "notes.txt").write_text("hello")
    open_page(driver, served, "en")
    drop(driver, photos, Path(dark))
    wait(driver, lambda d: status(d) == "3 of 3 images answered.")
    assert texts(driver, ".card .name") == ["b.png", "a.png", "dark.png"]
    drop(driver, empty)
    wait(driver, lambda d: status(d) == "This image cannot be read (a folder without images)")
    driver.execute_script(
        "const input = Object.assign(document.createElement('input'), { type: 'file', id: 'mine' });"
        "document.body.append(input);"
    )
    driver.find_element(By.ID, "mine").send_keys(str(gone))
    gone.unlink()
    driver.execute_script(DROP_CHOSEN)
    problem = "This image cannot be read (damaged, or of a format that this browser does not know)"
    wait(driver, lambda d: status(d) == problem)


# In place of the answer to each of the first requests a status, and ours after them.
REPLIES = """
const [statuses, headers] = arguments;
const genuine = window.fetch;
window.asked = 0;
window.fetch = async (...all) => {
  if (!String(all[0]).startsWith("predict")) return genuine(...all);
  const status = statuses[window.asked++] ?? 200;
  return status === 200 ? genuine(...all) : new Response("<html>nginx</html>", { status, headers });
};
"""


def test_a_server_that_is_busy_for_a_while_costs_no_image_its_answer(driver, served, dark):
    open_page(driver, served, "en")
    driver.execute_script(REPLIES, [200, 503], {"retry-after": "1"})
    ask(driver, dark, dark, dark, answers=lambda d: status(d) == "3 of 3 images answered.")
    assert driver.execute_script("return window.asked") == 4


def test_an_image_without_an_answer_says_why_and_the_others_are_answered(driver, served, dark):
    open_page(driver, served, "en")
    driver.execute_script(REPLIES, [503, 413, 502, 401], {"retry-after": "3600"})
    ask(driver, *[dark] * 5, answers=lambda d: status(d) == "1 of 5 images answered.")
    assert texts(driver, ".card h2")[:4] == [
        "Too many images are waiting. Try again in a moment.",
        "This image cannot be read (too large)",
        "The server does not answer. Try again in a moment.",
        "The server reports an error (HTTP 401)",
    ]
    choose(driver, "de")
    assert texts(driver, ".card h2")[3] == "Der Server meldet einen Fehler (HTTP 401)"
    driver.execute_script(REPLIES, [413], {})
    driver.find_element(By.ID, "file").send_keys(dark)
    wait(driver, lambda d: status(d) == "Dieses Bild kann nicht gelesen werden (zu groß)")


def test_what_speaks_for_an_answer_is_not_shown_where_there_is_none(driver, dark):
    def network(pixels: np.ndarray) -> np.ndarray:
        return np.full((len(pixels), len(CLASSES)), 1 / len(CLASSES), np.float32)

    def dense(pixels: np.ndarray) -> np.ndarray:
        return np.zeros((len(pixels), 2, 2, len(CLASSES)), np.float32)

    for least, expected in ((0.5, False), (0.0, True)):
        predictor = replace(stand_in(), probabilities=network, dense=dense)
        with server(predictor, reject_below=least) as port:
            open_page(driver, f"http://127.0.0.1:{port}/", "en")
            ask(driver, dark)
            assert (text(driver, ".card h2") == "Not sure") is not expected
            assert shown(driver, ".heatmap") is expected


# What the page gives to the device's own way of sharing.
SHARING = """
navigator.canShare = () => true;
navigator.share = async ({ files }) => { window.shared = [...new Uint8Array(await files[0].arrayBuffer())]; };
"""


def test_what_only_the_server_can_read_is_shared_and_remembered_without_its_image(driver, served, tmp_path):
    path = tmp_path / "dark.tiff"
    Image.new("RGB", (60, 50)).save(path)
    bin_rule = load_taxonomy().bins[load_taxonomy().classes["eggshells"].bin]
    open_page(driver, served, "en")
    driver.execute_script("document.getElementById('clear').click()")
    wait(driver, lambda d: status(d) == "Earlier answers were cleared.")
    driver.execute_script(SHARING)
    ask(driver, str(path))
    assert text(driver, ".card h2") == capital(bin_rule.name())
    wait(driver, lambda d: not shown(d, ".image"))
    wait(driver, lambda d: len(texts(d, "#earlier li")) == 1)
    choose(driver, "de")
    assert not shown(driver, ".image") and capital(bin_rule.name("de")) in texts(driver, "#earlier li")[0]
    driver.find_element(By.CSS_SELECTOR, ".card .share").click()
    image = Image.open(io.BytesIO(bytes(wait(driver, lambda d: d.execute_script("return window.shared")))))
    assert image.size == (1080, 630)
    assert image.convert("L").crop((0, 260, 1080, 630)).getextrema()[0] < 80  # the class, on white


def test_the_language_of_a_link_is_for_one_visit(driver, served):
    def language() -> str:
        return driver.execute_script("return document.documentElement.lang")

    open_page(driver, served, "en")
    choose(driver, "fr")
    open_page(driver, served, "ko")
    assert language() == "ko"
    open_page(driver, served)
    assert language() == "fr"
