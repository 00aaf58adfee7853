"""The Python API: what a program sees of wastejax, and the examples in its docstrings, run."""

import doctest
import inspect
import io
import os
import subprocess
import sys
import typing
import weakref
from collections import deque
from functools import partial
from pathlib import Path

import jax
import numpy as np
import PIL
import pytest
from PIL import Image

import wastejax
from wastejax import api
from wastejax.data.drawing import dataset as synthetic
from wastejax.data.taxonomy import load_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment import classifier
from wastejax.deployment.predictor import Predictor

FUNCTIONS = [name for name in wastejax.__all__ if name[0].islower()]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with what the examples read: photo.jpg, and images/ of two classes."""
    root = tmp_path_factory.mktemp("api")
    synthetic.draw("aluminum_soda_cans", 0, "default").save(root / "photo.jpg", quality=95)
    for name, drawn in (("cans", "aluminum_soda_cans"), ("glass", "glass_beverage_bottles")):
        (root / "images" / name).mkdir(parents=True)
        for i in range(10):
            synthetic.draw(drawn, i, "default").save(root / "images" / name / f"{i}.png")
    return root


# Examples that build on each other run in this order: a run is trained, then scored.
EXAMPLES = [
    ["load"],
    ["create_model"],
    ["load_recipe"],
    ["train", "evaluate", "export"],
    ["audit"],
    ["Classifier"],
]


def test_every_function_has_an_example():
    assert set(FUNCTIONS) <= {name for names in EXAMPLES for name in names}


@pytest.mark.parametrize("names", EXAMPLES, ids="-".join)
def test_the_examples_in_the_docstrings_give_what_they_say(names, place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("WASTEJAX_CACHE", str(place / "cache"))
    known = {"wastejax": wastejax, "PIL": PIL, "np": np, "jax": jax}
    for name in names:
        (test,) = doctest.DocTestFinder(recurse=False).find(getattr(wastejax, name), name, globs=dict(known))
        assert test.examples
        assert doctest.DocTestRunner().run(test).failed == 0


SCRIPT = """
import wastejax
print("begins")
tiny = {"model.size": "tiny", "data.image_size": 32, "train.epochs": 1, "train.batch_size": 4, "eval.bootstrap": 10}
print("ends", wastejax.train("mobilevit_ir", "images", tiny, workdir="unguarded", say=lambda line: None))
"""


@pytest.mark.slow  # compiles once more, in a process of its own
def test_a_script_trains_without_a_guard(place, tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "WASTEJAX_CACHE": str(place / "cache")}
    command = [sys.executable, tmp_path / "script.py"]
    done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["begins", "ends", "unguarded"], done.stderr


def test_every_public_name_is_typed_and_described():
    for name in FUNCTIONS:
        function = getattr(wastejax, name)
        assert function.__module__ == "wastejax.api"
        signature = inspect.signature(function)
        assert "return" in function.__annotations__
        for parameter in signature.parameters.values():
            assert parameter.annotation is not parameter.empty
            described = (
                parameter.name if parameter.kind is not parameter.VAR_KEYWORD else f"**{parameter.name}"
            )
            assert f"\n    {described}: " in inspect.getdoc(function), (name, parameter.name)
    assert (Path(wastejax.__file__).parent / "py.typed").is_file()
    assert typing.get_type_hints(classifier.Prediction)["probability"] is float


def test_importing_is_fast_and_brings_in_no_framework():
    code = """
