"""The page in a real browser: it answers as `predict` does, in both languages, and asks nobody else."""

import io
import json
import shutil
import subprocess
from dataclasses import replace
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from small_models import CLASSES, draw_images, write_bundle
from test_serve import server, stand_in

from wastejax.cli import web as command
from wastejax.data.images import decode
from wastejax.data.sources import open_folder
from wastejax.data.taxonomy import load_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment import website
from wastejax.deployment.formats import load_predictor
from wastejax.errors import UserError
from wastejax.main import parser

pytestmark = pytest.mark.slow  # a browser, npm's packages, and an export

pytest.importorskip("selenium", reason="the page's tests need the extra browser: selenium")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from web_page import (  # noqa: E402
    answered,
    ask,
    capital,
    choose,
    color,
    open_page,
    status,
    text,
    texts,
    wait,
)

from experiments.browser import agreement, asked_hosts, web_host  # noqa: E402


def test_an_image_in_both_languages(driver, served, dark):
    korea = load_taxonomy()
    item, bin_rule = korea.classes["eggshells"], korea.bins[korea.classes["eggshells"].bin]
    open_page(driver, served, "en")
    ask(driver, dark)
    for language in ("en", "ko"):
        choose(driver, language)
        assert driver.execute_script("return document.documentElement.lang") == language
        assert text(driver, ".card h2") == capital(bin_rule.name(language))
        assert text(driver, ".card .label") == item.name(language)
        assert text(driver, ".card .advice") == item.advice(language)
        assert text(driver, ".card").count(item.advice(language)) == 1
        assert bin_rule.advice(language) not in text(driver, ".card")  # advice is given once
        assert item.name(language) in status(driver) and text(driver, ".percent") in status(driver)
        assert len(driver.find_elements(By.CSS_SELECTOR, ".others li")) == 2
    red, green, blue = (int(bin_rule.color[i : i + 2], 16) for i in (1, 3, 5))
    assert color(driver, ".card .headline")[0] == f"rgba({red}, {green}, {blue}, 1)"
    assert driver.title == "어디에 버릴까요?" and text(driver, ".percent").endswith("%")
    assert not driver.find_element(By.CSS_SELECTOR, ".heatmap").is_displayed()
    assert asked_hosts(driver) == {urlsplit(served).netloc}
    open_page(driver, served)  # the language is remembered
    assert driver.execute_script("return document.documentElement.lang") == "ko"


def test_the_camera(driver, served):
    open_page(driver, served, "en")
    driver.find_element(By.ID, "open-camera").click()
    wait(driver, lambda d: d.execute_script("return document.getElementById('video').videoWidth > 0"))
    assert driver.switch_to.active_element.get_attribute("id") == "shoot"
    driver.find_element(By.ID, "shoot").click()
    wait(driver, answered)
    assert not driver.find_element(By.ID, "camera").is_displayed()
    assert driver.execute_script("return document.getElementById('video').srcObject") is None
    wait(driver, lambda d: d.execute_script("return document.querySelector('.image').naturalWidth") >= 320)
    assert text(driver, ".card .bin")
    assert asked_hosts(driver) == {urlsplit(served).netloc}


def test_by_keyboard_and_for_screen_readers(driver, served, dark):
    open_page(driver, served, "en")
    order = []
    for _ in range(3):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        focused = driver.switch_to.active_element
        order.append(focused.get_attribute("id") or focused.text)
    assert order == ["language", "open-camera", "file"]
    ask(driver, dark)
    assert driver.switch_to.active_element.get_attribute("class") == "bin"  # where reading continues
    assert driver.find_element(By.ID, "status").get_attribute("aria-live") == "polite"
    for element in driver.find_elements(
        By.CSS_SELECTOR, "button, input, select, meter, video, img:not([alt=''])"
    ):
        if element.is_displayed() or element.get_attribute("id") == "file":
            assert element.accessible_name, element.get_attribute("outerHTML")


def test_an_unsure_answer_names_no_class_as_the_answer(driver, dark):
    def compute(pixels: np.ndarray) -> np.ndarray:
        return np.full((len(pixels), len(CLASSES)), 1 / len(CLASSES), np.float32)

    with server(replace(stand_in(), probabilities=compute)) as port:
        open_page(driver, f"http://127.0.0.1:{port}/", "en")
        ask(driver, dark)
        for language, head in (("en", "Not sure"), ("ko", "확실하지 않습니다")):
            choose(driver, language)
            assert text(driver, ".card h2") == head and status(driver).startswith(head)
            # Nothing of a class that it may not be.
            assert text(driver, ".card .advice") == text(driver, ".card .label") == ""
            assert len(driver.find_elements(By.CSS_SELECTOR, ".others li")) == 3
        assert "물건이 하나만 나오도록 더 가까이에서" in text(driver, ".unsure")


