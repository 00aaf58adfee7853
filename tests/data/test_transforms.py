import random

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from wastejax.data.transforms import AUGMENTATIONS, Preprocessing, random_erasing, random_rotation


def gradient(width=320, height=240) -> Image.Image:
    y, x = np.mgrid[:height, :width]
    return Image.fromarray(
        np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], -1).astype(np.uint8)
    )


def test_evaluation_is_resize_of_the_short_side_and_center_crop():
    image = gradient(320, 240)
    ours = Preprocessing(96, crop=0.8, interpolation="bilinear")(image)
    whole = np.asarray(image.resize((160, 120), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(ours.astype(int), whole[12:108, 32:128], atol=1)


def test_an_upright_image_is_cut_in_the_middle_too():
    image = gradient(100, 400)
    ours = Preprocessing(50, crop=1.0)(image)
    assert ours.shape == (50, 50, 3)
    assert 110 < ours[..., 1].mean() < 145  # the vertical gradient's middle


def test_normalize_by_hand_for_numpy_and_jax():
    preprocessing = Preprocessing(8, mean=(0.5, 0.4, 0.3), std=(0.5, 0.2, 0.1), channels="bgr")
    pixel = np.array([[[255, 0, 51]]], np.uint8)
    expected = [(0.2 - 0.3) / 0.1, (0 - 0.4) / 0.2, (1 - 0.5) / 0.5]
    for module in (np, jnp):
        result = preprocessing.normalize(module.asarray(pixel))
        assert result.dtype == np.float32
        np.testing.assert_allclose(result[0, 0], expected, rtol=1e-5)


def test_round_trip_as_json():
    preprocessing = Preprocessing(64, 0.9, "lanczos", (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bgr")
    assert Preprocessing.from_dict({**preprocessing.to_dict(), "mean": [0.1, 0.2, 0.3]}) == preprocessing


@pytest.mark.parametrize("name", list(AUGMENTATIONS))
def test_augmentations_are_deterministic_in_the_generator(name):
    augment = AUGMENTATIONS[name](Preprocessing(64), 0.3)
    image = np.asarray(gradient())
    first, again, other = (augment(image, random.Random(s)) for s in (1, 1, 2))
    assert first.shape == (64, 64, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert (name == "none") == np.array_equal(first, other)


def test_basic_flips_half_and_crops_within_bounds():
    augment = AUGMENTATIONS["basic"](Preprocessing(32), 0.5)
    rng = random.Random(0)
    flipped = sum(
        p[:, -1, 0].mean() < p[:, 0, 0].mean()
        for p in (augment(np.asarray(gradient()), rng) for _ in range(200))
    )
    assert 75 < flipped < 125


def test_erasing_hits_its_share_and_never_the_original():
    pixels = np.full((40, 40, 3), 200, np.uint8)
    rng = random.Random(0)
    changed = [np.mean(np.any(random_erasing(pixels, rng, 0.5) != pixels, -1)) for _ in range(300)]
    assert (pixels == 200).all()
    assert 0.4 < np.mean(np.array(changed) > 0) < 0.6
    assert max(changed) < 0.27


def test_rotation_keeps_the_size_and_turns():
    pixels = np.asarray(gradient())
    turned = random_rotation(pixels, random.Random(3), 30)
    assert turned.shape == pixels.shape and not np.array_equal(turned, pixels)


def test_the_strong_augmentation_grows_with_its_strength():
    gray = np.full((64, 64, 3), 120, np.uint8)

    def changed(strength: float) -> float:
        augment = AUGMENTATIONS["strong"](Preprocessing(32), 0.5, strength)
        rng = random.Random(0)
        return float(np.mean([np.abs(augment(gray, rng).astype(int) - 120).mean() for _ in range(60)]))

    assert changed(0.0) == 0.0
    assert 0.0 < changed(0.5) < 0.8 * changed(1.0)
