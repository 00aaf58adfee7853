"""Does the page in a browser answer as `predict` does? experiments/results/browser.json.

Command: python experiments/browser.py RUN
RUN is a finished run whose images are still where it found them. The page is written with its model inside
(`wastejax web`), and headless Chromium, from Debian's packages, looks at 200 images of the test split in it.
"""

import argparse
import base64
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from selenium import webdriver

from experiments.agreement import compare
from experiments.provenance import provenance
from wastejax.bundle import load_bundle
from wastejax.data import images
from wastejax.deployment import website
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.predictor import Predictor
from wastejax.evaluation.evaluate import match_classes
from wastejax.evaluation.images import Asked, asked_images
from wastejax.files import write_json

RESULTS = Path(__file__).resolve().parent / "results"
CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--window-size=900,900",
    "--lang=en-US",
)
IMAGES = 200
# Runs in the page: the square that the model sees, its probabilities, and the time from the file to them.
LOOK = """
const [data, done] = arguments;
(async () => {
  const { loadModel, squareOf } = await import("./local.js");
  window.labels ??= await (await fetch("labels.json")).json();
  window.compute ??= await loadModel(window.labels);
  const blob = new Blob([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))]);
  const square = await squareOf(blob, window.labels.preprocessing);
  const start = performance.now();
  const { probabilities } = await window.compute.answer(blob);
  const ms = performance.now() - start;
  let text = "";
  for (let i = 0; i < square.length; i += 8192) text += String.fromCharCode(...square.subarray(i, i + 8192));
  done({ probabilities, ms, square: btoa(text) });
})().catch((error) => done({ error: String(error) }));
"""


@contextmanager
def chromium(profile: str) -> Iterator[Any]:
    """A headless Chromium with a camera that shows a test pattern; `profile` is an empty folder."""
    choices = webdriver.ChromeOptions()
    choices.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        choices.add_argument(flag)
    choices.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(choices, webdriver.ChromeService(str(DRIVER)))
    try:
        driver.set_script_timeout(120)
        yield driver
    finally:
        driver.quit()


@contextmanager
def web_host(folder: Path, port: int = 0, sent: dict[str, int] | None = None) -> Iterator[str]:
    """Any web host: gives the address at which it serves the files of a folder.

    Args:
        folder: the files.
        port: 0 for any that is free.
        sent: is told the bytes sent of each path.
    """

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def copyfile(self, source: Any, outputfile: Any) -> None:
            if sent is not None:
                path = urlsplit(self.path).path
                sent[path] = sent.get(path, 0) + os.fstat(source.fileno()).st_size
            super().copyfile(source, outputfile)

    host = ThreadingHTTPServer(("127.0.0.1", port), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=host.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{host.server_address[1]}/"
    finally:
        host.shutdown()
        thread.join()
        host.server_close()


def asked_hosts(driver: Any) -> set[str]:
    """Every host that the browser was made to ask since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme in ("http", "https", "ws", "wss")}


def agreement(
    driver: Any, address: str, predictor: Predictor, photos: list[bytes], labels: np.ndarray
) -> dict[str, Any]:
    """Compares the page at an address with a model on encoded images, whose classes are int [N]."""
    driver.get(address)
    rows, expected, ms, apart = [], [], [], []
    for data in photos:
        square = predictor.preprocessing(images.decode(data))
        expected.append(predictor.probabilities(square[None])[0])
        found = driver.execute_async_script(LOOK, base64.b64encode(data).decode())
        if "error" in found:
            raise RuntimeError(found["error"])
        rows.append(found["probabilities"])
        seen = np.frombuffer(base64.b64decode(found["square"]), np.uint8).reshape(square.shape)
        apart.append(int(np.abs(seen.astype(int) - square).max()))
        ms.append(found["ms"])
    return compare(np.array(expected), np.array(rows), labels) | {
        "same_pixels": float(np.mean(np.array(apart) == 0)),
        "largest_pixel_difference": max(apart),
        "ms_p50": round(float(np.median(ms)), 2),
        "ms_p90": round(float(np.quantile(ms, 0.9)), 2),
    }


def split_images(run: Path, count: int) -> tuple[list[bytes], np.ndarray]:
    """Returns encoded images of a run's test split, the same as experiments/agreement.py, and their classes."""
    bundle = load_bundle(run)
    asked = Asked(data=None, model=str(run), split="test")
    source, indices = asked_images(asked, bundle.config)
    chosen = np.random.default_rng(17).permutation(indices)[:count]
    known = match_classes(bundle.classes, source.classes)
    return [source.read(int(i)) for i in chosen], np.array([known[source.labels[i]] for i in chosen])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as folder, chromium(f"{folder}/profile") as driver:
        site = website.write_site(run, Path(folder) / "site")
        with web_host(site) as address:
            row = agreement(driver, address, load_predictor(run), *split_images(run, IMAGES))
            hosts = asked_hosts(driver) - {urlsplit(address).netloc}
        about = {
            **provenance(f"python experiments/browser.py {run.name}"),
            "browser": f"Chromium {driver.capabilities['browserVersion']}, WebAssembly, one thread",
            "bytes": (site / f"{website.MODEL}{website.PACKED}").stat().st_size,
            "folder_bytes": sum(path.stat().st_size for path in site.rglob("*") if path.is_file()),
            "other_hosts_asked": sorted(hosts),
        }
    write_json(RESULTS / "browser.json", {run.name: about | row})
    print(json.dumps(row))


if __name__ == "__main__":
    main()