def test_several_files_are_all_answered(driver, served, dark, tmp_path):
    Image.new("RGB", (60, 50), "white").save(tmp_path / "white.png")
    (tmp_path / "none.png").write_text("hello")
    open_page(driver, served, "en")
    files = (dark, str(tmp_path / "none.png"), str(tmp_path / "white.png"))
    ask(driver, *files, answers=lambda d: status(d) == "2 of 3 images answered.")
    korea = load_taxonomy()
    bin_name = capital(korea.bins[korea.classes["eggshells"].bin].name())
    assert texts(driver, "#summary li") == [f"{bin_name} × 1", "종이 × 1"]
    assert texts(driver, ".card h2") == [
        bin_name,
        "This image cannot be read (not an image)",
        "종이",
    ]  # no bin is known for the last
    assert texts(driver, ".card .name") == ["dark.png", "none.png", "white.png"]


def test_the_bin_is_seen_first_on_a_phone(driver, served, dark):
    driver.set_window_size(500, 844)
    try:
        open_page(driver, served, "en")
        ask(driver, dark)
        place = driver.find_element(By.CSS_SELECTOR, ".card h2").rect
        seen = driver.execute_script("return [scrollY, scrollY + innerHeight]")
        assert seen[0] <= place["y"] and place["y"] + place["height"] <= seen[1]
        assert place["y"] < driver.find_element(By.CSS_SELECTOR, ".image").rect["y"]
    finally:
        driver.set_window_size(900, 900)


def test_without_a_live_camera_the_phones_own_is_opened(driver, served):
    open_page(driver, served, "en")
    driver.execute_script(
        "Object.defineProperty(navigator, 'mediaDevices', { value: undefined });"  # as over plain http
        "document.getElementById('capture').addEventListener('click', (e) => {"
        "  e.preventDefault(); window.opened = e.target.getAttribute('capture'); });"
    )
    driver.find_element(By.ID, "open-camera").click()
    assert driver.execute_script("return window.opened") == "environment"


DROP = """
const transfer = new DataTransfer();
transfer.items.add(new File([arguments[0]], "a.png", { type: "image/png" }));
document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
"""


def test_what_is_no_image_is_said_and_the_next_one_is_looked_at(driver, served, dark):
    open_page(driver, served, "en")
    driver.execute_script(DROP, "hello")
    wait(driver, lambda d: status(d) == "This image cannot be read (not an image)")
    choose(driver, "ko")
    assert status(driver) == "사진을 읽을 수 없습니다 (이미지 파일이 아닙니다)"  # the reason too
    assert not answered(driver)
    ask(driver, dark)


# All that the status says while the page loads.
HEARD = """
window.heard = [];
new MutationObserver(() => window.heard.push(document.getElementById("status")?.textContent))
  .observe(document, { subtree: true, childList: true, characterData: true });
"""
DOWNLOADED = ("model.onnx.gzip", "ort/ort-wasm-simd-threaded.wasm.gzip")


def test_the_page_with_a_model_inside(driver, npm, tmp_path):
    model = write_bundle(tmp_path / "bundle", image_size=64, temperature=2.0)
    site = website.write_site(model, tmp_path / "site")
    predictor = load_predictor(model)
    paths = sorted(draw_images(tmp_path / "images").rglob("*.*"))
    with web_host(site) as address:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": HEARD})
        open_page(driver, address, "ko")
        heard = driver.execute_script("return window.heard")
        total = f"{sum((site / name).stat().st_size for name in DOWNLOADED) / 1e6:.0f}"
        assert f"모델을 불러오는 중 … ({total}/{total} MB)" in heard
        assert "이 브라우저 안에만" in text(driver, "#privacy")
        ask(driver, str(paths[0]))
        best = CLASSES[
            predictor.probabilities(predictor.preprocessing(decode(paths[0].read_bytes()))[None]).argmax()
        ]
        rule = load_taxonomy().find(best)
        assert (rule.name("ko") if rule else best) in text(driver, ".card")
        found = agreement(driver, address, predictor, [p.read_bytes() for p in paths], np.zeros(len(paths)))
        assert asked_hosts(driver) == {urlsplit(address).netloc}
    assert found["agreement"] == 1 and found["largest_difference"] < 1e-4
    assert found["same_pixels"] == 1


