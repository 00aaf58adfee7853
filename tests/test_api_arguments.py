"""Arguments of the Python API: `~` in paths, and what is refused as the commands refuse it."""

from pathlib import Path

import numpy as np
import pytest
from small_models import draw_images

import wastejax
from wastejax.data.cache import cache_dir

# Every argument that is a path, by function, and what else the function needs.
PATHS = {
    "load": (["model", "taxonomy"], {}),
    "load_recipe": (["recipe"], {}),
    "train": (["recipe", "data_dir", "workdir"], {"recipe": "mobilevit_ir"}),
    "evaluate": (["model", "data_dir", "taxonomy", "ood", "corrections"], {}),
    "audit": (["data_dir", "out", "manifest", "model", "corrections"], {"data_dir": "images", "out": "out"}),
    "export": (["model", "out", "data_dir", "taxonomy"], {}),
}
CASES = [(name, path) for name, (paths, _) in PATHS.items() for path in paths]


def quiet(line):
    """Takes a line, and says nothing."""


@pytest.fixture
def asked(monkeypatch):
    """What reaches the functions that do the work, which are not called, as one text."""
    seen = []

    def note(*given, **named):
        seen.append(repr((given, named)))
        raise StopIteration

    for work in (
        "wastejax.api.load_engine",
        "wastejax.config.load_recipe",
        "wastejax.training.train.train",
        "wastejax.evaluation.run.evaluate_model",
        "wastejax.auditing.run.audit_folder",
        "wastejax.deployment.export.export_model",
    ):
        monkeypatch.setattr(work, note)
    return seen


@pytest.mark.parametrize(("name", "path"), CASES)
def test_a_home_folder_is_found_in_every_path_of_the_python_api(name, path, asked, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    for given in ("~/x", Path("~/x")):
        with pytest.raises(StopIteration):
            getattr(wastejax, name)(**PATHS[name][1] | {path: given})
        assert "/home/somebody/x" in asked[-1] and "~" not in asked[-1]


@pytest.mark.parametrize(("name", "path"), CASES)
def test_an_empty_path_does_not_stand_for_a_default(name, path, asked):
    with pytest.raises(wastejax.UserError, match=rf"^{path}: is empty; give a path$"):
        getattr(wastejax, name)(**PATHS[name][1] | {path: ""})
    assert not asked


def test_what_is_made_from_a_home_folder_lies_in_it(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("WASTEJAX_CACHE", "~/cache")
    monkeypatch.chdir(here)
    draw_images(home / "images")
    (home / "own.py").write_text("from configs.mobilevit_ir import get_config\n")
    assert cache_dir() == home / "cache"
    found = wastejax.audit("~/images", "~/audit", say=quiet)
    assert found["data"] == "images" and (home / "audit" / "audit.json").is_file()
    assert wastejax.export(None, "bundle", "~/bundle") == home / "bundle"
    assert repr(wastejax.load("~/bundle", engine="jax")).startswith(f"<Classifier {home}: 30 classes, ")
    assert wastejax.load_recipe("~/own.py").model.mixer == "inverted_residual"
    assert not list(here.iterdir())


def test_an_audit_says_what_its_command_does(tmp_path, monkeypatch, capsys):
    def find_label_errors(*_):
        raise wastejax.UserError("too few images")

    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("wastejax.bundle.load_bundle", lambda _: None)
    monkeypatch.setattr("wastejax.auditing.label_errors.embed", lambda *_: np.zeros((6, 2)))
    monkeypatch.setattr("wastejax.auditing.label_errors.find_label_errors", find_label_errors)
    images = draw_images(tmp_path / "images")
    found = wastejax.audit(images, tmp_path / "out", model=tmp_path / "run")  # a path, as `train` returns it
    said = capsys.readouterr().out
    assert found["label_errors"] is None and found["model"] == "run"
    assert "note: label errors were not looked for: too few images\n" in said
    assert "unreadable files: 0\n" in said
    wastejax.audit(images, tmp_path / "out", say=quiet)
    assert not capsys.readouterr().out


@pytest.mark.parametrize("data_dir", ["images", Path("images")])
def test_images_are_named_once(data_dir):
    with pytest.raises(
        wastejax.UserError, match=r"^data_dir=images: overrides name images too, in data\.dir;"
    ):
        wastejax.train("mobilevit_ir", data_dir, {"data.dir": "others"}, say=quiet)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "onx"}, r"^--format=onx: no such choice; did you mean 'onnx'\?$"),
        ({"format": None}, "^--format=None: no such choice; choices: "),
        ({"input": "unit8"}, r"^--input=unit8: no such choice; did you mean 'uint8'\?$"),
        ({"quantize": "int4"}, "^--quantize=int4: no such choice; "),
        (
            {"format": "bundle", "input": "float32"},
            "^--input: only with --format=onnx or stablehlo or litert; ",
        ),
        (
            {"format": "bundle", "data_dir": "nope"},
            "^--data: only with --format=onnx or stablehlo or litert; ",
        ),
    ],
)
def test_an_export_refuses_what_its_command_refuses(given, message, tmp_path, monkeypatch):
    def load(*_):
        raise AssertionError("something slow began")

    monkeypatch.setattr("wastejax.deployment.export.load_bundle", load)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(wastejax.UserError, match=message):
        wastejax.export(**given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine", ["", "onnx"])
def test_an_engine_that_there_is_not_is_refused(engine, monkeypatch):
    monkeypatch.setenv("WASTEJAX_ENGINE", "jax")
    with pytest.raises(wastejax.UserError, match=f"^--engine={engine}: no such engine; "):
        wastejax.load(engine=engine)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model.size": "xsx"}, r"^config\.model\.size: mobilevit has no size 'xsx'; did you mean 'xs'\?$"),
        (
            {"model.size": "xsx", "init.weights": "mine"},
            r"^config\.model\.size: mobilevit has no size 'xsx'; ",
        ),
        ({"data.image_size": 225}, r"^config\.data\.image_size: must be a multiple of 64, is 225: "),
    ],
)
def test_a_recipe_of_no_network_is_refused_as_training_refuses_it(overrides, message):
    with pytest.raises(wastejax.UserError, match=message):
        wastejax.load_recipe("mobilevit", overrides)


@pytest.mark.parametrize("number", [0, -1, "5", 5.0, None, True, np.int64(0), np.float32(5)])
def test_a_network_has_a_whole_number_of_classes(number):
    with pytest.raises(wastejax.UserError, match=r"^num_classes: must be an integer >= 1, is ") as raised:
        wastejax.create_model("mobilevit_tiny", number)
    assert str(raised.value).endswith(repr(number))


def test_numpy_counts_classes_too():
    module, _ = wastejax.create_model("mobilevit_tiny", np.int64(5))
    assert module.num_classes == 5 and type(module.num_classes) is int
