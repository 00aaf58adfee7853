"""What is kept of a run before its calibration is what it scores without the temperature."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from experiments import trust
from wastejax.data.sources import open_folder
from wastejax.data.transforms import Preprocessing
from wastejax.evaluation.trust import Calibration, score_trust

# Of one class 40 % and of two others, which go into one bin, 30 % each: without the temperature that bin is the
# answer, and with it the other.
LOGITS, BINS, TEMPERATURE = np.log([0.4, 0.3, 0.3]), ("paper", "glass", "glass"), 0.25


def test_bins_before_calibration_are_by_probabilities_without_the_temperature(tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    for name in "abc":
        (tmp_path / "images" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "images" / name / "1.png")
    bundle = SimpleNamespace(
        logits=lambda images: np.tile(LOGITS, (len(images), 1)),
        classes=("a", "b", "c"),
        bins=BINS,
        temperature=TEMPERATURE,
        preprocessing=Preprocessing(16),
        config={"eval": {"batch_size": 4, "bootstrap": 10}, "data": {"on_bad_image": "raise"}},
    )
    monkeypatch.setattr(trust, "load_bundle", lambda path: bundle)
    source = open_folder(tmp_path / "images")
    monkeypatch.setattr(trust, "asked_images", lambda asked, config: (source, np.arange(3)))
    found = trust.before(tmp_path)
    assert tuple(found) == trust.BEFORE and found["num_images"] == 3
    assert found["bin_top1"] == pytest.approx(2 / 3)
    logits, labels = np.tile(LOGITS, (3, 1)), np.arange(3)
    after = score_trust(logits, labels, Calibration(TEMPERATURE, {}), bins=BINS, bootstrap=10)
    assert after["bin_top1"] == pytest.approx(1 / 3)  # what `eval` says of the same answers
