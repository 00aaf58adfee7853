"""Networks across cameras: sources left out in turn, and a model that learns one's own."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from tests.small_models import CLASSES, draw_images, write_bundle
from wastejax.bundle import keep_calibration, load_bundle
from wastejax.errors import UserError
from wastejax.evaluation.composition import stored_confusion
from wastejax.main import dispatch
from wastejax.training.cameras import (
    Seen,
    adapt,
    crossval_by_source,
    gain_interval,
    look,
    near_head,
    taught_by,
)
from wastejax.training.heads import logits_of


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return load_bundle(write_bundle(tmp_path_factory.mktemp("cameras") / "bundle"))


def seen(bundle, shift: float, count: int = 90) -> Seen:
    """Three classes in three directions; the sources b and c see them shifted, with c's label for either of two."""
    rng = np.random.default_rng(1)
    size = bundle.variables["params"]["classifier"]["kernel"].shape[0]
    truth = np.arange(count) % 3
    directions = np.eye(size, dtype=np.float32)[:3]
    members = np.array(["a", "b", "c"])[np.arange(count) // 3 % 3]
    features = directions[truth]
    features[:, :6] += np.abs(rng.normal(0, 0.05, (count, 6)).astype(np.float32))
    features[members != "a", 3] += shift
    allowed = np.zeros((count, len(CLASSES)), bool)
    allowed[np.arange(count), truth] = True
    allowed[(members == "c") & (truth < 2), :2] = True
    return Seen(features, allowed, members, np.arange(count), {})


def test_each_source_is_scored_by_what_the_others_teach(bundle):
    scores = crossval_by_source(bundle, seen(bundle, 0.2))
    assert list(scores) == ["a", "b", "c"]
    assert all(row["num_images"] == 30 and row["right"] > 0.95 for row in scores.values())
    # Where a source's own images taught too, their labels could be learned by heart; here they are noise.
    noise = seen(bundle, 0.2)
    mine = noise.members == "b"
    noise.allowed[mine] = np.eye(len(CLASSES), dtype=bool)[
        np.random.default_rng(2).integers(0, 3, mine.sum())
    ]
    assert crossval_by_source(bundle, noise)["b"]["right"] < 0.7
    # Near-duplicates of its images in the others do not teach either.
    same = seen(bundle, 0.2)
    same.groups[:] = same.groups % 3
    with pytest.raises(UserError, match="nothing is left to learn from"):
        crossval_by_source(bundle, same)


def test_a_model_learns_ones_own_camera_only_where_that_helps(bundle, tmp_path):
    mine = seen(bundle, 1.0)
    (bundle.path / "LICENSE-MODEL").write_text("for research")  # bundle.json may name it
    found = adapt(bundle, mine, tmp_path / "mine")
    assert (tmp_path / "mine" / "LICENSE-MODEL").read_text() == "for research"
    assert found["written"] and found["after"] > 0.6 > 0.4 > found["before"]
    low, high = found["gain_ci95"]
    assert low <= found["gain"] <= high
    assert found["gain"] == pytest.approx(found["after"] - found["before"])
    right = mine.allowed[
        np.arange(90), logits_of(load_bundle(tmp_path / "mine"), mine.features).argmax(axis=1)
    ]
    assert right.mean() > 0.6
    known = seen(bundle, 1.0)
    known.allowed[:] = False  # labels that the model gives already
    known.allowed[np.arange(90), logits_of(bundle, known.features).argmax(axis=1)] = True
    again = adapt(bundle, known, tmp_path / "again")
    assert again["before"] == 1 and not again["written"] and not (tmp_path / "again").exists()
    few = Seen(mine.features[:5], mine.allowed[:5], mine.members[:5], mine.groups[:5], {})
    with pytest.raises(UserError, match="needs 10 different labeled images or more, has 5"):
        adapt(bundle, few, tmp_path / "few")


def test_an_adapted_model_no_longer_expects_all_classes_equally_often(bundle, tmp_path):
    balanced = bundle.config | {"data": {"balanced_sampling": True}, "loss": {"class_weights": True}}
    assert adapt(replace(bundle, config=balanced), seen(bundle, 1.0), tmp_path / "mine")["written"]
    keep_calibration(tmp_path / "mine", 1.0, {}, np.eye(len(CLASSES), dtype=int).tolist())
    assert not stored_confusion(tmp_path / "mine", len(CLASSES)).explains


def test_copies_of_an_image_do_not_make_a_gain_surer(bundle, monkeypatch):
    """Of 12 images the model learns 5 and forgets 3, which may be chance, also with 10 near-duplicates of each."""
    mine = seen(bundle, 0.0, 120)
    groups, rows = np.arange(120) // 10, np.arange(120)
    before = logits_of(bundle, mine.features)[groups * 10]
    answers = before.argmax(axis=1)
    taught = np.eye(len(CLASSES))[np.where(groups < 8, (answers + 1) % len(CLASSES), answers)]
    allowed = np.zeros((120, len(CLASSES)), bool)
    allowed[rows, np.where(groups < 5, taught.argmax(axis=1), answers)] = True
    monkeypatch.setattr("wastejax.training.cameras._fitted", lambda *args: taught)
    copies = Seen(mine.features[groups * 10], allowed, mine.members, groups, {})
    adapted, found = taught_by(bundle, copies)
    assert found["gain"] == pytest.approx(2 / 12)
    low, high = found["gain_ci95"]
    assert low < 0 < high and adapted is None
    alone = np.repeat([1.0, -1.0, 0.0], [5, 3, 4])
    assert (low, high) == pytest.approx(gain_interval(alone, np.arange(12)))
    with pytest.raises(UserError, match="needs 10 different labeled images or more, has 9: near-duplicates"):
        taught_by(bundle, Seen(copies.features, allowed, mine.members, np.minimum(groups, 8), {}))


def test_its_temperature_is_that_of_its_own_answers(bundle, monkeypatch):
    rng = np.random.default_rng(5)
    honest = rng.normal(size=(600, len(CLASSES))) * rng.uniform(0.5, 4, (600, 1))
    labels = (rng.uniform(size=(600, 1)) > softmax(honest, axis=1).cumsum(axis=1)).sum(axis=1)
    monkeypatch.setattr("wastejax.training.cameras._fitted", lambda *args: honest)
    some = seen(bundle, 0.0, 600)
    some.allowed[:] = np.eye(len(CLASSES), dtype=bool)[labels]
    for own in (0.4, 1.0):  # what the model had before says nothing of answers that are right at 1
        adapted, _ = taught_by(replace(bundle, temperature=own), some)
        assert adapted.temperature == pytest.approx(1, abs=0.1)


def test_images_of_no_class_teach_the_model_that_is_written_as_those_that_are_scored(bundle, monkeypatch):
    mine, size = seen(bundle, 1.0), 60
    rng = np.random.default_rng(4)
    others = np.abs(rng.normal(0, 0.5, (size, mine.features.shape[1]))).astype(np.float32)
    both = Seen(
        np.concatenate([mine.features, others]),
        np.concatenate([mine.allowed, np.zeros((size, len(CLASSES)), bool)]),
        np.concatenate([mine.members, ["a"] * size]),
        np.arange(90 + size),
        {},
    )
    fits = []

    def spy(seen, rows, start):
        fits.append(rows)
        return near_head(seen, rows, start)

    monkeypatch.setattr("wastejax.training.cameras.near_head", spy)
    taught, found = taught_by(bundle, both)
    # Each was held out once, in folds as large as each other.
    assert (np.sum(fits[:5], axis=0) == 4).all() and all(rows[90:].sum() == 48 for rows in fits[:5])
    assert fits[5].all() and len(fits) == 6
    assert (found["num_images"], found["num_outliers"]) == (90, size) and 0 <= found["outliers_kept"] <= 1
    without, alone = taught_by(bundle, mine)
    assert alone["num_outliers"] == 0 and alone["outliers_kept"] is None
    surest = [softmax(logits_of(each, others), axis=1).max(axis=1).mean() for each in (taught, without)]
    assert surest[0] < surest[1]


def test_the_commands(bundle, tmp_path, capsys):
    rng = np.random.default_rng(3)
    for source in ("one", "two"):
        for k, label in enumerate(CLASSES[:2]):
            for i in range(6):
                folder = tmp_path / source / label
                folder.mkdir(parents=True, exist_ok=True)
                noise = rng.integers(0, 60, (40, 40, 3)) + 150 * k
                Image.fromarray(noise.astype(np.uint8)).save(folder / f"{i}.png")
    names = json.dumps(list(CLASSES))
    (tmp_path / "mix.toml").write_text(
        f'classes = {names}\n[sources.one]\npath = "one"\n[sources.two]\npath = "two"\n'
    )
    model = f"--model={bundle.path}"
    with pytest.raises(SystemExit) as end:
        dispatch(["crossval", f"--data={tmp_path}/mix.toml", model, f"--out={tmp_path}/scores.json"])
    assert not end.value.code
    assert "in the mean of the sources" in capsys.readouterr().out
    assert set(json.loads((tmp_path / "scores.json").read_text())) == {"one", "two"}
    with pytest.raises(SystemExit) as end:
        dispatch(["adapt", f"--data={tmp_path}/one", model, f"--out={tmp_path}/mine"])
    assert not end.value.code
    assert "before" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"directly in .* without labels a model does not get better"):
        dispatch(["adapt", f"--data={tmp_path}/one/{CLASSES[0]}", model, f"--out={tmp_path}/other"])
    with pytest.raises(UserError, match="is no data description"):
        dispatch(["crossval", f"--data={tmp_path}/one", model])
    with pytest.raises(UserError, match=r"--out=.*: lies in the data"):
        dispatch(["adapt", f"--data={tmp_path}/one", model, f"--out={tmp_path}/one/new"])
    with pytest.raises(UserError, match=r"exists; give a new folder"):
        dispatch(["adapt", f"--data={tmp_path}/one", model, f"--out={tmp_path}/one"])


