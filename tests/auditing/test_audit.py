"""The audit against planted faults, whose number and place are known."""

import hashlib
import io
import json
import shutil
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from corrections_file import to_csv
from PIL import Image, ImageDraw, ImageOps
from pyarrow import parquet

from wastejax import main
from wastejax.auditing import run as audit_run
from wastejax.auditing.findings import LabelError, audit, clean, leaks, summary
from wastejax.auditing.label_errors import confident_disagreement, cross_validate, find_label_errors
from wastejax.auditing.report import write_html
from wastejax.auditing.run import Options, audit_folder
from wastejax.data.duplicates import scan
from wastejax.data.images import read_header
from wastejax.data.sources import open_folder
from wastejax.data.split import load_manifest, save_manifest
from wastejax.errors import UserError
from wastejax.progress import Listener

CLASSES = ("can", "jar", "캔 bag")


def photo(seed: int, side: int = 160) -> Image.Image:
    """Something with structure at every scale and a color cast, unlike any other seed."""
    rng = np.random.default_rng(seed)

    def layer(*shape: int) -> np.ndarray:
        values = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
        return np.asarray(values.resize((side, side), Image.Resampling.BICUBIC), float)

    gray = sum(layer(size, size) for size in (3, 6, 12, 24, 48)) / 5
    return Image.fromarray((0.7 * gray[..., None] + 0.3 * layer(2, 2, 3)).astype(np.uint8))


def bottle(seed: int) -> Image.Image:
    """One shape on white, with another print for every seed: look-alikes, not copies."""
    image, mask = Image.new("RGB", (160, 160), "white"), Image.new("L", (160, 160))
    draw = ImageDraw.Draw(mask)
    draw.rectangle((50, 50, 110, 150), fill=255)
    draw.rectangle((70, 10, 90, 50), fill=255)
    image.paste(photo(seed), mask=mask)
    return image


def recompressed(image: Image.Image) -> Image.Image:
    data = io.BytesIO()
    image.save(data, "JPEG", quality=25)
    return Image.open(data)


