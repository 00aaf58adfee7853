"""The loop around the training steps."""

import io
import json
from dataclasses import asdict, fields
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from small_models import draw_images

from wastejax.bundle import load_bundle
from wastejax.config import load_recipe
from wastejax.data.taxonomy import KOREA
from wastejax.errors import UserError
from wastejax.evaluation.images import Asked, asked_images
from wastejax.runtime.stop import Stop
from wastejax.training import loop
from wastejax.training.display import Display
from wastejax.training.loop import announced
from wastejax.training.run import Record, Run
from wastejax.training.train import train


def ended(accuracies, patience=3, measure="top1"):
    """Returns the record of epochs whose loss falls throughout, validated so, up to where training stops."""
    record, at = Record(), iter(range(100))
    config = load_recipe("mobilevit")
    config.train.early_stopping = patience
    state = SimpleNamespace(step=0, plateau=SimpleNamespace(scale=1.0), eval_variables=lambda: None)
    run = SimpleNamespace(
        config=config, schedule=lambda step: 0.1, devices=SimpleNamespace(first=False), total_steps=100
    )

    def scores(run, variables):
        epoch = next(at)
        return {"top1": 0.5, "loss": 1 / (epoch + 1), measure: accuracies[min(epoch, len(accuracies) - 1)]}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "evaluate", scores)
        while not record.stopped:
            # As read back from a checkpoint: a resumed run stops where one in a single go does.
            record = Record(**json.loads(json.dumps(asdict(record))))
            state.step += 1
            record.sums = dict.fromkeys(("loss", "top1", "counted", "seconds", "waited", "steps"), 1.0)
            loop._end_epoch(run, state, record, None)
    return record


def test_a_loss_that_falls_while_accuracy_stays_the_same_does_not_keep_a_run_going():
    record = ended([0.5, 1.0])
    assert len(record.history) == 5 and record.stopped == "no better validation accuracy for 3 epochs"
    assert record.best_epoch == 5  # the bundle is of the lower loss
    assert len(ended([0.5, 0.4, 0.4, 0.6, 0.7, 0.7, 0.7, 0.7]).history) == 8
    assert ended([0.5], patience=0).stopped == loop.ALL_DONE


def test_with_several_labels_it_is_average_precision_that_must_rise():
    record = ended([0.2, 0.3], measure="macro_ap")
    assert len(record.history) == 5
    assert record.stopped == "no better validation average precision for 3 epochs"


def test_a_step_that_needs_arrays_from_the_host_is_refused_once_compiled():
    lines: list[str] = []
    step = jax.jit(lambda at, batch: (at + 1, {"loss": jnp.mean(batch["image"] * 1.0)}))
    given = {"train_step": lambda state, batch: step(state.step, batch), "say": lines.append}
    run = announced(Run(**dict.fromkeys(field.name for field in fields(Run)) | given), Stop(lines.append))
    state = SimpleNamespace(step=jnp.zeros((), jnp.int32))
    pixels = np.ones((2, 4, 4, 3), np.uint8)
    run.train_step(state, {"image": pixels})
    assert [line.split(" in ")[0] for line in lines] == [
        "compiling the training step for 4 px (minutes for a large network)",
        "compiled",
    ]
    _, metrics = run.train_step(state, {"image": jax.device_put(pixels)})
    assert float(metrics["loss"]) == 1 and len(lines) == 2
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        run.train_step(state, {"image": pixels})


def test_the_learning_rate_that_is_shown_is_what_the_plateau_left_of_it(monkeypatch):
    run = SimpleNamespace(
        config=load_recipe("mobilevit"),
        schedule=lambda step: 0.1,
        dataset=SimpleNamespace(source=SimpleNamespace(names=["a.jpg"])),
        steps_per_epoch=4,
        total_steps=8,
    )
    meter = loop.Meter(run, Record(), 0.5)
    meter.add(3, np.array([0]), {"loss": jnp.array(jnp.nan), "top1": jnp.array(0.0)})
    with pytest.raises(UserError, match=r"the loss is nan at step 3 \(epoch 1, learning rate 0\.05\)"):
        meter.settle()
    terminal = Console(force_terminal=True, file=io.StringIO())
    monkeypatch.setattr("wastejax.training.display.Console", lambda **_: terminal)
    display = Display(lambda line: None)
    sums = dict.fromkeys(("loss", "top1", "counted", "seconds", "waited", "steps"), 1.0)
    display.step(1, run, sums, 0.5)
    assert "lr 0.05 " in display._bar.tasks[0].fields["text"]


