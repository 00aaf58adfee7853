"""Which teachers a recipe can have; how one is learned from is test_step.py's."""

import pytest
from small_models import draw_images, write_bundle

from wastejax.bundle import keep_calibration, load_bundle, save_bundle
from wastejax.errors import UserError
from wastejax.training.train import resolve, train


def resolved(teacher, *overrides):
    arguments = ["model.size=tiny", "data.dir=.", f"distill.teacher={teacher}", *overrides]
    return resolve("efficientnetv2", [f"--config.{key}" for key in arguments], lambda line: None)


def test_a_teacher_that_cannot_take_the_images_is_refused_before_any_work(tmp_path):
    teacher = write_bundle(tmp_path / "mobilevit", "mobilevit_tiny", 64)
    problem = (
        r"^config\.distill\.teacher: .*mobilevit cannot take images of {} px, .*: must be a multiple of 64"
    )
    with pytest.raises(UserError, match=problem.format(96)):
        resolved(teacher, "data.image_size=96")
    with pytest.raises(UserError, match=problem.format(160)):
        resolved(teacher, "data.image_size=128", "data.progressive=64,160")
    # Of the images to validate with it sees none.
    assert resolved(teacher, "data.image_size=96", "data.progressive=64,128").data.image_size == 96


def test_a_teacher_that_names_several_classes_per_image_is_refused(tmp_path):
    bundle = load_bundle(write_bundle(tmp_path / "one", "pyramidnet_tiny", 32))
    bundle.config["loss"] = {"kind": "multilabel"}
    save_bundle(tmp_path / "several", bundle)
    with pytest.raises(UserError, match=r"^config\.distill\.teacher: .*several is a multi-label model"):
        resolved(tmp_path / "several", "data.image_size=32")
    assert resolved(tmp_path / "one", "data.image_size=32").distill.teacher == str(tmp_path / "one")


def test_a_run_does_not_resume_with_a_teacher_that_has_learned_since(tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    teacher = write_bundle(tmp_path / "teacher", "pyramidnet_tiny", 32)
    images = draw_images(tmp_path / "images", 40)
    keys = ("model.size=tiny", f"data.dir={images}", "data.image_size=32", f"distill.teacher={teacher}")

    def until_it_compiles():
        def say(line: str):
            if line.startswith("compiling"):
                raise InterruptedError

        train("pyramidnet_asam", [f"--config.{key}" for key in keys], tmp_path / "run", say)

    for temperature in (1.0, 2.0):  # of which a pupil learns nothing
        keep_calibration(teacher, temperature, {})
        with pytest.raises(InterruptedError):
            until_it_compiles()
    learned = load_bundle(teacher)
    learned.variables["params"]["classifier"]["bias"][0] += 1
    save_bundle(teacher, learned)
    with pytest.raises(
        UserError, match=r"^config\.distill\.teacher: .* changed since the run began; .*again: py"
    ):
        until_it_compiles()
