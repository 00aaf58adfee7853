"""Shards hold the same images as their folder: the same batches to the bit, and a few bytes an image to start."""

import pickle
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wastejax.cli.many.shard import run
from wastejax.config import apply_overrides, load_recipe
from wastejax.data import pipeline
from wastejax.data.collections.shards import Coded, Rows, open_shards, write_shards
from wastejax.data.duplicates import scan
from wastejax.data.formats.source import Source, numbered
from wastejax.data.prepare import Dataset, prepare
from wastejax.data.prepare.checks import made_with
from wastejax.data.sources import open_folder
from wastejax.data.split import SPLITS, load_manifest, recognize, save_manifest
from wastejax.data.transforms import AUGMENTATIONS, Preprocessing
from wastejax.errors import ConfigError, UserError
from wastejax.main import parser


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Three classes of ten images, some of them twins, with names of several kinds; one file is no image."""
    rng = np.random.default_rng(1)
    for label in ("can", "jar", "종이"):
        for i in range(10):
            path = tmp_path / "data" / label / ("default" if i % 2 else "real_world") / f"{i} 장.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if i % 5 != 4:
                coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            coarse.resize((40, 30 + i)).save(path)
    (tmp_path / "data" / "can" / "default" / "bad.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def shard(*options: str) -> list[str]:
    said: list[str] = []
    run(parser("shard").parse_args(["shard", "--data=data", *options]), said.append)
    return said


def data_of(**changes) -> tuple:
    config = load_recipe("mobilevit_ir")
    apply_overrides(config, [f"--config.data.{key}={value}" for key, value in changes.items()])
    return prepare(config.data, config.seed, None)


def test_shards_give_the_batches_of_the_folder_to_the_bit(folder):
    said = shard("--out=shards", "--shard-size=8", "--skip-bad")
    assert said[-1] == "written: shards; train with --config.data.source=shards:shards"
    plain, found = data_of(dir="data", on_bad_image="skip"), data_of(source="shards:shards")
    assert list(found.source.names) == list(plain.source.names)
    assert found.source.names[-1] == plain.source.names[-1] and found.source.names[9] == plain.source.names[9]
    assert list(found.source.domains) == list(plain.source.domains) and found.notes == plain.notes
    assert found.skipped == {"can/default/bad.png": "not an image"}
    np.testing.assert_array_equal(found.groups, plain.groups)
    for split in SPLITS:
        np.testing.assert_array_equal(found.indices(split), plain.indices(split))
    preprocessing = Preprocessing(16)
    augment = AUGMENTATIONS["strong"](preprocessing, 0.3)

    def batches(dataset, part=(0, 1), workers=0):
        read = pipeline.Reader(dataset.source, 24)
        indices = pipeline.compact(dataset.indices("train"))
        drawn = pipeline.TrainingImages(read, indices, augment, batch_size=4, seed=17, part=part)
        return list(pipeline.train_batches(drawn, 3, 12, workers))

    for parts in (((0, 1),), ((0, 2), (1, 2))):  # one process, and each of two its part
        for part in parts:
            same(batches(plain, part), batches(found, part))
    same(batches(plain), batches(found, workers=1))
    evaluation = [
        list(pipeline.EvalBatches(d.source, d.indices("test"), preprocessing, 4)) for d in (plain, found)
    ]
    same(*evaluation)


def same(ours: list, theirs: list) -> None:
    assert len(ours) == len(theirs) > 0
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key])
            assert a[key].dtype == b[key].dtype


def test_the_order_of_images_is_that_of_64_bits():
    indices = np.random.default_rng(0).permutation(1000)
    for seed in range(5):
        wide, narrow = pipeline._Order([indices], seed), pipeline._Order([pipeline.compact(indices)], seed)
        assert [wide[p] for p in range(2500)] == [narrow[p] for p in range(2500)]
    assert pipeline.compact(indices).dtype == np.int32
    assert pipeline.compact(np.array([2**31])).dtype == np.int64


def test_a_stopped_writing_continues_and_a_finished_one_is_kept(folder):
    shard("--out=shards", "--shard-size=8", "--skip-bad")
    index = Path("shards/index.parquet").read_bytes()
    files = {file: file.read_bytes() for file in Path("shards").glob("*.array_record")}
    with pytest.raises(UserError, match="holds shards already"):
        shard("--out=shards", "--skip-bad")
    lost = min(files)
    lost.unlink()
    with pytest.raises(ConfigError, match=f"lacks {lost.name}"):
        open_shards("shards")
    Path("shards/index.parquet").unlink()
    times = {file: file.stat().st_mtime_ns for file in files if file != lost}
    shard("--out=shards", "--shard-size=8", "--skip-bad")
    assert {file: file.stat().st_mtime_ns for file in files if file != lost} == times
    assert lost.is_file() and Path("shards/index.parquet").read_bytes() == index


def test_of_partial_files_only_those_of_shards_are_removed(folder):
    Path("shards").mkdir()
    left = [f"shards/images-00000-{'a' * 12}.array_record.partial", "shards/index.parquet.partial"]
    for path in (*left, "shards/film.partial"):
        Path(path).write_text("cut")
    shard("--out=shards", "--skip-bad")
    assert [path.name for path in Path("shards").glob("*.partial")] == ["film.partial"]


def test_shards_of_a_stopped_writing_that_the_index_does_not_name_are_removed(folder):
    shard("--out=shards", "--shard-size=8", "--skip-bad")
    Path("shards/index.parquet").unlink()
    names = ("images-mine.array_record", f"images-00000-{'a' * 12}.array_record.copy", "photo.png")
    for name in names:
        (Path("shards") / name).write_text("mine")
    shard("--out=shards", "--shard-size=9", "--skip-bad")
    shards = [Path(path).name for path in open_shards("shards").source.read.paths]
    assert {path.name for path in Path("shards").iterdir()} == {*shards, *names, "index.parquet"}
    assert len(shards) == 4


@pytest.mark.parametrize("share", [0, 0.3, 0.9, 0.9999])
def test_a_shard_that_is_cut_is_told_before_anything_is_read_from_it(folder, share):
    shard("--out=shards", "--skip-bad")
    file = next(Path("shards").glob("*.array_record"))
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(ConfigError, match=f"{file.name} is damaged; copy or write it again"):
        open_shards("shards")


def test_the_manifest_of_shards_is_that_of_the_folder(folder):
    shard("--out=shards", "--skip-bad")
    plain, found = data_of(dir="data", on_bad_image="skip"), data_of(source="shards:shards")
    save_manifest("plain.csv", plain.source, plain.groups, plain.splits, plain.phash)
    save_manifest("found.csv", found.source, found.groups, found.splits, found.phash)
    assert Path("plain.csv").read_bytes() == Path("found.csv").read_bytes()
    assert load_manifest("found.csv", found.source).splits.tolist() == plain.splits.tolist()


def test_images_of_a_run_from_shards_are_known_again_by_their_content(folder):
    shard("--out=shards", "--skip-bad")
    found = data_of(source="shards:shards")
    save_manifest("run.csv", found.source, found.groups, found.splits, found.phash)
    rng = np.random.default_rng(2)
    for label in ("can", "jar"):
        for i in range(10):
            file = Path(label, "default" if i % 2 else "real_world", f"{i} 장.png")
            for root, name in (("moved", f"my {file.name}"), ("foreign", file.name)):
                (root / file.parent).mkdir(parents=True, exist_ok=True)
                (root / file.parent / name).write_bytes(("data" / file).read_bytes())
            other = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8))
            other.resize((40, 30)).save("foreign" / file)
    moved, foreign = open_folder("moved"), open_folder("foreign")
    expected = {name: str(split) for name, split in zip(found.source.names, found.splits, strict=True)}
    known = recognize("run.csv", moved, scan(moved).phash)
    assert known.tolist() == [expected[name.replace("my ", "")] for name in moved.names]
    assert recognize("run.csv", foreign, scan(foreign).phash).tolist() == [""] * 20


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out=data/shards"], "lies in the data"),
        (
            ["--out=shards"],
            r"^--data: 1 of 31 images cannot be read \(.*; .* leave them out with --skip-bad$",
        ),
        (["--out=shards", "--shard-size=0"], "must be >= 1"),
        (["--out=shards", "--ratios=3,1", "--skip-bad"], "^--ratios: "),
        (["--out=shards", "--manifest=none.csv", "--skip-bad"], "^--manifest: cannot read none.csv"),
    ],
)
def test_what_cannot_be_written_is_told_first(folder, options, words):
    with pytest.raises(UserError, match=words) as error:
        shard(*options)
    assert "\n" not in str(error.value) and not Path("shards").exists()


def test_a_data_description_is_refused_before_an_image_is_read(folder, monkeypatch):
    monkeypatch.setattr("wastejax.cli.many.shard.prepare", None)
    Path("mix.toml").write_text('[sources.one]\npath = "data"\n[sources.two]\npath = "data"\n')
    with pytest.raises(
        UserError, match=r"^--data=mix\.toml: a data description cannot be written as shards; "
    ):
        shard("--out=shards", "--skip-bad", "--data=mix.toml")


def test_notes_name_the_options_of_the_command(folder, monkeypatch):
    note = "config.data.split.hamming=4 is stricter, config.data.split.group='none' splits at random"
    told = Dataset.tell
    monkeypatch.setattr(Dataset, "tell", lambda self, say: told(replace(self, notes=[note]), say))
    said = shard("--out=shards", "--skip-bad")
    assert "note: --hamming=4 is stricter, --group='none' splits at random" in said


def test_what_is_no_folder_of_shards_is_one_line(folder):
    with pytest.raises(ConfigError, match=r"holds no index\.parquet"):
        open_shards("data")
    Path("index.parquet").write_bytes(b"no")
    with pytest.raises(ConfigError, match="damaged"):
        open_shards(".")
    shard("--out=shards", "--skip-bad")
    with pytest.raises(ConfigError, match="does not work with shards"):
        data_of(source="shards:shards", dir="data")
    found = open_shards("shards").source
    file = next(Path("shards").glob("*.array_record"))
    file.write_bytes(b"damaged" * 100)
    with pytest.raises(UserError, match="cannot be read any more"):
        pipeline.read_image(found, 0, Preprocessing(32).of_file)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("box_margin", 0.3, r"is 0\.3, and the shards were written with 0\.1; leave it out"),
        ("split.ratios", "8,1,1", "is 8,1,1, and the shards were written with 3,1,1"),
        ("split.group", "none", "is none, and the shards were written with phash"),
        ("split.hamming", 4, "is 4, and the shards were written with 8"),
    ],
)
def test_crops_and_splits_that_shards_do_not_have_are_not_passed_over(tmp_path, key, value, words):
    rows = in_memory(["can", "jar"] * 6, [""] * 12)
    write_shards(tmp_path / "shards", rows, {"made": made_with(load_recipe("mobilevit_ir").data)})
    source = f"shards:{tmp_path / 'shards'}"
    assert data_of(source=source).notes == []
    with pytest.raises(ConfigError, match=words) as error:
        data_of(source=source, **{key: value})
    assert error.value.key == f"config.data.{key}"
    write_shards(tmp_path / "shards", rows)  # as earlier versions did
    assert data_of(source=source).notes == []
    (note,) = data_of(source=source, **{key: value}).notes
    assert note.startswith(f"config.data.{key} is not used")


def test_shards_say_what_they_were_written_with(folder):
    shard("--out=shards", "--skip-bad", "--ratios=2,1,1", "--hamming=6")
    assert open_shards("shards").made == {
        "box_margin": 0.1,
        "split.ratios": [2, 1, 1],
        "split.group": "phash",
        "split.hamming": 6,
        "seed": 17,
    }
    said = {"split.ratios": "2,1,1", "split.hamming": 6}
    notes = data_of(source="shards:shards", **said).notes
    assert data_of(source="shards:shards").notes == [
        *notes,
        "config.data.split.ratios is 2,1,1, with which the shards were written",
        "config.data.split.hamming is 6, with which the shards were written",
    ]
    with pytest.raises(ConfigError, match="is 8,1,1, and the shards were written with 2,1,1"):
        data_of(source="shards:shards", **{"split.ratios": "8,1,1"})


def test_another_seed_than_dealt_the_split_of_shards_is_told(folder):
    shard("--out=shards", "--skip-bad", "--seed=5")
    dataset = data_of(dir="data", on_bad_image="skip")
    save_manifest("given.csv", dataset.source, dataset.groups, dataset.splits)
    shard("--out=given", "--skip-bad", "--manifest=given.csv")
    of_split = Path("of_split")
    for name, split in zip(dataset.source.names, dataset.splits, strict=True):
        (of_split / split / name).parent.mkdir(parents=True, exist_ok=True)
        (of_split / split / name).write_bytes((Path("data") / name).read_bytes())
    shard("--out=divided", "--data=of_split")
    data = load_recipe("mobilevit_ir").data
    told = {}
    for name in ("shards", "given", "divided"):
        data.source = f"shards:{name}"
        told[name] = [note for seed in (5, 6) for note in prepare(data, seed, None).notes if "seed" in note]
    note = "config.seed=6 changes nothing in the split of the shards, which was dealt with seed 5"
    assert told == {"shards": [note], "given": [], "divided": []}


def test_a_byte_an_image_compares_as_an_array_of_strings():
    names = np.array(["test", "train", "val", "train"])
    coded = Coded(np.array([0, 1, 2, 1]), ["test", "train", "val"])
    assert np.array_equal(coded == "train", names == "train") and not np.any(coded == "none")
    assert coded[2] == "val" and list(coded[1:3]) == ["train", "val"] and "none" not in coded
    assert np.array_equal(np.asarray(coded), names) and len(coded) == 4


def in_memory(labels: Sequence[str], domains: Sequence[str]) -> Rows:
    classes, numbers = numbered(labels)
    count = len(labels)
    names = tuple(f"{i}.png" for i in range(count))
    source = Source(names, numbers, classes, tuple(domains), None, lambda index: b"x", ("",) * count)
    splits, hashes = np.array(SPLITS)[np.arange(count) % 3], np.zeros(count, np.uint64)
    return Rows(source, np.arange(count), splits, hashes)


def test_any_number_of_domains_is_kept(tmp_path):
    for count in (127, 128, 300):
        rows = in_memory(["can", "jar"] * count, [f"site {i % count}" for i in range(2 * count)])
        write_shards(tmp_path / str(count), rows)
        domains = open_shards(tmp_path / str(count)).source.domains
        assert list(domains) == list(rows.source.domains)
        assert np.flatnonzero(domains == f"site {count - 1}").tolist() == [count - 1, 2 * count - 1]


def test_shards_of_other_classes_or_domains_have_another_digest(tmp_path):
    digests = set()
    for labels in (["can", "jar"] * 3, ["jar", "tin"] * 3):
        for domains in (["a", "b"] * 3, ["a", "c"] * 3, ["b", "a"] * 3):
            write_shards(tmp_path / "shards", in_memory(labels, domains))
            digests.add(open_shards(tmp_path / "shards").digest)
            write_shards(tmp_path / "shards", in_memory(labels, domains))
            assert open_shards(tmp_path / "shards").digest in digests
    assert len(digests) == 6


def test_opening_takes_at_most_40_bytes_an_image(tmp_path):
    count = 50_000
    source = Source(
        names=tuple(f"class {i % 9}/a name as long as names of images are {i:07}.jpg" for i in range(count)),
        labels=(np.arange(count) % 9).astype(np.int32),
        classes=tuple(f"class {i}" for i in range(9)),
        domains=("",) * count,
        splits=None,
        read=lambda index: b"x",
        stamps=("",) * count,
    )
    splits = np.array(SPLITS)[np.arange(count) % 5 % 3]
    write_shards(tmp_path / "shards", Rows(source, np.arange(count), splits, np.zeros(count, np.uint64)))
    open_shards(tmp_path / "shards")  # imports are no part of it
    config = load_recipe("mobilevit_ir")
    apply_overrides(config, [f"--config.data.source=shards:{tmp_path / 'shards'}"])
    tracemalloc.start()
    found = prepare(config.data, 17, None)
    train = pipeline.compact(found.indices("train"))
    drawn = pipeline.TrainingImages(pipeline.Reader(found.source, 24), train, None, 4, 17)
    order = drawn.order()
    order[0]
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used / count < 25
    assert len(pickle.dumps(drawn)) / count < 15  # what goes to a process that reads
    assert found.source.names[123] == source.names[123] and found.source.read(count - 1) == b"x"
