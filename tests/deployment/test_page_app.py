"""The page as an app, in a real browser: without a network, in new versions, live, with a history, and shared."""

import io
import json
import os
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from small_models import write_bundle

from wastejax.data.taxonomy import load_taxonomy
from wastejax.deployment import website

pytestmark = pytest.mark.slow  # a browser, npm's packages, and an export

pytest.importorskip("selenium", reason="the page's tests need the extra browser: selenium")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from web_page import answered, ask, capital, choose, open_page, status, text, texts, wait  # noqa: E402

from experiments.browser import asked_hosts, web_host  # noqa: E402

KEPT = """
const done = arguments[0];
navigator.serviceWorker.ready.then(() => caches.keys()).then(done);
"""
KINDS_KEPT = """
const [name, done] = arguments;
(async () => {
  const cache = await caches.open(name);
  const replies = await cache.matchAll();
  const requests = await cache.keys();
  return requests.map(({ url }, i) => [url, replies[i].headers.get("content-type")]);
})().then(done);
"""


@pytest.fixture(scope="module")
def site(npm, tmp_path_factory) -> Path:
    """The page with a small model inside, which is sure of nothing."""
    folder = tmp_path_factory.mktemp("site")
    return website.write_site(write_bundle(folder / "bundle", image_size=64), folder / "site", reject_below=0)


