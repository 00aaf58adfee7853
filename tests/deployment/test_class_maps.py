"""Exported files give the class map that jax computes, so that heat maps and regions need no jax."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_models import CLASSES, write_bundle

from wastejax.bundle import load_bundle, save_bundle
from wastejax.deployment.engines import load_engine
from wastejax.deployment.export import write_export
from wastejax.deployment.formats import load_jax, load_predictor
from wastejax.deployment.heatmaps import dense_of, heat_map
from wastejax.deployment.predictor import softmax
from wastejax.deployment.regions import find_regions
from wastejax.errors import UserError
from wastejax.training.heads import with_familiarity

SIZE, WIDE = 64, (128, 192)
NETWORK = "efficientnetv2_tiny"
SLOW = ["efficientnetv2_tiny_eca", "efficientnetv2_tiny_glu", "mobilevit_tiny_ir", "pyramidnet_tiny"]
FIXED = ["mobilevit_tiny", "swin_tiny"]  # attention over as many positions as the file was written for
NEEDS = {".onnx": "jax2onnx", ".tflite": "litert_converter", ".stablehlo": "flatbuffers"}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Writes networks once: (name, suffix) -> (bundle, exported file)."""
    folder, known = tmp_path_factory.mktemp("maps"), {}

    def write(name: str, suffix: str) -> tuple[Path, Path]:
        pytest.importorskip(NEEDS[suffix])
        pytest.importorskip({".onnx": "onnxruntime", ".tflite": "ai_edge_litert"}.get(suffix, "jax"))
        if (name, suffix) not in known:
            bundle = folder / name
            if not bundle.is_dir():
                write_bundle(bundle, name, image_size=SIZE, temperature=1.7)
            file = folder / f"{name}{suffix}"
            write_export(load_bundle(bundle), file, class_map=True)
            known[name, suffix] = bundle, file
        return known[name, suffix]

    return write


def images(height: int, width: int, count: int = 2) -> np.ndarray:
    """Smooth colors, uint8 [count, height, width, 3]."""
    coarse = np.random.default_rng(0).integers(0, 256, (count, 5, 7, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(c).resize((width, height))) for c in coarse])


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        (NETWORK, ".onnx"),
        (NETWORK, ".tflite"),
        *(pytest.param(n, s, marks=pytest.mark.slow) for n in [*SLOW, *FIXED] for s in (".onnx", ".tflite")),
        *(pytest.param(n, ".stablehlo", marks=pytest.mark.slow) for n in [NETWORK, *FIXED]),
    ],
)
def test_the_class_map_of_a_file_is_jaxs(written, name, suffix):
    bundle, file = written(name, suffix)
    found, expected = load_predictor(file), load_jax(bundle)
    sides = [(SIZE, SIZE), WIDE] if found.any_side else [(SIZE, SIZE)]
    for height, width in sides:
        given = images(height, width)
        maps = np.asarray(expected.dense(given))
        np.testing.assert_allclose(found.dense(given), maps, atol=1e-5 * np.abs(maps).max())
    # Its mean is what the answer is made of.
    square = images(SIZE, SIZE)
    np.testing.assert_allclose(
        found.probabilities(square), softmax(found.dense(square).mean((1, 2)), 1.7), atol=1e-5
    )
    np.testing.assert_allclose(found.probabilities(square), expected.probabilities(square), atol=1e-5)
    if name in FIXED or suffix == ".stablehlo":
        with pytest.raises(UserError, match="class maps of images of one size alone"):
            dense_of(found, "regions", any_side=True)
    elif (name, suffix) != ("efficientnetv2_tiny_glu", ".tflite"):  # there halves are cut out of all axes
        assert found.any_side


