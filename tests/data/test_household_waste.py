import os
import pickle
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from wastejax.data.sources import open_folder, open_source
from wastejax.errors import ConfigError, UserError

CLASSES = ("aerosol_cans", "shoes")

# As if TensorFlow were not installed, where it is.
BLOCK = """
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition('.')[0] == 'tensorflow' else find(name, *rest)
"""


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with warnings as errors, in a process where `import tensorflow` fails."""
    command = [sys.executable, "-W", "error", "-c", BLOCK + code, *args]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path})


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """The Kaggle layout, small: PNGs of several modes, and a JPEG with an upper-case name."""
    root = tmp_path_factory.mktemp("archive")
    rng = np.random.default_rng(0)
    for name in CLASSES:
        for domain in ("default", "real_world"):
            folder = root / "images" / "images" / name / domain
            folder.mkdir(parents=True)
            for i, mode in enumerate(("RGB", "L", "RGBA", "P")):
                image = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).convert(mode)
                image.save(folder / f"Image_{i + 1}.png")
    image.convert("RGB").save(root / "images" / "images" / "shoes" / "default" / "사진.JPG")
    return root


@pytest.fixture(scope="module")
def data_dir(archive, tmp_path_factory) -> Path:
    """The TFDS data set, made from the archive as a ZIP file by the command of the documentation."""
    root = tmp_path_factory.mktemp("tfds")
    packed = root / "archive.zip"
    with zipfile.ZipFile(packed, "w") as file:
        for path in sorted(archive.rglob("*.*")):
            file.write(path, path.relative_to(archive))
        file.writestr("__MACOSX/images/._Image_1.png", b"clutter")
    made = run(
        "from wastejax.data.household_waste import main; main()", f"--archive={packed}", f"--data_dir={root}"
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == str(root / "household_waste" / "1.0.0")
    assert not list(root.glob("unpacked-*"))
    return root


def test_bytes_and_fields_come_back_as_they_were(archive, data_dir):
    folder, source = open_folder(archive), open_source("tfds:household_waste", str(data_dir))
    assert source.names == folder.names
    assert source.classes == folder.classes == CLASSES
    assert source.domains == folder.domains
    assert source.splits is None
    np.testing.assert_array_equal(source.labels, folder.labels)
    assert source.labels.dtype == np.int32
    order = np.random.default_rng(1).permutation(len(source)).tolist()
    assert [source.read(i) for i in order] == [folder.read(i) for i in order]
    assert len(set(source.stamps)) == len(source)
    with pytest.raises(IndexError):
        source.read(len(source))


def test_files_are_array_record(data_dir):
    names = sorted(path.name for path in (data_dir / "household_waste" / "1.0.0").iterdir())
    assert "household_waste-train.array_record-00000-of-00001" in names


def test_reading_in_threads_and_from_another_process(archive, data_dir):
    folder, source = open_folder(archive), open_source("tfds:household_waste", str(data_dir))
    expected = [folder.read(i) for i in range(len(folder))]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(source.read, range(len(source)))) == expected
    code = "import pickle; read = pickle.loads(bytes.fromhex(sys.argv[1])); print(read(5).hex())"
    other = run(code, pickle.dumps(source.read).hex())
    assert other.stdout.strip() == expected[5].hex(), other.stderr


def test_preparing_from_tfds_without_tensorflow(data_dir):
    code = """
