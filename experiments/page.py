"""Measures the web page in headless Chromium: experiments/results/page.json, docs/results/page.md, screenshots.

Command: python experiments/page.py [STEP...] [--model=FILE.onnx] [--data=CLASS_FOLDERS] [--before=DIR]
STEP is one of agreement, regions, bytes, speed, lighthouse, screenshots; all where none is given. Each keeps what
the others measured before. --model is the bundled model exported as ONNX, made anew where it is not given;
--before, a folder that an older `wastejax web` wrote, for the bytes that it loads. Wants Debian's chromium,
chromium-driver and npm, and a Japanese font; Lighthouse comes by npx. All images of screenshots are drawn.
"""

import argparse
import base64
import io
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from experiments.browser import CHROMIUM, agreement, chromium, web_host
from experiments.page_text import SIZES, text
from experiments.provenance import provenance
from wastejax.bundle import default_bundle
from wastejax.data import images
from wastejax.data.drawing import dataset as synthetic
from wastejax.data.sources import open_folder
from wastejax.data.taxonomy import LANGUAGES
from wastejax.deployment.engines import load_engine
from wastejax.deployment.export import Check, Form, export_model
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.regions import find_regions, iou
from wastejax.deployment.website import write_site
from wastejax.evaluation.images import Asked
from wastejax.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "experiments" / "results" / "page.json"
TEXT = ROOT / "docs" / "results" / "page.md"
SHOTS = ROOT / "docs" / "images" / "page"
LIGHTHOUSE = "lighthouse@13.5.0"
LIGHTHOUSE_SECONDS = 150
IMAGES, LOADS, MOSAICS = 200, 10, 8
VISIT = 5
ALIKE = 0.7  # intersection over union of boxes that are the same
RULES = dict(zip(LANGUAGES, ("england", "korea", "germany", "japan", "france"), strict=True))
# Drawings in the screenshots.
KNOWN, UNKNOWN, SEEDS = "glass_beverage_bottles", ("newspaper", 5), 32
SEVERAL = ("aluminum_soda_cans", "plastic_detergent_bottles", "cardboard_boxes")
FIND = """
const [data, done] = arguments;
(async () => {
  const { loadModel } = await import("./local.js");
  window.labels ??= await (await fetch("labels.json")).json();
  window.model ??= await loadModel(window.labels);
  const start = performance.now();
  const found = await window.model.regions(new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]));
  const ms = performance.now() - start;
  done({ ms, regions: found.map(({ index, box }) => ({ box, class: window.labels.classes[index].name })) });
})().catch((error) => done({ error: String(error) }));
"""
# Gives the page an image as soon as it can take one, and notes when its card is there; ms since navigation began.
DROPS = """
addEventListener("DOMContentLoaded", () => setTimeout(async () => {
  const data = "IMAGE";
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "drawn.png", { type: "image/png" }));
  new MutationObserver(() => {
    if (document.querySelector("#results .card .bin")) window.answered ??= performance.now();
  }).observe(document.getElementById("results"), { childList: true });
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}));
"""


def wait(driver: Any, condition: str, seconds: float = 60) -> Any:
    return WebDriverWait(driver, seconds, 0.1).until(lambda d: d.execute_script(f"return {condition}"))


def still(driver: Any) -> None:
    """Waits until the page is neither loading nor looking."""
    wait(driver, "!/…/.test(document.getElementById('status').textContent)")


@contextmanager
def browser() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, chromium(profile) as driver:
        yield driver


def drawn(name: str, seed: int) -> bytes:
    """A drawn image as a PNG."""
    file = io.BytesIO()
    synthetic.draw(name, seed, "default").save(file, "PNG")
    return file.getvalue()


def surest(model: Path, name: str) -> tuple[str, int]:
    """The drawing of a class, among `SEEDS`, that the model knows best; it has never seen drawings."""
    predictor = load_predictor(model)
    squares = [predictor.preprocessing(synthetic.draw(name, seed, "default")) for seed in range(SEEDS)]
    rows = predictor.probabilities(np.stack(squares))
    return name, int(rows[:, predictor.classes.index(name)].argmax())


def measure_agreement(site: Path, data: Path) -> dict[str, Any]:
    """The page's answers to real images against those of `predict`."""
    source = open_folder(data)
    chosen = np.random.default_rng(17).permutation(len(source))[:IMAGES]
    photos = [source.read(int(i)) for i in chosen]
    with browser() as driver, web_host(site) as address:
        row = agreement(driver, address, load_engine(None), photos, np.zeros(len(photos), int))
    kept = ("pictures", "agreement", "largest_difference", "same_pixels", "largest_pixel_difference")
    return {"data": data.name} | {name: row[name] for name in kept} | {"ms_p50": row["ms_p50"]}