def test_a_batch_weighs_as_much_in_the_training_accuracy_as_it_has_images_of_a_class():
    run, record = SimpleNamespace(), Record()
    meter = loop.Meter(run, record, 1.0)
    for accuracy, counted in ((0.9, 1.0), (0.5, 0.25), (0.0, 0.0)):
        metrics = {"loss": 1.0, "top1": accuracy, "counted": counted}
        meter.add(0, np.array([0]), metrics)
    meter.settle()
    assert record.sums["top1"] / record.sums["counted"] == pytest.approx((0.9 + 0.125) / 1.25)
    old = Record(sums={"loss": 2.0, "top1": 1.0, "seconds": 1.0, "waited": 0.0, "steps": 2.0})
    loop.Meter(run, old, 1.0)
    assert old.sums["counted"] == 2  # of a version that did not weigh them


def trained(run, images, say, *keys):
    """Trains a tiny network on 32 pixels."""
    keys = [
        *(
            "model.size=tiny",
            "data.image_size=32",
            "data.workers=0",
            "eval.bootstrap=10",
            f"data.dir={images}",
        ),
        *("train.epochs=1", "train.batch_size=16", "optim.warmup_epochs=0", "optim.sharpness.name=none"),
        *keys,
    ]
    train("pyramidnet_asam", [f"--config.{key}" for key in keys], run, say)


def test_a_run_ends_with_the_rules_that_it_began_with(tmp_path, monkeypatch):
    """Their file is edited while it is stopped, and is broken once it goes on."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    rules, begun = tmp_path / "mine.toml", KOREA.read_text(encoding="utf-8")
    rules.write_text(begun.replace('name = "', 'name = "Begun ', 1), encoding="utf-8")
    images = draw_images(tmp_path / "images", 40)

    said: list[str] = []

    def until(what: str):
        def say(line: str):
            said.append(line)
            if line.startswith("compiling the training step"):
                rules.write_text(what, encoding="utf-8")
                if what:
                    raise InterruptedError

        trained(tmp_path / "run", images, say, f"data.taxonomy={rules}")

    with pytest.raises(InterruptedError):
        until(begun.replace('name = "', 'name = "Edited ', 1))
    with pytest.raises(InterruptedError):
        until(begun.replace('name = "', 'name = "Edited again ', 1))
    assert any(line.startswith("note: config.data.taxonomy has changed; the run keeps") for line in said)
    rules.unlink()
    until("")
    assert load_bundle(tmp_path / "run").taxonomy.name.startswith("Begun ")
    assert (tmp_path / "run" / "report.json").is_file()


def test_a_run_that_went_on_with_moved_images_is_finished_and_scored_where_they_are_now(
    tmp_path, monkeypatch
):
    """Also where its best epoch was before that."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    accuracies = iter([1.0, 0.0])
    monkeypatch.setattr(loop, "evaluate", lambda run, variables: {"top1": next(accuracies), "loss": 1.0})
    images, run, said = draw_images(tmp_path / "images", 40), tmp_path / "run", []
    two_epochs = ("train.epochs=2", "data.progressive=32,32")

    def say(line: str):
        said.append(line)
        if line.startswith("epoch 2: training at") and images.is_dir():
            raise InterruptedError

    with pytest.raises(InterruptedError):
        trained(run, images, say, *two_epochs)
    moved = images.rename(tmp_path / "moved")
    for _ in range(2):
        trained(run, moved, say, *two_epochs)
    assert said[-1].startswith("this run is finished")
    assert json.loads((run / "report.json").read_text())["facts"]["best_epoch"] == 1
    source, test = asked_images(Asked(run), load_bundle(run).config)
    assert len(test) == 5 and source.read(0)  # eight images a class are dealt 5, 2 and 1
