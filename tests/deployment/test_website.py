"""What the page's folder and the server hold: small kernels that say the same, icons, a service worker."""

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from small_models import write_bundle

from wastejax.bundle import load_bundle
from wastejax.deployment import website
from wastejax.deployment.export import write_export
from wastejax.deployment.formats.onnx_packed import on_grid
from wastejax.deployment.regions import Settings
from wastejax.errors import UserError


def kept(worker: bytes) -> dict[str, str]:
    return json.loads(re.search(rb"const FILES = (\{.*?\});", worker, re.DOTALL)[1])


def test_the_service_worker_names_every_file_of_the_page_by_its_hash():
    files = {path: data for path, data, _ in website.page_files()}
    worker = files.pop("/service-worker.js")
    assert kept(worker) == {
        path[1:]: f"sha256-{base64.b64encode(hashlib.sha256(data).digest()).decode()}"
        for path, data in files.items()
    }
    template = {
        "service-worker.js": worker.replace(worker[worker.index(b"const FILES") :], b"const FILES = {};")
    }
    one, other = (website.service_worker(template | {"a.js": text}) for text in (b"1", b"2"))
    assert one != other  # so that browsers notice


def test_the_page_asks_for_all_of_its_modules_at_once():
    def imported(name: str) -> set[str]:
        script = (website.PAGE / name).read_text()
        named = set(re.findall(r'^import [^;]*?from "\./([\w-]+\.js)";', script, re.MULTILINE))
        return named.union(*map(imported, named))

    html = (website.PAGE / "index.html").read_text()
    assert set(re.findall(r'rel="modulepreload" href="([\w-]+\.js)"', html)) == imported("app.js")


def test_the_manifest_names_icons_that_are_there_in_their_sizes():
    files = {path: (data, kind) for path, data, kind in website.page_files()}
    manifest = json.loads(files["/manifest.webmanifest"][0])
    assert files["/manifest.webmanifest"][1] == "application/manifest+json"
    for entry in manifest["icons"]:
        data, kind = files[f"/{entry['src']}"]
        assert kind == entry["type"] == "image/png"
        assert "{}x{}".format(*Image.open(io.BytesIO(data)).size) == entry["sizes"]
    assert {"any", "maskable"} == {entry["purpose"] for entry in manifest["icons"]}


def test_kernels_on_a_grid_of_8_bits_are_found_and_others_are_not():
    rng = np.random.default_rng(0)
    levels = rng.integers(-127, 128, (6, 5, 3, 3)).astype(np.int8)
    levels[:, 0, 0, 0] = 127
    levels[4] = 0  # a channel that was pruned
    scale = rng.uniform(1e-4, 1, (6, 1, 1, 1)).astype(np.float32)
    found = on_grid(levels * scale, 0)
    assert found is not None
    np.testing.assert_array_equal(found[0], levels)
    np.testing.assert_allclose(found[0] * found[1], levels * scale, rtol=2e-7)
    assert on_grid(rng.normal(size=(6, 5, 3, 3)).astype(np.float32), 0) is None


def test_a_packed_network_gives_the_same_answers(tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    from onnx import helper, numpy_helper

    from wastejax.deployment.formats.onnx_packed import pack

    rng = np.random.default_rng(1)
    coarse = rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.float32) * np.float32(0.01)
    coarse[:, 0, 0, 0] = np.float32(1.27)
    fine = rng.normal(size=(8, 5)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "coarse"], ["c"]),
            helper.make_node("ReduceMean", ["c"], ["m"], axes=[2, 3], keepdims=0),
            helper.make_node("Gemm", ["m", "fine"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 3, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 5])],
        [numpy_helper.from_array(coarse, "coarse"), numpy_helper.from_array(fine, "fine")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "small.onnx")
    pack(tmp_path / "small.onnx", tmp_path / "packed.onnx")
    stored = {t.name: t.data_type for t in onnx.load(tmp_path / "packed.onnx").graph.initializer}
    kinds = onnx.TensorProto
    assert stored == {"coarse_levels": kinds.INT8, "coarse_scale": kinds.FLOAT, "fine": kinds.FLOAT}
    images = rng.normal(size=(4, 3, 8, 8)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(tmp_path / f"{name}.onnx").run(None, {"x": images})[0]
        for name in ("small", "packed")
    )
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.fixture
def runtime(tmp_path):
    """Stands in for onnxruntime-web's dist folder."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in website.RUNTIME:
        (folder / name).write_bytes(b"a runtime")
    return folder


def test_objects_need_the_probability_that_answers_need_where_one_is_given(tmp_path, runtime):
    pytest.importorskip("jax2onnx")
    write_export(load_bundle(write_bundle(tmp_path / "bundle", image_size=32)), tmp_path / "model.onnx")
    least = []
    for reject_below in (None, 0.9):
        site = website.write_site(tmp_path / "model.onnx", tmp_path / "site", runtime, reject_below)
        said = json.loads((site / website.LABELS).read_text())
        least.append(said["onnx"]["regions"]["least"])
    assert least == [Settings().least, 0.9] and said["reject_below"] == 0.9


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"taxonomy": "nowhere"}, "--taxonomy: nowhere: no such taxonomy"),
        ({"reject_below": 1.5}, "--reject-below=1.5: must be a probability"),
        ({"reject_below": float("nan")}, "--reject-below=nan: must be a probability"),
        ({"model": "nowhere.onnx"}, "--model=nowhere.onnx: no such file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, runtime, monkeypatch, asked, problem):
    monkeypatch.setattr(website, "_write_model", lambda source, path: pytest.fail("exported first"))
    with pytest.raises(UserError, match=problem):
        website.write_site(**{"model": None} | asked, out=tmp_path / "site", runtime=runtime)
    assert not (tmp_path / "site").exists()


def test_a_model_in_the_folder_of_the_page_stays(tmp_path, runtime):
    pytest.importorskip("jax2onnx")
    site = tmp_path / "site"
    site.mkdir()
    write_export(load_bundle(write_bundle(tmp_path / "bundle", image_size=32)), site / "model.onnx")
    before = (site / "model.onnx").read_bytes()
    website.write_site(site / "model.onnx", site, runtime)
    assert (site / "model.onnx").read_bytes() == before
    assert (site / "index.html").is_file() and (site / "model.onnx.gzip").is_file()
    assert not [path.name for path in site.iterdir() if path.name.startswith(".web")]