def measure_regions(model: Path, site: Path, data: Path) -> dict[str, Any]:
    """The objects that the page finds in mosaics of four real images against those of `predict --regions`."""
    source, predictor = open_folder(data), load_predictor(model)
    chosen = iter(np.random.default_rng(18).permutation(len(source)))
    ours = theirs = same = 0
    seconds = []
    with browser() as driver, web_host(site) as address:
        driver.get(address)
        for _ in range(MOSAICS):
            image = Image.new("RGB", (1200, 900), (196, 198, 192))
            for i in range(4):
                tile = images.decode(source.read(int(next(chosen)))).resize((400, 400))
                image.paste(tile, (90 + 610 * (i % 2), 25 + 440 * (i // 2)))
            file = io.BytesIO()
            image.save(file, "PNG")
            expected = find_regions(predictor, image)
            found = driver.execute_async_script(FIND, base64.b64encode(file.getvalue()).decode())
            seconds.append(found["ms"] / 1000)
            ours, theirs = ours + len(expected), theirs + len(found["regions"])
            same += sum(
                any(
                    one["class"] == region.label
                    and iou(np.array(one["box"]) * (1200, 900, 1200, 900), np.array([region.box]))[0] >= ALIKE
                    for one in found["regions"]
                )
                for region in expected
            )
    return {
        "mosaics": MOSAICS,
        "predict": ours,
        "page": theirs,
        "same": same,
        "seconds": round(float(np.median(seconds)), 1),
    }


def loaded(site: Path) -> dict[str, int]:
    """Bytes of each file that a host sends to a first visitor until the page can answer; without headers."""
    sent: dict[str, int] = {}
    with browser() as driver, web_host(site, sent=sent) as address:
        driver.get(f"{address}?lang=en")
        wait(driver, "document.getElementById('status').textContent === 'Ready.'")
        return dict(sorted(sent.items()))


def measure_bytes(site: Path, before: Path | None) -> dict[str, Any]:
    files = loaded(site)
    row: dict[str, Any] = {"bytes": sum(files.values()), "files": files}
    if before:
        row["before"] = sum(loaded(before).values())
    return row


def measure_speed(site: Path) -> dict[str, Any]:
    """From navigation to the first answer with everything in the browser's caches; and the live view's rate.

    An earlier visit has answered an image and lasted `VISIT` seconds, which a browser takes to keep what it
    compiled.
    """
    script = DROPS.replace("IMAGE", base64.b64encode(drawn(KNOWN, 5)).decode())
    seconds, load = [], round(os.getloadavg()[0], 1)
    with browser() as driver, web_host(site) as address:
        driver.get(address)
        still(driver)
        driver.execute_async_script("navigator.serviceWorker.ready.then(arguments[0])")
        time.sleep(1)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        for _ in range(1 + LOADS):
            driver.get(address)
            seconds.append(wait(driver, "window.answered") / 1000)
            if len(seconds) == 1:
                time.sleep(VISIT)
        seconds = seconds[1:]
        still(driver)
        driver.find_element(By.ID, "open-camera").click()
        time.sleep(10)
        rate = driver.find_element(By.ID, "rate").text
    return {
        "first_answer_s": {
            "median": round(float(np.median(seconds)), 2),
            "max": round(max(seconds), 2),
            "loads": LOADS,
        },
        "live": rate,
        "load": load,
    }


def measure_lighthouse(site: Path) -> dict[str, Any]:
    """Lighthouse's scores by language, as a phone and as a desktop, as many as `LIGHTHOUSE_SECONDS` allow."""
    found: dict[str, Any] = {"version": LIGHTHOUSE}
    end = time.monotonic() + LIGHTHOUSE_SECONDS
    with web_host(site) as address:
        for language, form in ((language, form) for language in LANGUAGES for form in SIZES):
            if time.monotonic() > end:
                break
            command = ["npx", "--yes", LIGHTHOUSE, f"{address}?lang={language}", "--quiet", "--output=json"]
            command += ["--only-categories=accessibility,best-practices", "--max-wait-for-load=10000"]
            command += ["--chrome-flags=--headless=new --no-sandbox --disable-gpu"]
            command += ["--preset=desktop"] if form == "desktop" else []
            env = os.environ | {"CHROME_PATH": str(CHROMIUM)}
            report = json.loads(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
            found[f"{language}, {form}"] = {
                name: round(100 * category["score"]) for name, category in report["categories"].items()
            }
            print(found, flush=True)
    return found


def emulate(driver: Any, form: str, dark: bool = False) -> None:
    width, height = SIZES[form]
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": form == "phone"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def keep(driver: Any, name: str) -> None:
    """Stores what is to be seen as a small WebP."""
    time.sleep(0.4)  # images in cards are decoded after they are there
    SHOTS.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB").save(
        SHOTS / f"{name}.webp", quality=70, method=6
    )


def ask(driver: Any, folder: Path, *drawings: tuple[str, int]) -> None:
    paths = []
    for name, seed in drawings:
        paths.append(folder / f"{name}.png")
        paths[-1].write_bytes(drawn(name, seed))
    driver.find_element(By.ID, "file").send_keys("\n".join(map(str, paths)))
    wait(driver, f"document.querySelectorAll('.card').length === {len(paths)}")
    still(driver)
    driver.execute_script("scrollTo(0, 0)")


def ask_for_boxes(driver: Any, folder: Path, drawings: Sequence[tuple[str, int]]) -> None:
    """Has the page find several objects in one image."""
    image = Image.new("RGB", (1200, 900), (226, 224, 220))
    for i, drawing in enumerate(drawings[:4]):
        tile = Image.open(io.BytesIO(drawn(*drawing))).resize((400, 400))
        image.paste(tile, (90 + 610 * (i % 2), 25 + 440 * (i // 2)))
    image.save(folder / "several.png")
    driver.find_element(By.ID, "file").send_keys(str(folder / "several.png"))
    wait(driver, "document.querySelectorAll('.card').length === 1")
    still(driver)
    driver.find_element(By.CSS_SELECTOR, ".closer").click()
    wait(driver, "!document.querySelector('.found').hidden")
    driver.execute_script("document.getElementById('results').scrollIntoView()")


def take_screenshots(model: Path, scratch: Path) -> None:
    """The page in every language with the rules of a country that speaks it, on a phone and on a desktop."""
    known = surest(model, KNOWN)
    several = [known, *(surest(model, name) for name in SEVERAL), UNKNOWN]
    for language, rules in RULES.items():
        site = write_site(model, scratch / rules, taxonomy=rules)
        with browser() as driver, web_host(site) as address:
            for form in SIZES:
                emulate(driver, form)
                driver.get(f"{address}?lang={language}")
                still(driver)
                ask(driver, scratch, known)
                keep(driver, f"{language}_{form}")
            if language != "en":
                continue
            emulate(driver, "phone")
            ask(driver, scratch, UNKNOWN)
            keep(driver, "unsure_phone")
            emulate(driver, "phone", dark=True)
            ask(driver, scratch, known)
            keep(driver, "dark_phone")
            emulate(driver, "desktop")
            ask(driver, scratch, *several)
            keep(driver, "several_desktop")
            ask_for_boxes(driver, scratch, several)
            keep(driver, "boxes_desktop")
            emulate(driver, "phone")
            driver.find_element(By.ID, "open-camera").click()
            wait(driver, "/second/.test(document.getElementById('rate').textContent)")
            time.sleep(2)
            keep(driver, "live_phone")


def main() -> None:
    steps = ("agreement", "regions", "bytes", "speed", "lighthouse", "screenshots")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(steps))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--before", type=Path)
    args = parser.parse_args()
    if args.data is None and {"agreement", "regions"} & set(args.steps or steps):
        parser.error("agreement and regions need --data")
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = (
            args.model
            or export_model(
                Asked(default_bundle()), Form("onnx"), scratch / "model.onnx", checked=Check(32)
            ).path
        )
        site = write_site(model, scratch / "site")
        measures = {
            "agreement": lambda: measure_agreement(site, args.data),
            "regions": lambda: measure_regions(model, site, args.data),
            "bytes": lambda: measure_bytes(site, args.before),
            "speed": lambda: measure_speed(site),
            "lighthouse": lambda: measure_lighthouse(site),
        }
        with browser() as driver:
            version = f"Chromium {driver.capabilities['browserVersion']}"
        for step in args.steps or steps:
            if step == "screenshots":
                take_screenshots(model, scratch)
                continue
            row = measures[step]() | {
                **provenance(f"python experiments/page.py {step}"),
                "browser": version,
            }
            before = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
            write_json(RESULT, before | {step: row})
            print(step, json.dumps(row))
    result = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    if all(step in result for step in measures if step != "lighthouse"):
        write_text(TEXT, text(result))


if __name__ == "__main__":
    main()
