"""Measures the web page in headless Chromium: experiments/results/page.json, docs/results/page.md, screenshots.

Command: python experiments/page.py [STEP...] [--model=FILE.onnx] [--data=CLASS_FOLDERS] [--before=DIR]
STEP is one of agreement, bytes, speed, lighthouse, screenshots; all where none is given. Each keeps what the others
measured before. --model is the bundled model exported as ONNX, made anew where it is not given; --before, a folder
that an older `wastejax web` wrote, for the bytes that it loads. Wants Debian's chromium, chromium-driver and npm;
Lighthouse comes by npx. All images of screenshots are drawn.
"""

import argparse
import base64
import io
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from experiments.browser import CHROMIUM, agreement, chromium, web_host
from experiments.provenance import provenance
from wastejax.bundle import default_bundle
from wastejax.data.drawing import dataset as synthetic
from wastejax.data.sources import open_folder
from wastejax.data.taxonomy import LANGUAGES
from wastejax.deployment.export import Form, export_model
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.website import write_site
from wastejax.evaluation.pictures import Asked
from wastejax.evaluation.report.markdown import percent, table
from wastejax.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "experiments" / "results" / "page.json"
TEXT = ROOT / "docs" / "results" / "page.md"
SHOTS = ROOT / "docs" / "images" / "page"
LIGHTHOUSE = "lighthouse@13.5.0"
PICTURES, LOADS = 200, 10
SIZES = {"phone": (390, 844), "desktop": (1280, 800)}
RULES = dict(zip(LANGUAGES, ("england", "korea", "germany", "japan", "france"), strict=True))
# Drawings in the screenshots, with their seeds. The model has never seen drawings, so that it is unsure of many.
KNOWN, UNKNOWN = ("glass_beverage_bottles", 5), ("paper_cups", 5)
SEVERAL = (KNOWN, ("aluminum_soda_cans", 2), ("plastic_soda_bottles", 1), UNKNOWN)
# Gives the page an image as soon as it can take one, and notes when its card is there; ms since navigation began.
DROPS = """
addEventListener("DOMContentLoaded", () => setTimeout(async () => {
  const data = "IMAGE";
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "drawn.jpg", { type: "image/jpeg" }));
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
    """A drawn image as a JPEG."""
    file = io.BytesIO()
    synthetic.draw(name, seed, "default").save(file, "JPEG", quality=92)
    return file.getvalue()


def measure_agreement(model: Path, site: Path, data: Path) -> dict[str, Any]:
    """The page's answers to real images against those of `predict`."""
    source = open_folder(data)
    chosen = np.random.default_rng(17).permutation(len(source))[:PICTURES]
    pictures = [source.read(int(i)) for i in chosen]
    with browser() as driver, web_host(site) as address:
        row = agreement(driver, address, load_predictor(None), pictures, np.zeros(len(pictures), int))
    kept = ("pictures", "agreement", "largest_difference", "same_pixels", "largest_pixel_difference")
    return {"data": data.name} | {name: row[name] for name in kept} | {"ms_p50": row["ms_p50"]}


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
    """From navigation to the first answer with everything in the browser's caches; and the live view's rate."""
    script = DROPS.replace("IMAGE", base64.b64encode(drawn(*KNOWN)).decode())
    seconds = []
    with browser() as driver, web_host(site) as address:
        driver.get(address)
        still(driver)
        driver.execute_async_script("navigator.serviceWorker.ready.then(arguments[0])")
        time.sleep(1)
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
        for _ in range(LOADS):
            driver.get(address)
            seconds.append(wait(driver, "window.answered") / 1000)
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
    }


def measure_lighthouse(site: Path) -> dict[str, Any]:
    """Lighthouse's scores in every language, as a phone and as a desktop."""
    found: dict[str, Any] = {"version": LIGHTHOUSE}
    with web_host(site) as address:
        for language in LANGUAGES:
            for form in SIZES:
                command = [
                    "npx",
                    "--yes",
                    LIGHTHOUSE,
                    f"{address}?lang={language}",
                    "--quiet",
                    "--output=json",
                ]
                command += ["--only-categories=accessibility,best-practices"]
                command += ["--chrome-flags=--headless=new --no-sandbox --disable-gpu"]
                command += ["--preset=desktop"] if form == "desktop" else []
                env = os.environ | {"CHROME_PATH": str(CHROMIUM)}
                report = json.loads(subprocess.run(command, env=env, check=True, capture_output=True).stdout)
                found[f"{language}, {form}"] = {
                    name: round(100 * category["score"]) for name, category in report["categories"].items()
                }
    return found