import sys, time
before = set(sys.modules)
start = time.process_time()
import wastejax
new = {module.split(".")[0] for module in set(sys.modules) - before}
print(time.process_time() - start, sorted(new - {"importlib", "warnings", "wastejax"}))
dir(wastejax)
from wastejax import load, train, audit
load
print(sorted({"jax", "flax", "ml_collections", "optax", "matplotlib", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert float(first.split()[0]) < 0.05
    assert first.split(maxsplit=1)[1] == "[]"
    assert second == "[]", done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wastejax.nothing
    assert set(wastejax.__all__) <= set(dir(wastejax))


@pytest.fixture(scope="module")
def bundled():
    return wastejax.load()


def test_an_image_gets_the_same_answer_in_every_form_it_comes_in(bundled, place):
    path = place / "photo.jpg"
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    turned = place / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(turned, quality=95, exif=exif, subsampling=0)
    clear = image.convert("RGBA")
    forms = [path, path.read_bytes(), str(path), image, np.asarray(image), clear, np.asarray(clear)]
    answers = bundled(forms)
    for answer in answers:  # a place in the batch may cost the last bit
        assert (answer.label, answer.bin) == (answers[0].label, answers[0].bin)
        assert answer.probabilities == pytest.approx(answers[0].probabilities, abs=1e-6)
    alone = bundled(path)
    assert alone.label == answers[0].label and alone.probability == pytest.approx(
        answers[0].probability, abs=1e-5
    )
    upright, single = bundled(Image.open(turned)), bundled(turned)
    assert upright == single
    assert upright.label == answers[0].label
    assert sum(answers[0].probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert next(iter(answers[0].probabilities)) == answers[0].label
    assert bundled([]) == []
    assert [answer.label for answer in bundled(form for form in forms[:2])] == [answers[0].label] * 2


def test_evaluate_says_which_images_it_leaves_out(monkeypatch, capsys):
    def evaluated(asked, taxonomy, ood, calibrate, say=lambda line: None):
        say(f"note: some of {asked.data} are left out")
        return None, {"num_images": 3}

    monkeypatch.setattr("wastejax.evaluation.run.evaluate_model", evaluated)
    assert wastejax.evaluate("run", "images") == {"num_images": 3}
    assert capsys.readouterr().out == "note: some of images are left out\n"
    said = []
    wastejax.evaluate("run", "images", say=said.append, skip_bad=True)
    assert said == ["note: some of images are left out"] and not capsys.readouterr().out


class Counting:
    """Stands in for a model: probabilities by the mean color, and how many images came at once."""

    def __init__(self):
        self.sizes = []

    def __call__(self, images):
        self.sizes.append(len(images))
        red = images[:, 0, 0, 0] / np.float32(255)
        return np.stack([red, 1 - red], axis=1)


@pytest.fixture
def counting():
    classes = ("eggshells", "shoes")
    return Predictor(Path("x"), "numpy", classes, Preprocessing(8), load_taxonomy().only(classes), Counting())


def test_images_of_a_generator_are_answered_as_they_come(counting):
    asked, made = [], []

    def images():
        for i in range(150):
            image = Image.new("RGB", (9, 9), (200 if i % 2 else 10, 0, 0))
            made.append(weakref.ref(image))
            asked.append((i, sum(one() is not None for one in made), len(counting.probabilities.sizes)))
            yield image

    found = classifier.Classifier(counting)(images())
    assert [one.label for one in found] == ["shoes", "eggshells"] * 75
    assert max(count for _, count, _ in asked) <= 2 * classifier.BATCH
    assert asked[40][2] == 1  # the first are computed before the next are asked for
    assert counting.probabilities.sizes == [classifier.BATCH] * 5


@pytest.mark.parametrize(
    "kind",
    [list, tuple, deque, iter, dict.fromkeys, set, np.array, partial(np.array, dtype=object)],
    ids=["list", "tuple", "deque", "iterator", "keys", "set", "texts", "objects"],
)
def test_images_come_in_any_iterable(counting, tmp_path, kind):
    paths = [str(tmp_path / f"{name}.png") for name in ("a", "b", "c")]
    for path in paths:
        Image.new("RGB", (9, 9), (200, 0, 0)).save(path)
    given = kind(paths).keys() if kind == dict.fromkeys else kind(paths)
    assert [one.label for one in classifier.Classifier(counting)(given)] == ["eggshells"] * 3
    assert classifier.Classifier(counting)(kind(paths[:0]).keys() if kind == dict.fromkeys else []) == []


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16"]
)
def test_every_mode_of_image_is_taken(bundled, mode):
    image = Image.new("RGB", (90, 70), (200, 120, 40))
    image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257) if mode == "I;16" else image
    image = image.convert("L").convert(mode) if mode in "I F LA PA" else image.convert(mode)
    assert bundled(image).probability > 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 224, 224), np.uint8), r"uint8 \[H, W, 3\] .*, is uint8 \[3, 224, 224\]"),
        (np.zeros((9, 9, 3), np.float32), r"is float32 \[9, 9, 3\]"),
        (np.zeros((0, 9, 3), np.uint8), r"is uint8 \[0, 9, 3\]"),
        ("nowhere.jpg", r"^nowhere\.jpg: no such file or directory$"),
        (Path(__file__), r"test_api\.py: not an image"),
        (".", "is a directory"),
        (7, "must be uint8"),
        ({"a.jpg": 1}, "must be uint8"),
        (io.BytesIO(b"x"), "must be uint8"),
        (b"no image", "the bytes of an image: not an image"),
    ],
)
def test_what_is_no_image_is_one_clear_line(bundled, given, message):
    with pytest.raises(wastejax.UserError, match=message) as error:
        bundled(given)
    assert "\n" not in str(error.value)


def test_an_opened_image_that_is_cut_is_one_clear_line(bundled, place):
    data = (place / "photo.jpg").read_bytes()
    with pytest.raises(wastejax.UserError, match="cannot be read: image file is truncated"):
        bundled(Image.open(io.BytesIO(data[: len(data) // 2])))


def test_unsure_answers_are_rejected_as_asked(bundled, place):
    answer = bundled(place / "photo.jpg", reject_below=0.0)
    assert not answer.rejected
    assert bundled(place / "photo.jpg", reject_below=answer.bin_probability + 1e-6).rejected
    unsure = bundled(place / "photo.jpg", reject_below=answer.probability + 1e-6)
    assert not unsure.class_sure and unsure.rejected == (unsure.bin_probability < answer.probability + 1e-6)
    with pytest.raises(wastejax.UserError, match="give one of them"):
        bundled(place / "photo.jpg", accuracy=0.9, reject_below=0.5)
    assert len(repr(bundled)) < 80 and len(repr(answer)) < 160


def test_mistakes_in_arguments_name_the_way_out():
    with pytest.raises(wastejax.UserError, match="mobilevit_z: no such model; did you mean 'mobilevit_s'"):
        api.create_model("mobilevit_z", 3)
    with pytest.raises(wastejax.UserError, match="did you mean 'mixer'"):
        api.create_model("mobilevit_s", 3, mixr="attention")
    with pytest.raises(wastejax.UserError, match=r"unknown key; did you mean 'train\.epochs'"):
        api.load_recipe("mobilevit", {"train.epoch": 3})
    with pytest.raises(wastejax.UserError, match="did you mean 'mobilevit'"):
        api.train("mobilevitt", say=lambda line: None)
    config = api.load_recipe(
        "mobilevit", {"data.mean": (0.5, 0.5, 0.5), "model.depths": None, "data.leave_out": ()}
    )
    assert config.data.mean == (0.5, 0.5, 0.5) and config.model.depths is None and config.data.leave_out == ()