def rewrite(site: Path, name: str, before: bytes, after: bytes) -> None:
    """Publishes another version of a site, in which one file says something else."""
    files = {str(path.relative_to(site)): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    files.pop("LICENSE-MODEL", None)
    assert before in files[name]
    files[name] = files[name].replace(before, after)
    files["service-worker.js"] = (website.PAGE / "service-worker.js").read_bytes()
    files["service-worker.js"] = website.service_worker(files)
    later = time.time() + 2  # hosts tell versions apart by whole seconds
    for changed in (name, "service-worker.js"):
        (site / changed).write_bytes(files[changed])
        os.utime(site / changed, (later, later))


def test_after_the_first_visit_it_answers_without_a_network_and_new_versions_replace_old_ones(
    driver, site, dark, tmp_path
):
    folder = shutil.copytree(site, tmp_path / "site")
    with web_host(folder) as address:
        open_page(driver, address, "en")
        (first,) = driver.execute_async_script(KEPT)
        kept = {
            url.removeprefix(address): kind for url, kind in driver.execute_async_script(KINDS_KEPT, first)
        }
    # Unpacked, as files whose compiled form browsers keep.
    assert kept["ort/ort-wasm-simd-threaded.wasm"] == "application/wasm" and "model.onnx" in kept
    assert not any(path.endswith(website.PACKED) for path in kept)
    # The host is gone.
    open_page(driver, address, "ko")
    ask(driver, dark)
    assert text(driver, ".card h2") and driver.title == "어디에 버릴까요?"

    rewrite(folder, "texts-en.js", b"Where does this go?", b"Which bin?")
    with web_host(folder, port=urlsplit(address).port):
        open_page(driver, address, "en")
        assert driver.title == "Where does this go?"  # still one version, and wholly that
        wait(driver, lambda d: d.find_element(By.ID, "update").is_displayed())
        driver.find_element(By.ID, "reload").click()
        wait(driver, lambda d: d.title == "Which bin?")
        wait(driver, lambda d: status(d) == "Ready.")
        (second,) = driver.execute_async_script(KEPT)  # the old one's files are gone
        assert second != first
    open_page(driver, address, "en")
    assert driver.title == "Which bin?"


def close_tab(driver, first: str) -> None:
    """Leaves the first tab alone, open and in use."""
    driver.switch_to.window(next(handle for handle in driver.window_handles if handle != first))
    driver.close()
    driver.switch_to.window(first)


def test_each_of_two_tabs_goes_over_to_a_new_version(driver, site, tmp_path):
    folder = shutil.copytree(site, tmp_path / "site")
    first = driver.current_window_handle
    with web_host(folder) as address:
        open_page(driver, address, "en")
        driver.execute_async_script(KEPT)
        open_page(driver, address, "en")
        driver.switch_to.new_window("tab")
        try:
            open_page(driver, address, "en")
            tabs = [first, driver.current_window_handle]
            rewrite(folder, "texts-en.js", b"Where does this go?", b"Which bin?")
            driver.execute_script("navigator.serviceWorker.getRegistration().then((r) => r.update())")
            for tab in tabs:
                driver.switch_to.window(tab)
                wait(driver, lambda d: d.find_element(By.ID, "update").is_displayed())
            for tab in tabs:
                driver.switch_to.window(tab)
                assert driver.title == "Where does this go?"  # until the reader wants it
                driver.find_element(By.ID, "reload").click()
                wait(driver, lambda d: d.title == "Which bin?")
        finally:
            close_tab(driver, first)


def test_two_pages_of_one_host_are_kept_apart(driver, site, dark, tmp_path):
    folder = shutil.copytree(site, tmp_path / "site")
    shutil.copytree(site, folder / "fr")
    with web_host(folder) as address:
        open_page(driver, address, "en")
        driver.execute_async_script(KEPT)
        ask(driver, dark)
        wait(driver, lambda d: len(texts(d, "#earlier li")) == 1)
        for _ in range(2):  # the first time under the other one's service worker
            open_page(driver, f"{address}fr/", "en")
            assert not driver.find_element(By.ID, "history").is_displayed()
            driver.execute_async_script(KEPT)
            assert not driver.find_element(By.ID, "update").is_displayed()
        open_page(driver, address, "en")
        assert len(texts(driver, "#earlier li")) == 1


def test_browsers_find_it_fit_to_be_installed(driver, site):
    with web_host(site) as address:
        open_page(driver, address, "en")
        assert driver.execute_cdp_cmd("Page.getInstallabilityErrors", {})["installabilityErrors"] == []


@pytest.mark.parametrize("local", [True, False], ids=["a model inside", "a server"])
def test_the_live_view_answers_one_image_after_the_other(driver, site, served, local):
    with web_host(site) as address:
        open_page(driver, address if local else served, "en")
        driver.find_element(By.ID, "open-camera").click()
        wait(driver, lambda d: "answers a second" in text(d, "#rate"))
        heads = [b.name() for b in load_taxonomy().bins.values()]
        wait(driver, lambda d: text(d, "#live .bin") in {*map(capital, heads), "종이", "paper"})
        choose(driver, "de")
        wait(driver, lambda d: "Antworten je Sekunde" in text(d, "#rate"))
        driver.find_element(By.ID, "close-camera").click()
        assert driver.switch_to.active_element.get_attribute("id") == "open-camera"
        assert not driver.find_element(By.ID, "camera").is_displayed()
        assert driver.execute_script("return document.getElementById('video').srcObject") is None
        asked_hosts(driver)
        time.sleep(0.5)
        assert not asked_hosts(driver)  # nothing is asked for any more


def test_a_camera_that_is_unplugged_is_closed_and_told(driver, site):
    with web_host(site) as address:
        open_page(driver, address, "en")
        driver.find_element(By.ID, "open-camera").click()
        wait(driver, lambda d: "answers a second" in text(d, "#rate"))
        driver.execute_script(
            "const [track] = document.getElementById('video').srcObject.getTracks();"
            "track.stop(); track.dispatchEvent(new Event('ended'))"
        )
        wait(driver, lambda d: status(d).startswith("The camera cannot be used."))
        assert not driver.find_element(By.ID, "camera").is_displayed()
        assert driver.switch_to.active_element.get_attribute("id") == "open-camera"


# Notes the steps of a search for objects, and calls `window.first` at the first.
STEPS = """
window.steps = [];
window.Worker = class extends Worker {
  constructor(...all) {
    super(...all);
    this.addEventListener("message", ({ data: { progress } }) => {
      if (!progress || !document.querySelector(".card")) return;
      window.steps.push(progress);
      window.first?.();
      window.first = null;
    });
  }
};
"""
DROP_ICON = """
const done = arguments[0];
fetch("icon-192.png").then((reply) => reply.blob()).then((blob) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([blob], "icon.png", { type: "image/png" }));
  window.first = () => document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true }));
}).then(done);
"""


def test_objects_are_looked_for_once_and_no_longer_where_another_image_is_chosen(driver, site, tmp_path):
    folder = shutil.copytree(site, tmp_path / "site")
    labels = json.loads((folder / website.LABELS).read_text())
    labels["onnx"]["regions"] |= {"levels": [i / 40 for i in range(1, 40)], "prominence": 0.01}
    (folder / website.LABELS).write_text(json.dumps(labels))
    Image.effect_mandelbrot((320, 240), (-3, -2.5, 2, 2.5), 100).convert("RGB").save(tmp_path / "a.png")
    script = driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": STEPS})
    try:
        with web_host(folder) as address:
            open_page(driver, address, "en")
            ask(driver, str(tmp_path / "a.png"))
            driver.execute_script("const b = document.querySelector('.closer'); b.click(); b.click();")
            wait(driver, lambda d: text(d, ".found"))
            time.sleep(0.5)
            steps = driver.execute_script("return window.steps.splice(0)")
            assert [at for at, _ in steps] == list(range(steps[0][1])) and len(steps) > 20

            ask(driver, str(tmp_path / "a.png"))
            driver.execute_async_script(DROP_ICON)
            driver.find_element(By.CSS_SELECTOR, ".closer").click()
            wait(driver, lambda d: d.execute_script("return window.steps.length"))
            wait(driver, lambda d: answered(d) and not text(d, ".found"))
            time.sleep(0.5)
            assert len(driver.execute_script("return window.steps")) < 10
            assert answered(driver) and driver.find_element(By.CSS_SELECTOR, ".closer").is_displayed()
    finally:
        driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_what_speaks_for_an_answer_and_several_objects_are_drawn(driver, site, tmp_path):
    Image.effect_mandelbrot((320, 240), (-3, -2.5, 2, 2.5), 100).convert("RGB").save(tmp_path / "a.png")
    with web_host(site) as address:
        open_page(driver, address, "en")
        ask(driver, str(tmp_path / "a.png"))
        heat = driver.find_element(By.CSS_SELECTOR, ".heatmap img")
        assert heat.is_displayed() and heat.get_attribute("alt") == "What speaks for this answer"
        wait(driver, lambda d: d.execute_script("return arguments[0].naturalWidth", heat) == 320)
        photo = driver.find_element(By.CSS_SELECTOR, ".image")
        before = photo.get_attribute("src")
        driver.find_element(By.CSS_SELECTOR, ".closer").click()
        found = wait(driver, lambda d: text(d, ".found"))
        lines = texts(driver, ".regions li")
        assert found == f"Objects found: {len(lines)}" and lines
        assert [line.split(".")[0] for line in lines] == [str(i + 1) for i in range(len(lines))]
        assert driver.switch_to.active_element.get_attribute("class") == "found"
        assert photo.get_attribute("src") != before  # with its boxes
        assert not driver.find_element(By.CSS_SELECTOR, ".closer").is_displayed()
        assert asked_hosts(driver) == {urlsplit(address).netloc}


def test_the_history_stays_in_the_browser_and_can_be_cleared(driver, served, dark):
    open_page(driver, served, "en")
    driver.execute_script("document.getElementById('clear').click()")
    wait(driver, lambda d: status(d) == "Earlier answers were cleared.")
    for count in (1, 2):
        ask(driver, dark)
        wait(driver, lambda d, count=count: len(texts(d, "#earlier li")) == count)
    korea = load_taxonomy()
    open_page(driver, served, "ko")
    rule = korea.classes["eggshells"]
    for line in texts(driver, "#earlier li"):
        assert korea.bins[rule.bin].name("ko") in line and rule.name("ko") in line
    assert len(texts(driver, "#earlier li")) == 2
    driver.find_element(By.ID, "clear").click()
    wait(driver, lambda d: not d.find_element(By.ID, "history").is_displayed())
    assert driver.switch_to.active_element.get_attribute("id") == "file"  # the button is gone
    open_page(driver, served, "en")
    assert not driver.find_element(By.ID, "history").is_displayed()


# What the page gives to the device's own way of sharing.
SHARING = """
navigator.canShare = () => true;
navigator.share = async ({ files, title }) => {
  window.shared = { title, type: files[0].type, bytes: [...new Uint8Array(await files[0].arrayBuffer())] };
};
"""


def test_an_answer_is_shared_or_saved_as_an_image(driver, served, dark, tmp_path):
    bin_rule = load_taxonomy().bins[load_taxonomy().classes["eggshells"].bin]
    open_page(driver, served, "en")
    driver.execute_script(SHARING)
    ask(driver, dark)
    driver.find_element(By.CSS_SELECTOR, ".card .share").click()
    shared = wait(driver, lambda d: d.execute_script("return window.shared"))
    assert (shared["title"], shared["type"]) == (capital(bin_rule.name()), "image/jpeg")
    image = Image.open(io.BytesIO(bytes(shared["bytes"])))
    red, green, blue = (int(bin_rule.color[i : i + 2], 16) for i in (1, 3, 5))
    assert all(abs(a - b) < 8 for a, b in zip(image.getpixel((20, 20)), (red, green, blue), strict=True))
    assert max(image.getpixel((image.width // 2, 600))) < 8  # the image itself

    driver.execute_script("navigator.canShare = undefined")
    place = {"behavior": "allow", "downloadPath": str(tmp_path / "saved")}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", place)
    driver.find_element(By.CSS_SELECTOR, ".card .share").click()
    saved = tmp_path / "saved" / "wastejax.jpg"
    wait(driver, lambda d: saved.is_file())
    assert Image.open(io.BytesIO(saved.read_bytes())).size == image.size


def test_with_the_keyboard_alone(driver, served, dark):
    open_page(driver, served, "en")
    ask(driver, dark)
    keys = ActionChains(driver)
    keys.send_keys(Keys.TAB).perform()  # from the headline on
    assert "share" in driver.switch_to.active_element.get_attribute("class")
    driver.execute_script("document.getElementById('open-camera').focus()")
    keys.send_keys(Keys.ENTER).perform()
    wait(driver, lambda d: d.switch_to.active_element.get_attribute("id") == "shoot")
    wait(driver, lambda d: "answers a second" in text(d, "#rate"))
    keys.send_keys(Keys.SPACE).perform()
    wait(driver, answered)
    wait(driver, lambda d: d.switch_to.active_element.get_attribute("class") == "bin")
    driver.execute_script("document.getElementById('language').focus()")
    keys.send_keys("D").perform()
    wait(driver, lambda d: d.title == "Wohin damit?")


def test_a_screen_reader_hears_the_bin_as_a_heading_with_its_advice(driver, served, dark):
    open_page(driver, served, "en")
    ask(driver, dark)
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    heard = [
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if not node["ignored"] and node.get("name", {}).get("value")
    ]
    korea = load_taxonomy()
    item = korea.classes["eggshells"]
    head = ("heading", capital(korea.bins[item.bin].name()))
    assert heard.index(("heading", "Where does this go?")) < heard.index(head)
    for name in (item.name(), item.advice()):
        assert heard.index(head) < heard.index(("StaticText", name))
    for expected in (
        ("combobox", "Language"),
        ("button", "Use the camera"),
        ("button", "Choose images"),
        ("image", "Your image"),
        ("meter", "Confidence"),
        ("region", "Answers"),
    ):
        assert expected in heard, expected
    buttons = {node["role"]["value"] for node in nodes if node.get("focusable")}
    assert not buttons & {"generic", "none"}


def test_dark_mode_is_the_readers(driver, served):
    open_page(driver, served, "en")
    grounds = []
    for scheme in ("light", "dark"):
        feature = {"name": "prefers-color-scheme", "value": scheme}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        ground = driver.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
        grounds.append([int(level) for level in ground[5:].split(",")[:3]])
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert min(grounds[0]) > 200 and max(grounds[1]) < 60