def emulate(driver: Any, form: str, dark: bool = False) -> None:
    width, height = SIZES[form]
    screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": form == "phone"}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def keep(driver: Any, name: str) -> None:
    """Stores what is to be seen as a small WebP."""
    time.sleep(0.4)  # pictures in cards are decoded after they are there
    SHOTS.mkdir(parents=True, exist_ok=True)
    Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB").save(
        SHOTS / f"{name}.webp", quality=70, method=6
    )


def ask(driver: Any, folder: Path, *drawings: tuple[str, int]) -> None:
    paths = []
    for name, seed in drawings:
        paths.append(folder / f"{name}.jpg")
        paths[-1].write_bytes(drawn(name, seed))
    driver.find_element(By.ID, "file").send_keys("\n".join(map(str, paths)))
    wait(driver, f"document.querySelectorAll('.card').length === {len(paths)}")
    still(driver)
    driver.execute_script("scrollTo(0, 0)")


def take_screenshots(model: Path, scratch: Path) -> None:
    """The page in every language with the rules of a country that speaks it, on a phone and on a desktop."""
    for language, rules in RULES.items():
        site = write_site(model, scratch / rules, taxonomy=rules)
        with browser() as driver, web_host(site) as address:
            for form in SIZES:
                emulate(driver, form)
                driver.get(f"{address}?lang={language}")
                still(driver)
                ask(driver, scratch, KNOWN)
                keep(driver, f"{language}_{form}")
            if language != "en":
                continue
            emulate(driver, "phone")
            ask(driver, scratch, UNKNOWN)
            keep(driver, "unsure_phone")
            emulate(driver, "phone", dark=True)
            ask(driver, scratch, KNOWN)
            keep(driver, "dark_phone")
            emulate(driver, "desktop")
            ask(driver, scratch, *SEVERAL)
            keep(driver, "several_desktop")
            emulate(driver, "phone")
            driver.find_element(By.ID, "open-camera").click()
            wait(driver, "/second/.test(document.getElementById('rate').textContent)")
            time.sleep(2)
            keep(driver, "live_phone")


def text(result: dict[str, Any]) -> str:
    """docs/results/page.md."""
    size, speed = result["bytes"], result["speed"]
    same = result["agreement"]
    scores = {name: row for name, row in result["lighthouse"].items() if isinstance(row, dict)}
    rows = [(name, str(row["accessibility"]), str(row["best-practices"])) for name, row in scores.items()]
    first = speed["first_answer_s"]
    lines = [
        "# The web page",
        "",
        "The page that `wastejax web` writes, with the bundled model inside, in headless Chromium. Written by",
        "`experiments/page.py`, whose docstring has the command; each number's commit, date and hardware are in",
        "`experiments/results/page.json`.",
        "",
        f"- **Agreement** with `predict` on {same['pictures']} images of {same['data']}: "
        f"{percent(same['agreement'])}; probabilities differ by {same['largest_difference']:.0e} at most. "
        f"{same['ms_p50']:.0f} ms an image, from the file to the answer.",
        f"- **Loaded** before the first answer: {size['bytes'] / 1e6:.1f} MB, "
        f"{percent(size['bytes'] / size['before'])} of the {size['before'] / 1e6:.1f} MB of the page before "
        "(01b5c07), whether or not the host compresses.",
        "- **First answer** after the page is called, with all in the browser's caches and an image waiting: "
        f"median {first['median']:.1f} s, at most {first['max']:.1f} s in {first['loads']} loads.",
        f"- **Live view**: {speed['live']}.",
        f"- Measured on {same['hardware']}, {same['browser']}.",
        "",
        f"Lighthouse ({result['lighthouse']['version']}):",
        "",
        table(("language, form", "accessibility", "best practices"), rows),
        "",
        "## Screenshots",
        "",
        "Of drawn images, each language with the rules of a country that speaks it.",
        "",
    ]
    for form in SIZES:
        lines += [
            f"![{language}, {form}](../images/page/{language}_{form}.webp)" for language in LANGUAGES
        ] + [""]
    lines += [
        f"![{about}](../images/page/{name}.webp)"
        for name, about in (
            ("unsure_phone", "Not sure, and why"),
            ("dark_phone", "Dark mode"),
            ("live_phone", "The live view, of Chromium's test pattern"),
            ("several_desktop", "Several images"),
        )
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    steps = ("agreement", "bytes", "speed", "lighthouse", "screenshots")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(steps))
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "household_waste")
    parser.add_argument("--before", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = (
            args.model
            or export_model(Asked(default_bundle()), Form("onnx"), scratch / "model.onnx", count=32).path
        )
        site = write_site(model, scratch / "site")
        measures = {
            "agreement": lambda: measure_agreement(model, site, args.data),
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
    result = json.loads(RESULT.read_text())
    if all(step in result for step in measures):
        write_text(TEXT, text(result))


if __name__ == "__main__":
    main()
