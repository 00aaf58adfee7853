"""The page's results: the text says what was measured, and names screenshots that are there."""

import json
import re

import pytest
from PIL import Image

pytest.importorskip("selenium")
from experiments import page, page_text


def test_the_text_is_made_from_the_numbers():
    result = json.loads(page.RESULT.read_text())
    assert page.TEXT.read_text() == page_text.text(result)
    assert result["agreement"]["pictures"] == 200 and result["agreement"]["agreement"] >= 0.98
    assert result["bytes"]["bytes"] <= 0.6 * result["bytes"]["before"]
    for scores in result.get("lighthouse", {}).values():
        assert not isinstance(scores, dict) or scores == {"accessibility": 100, "best-practices": 100}


def test_screenshots_are_small_and_of_the_sizes_that_are_told():
    names = re.findall(r"images/page/(\w+)\.webp", page.TEXT.read_text())
    assert len(names) == len(set(names)) == 15
    for name in names:
        path = page.SHOTS / f"{name}.webp"
        assert path.stat().st_size < 60_000
        with Image.open(path) as shot:
            assert shot.size == page_text.SIZES[name.split("_")[1]]