@pytest.mark.parametrize("suffix", [".onnx", pytest.param(".tflite", marks=pytest.mark.slow)])
def test_a_file_that_knows_what_is_unfamiliar_takes_images_of_any_side(tmp_path, suffix):
    pytest.importorskip(NEEDS[suffix])
    plain = load_bundle(write_bundle(tmp_path / "plain", NETWORK, image_size=SIZE))
    bundle = with_familiarity(plain, np.asarray(plain.features(images(SIZE, SIZE, 6))), most=2)
    save_bundle(tmp_path / "known", bundle)
    write_export(bundle, tmp_path / f"known{suffix}", class_map=True)
    found, given = load_predictor(tmp_path / f"known{suffix}"), images(*WIDE)
    assert found.any_side
    maps = np.asarray(load_jax(tmp_path / "known").dense(given))
    np.testing.assert_allclose(found.dense(given), maps, atol=1e-5 * np.abs(maps).max())


def test_heat_maps_and_regions_of_a_file_are_those_of_its_bundle(written):
    bundle, file = written(NETWORK, ".onnx")
    found, expected = load_predictor(file), load_jax(bundle)
    image = Image.fromarray(images(150, 200, 1)[0])
    first, second = (
        np.asarray(heat_map(predictor, image, CLASSES[1]), int) for predictor in (found, expected)
    )
    assert np.abs(first - second).max() <= 1 and np.ptp(second) > 50
    regions, wanted = (find_regions(predictor, image) for predictor in (found, expected))
    assert wanted and [r[:2] + r[3:] for r in regions] == [r[:2] + r[3:] for r in wanted]
    np.testing.assert_allclose([r.probability for r in regions], [r.probability for r in wanted], atol=1e-4)


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_predict_finds_regions_and_draws_heat_maps_without_jax(written, tmp_path, suffix):
    bundle, file = written(NETWORK, suffix)
    Image.fromarray(images(150, 200, 1)[0]).save(tmp_path / "photo.png")
    photo, folder = tmp_path / "photo.png", tmp_path / "maps"
    code = (
        "import json, sys; from wastejax.cli import predict; from wastejax.main import parser; lines = []\n"
        f"for options in (['--regions'], ['--heatmap={folder}']):\n"
        f"    given = ['predict', {str(photo)!r}, '--model={file}', '--format=json', *options]\n"
        "    predict.run(parser('predict').parse_args(given), lines.append)\n"
        "print(json.dumps([{'jax', 'jaxlib', 'flax'} & set(sys.modules) == set(), *lines]))"
    )
    no_jax, *lines = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert no_jax
    found = json.loads("".join(lines[: len(lines) // 2]))[0]["objects"]
    wanted = find_regions(load_jax(bundle), Image.open(photo).convert("RGB"))
    assert [(row["class"], row["box"]) for row in found] == [(r.label, list(r.box)) for r in wanted]
    assert len(list(folder.glob("photo_*.jpg"))) == 1


def test_a_litert_file_has_a_class_map_only_where_asked_for(written, tmp_path):
    bundle, _ = written(NETWORK, ".tflite")
    write_export(load_bundle(bundle), tmp_path / "plain.tflite")
    predictor = load_predictor(tmp_path / "plain.tflite")
    assert predictor.dense is None
    with pytest.raises(UserError, match=r"plain\.tflite: has no class map.*export it with --class-map"):
        heat_map(predictor, Image.new("RGB", (70, 70)))


def test_where_a_derived_file_has_no_map_of_any_side_jax_computes(written, monkeypatch, tmp_path):
    bundle, file = written(NETWORK, ".onnx")
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path))
    monkeypatch.delenv("WASTEJAX_ENGINE", raising=False)
    monkeypatch.setattr("wastejax.deployment.engines._derive", lambda *_: file)
    assert load_engine(bundle, any_side=True).runtime == "onnxruntime"
    fixed = dataclasses.replace(load_predictor(file), any_side=False)
    monkeypatch.setattr(
        "wastejax.deployment.formats.load_predictor",
        lambda path, *_: fixed if path == file else load_jax(path),
    )
    assert load_engine(bundle, any_side=True).runtime == "jax"
    assert load_engine(bundle).runtime == "onnxruntime"
    assert load_engine(bundle, "onnxruntime", any_side=True).runtime == "onnxruntime"