def test_a_float_model_and_turned_images(driver, npm, tmp_path):
    from wastejax.bundle import load_bundle
    from wastejax.deployment.export import write_export

    model = write_bundle(tmp_path / "bundle", image_size=64)
    write_export(load_bundle(model), tmp_path / "float.onnx", "float32")
    site = website.write_site(tmp_path / "float.onnx", tmp_path / "site")
    wide = Image.effect_mandelbrot((150, 90), (-3, -2.5, 2, 2.5), 100).convert("RGB")
    turned = []
    for orientation in range(1, 9):
        exif, data = Image.Exif(), io.BytesIO()
        exif[0x0112] = orientation
        wide.save(data, "JPEG", exif=exif)
        turned.append(data.getvalue())
    glass = io.BytesIO()
    clear = wide.copy()
    clear.putalpha(Image.linear_gradient("L").resize(wide.size))
    clear.save(glass, "PNG")
    predictor = load_predictor(model)
    with web_host(site) as address:
        found = agreement(driver, address, predictor, turned, np.zeros(len(turned)))
        through = agreement(driver, address, predictor, [glass.getvalue()], np.zeros(1))
    assert found["agreement"] == 1 and found["largest_difference"] < 1e-3
    assert found["largest_pixel_difference"] <= 4  # two decoders
    assert through["largest_pixel_difference"] <= 2


@pytest.mark.real_data
def test_200_images_get_predicts_class(driver, npm, real_data_dir, tmp_path):
    source = open_folder(real_data_dir / "household_waste")
    chosen = np.random.default_rng(5).permutation(len(source))[:200]
    site = website.write_site(None, tmp_path / "site")
    with web_host(site) as address:
        photos = [source.read(int(i)) for i in chosen]
        found = agreement(driver, address, load_predictor(None), photos, np.zeros(len(chosen)))
    assert found["pictures"] == 200 and found["agreement"] >= 0.98


RESIZE = """
import { center, resizeSquare } from "RESIZE";
import { readFileSync } from "node:fs";
const { width, height, preprocessing: p } = JSON.parse(process.argv[1]);
const part = { data: readFileSync(0), columns: width, x0: 0, y0: 0 };
const box = center(width, height, p);
process.stdout.write(resizeSquare(part, width, height, box, p.image_size, p.interpolation));
"""


@pytest.mark.parametrize(
    ("width", "height", "size", "crop", "interpolation"),
    [
        (256, 256, 192, 0.95, "bicubic"),
        (1000, 777, 192, 0.9, "bicubic"),
        (720, 1280, 192, 0.95, "bicubic"),
        (31, 1000, 64, 0.95, "bicubic"),
        (50, 70, 128, 0.875, "bicubic"),
        (333, 500, 224, 1.0, "bilinear"),
        (641, 480, 224, 0.95, "lanczos"),
    ],
)
def test_the_resize_is_pillows_to_the_bit(width, height, size, crop, interpolation):
    node = shutil.which("node")
    if not node:
        pytest.skip("no node")
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 4), dtype=np.uint8)
    preprocessing = Preprocessing(size, crop=crop, interpolation=interpolation)
    expected = preprocessing(Image.fromarray(pixels[..., :3].copy()))
    script = RESIZE.replace("RESIZE", (website.PAGE / "resize.js").as_uri())
    asked = json.dumps({"width": width, "height": height, "preprocessing": preprocessing.to_dict()})
    command = [node, "--input-type=module", "-e", script, asked]
    done = subprocess.run(command, input=pixels.tobytes(), capture_output=True, check=True, timeout=60)
    found = np.frombuffer(done.stdout, np.uint8).reshape(expected.shape)
    np.testing.assert_array_equal(found, expected)


def test_mistakes_are_one_line(tmp_path):
    for arguments, hint in (
        ([f"--runtime={tmp_path}"], "there is no ort.wasm.min.mjs"),
        (["--model=nowhere.onnx"], "nowhere.onnx: no such file"),
    ):
        if "nowhere" in arguments[0] and not website.NPM.is_dir():
            continue
        with pytest.raises(UserError, match=hint):
            command.run(parser("web").parse_args(["web", f"--out={tmp_path / 'site'}", *arguments]), print)
