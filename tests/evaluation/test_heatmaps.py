"""Class activation maps are exact, and drawn where the evidence is."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from small_models import CLASSES, draw_images, write_bundle

from wastejax.bundle import load_bundle
from wastejax.cli.predict import run
from wastejax.data.taxonomy import load_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.heatmaps import heat_map, save_drawn
from wastejax.deployment.predictor import Predictor
from wastejax.errors import UserError
from wastejax.evaluation.heatmaps import OPACITY, blend, evidence
from wastejax.main import parser
from wastejax.models import create_model

CBAM = {"head_attention": "cbam"}
NETWORKS = {
    "efficientnetv2_cbam": {"name": "efficientnetv2", "size": "tiny", **CBAM},
    "mobilevit": {"name": "mobilevit", "size": "tiny", "depths": (1, 1, 1)},
    "pyramidnet_cbam": {"name": "pyramidnet", "size": "tiny", **CBAM},
    "swin_cbam": {"name": "swin", "size": "tiny", **CBAM},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_mean_of_the_maps_is_the_logits(name):
    model, rng = create_model(NETWORKS[name], 7), np.random.default_rng(5)
    variables = jax.tree.map(
        lambda a: a + rng.normal(0, 0.02, a.shape).astype(np.float32), model.init(jax.random.key(2), 64)
    )
    variables["batch_stats"] = jax.tree.map(jnp.abs, variables["batch_stats"])
    images = rng.normal(size=(2, 64, 64, 3)).astype(np.float32)
    maps, logits = jax.jit(lambda v, x: (model.dense(v, x), model.apply(v, x)))(variables, images)
    assert maps.shape[0] == 2 and maps.shape[1] == maps.shape[2] >= 2 and maps.shape[3] == 7
    assert float(maps.std((1, 2)).min()) > 1e-4  # positions differ
    np.testing.assert_allclose(maps.mean((1, 2)), logits, atol=1e-5)


def test_a_bundle_gives_the_same_maps_with_normalization_folded(tmp_path):
    bundle = load_bundle(write_bundle(tmp_path / "bundle"))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    np.testing.assert_allclose(bundle.dense(images).mean((1, 2)), bundle.logits(images), atol=1e-4)
    assert bundle.dense(np.zeros((1, 96, 128, 3), np.uint8)).shape == (1, 3, 4, len(CLASSES))


def test_evidence_is_what_a_class_has_beyond_the_average_class():
    logits = np.array([[[3.0, 0.0, 0.0], [9.0, 9.0, 9.0], [0.0, 3.0, 0.0], [6.0, 0.0, 0.0]]])
    # Above the mean of the classes: 2, 0, -1 and 4; a position that lifts all classes alike says nothing.
    np.testing.assert_allclose(evidence(logits, 0), [[0.5, 0, 0, 1]])
    assert (evidence(np.ones((2, 2, 3)), 1) == 0).all()


def test_a_map_is_blended_by_how_much_it_says():
    image = np.full((8, 8, 3), 100, np.uint8)
    np.testing.assert_array_equal(blend(image, np.zeros((2, 2))), image)
    hottest = np.array([252, 255, 164])
    np.testing.assert_array_equal(
        blend(image, np.ones((2, 2))),
        np.broadcast_to(np.rint((1 - OPACITY) * 100 + OPACITY * hottest), (8, 8, 3)),
    )


def fake(dense) -> Predictor:
    preprocessing = Preprocessing(64, crop=1.0)
    return Predictor(
        Path("fake"), "jax", ("can", "jar"), preprocessing, load_taxonomy(), lambda x: x, dense=dense
    )


def test_the_image_is_hot_where_the_class_is_and_dark_where_nobody_looked():
    def dense(images):
        maps = np.zeros((1, 4, 4, 2), np.float32)
        maps[:, 0, 3, 1] = 8  # a jar at the top right
        return maps

    image = Image.new("RGB", (200, 100), (80, 80, 80))
    drawn = np.asarray(heat_map(fake(dense), image)).astype(int)
    assert drawn.shape == (100, 200, 3)
    assert (drawn[:, :50] == 28).all() and (
        drawn[:, 150:] == 28
    ).all()  # only the square in the middle is seen
    inside = np.abs(drawn[:, 50:150] - 80).sum(axis=-1)
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    assert row < 25 and column > 75 and inside[50:, :50].max() == 0
    assert (np.asarray(heat_map(fake(dense), image, "can"))[:, 50:150] == 80).all()
    assert heat_map(fake(dense), Image.new("RGB", (4096, 2048))).size == (1024, 512)
    with pytest.raises(UserError, match="fake: has no class map, which heat maps come from"):
        heat_map(fake(None), image)


def test_no_file_is_replaced(tmp_path):
    image = Image.new("RGB", (8, 8))
    (tmp_path / "a_can.jpg").write_text("mine")
    names = [save_drawn(image, tmp_path, name, "can").name for name in ("x/a.png", "y/a.jpg", "-")]
    assert names == ["a_can_2.jpg", "a_can_3.jpg", "stdin_can.jpg"]
    assert (tmp_path / "a_can.jpg").read_text() == "mine"
    assert save_drawn(image, tmp_path, "종이.png", "a/b").name == "종이_a_b.jpg"
    with Image.open(save_drawn(image, tmp_path / "new", f"{'긴' * 80}.png", "can")) as drawn:
        assert drawn.size == (8, 8)
    with pytest.raises(UserError, match=r"a_can\.jpg: cannot be written"):
        save_drawn(image, tmp_path / "a_can.jpg", "b.png", "can")


def test_predict_writes_one_heat_map_per_image(tmp_path, capsys):
    photos = draw_images(tmp_path / "images", 3)
    (photos / "broken.jpg").write_bytes(b"no image")
    model = write_bundle(tmp_path / "bundle")
    options = ["predict", str(photos), f"--model={model}", f"--heatmap={tmp_path / 'maps'}", "--format=csv"]
    lines: list[str] = []
    assert run(parser("predict").parse_args([*options, "--top=1"]), lines.append) == 1
    said = [line.split(",") for line in lines[1:] if ",not an image," not in line]
    expected = sorted(f"{Path(row[0]).stem}_{row[2]}.jpg" for row in said)
    assert sorted(p.name for p in (tmp_path / "maps").iterdir()) == expected and len(expected) == 3
    with Image.open(tmp_path / "maps" / expected[0]) as drawn:
        assert drawn.size == (90, 120)
    assert "unreadable" in capsys.readouterr().err


def test_an_exported_file_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    model = load_predictor(write_bundle(tmp_path / "bundle"))
    exported = dataclasses.replace(model, path=Path("model.onnx"), dense=None)
    monkeypatch.setattr("wastejax.cli.predict.load_engine", lambda *_, **__: exported)
    args = parser("predict").parse_args(["predict", "x.jpg", "--heatmap=maps"])
    with pytest.raises(UserError, match=r"model\.onnx: has no class map, which heat maps come from"):
        run(args, print)
