"""What the tests of the web page start: node, a browser, a server; and the packages of a page with a model."""

import json
import shutil
import subprocess

import pytest
from PIL import Image

from wastejax.deployment import website


@pytest.fixture(scope="session")
def node(tmp_path_factory):
    """Runs a script in node with the page's folder and further arguments, argv[1] on; gives the JSON it prints."""
    program = shutil.which("node")
    if not program:
        pytest.skip("no node")
    folder = tmp_path_factory.mktemp("page")
    for path in website.PAGE.glob("*.js"):
        shutil.copyfile(path, folder / path.name)
    (folder / "package.json").write_text('{"type": "module"}')

    def run(script: str, *arguments: str):
        command = [program, "--input-type=module", "--eval", script, str(folder), *arguments]
        return json.loads(subprocess.check_output(command, text=True))

    return run


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """A headless browser."""
    pytest.importorskip("selenium", reason="the page's tests need the extra browser: selenium")
    from experiments.browser import CHROMIUM, DRIVER, chromium

    if not (CHROMIUM.is_file() and DRIVER.is_file()):
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    with chromium(str(tmp_path_factory.mktemp("profile"))) as driver:
        yield driver


@pytest.fixture(scope="module")
def npm():
    if not website.NPM.is_dir():
        pytest.skip("no onnxruntime-web: npm ci --prefix web")


@pytest.fixture(scope="module")
def served():
    """The address of a server whose network only looks at how bright an image is."""
    from test_serve import server, stand_in

    with server(stand_in()) as port:
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture
def dark(tmp_path) -> str:
    """An image that the stand-in takes for the first class."""
    Image.new("RGB", (60, 50)).save(tmp_path / "dark.png")
    return str(tmp_path / "dark.png")