def test_too_few_images_or_sources_are_told_before_the_network_sees_any(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("wastejax.training.cameras.compute_features", lambda *args: pytest.fail("was slow"))
    draw_images(tmp_path / "one", 6)
    draw_images(tmp_path / "same", 6)
    classes = f"classes = {json.dumps(list(CLASSES))}\n"
    for name, sources, problem in (
        ("alone", ("one",), "needs images of two sources"),
        ("twice", ("one", "same"), "without one and its near-duplicates nothing is left"),
    ):
        described = "".join(f'[sources.{source}]\npath = "{source}"\n' for source in sources)
        (tmp_path / f"{name}.toml").write_text(classes + described, encoding="utf-8")
        with pytest.raises(UserError, match=problem):
            dispatch(["crossval", f"--data={tmp_path}/{name}.toml", f"--model={bundle.path}"])
    with pytest.raises(UserError, match="needs 10 different labeled images or more, has 6"):
        dispatch(["adapt", f"--data={tmp_path}/one", f"--model={bundle.path}", f"--out={tmp_path}/out"])


@pytest.mark.parametrize("described", [False, True])
def test_boxes_are_cut_with_the_margin_of_the_model(bundle, tmp_path, monkeypatch, described):
    Image.new("RGB", (200, 200)).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 200, "height": 200}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES[:2])],
        "annotations": [{"id": i, "image_id": 1, "category_id": i, "bbox": [50, 50, 90, 90]} for i in (0, 1)],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    (tmp_path / "mix.toml").write_text('classes = "one"\n[sources.one]\npath = "boxes.json"\n')
    tight = replace(bundle, config=bundle.config | {"data": {"box_margin": 0.0}})
    cut = []

    def meant_by(source, *args):
        cut.extend(Image.open(io.BytesIO(source.read(i))).size for i in range(2))
        raise InterruptedError

    monkeypatch.setattr("wastejax.training.cameras.meant_by", meant_by)
    with pytest.raises(InterruptedError):
        look(tight, tmp_path / ("mix.toml" if described else "boxes.json"), None, lambda line: None)
    assert cut == [(90, 90)] * 2
