"""What opening a file says and uses: which jax wrote it, and how many threads compute."""

import json
import zipfile
from datetime import date

import jax
import numpy as np
import pytest
from small_models import CLASSES, write_bundle

from wastejax.bundle import load_bundle
from wastejax.deployment import formats
from wastejax.deployment.export import write_export
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.formats.stablehlo import ABOUT_FILE, PROGRAM
from wastejax.errors import UserError


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stablehlo")
    bundle = load_bundle(write_bundle(folder / "bundle", "pyramidnet_tiny", image_size=32))
    write_export(bundle, folder / "m.stablehlo")
    return folder / "m.stablehlo"


def _rewritten(program, path, about=None, content=None):
    with zipfile.ZipFile(program) as archive:
        parts = {PROGRAM: archive.read(PROGRAM), ABOUT_FILE: archive.read(ABOUT_FILE)}
    if about is not None:
        parts[ABOUT_FILE] = json.dumps(json.loads(parts[ABOUT_FILE]) | about).encode()
    if content is not None:
        parts[PROGRAM] = content(parts[PROGRAM])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path


def test_a_stablehlo_file_says_which_jax_wrote_it_and_until_when_others_promise_to_run_it(program):
    with zipfile.ZipFile(program) as archive:
        about = json.loads(archive.read(ABOUT_FILE))
    assert about["jax"] == jax.__version__
    written, expires = (date.fromisoformat(about[key]) for key in ("written", "expires"))
    assert written == date.today() and 180 <= (expires - written).days <= 184


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"\0" * 64])
def test_a_program_that_this_jax_cannot_read_is_one_line(program, tmp_path, damage):
    about = {"jax": "0.99.0", "written": "2031-01-02", "expires": "2031-07-03"}
    path = _rewritten(program, tmp_path / "new.stablehlo", about, damage)
    with pytest.raises(UserError) as raised:
        load_predictor(path).probabilities(np.zeros((1, 32, 32, 3), np.uint8))
    message = str(raised.value)
    assert f"jax {jax.__version__} cannot run it: jax 0.99.0 wrote it on 2031-01-02" in message
    assert "until 2031-07-03" in message and "\n" not in message


def test_a_program_that_fails_only_when_it_is_compiled_is_one_line(program, monkeypatch):
    class Later:
        in_avals = (jax.ShapeDtypeStruct((1, 32, 32, 3), np.uint8),)
        out_avals = (jax.ShapeDtypeStruct((1, len(CLASSES)), np.float32),)

        def call(self, images):
            raise NotImplementedError("shape_refinement\nof another version")

    monkeypatch.setattr(jax.export, "deserialize", lambda _: Later())
    with pytest.raises(UserError, match=r"cannot run it: jax .* \(shape_refinement\)$"):
        load_predictor(program).probabilities(np.zeros((1, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("suffix", [".onnx", ".tflite"])
def test_threads_reach_the_runtime(tmp_path, monkeypatch, suffix):
    given = []
    monkeypatch.setattr(formats, "cores", lambda: 4)
    monkeypatch.setitem(formats.LOADERS, suffix, lambda path, threads: given.append(threads))
    file = tmp_path / f"m{suffix}"
    file.touch()
    load_predictor(file)
    load_predictor(file, threads=3)
    assert given == [None, 3]
    for threads in (0, 5):
        with pytest.raises(
            UserError, match=f"--threads={threads}: must be >= 1 and <= 4, the cores it may use"
        ):
            load_predictor(file, threads=threads)
    with pytest.raises(UserError, match=r"--threads=2: only for an \.onnx or \.tflite file"):
        load_predictor(tmp_path, threads=2)