def recolored(image: Image.Image) -> Image.Image:
    """A twelfth of the color circle further round, and paler."""
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(i + 21) % 256 for i in range(256)])
    saturation = saturation.point([i // 2 for i in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def cropped(image: Image.Image) -> Image.Image:
    """About a tenth less on two sides."""
    w, h = image.size
    return image.crop((round(0.11 * w), 0, w, h - round(0.08 * h)))


CHANGES = {
    "resized": lambda image: image.resize((image.width // 2, image.height // 2)),
    "recompressed": recompressed,
    "flipped": ImageOps.mirror,
    "recolored": recolored,
    "cropped": cropped,
    "other_class": lambda image: image,
}


def plant(root: Path, originals: list[Image.Image], per_change: int) -> None:
    """Writes originals by turns into the classes, and for each change copies of other `per_change` of them."""
    for i, image in enumerate(originals):
        folder = root / CLASSES[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{i:03d}.png")
    chosen = iter(range(len(originals)))
    for change, apply in CHANGES.items():
        for i, _ in zip(chosen, range(per_change), strict=False):
            label = CLASSES[(i + (change == "other_class")) % 3]
            apply(originals[i]).save(root / label / f"{i:03d}_{change}.png")
    whole = (root / CLASSES[0] / "000.png").read_bytes()
    (root / CLASSES[0] / "truncated.png").write_bytes(whole[: len(whole) // 2])


def base(name: str) -> str:
    return Path(name).stem.partition("_")[0]


def detected(root: Path) -> tuple[float, float, dict[str, float]]:
    """Returns precision and recall over pairs, and recall by kind of change."""
    found = audit(open_folder(root))
    names = found.source.names
    pairs = {frozenset(p) for g in found.groups_of_several() for p in combinations(g.tolist(), 2)}
    planted = {
        frozenset((i, j))
        for i, j in combinations(range(len(names)), 2)
        if base(names[i]) == base(names[j]) and i not in found.bad and j not in found.bad
    }
    kinds = {pair: next(names[i].partition("_")[2][:-4] for i in pair if "_" in names[i]) for pair in planted}
    totals, hits = Counter(kinds.values()), Counter(kinds[pair] for pair in planted & pairs)
    assert {names[i]: reason for i, reason in found.bad.items()} == {
        f"{CLASSES[0]}/truncated.png": "truncated"
    }
    precision = len(planted & pairs) / max(len(pairs), 1)
    return (
        precision,
        len(planted & pairs) / len(planted),
        {kind: hits[kind] / totals[kind] for kind in totals},
    )


def test_planted_copies_are_found_and_nothing_else(tmp_path):
    plant(tmp_path, [photo(seed) for seed in range(60)], per_change=8)
    precision, recall, by_kind = detected(tmp_path)
    assert by_kind == dict.fromkeys(CHANGES, 1.0)
    assert (precision, recall) == (1, 1)


def test_look_alikes_cost_precision_but_hide_no_copy(tmp_path):
    plant(
        tmp_path, [photo(seed) for seed in range(60)] + [bottle(seed) for seed in range(60, 80)], per_change=8
    )
    precision, recall, _ = detected(tmp_path)
    assert recall == 1 and 0.7 < precision < 1


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["trashnet", pytest.param("household_waste", marks=pytest.mark.slow)])
def test_planted_copies_of_photographs_are_found(tmp_path, real_data_dir, name):
    paths = sorted((real_data_dir / name).glob("*/*.jpg"))
    originals = [Image.open(path).convert("RGB") for path in paths[:: len(paths) // 150]]
    plant(tmp_path, originals[:150], per_change=20)
    precision, recall, by_kind = detected(tmp_path)
    assert precision > 0.98 and recall > 0.97
    assert min(by_kind.values()) >= 0.9


@pytest.fixture(scope="module")
def messy(tmp_path_factory) -> Path:
    """Two classes of six, with one fault of each kind."""
    root = tmp_path_factory.mktemp("messy")
    for label in ("can", "jar"):
        (root / label / "default").mkdir(parents=True)
    for i in range(12):
        photo(i).save(root / ("can" if i < 6 else "jar") / "default" / f"{i:02d}.png")
    (root / "can" / "same.png").write_bytes((root / "can" / "default" / "00.png").read_bytes())
    photo(1).resize((320, 320)).save(root / "can" / "larger.png")
    photo(2).save(root / "jar" / "was_a_can.jpg", quality=80)
    photo(20).convert("CMYK").save(root / "jar" / "print.jpg")
    photo(21).resize((40, 160)).save(root / "jar" / "strip.jpg", format="PNG")
    (root / "jar" / "empty.png").touch()
    (root / "tea").mkdir()
    return root


def test_the_summary_counts_what_is_there(messy):
    found = audit(open_folder(messy))
    facts = summary(found)
    assert (facts["num_files"], facts["num_readable"], facts["num_classes"]) == (18, 17, 2)
    assert facts["num_distinct"] == 14
    assert facts["unreadable"] == {"jar/empty.png": "empty file"}
    assert facts["files"]["odd"] == {
        "PNG named .jpg": ["jar/strip.jpg"],
        "elongated, sides over 3:1": ["jar/strip.jpg"],
        "mode CMYK": ["jar/print.jpg"],
        "small, a side under 64 px": ["jar/strip.jpg"],
    }
    assert facts["files"]["formats"] == {"PNG": 15, "JPEG": 2}
    assert facts["files"]["commonest_sizes"] == {"160x160": 15, "320x320": 1, "40x160": 1}
    assert facts["exact_copies"]["groups"] == [["can/default/00.png", "can/same.png"]]
    assert facts["near_duplicates"]["num_images"] == 6 and facts["near_duplicates"]["num_to_drop"] == 3
    assert facts["label_conflicts"] == [
        {"files": ["can/default/02.png", "jar/was_a_can.jpg"], "labels": ["can", "jar"]}
    ]
    assert facts["classes"]["by_name"]["jar"] == {
        "num_files": 10,
        "num_readable": 9,
        "num_distinct": 9,
        "domains": {"default": 6, "unknown": 3},
    }
    assert facts["classes"]["imbalance"] == pytest.approx(9 / 8)
    assert facts["empty_folders"] == ["tea"] and facts["domains"] == {"default": 12, "unknown": 6}
    assert facts["label_errors"] is None and facts["leaks"]["given_splits"] is None


def test_cleaning_keeps_one_of_each_and_nothing_doubtful(messy):
    found = audit(open_folder(messy))
    names = found.source.names
    gone = {"can/same.png", "can/default/01.png", "can/default/02.png", "jar/was_a_can.jpg", "jar/empty.png"}
    assert [names[i] for i in clean(found)] == [name for name in names if name not in gone]


def test_the_page_shows_likely_label_errors(messy, tmp_path):
    found = audit(open_folder(messy))
    photo = found.source.names.index("can/default/05.png")
    errors = [LabelError(photo, 1, 0.1, 0.8)]
    facts = summary(found, errors=errors)
    assert facts["label_errors"] == [
        {"file": "can/default/05.png", "label": "can", "suggested": "jar", "p_label": 0.1, "p_suggested": 0.8}
    ]
    write_html(tmp_path / "report.html", found, facts, errors)
    assert (
        "<b>labeled can (10%), looks like jar (80%)</b><br>can/default/05.png"
        in (tmp_path / "report.html").read_text()
    )


def test_leaks_are_counted_by_group():
    groups = np.array([0, 0, 0, 1, 1, 2, 3, 3])
    splits = np.array(["train", "test", "val", "test", "test", "train", "val", "train"])
    assert leaks(groups, splits) == {
        "val": {"num_images": 2, "leaked": 2},
        "test": {"num_images": 3, "leaked": 1},
    }


def test_the_share_that_a_random_split_leaks_is_what_chance_says(tmp_path):
    for i in range(50):
        folder = tmp_path / ("can" if i < 25 else "jar")
        folder.mkdir(exist_ok=True)
        for copy in "ab":
            photo(i, 64).save(folder / f"{i}{copy}.png")
    found = summary(audit(open_folder(tmp_path)))["leaks"]["random_split"]
    # The twin of a test image is any of the 99 others, 60 of which are in train.
    assert found["test_images"] == 20
    assert found["share"] == pytest.approx(60 / 99, abs=0.12)


def test_confident_disagreement_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8], [0.35, 0.65], [0.6, 0.4]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    # thresholds: class 0 (0.9 + 0.7 + 0.1) / 3 = 0.567, class 1 (0.8 + 0.65 + 0.4) / 3 = 0.617
    rows, other = confident_disagreement(probabilities, labels)
    assert rows.tolist() == [2, 5] and other.tolist() == [1, 0]  # margins 0.8 and 0.2


@pytest.mark.parametrize("counts", [(14, 1), (14, 1, 9)])
def test_a_class_of_one_image_does_not_keep_the_others_from_being_looked_at(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    features = np.random.default_rng(0).normal(size=(len(labels), 8)).astype(np.float32)
    probabilities = cross_validate(features, labels, np.arange(len(labels)))
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert probabilities[14, 1] == 0  # never seen without it


def test_an_audit_is_written_where_label_errors_cannot_be_looked_for(messy, tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(
        "wastejax.auditing.label_errors.embed", lambda _, __, rows: rng.normal(size=(len(rows), 4))
    )
    monkeypatch.setattr(audit_run, "_check_model", lambda model: None)

    def refuse(*_):
        raise UserError("too few")

    monkeypatch.setattr("wastejax.auditing.label_errors.find_label_errors", refuse)
    command(f"--data={messy}", f"--out={tmp_path}", "--model=any")
    assert "note: label errors were not looked for: too few" in capsys.readouterr().out
    assert json.loads((tmp_path / "audit.json").read_text())["label_errors"] is None


def test_flipped_labels_are_found_though_their_copies_agree():
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(4), 100)
    features = (rng.normal(size=(4, 16)) * 3)[truth] + rng.normal(size=(400, 16)) * 1.5
    labels = truth.copy()
    wrong = rng.choice(400, 20, replace=False)
    labels[wrong] = (labels[wrong] + 1 + rng.integers(3, size=20)) % 4
    # Every wrong image comes twice; in another fold its copy would confirm the wrong label.
    features, labels = np.concatenate([features, features[wrong]]), np.concatenate([labels, labels[wrong]])
    groups = np.concatenate([np.arange(400), wrong])
    found = find_label_errors(features.astype(np.float32), labels, groups, np.arange(420) + 1000)
    rows = np.array([e.image - 1000 for e in found])
    hit = np.isin(groups[rows], wrong)
    assert hit.mean() > 0.9 and len(set(groups[rows[hit]])) >= 15
    right = [e.suggested == truth[groups[e.image - 1000]] for e, h in zip(found, hit, strict=True) if h]
    assert np.mean(right) > 0.95


def command(*arguments: str) -> None:
    with pytest.raises(SystemExit) as done:
        main.dispatch(["audit", *arguments])
    assert not done.value.code


def test_the_command_writes_what_training_accepts(messy, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in messy.rglob("*")}
    command(f"--data={messy}", f"--out={tmp_path}", "--write-manifest")
    assert {path: path.stat().st_mtime_ns for path in messy.rglob("*")} == before
    said = capsys.readouterr().out
    assert "unreadable files: 1\n" in said and "groups of copies with different labels: 1\n" in said
    facts = json.loads((tmp_path / "audit.json").read_text())
    assert facts["data"] == messy.name and str(messy) not in json.dumps(facts)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 8 and "jar/empty.png: empty file" in page
    source = open_folder(messy)
    listed = load_manifest(tmp_path / "manifest.csv", source)
    assert len(listed.indices) == 13
    assert {str(s) for s in listed.splits[source.labels[listed.indices] == 1]} == {"train", "val", "test"}


def test_a_given_split_is_checked(messy, tmp_path, capsys):
    source = open_folder(messy)
    splits = np.where([name.startswith("can/default") for name in source.names], "train", "test")
    save_manifest(tmp_path / "split.csv", source, np.arange(len(source)), splits)
    command(f"--data={messy}", f"--out={tmp_path / 'out'}", f"--split={tmp_path / 'split.csv'}")
    assert "the given split: 3 of 12 test images have a near-duplicate in train" in capsys.readouterr().out


def test_the_report_may_not_lie_in_the_data(messy):
    with pytest.raises(UserError, match="lies in the data"):
        main.dispatch(["audit", f"--data={messy}", f"--out={messy / 'report'}"])


@pytest.mark.parametrize(
    ("there", "option", "problem"),
    [
        (
            "manifest.csv",
            "--split",
            r"^--out=.*manifest\.csv: is the file of --split, which it would replace",
        ),
        (
            "manifest.csv",
            "",
            r"^--write-manifest: .*manifest\.csv is there, of no earlier audit; name another",
        ),
        ("audit.json", "--corrections", r"^--out=.*audit\.json: is the file of --corrections"),
    ],
)
def test_an_audit_replaces_nothing_of_the_users(messy, tmp_path, there, option, problem):
    out = tmp_path / "out"
    out.mkdir()
    (out / there).write_text("mine")
    given = [f"{option}={out / there}"] if option else []
    with pytest.raises(UserError, match=problem):
        main.dispatch(["audit", f"--data={messy}", f"--out={out}", "--write-manifest", *given])
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(there, "mine")]


def test_a_header_tells_what_is_unusual():
    data = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(0, 32).convert("L").save(data, "JPEG", exif=exif)
    assert read_header(data.getvalue()) == ("JPEG", "L", 32, 32, True, False, 6)
    data = io.BytesIO()
    photo(0, 32).save(data, "WEBP", save_all=True, append_images=[photo(1, 32)])
    assert read_header(data.getvalue()) == ("WEBP", "RGB", 32, 32, False, True, 1)
    assert read_header(b"") is None and read_header(b"no image") is None


def test_two_errors_among_hard_images_are_named_and_hardly_anything_else():
    """Five overlapping classes, as real ones are: the confident joint names many images that are merely hard."""
    rng = np.random.default_rng(11)
    centers = rng.normal(size=(5, 24))
    truth = np.repeat(np.arange(5), 75)
    features = (centers[truth] + rng.normal(scale=2.5, size=(375, 24))).astype(np.float32)
    # Two that are as clear as an image can be, with a wrong label.
    planted = np.array([10, 200])
    features[planted] = centers[truth[planted]] * 1.2
    labels = truth.copy()
    labels[planted] = (truth[planted] + 2) % 5
    groups = np.arange(375)
    alone = confident_disagreement(cross_validate(features, labels, groups), labels)[0]
    found = find_label_errors(features, labels, groups, np.arange(375))
    assert set(planted) <= {error.image for error in found}
    assert len(found) <= 6 < 30 < len(alone)
    assert all(error.other > 5 * error.own for error in found)


def test_a_class_of_three_is_no_ground_for_suspicion():
    rng = np.random.default_rng(12)
    labels = np.repeat([0, 1, 2], [60, 60, 3])
    features = rng.normal(size=(123, 8)).astype(np.float32) + 6 * np.eye(3, 8, dtype=np.float32)[labels]
    features[120] -= 6 * np.eye(3, 8, dtype=np.float32)[2] - 6 * np.eye(3, 8, dtype=np.float32)[0]
    assert find_label_errors(features, labels, np.arange(123), np.arange(123)) == []


def test_a_fixed_camera_is_named_and_empties_no_manifest(tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    ground = photo(0)
    for name in ("can", "jar"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(15):
            image, (x, y) = ground.copy(), rng.integers(10, 140, 2).tolist()
            draw = ImageDraw.Draw(image)
            color = tuple(rng.integers(0, 256, 3).tolist())
            (draw.ellipse if name == "can" else draw.rectangle)((x, y, x + 9, y + 9), fill=color)
            image.save(tmp_path / "data" / name / f"{i:02}.png")
    first = (tmp_path / "data" / "can" / "00.png").read_bytes()
    (tmp_path / "data" / "can" / "copy.png").write_bytes(first)
    (tmp_path / "data" / "jar" / "notes.psd").touch()
    lines: list[str] = []
    audit_folder(tmp_path / "data", tmp_path / "out", Options(write_manifest=True), Listener(lines.append))
    said = "\n".join(lines)
    assert "31 images look like copies of each other but differ: a fixed camera" in said
    assert "files left out by their ending: 1 .psd" in said
    facts = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert len(facts["fixed_camera"]) == 31 and facts["label_conflicts"] == []
    assert facts["near_duplicates"]["groups"] == [["can/00.png", "can/copy.png"]]
    listed = load_manifest(tmp_path / "out" / "manifest.csv", open_folder(tmp_path / "data"))
    assert len(listed.indices) == 30 and set(listed.splits) == {"train", "val", "test"}


def test_an_audit_with_corrections_is_of_the_data_as_they_then_are(tmp_path):
    root = tmp_path / "data"
    plant(root, [photo(seed) for seed in range(12)], 1)
    plain = audit_folder(root, tmp_path / "plain")
    conflict = plain["label_conflicts"][0]
    wrong, right = conflict["files"][1], conflict["labels"][0]
    gone = sorted(str(path.relative_to(root)) for path in root.rglob("*.*"))[0]
    file = tmp_path / "corrections.csv"
    file.write_text(to_csv([(wrong, right), (gone, "drop")]), encoding="utf-8")
    corrected = audit_folder(root, tmp_path / "out", Options(corrections=file))
    assert len(plain["label_conflicts"]) == 1 and corrected["label_conflicts"] == []
    assert corrected["num_files"] == plain["num_files"] - 1
    assert corrected["corrections"]["relabeled"] == corrected["corrections"]["dropped"] == 1
    assert corrected["corrections"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_an_audit_that_leaves_nothing_to_review_leaves_no_earlier_page_of_it(tmp_path):
    for name in ("a/1.png", "b/2.png", "b/copy.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        photo(2 if name == "b/2.png" else 1).save(tmp_path / "data" / name)
    out, file = tmp_path / "out", tmp_path / "corrections.csv"
    audit_folder(tmp_path / "data", out)
    assert (out / "review.html").is_file()
    file.write_text(to_csv([("b/copy.png", "a")]), encoding="utf-8")
    lines: list[str] = []
    audit_folder(tmp_path / "data", out, Options(corrections=file), Listener(lines.append))
    assert lines[-1].startswith("nothing to review") and not (out / "review.html").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "review.html").write_text("of `eval --review`")
    audit_folder(tmp_path / "data", other, Options(corrections=file))
    assert (other / "review.html").read_text() == "of `eval --review`"


@pytest.mark.slow
def test_ray_finds_what_one_process_finds(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    rng = np.random.default_rng(4)
    for i in range(90):  # two tasks, of which the first need not be the first to end
        folder = tmp_path / "data" / f"class{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        grid = rng.integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(grid).resize((90, 60), Image.Resampling.BICUBIC).save(folder / f"{i:03}.png")
    (tmp_path / "data" / "class1" / "bad.png").write_bytes(b"no image")
    shutil.copy(tmp_path / "data" / "class0" / "000.png", tmp_path / "data" / "class1" / "copy.png")
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    ray = audit_folder(tmp_path / "data", tmp_path / "ray", Options(workers="ray"))
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "other"))
    assert audit_folder(tmp_path / "data", tmp_path / "local") == ray
    assert ray["num_files"] == 92 and list(ray["unreadable"]) == ["class1/bad.png"]
    assert len(ray["exact_copies"]["groups"]) == 1
    assert parquet.read_table(tmp_path / "ray" / "images.parquet") == parquet.read_table(
        tmp_path / "local" / "images.parquet"
    )


def test_a_table_holds_a_row_for_each_image(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        photo(int(name[2])).save(tmp_path / "data" / name)
    shutil.copy(tmp_path / "data" / "a" / "1.png", tmp_path / "data" / "b" / "copy.png")
    (tmp_path / "data" / "b" / "bad.png").write_bytes(b"no image")
    audit_folder(tmp_path / "data", tmp_path / "out")
    rows = {row["file"]: row for row in parquet.read_table(tmp_path / "out" / "images.parquet").to_pylist()}
    assert list(rows) == ["a/1.png", "a/2.png", "b/3.png", "b/bad.png", "b/copy.png"]
    assert [row["label"] for row in rows.values()] == ["a", "a", "b", "b", "b"]
    one, copy, bad = rows["a/1.png"], rows["b/copy.png"], rows["b/bad.png"]
    assert all(one[key] == copy[key] for key in ("group", "exact", "hash", "gray"))
    assert len({row["group"] for row in rows.values()}) == 4 and one["reason"] is None
    assert (bad["hash"], bad["gray"]) == (None, None) and bad["reason"]
    seen = scan(open_folder(tmp_path / "data"))
    assert one["hash"] == int(seen.phash[0]) and one["gray"] == seen.gray[0].tobytes()


def test_a_cluster_that_is_not_there_is_told_before_the_data_are_read(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=r"no Ray cluster there|\[ray\]"):
        audit_folder(tmp_path / "data", tmp_path / "out", Options(workers="ray", address="127.0.0.1:9"))
    assert not (tmp_path / "out").exists()
