"""What the tests of the web page start: a browser, a server, and the packages that a page with a model needs."""

import pytest
from PIL import Image

from wastejax.deployment import website


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