import ml_collections
from wastejax.data.prepare import prepare
split = dict(ratios=(3, 1, 1), group='phash', hamming=8, manifest='')
config = ml_collections.ConfigDict(
    dict(source='tfds:household_waste', dir=sys.argv[1], on_bad_image='raise', split=split)
)
dataset = prepare(config, 17, None)
assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules
print([len(dataset.indices(split)) for split in ('train', 'val', 'test')])
"""
    done = run(code, str(data_dir))
    # Of 8 and of 9 images: 5, 2 and 1 or 2.
    assert done.stdout.strip() == "[10, 4, 3]", done.stderr


def test_a_second_build_keeps_what_is_there(archive, data_dir):
    code = "from wastejax.data.household_waste import build; print(build(*sys.argv[1:]))"
    record = next((data_dir / "household_waste" / "1.0.0").glob("*.array_record*"))
    before = record.stat().st_mtime_ns
    again = run(code, str(archive), str(data_dir))
    assert again.returncode == 0, again.stderr
    assert record.stat().st_mtime_ns == before


def test_unpacked_archive_that_is_split(archive, tmp_path):
    from wastejax.data.household_waste import build

    for k, split in enumerate(("train", "val", "test")):
        for name in CLASSES:
            folder = tmp_path / "split" / split / name
            folder.mkdir(parents=True)
            for i in range(k + 1):
                Image.new("RGB", (8, 8), (k, i, 9)).save(folder / f"{i}.png")
    build(tmp_path / "split", tmp_path / "tfds")
    source = open_source("tfds:household_waste", str(tmp_path / "tfds"))
    assert source.splits is not None
    assert [source.splits.count(split) for split in ("train", "val", "test")] == [2, 4, 6]
    assert all(name.startswith(split + "/") for name, split in zip(source.names, source.splits, strict=True))
    assert (
        source.read(source.names.index("test/shoes/2.png"))
        == (tmp_path / "split" / "test" / "shoes" / "2.png").read_bytes()
    )


@pytest.mark.parametrize(
    "name, words",
    [
        ("household_waste", "python -m wastejax.data.household_waste --archive=ARCHIVE --data_dir="),
        ("cifar10", "tfds build cifar10 --file_format=array_record --data_dir="),
        ("no_such_set", "no TFDS data set 'no_such_set'"),
    ],
)
def test_data_sets_that_are_not_there(tmp_path, name, words):
    with pytest.raises(ConfigError) as error:
        open_source(f"tfds:{name}", str(tmp_path))
    assert error.value.key == "config.data.source"
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.fixture
def prepared(monkeypatch):
    """Returns a function: names of splits -> images of a set that TFDS has prepared with these, two in each."""
    tfds = pytest.importorskip("tensorflow_datasets")
    features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=["can", "jar"])}

    def of(*splits: str):
        info = SimpleNamespace(features=features, splits=splits)
        records = [{"image": b"can", "label": 0}, {"image": b"jar", "label": 1}]
        builder = SimpleNamespace(info=info, data_path="/set", as_data_source=lambda split, decoders: records)
        monkeypatch.setattr("wastejax.data.formats.tfds._tfds_builder", lambda *_: builder)
        return open_source("tfds:set", "")

    return of


def test_splits_of_tfds_are_known_by_the_words_that_those_of_folders_are(prepared):
    source = prepared("training", "dev", "testing", "unlabeled")
    assert source.splits == ("train",) * 2 + ("val",) * 2 + ("test",) * 2
    assert source.notes == ("TFDS split 'unlabeled' is left out (2 images)",)
    assert prepared("everything").splits is None


def test_a_set_of_tfds_whose_splits_have_other_names_is_refused_with_these(prepared):
    with pytest.raises(ConfigError, match=r"'set' has no split train, val or test; it has day, night$"):
        prepared("day", "night")


def test_another_version_than_the_one_there(data_dir):
    with pytest.raises(ConfigError, match=r"cannot open .*household_waste:9\.0\.0"):
        open_source("tfds:household_waste:9.0.0", str(data_dir))


def test_archives_that_are_none(tmp_path):
    from wastejax.data.household_waste import build

    with pytest.raises(UserError, match="cannot unpack"):
        build(tmp_path / "nowhere.zip", tmp_path / "tfds")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UserError, match="cannot unpack"):
        build(tmp_path / "broken.zip", tmp_path / "tfds")
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "README.txt").touch()
    with pytest.raises(UserError, match="no images"):
        build(tmp_path / "without", tmp_path / "tfds")
