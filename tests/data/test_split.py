import csv
import dataclasses
from pathlib import Path

import numpy as np
import pytest

from wastejax.data.sources import Source
from wastejax.data.split import SPLITS, load_manifest, recognize, save_manifest, stratified_group_split
from wastejax.errors import ConfigError


def counts(splits: np.ndarray, where: np.ndarray | None = None) -> list[int]:
    return [int(np.sum(splits[where if where is not None else slice(None)] == s)) for s in SPLITS]


def test_exact_in_every_class_and_domain():
    labels = np.repeat(np.arange(30), 50)
    domains = np.tile(np.repeat(["default", "real_world"], 25), 30)
    splits = stratified_group_split(labels, domains, np.arange(1500))
    for label in range(30):
        for domain in ("default", "real_world"):
            assert counts(splits, (labels == label) & (domains == domain)) == [15, 5, 5]


def test_whole_groups_on_one_side_and_still_near_the_ratio():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(10), 100)
    groups = np.concatenate([1000 * label + rng.integers(0, 60, 100) for label in range(10)])
    groups[::97] = 5  # and one group across all classes
    splits = stratified_group_split(labels, [""] * 1000, groups)
    assert all(len(set(splits[groups == g])) == 1 for g in np.unique(groups))
    for label in range(10):
        np.testing.assert_allclose(counts(splits, labels == label), [60, 20, 20], atol=2)


def test_same_seed_same_split_and_another_seed_another():
    labels, domains, groups = np.repeat([0, 1], 50), [""] * 100, np.arange(100)
    first = stratified_group_split(labels, domains, groups, seed=17)
    np.testing.assert_array_equal(first, stratified_group_split(labels, domains, groups, seed=17))
    assert np.any(first != stratified_group_split(labels, domains, groups, seed=18))
    # Written down: a split must not change with the version of numpy or of this function.
    assert "".join(s[1] for s in first[:20]) == "aarrerarearrrrrrerar"


def test_group_ids_do_not_matter():
    labels, groups = np.repeat([0, 1], 50), np.arange(100) // 3
    one = stratified_group_split(labels, [""] * 100, groups)
    other = stratified_group_split(labels, [""] * 100, groups * 7 + 5)
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(10))
def test_small_classes_reach_every_split(seed):
    # Three images; two domains of two; one group of eight beside two single images.
    labels = np.array([0] * 3 + [1] * 4 + [2] * 10)
    domains = ["d"] * 3 + ["d", "d", "r", "r"] + ["d"] * 10
    groups = np.array([*range(7), *[50] * 8, 51, 52])
    splits = stratified_group_split(labels, domains, groups, seed=seed)
    assert counts(splits, labels == 0) == [1, 1, 1]
    assert all(n > 0 for n in counts(splits, labels == 1))
    assert counts(splits, labels == 2) == [8, 1, 1]


@pytest.mark.parametrize(
    ("classes", "images", "domains"),
    [(10, 20, 7), (30, 100, 40), (10, 20, 200), (3, 40, 120)],  # the last two: a domain for each image
)
def test_small_domains_leave_every_class_and_all_at_three_to_one_to_one(classes, images, domains):
    labels, total = np.repeat(np.arange(classes), images), classes * images
    splits = stratified_group_split(labels, [str(i % domains) for i in range(total)], np.arange(total))
    for label in range(classes):
        assert counts(splits, labels == label) == [images * 3 // 5, images // 5, images // 5]


def test_small_classes_of_several_domains_are_dealt_by_class():
    labels = np.repeat(np.arange(30), 6)
    splits = stratified_group_split(labels, [str(i % 3) for i in range(180)], np.arange(180))
    for label in range(30):  # 3.6, 1.2 and 1.2
        assert counts(splits, labels == label) == [4, 1, 1]


@pytest.mark.parametrize("each", [1, 2, 3, 4])
def test_a_small_domain_of_large_classes_has_its_share_of_each_split(each):
    labels = np.concatenate([np.repeat(np.arange(10), 30), np.repeat(np.arange(10), each)])
    small = np.arange(len(labels)) >= 300
    splits = stratified_group_split(labels, np.where(small, "own", "big"), np.arange(len(labels)))
    assert counts(splits, small) == [6 * each, 2 * each, 2 * each]
    for label in range(10):
        assert counts(splits, (labels == label) & ~small) == [18, 6, 6]


@pytest.mark.parametrize(("each", "expected"), [(5, [3, 1, 1]), (9, [5, 2, 2])])
def test_a_few_images_of_each_class_in_a_domain_are_dealt_in_every_class(each, expected):
    labels = np.r_[np.repeat(np.arange(5), 40), np.repeat(np.arange(5), each)]
    domains = np.repeat(["theirs", "own"], [200, 5 * each])
    splits = stratified_group_split(labels, domains, np.arange(len(labels)))
    own = domains == "own"
    for label in range(5):
        assert counts(splits, own & (labels == label)) == expected


def test_a_large_group_goes_to_train_and_the_rest_fills_up():
    labels, groups = np.zeros(100, int), np.concatenate([np.zeros(60, int), np.arange(1, 41)])
    splits = stratified_group_split(labels, [""] * 100, groups)
    assert counts(splits) == [60, 20, 20]
    assert set(splits[:60]) == {"train"}


def test_other_ratios():
    splits = stratified_group_split(np.zeros(100, int), [""] * 100, np.arange(100), ratios=(8, 1, 1))
    assert counts(splits) == [80, 10, 10]


NAMES = ("glass/한국 1.png", "glass/2.png", 'metal/with,comma "and quotes".png', "metal/4.png")


@pytest.fixture
def source() -> Source:
    labels = np.array([0, 0, 1, 1], np.int32)
    return Source(
        NAMES, labels, ("glass", "metal"), ("default", "", "real_world", ""), None, lambda i: b"", ("s",) * 4
    )


@pytest.fixture
def manifest(tmp_path, source) -> Path:
    path = tmp_path / "manifest.csv"
    save_manifest(path, source, np.array([0, 0, 7, 2]), np.array(["train", "train", "val", "test"]))
    return path


def rewrite(path: Path, change) -> None:
    rows = read(path)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(change(rows))


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_manifest_is_plain_csv(manifest):
    rows = read(manifest)
    assert rows[0] == ["file", "label", "domain", "group", "split"]
    assert rows[1] == ["glass/한국 1.png", "glass", "default", "0", "train"]
    assert rows[3] == ['metal/with,comma "and quotes".png', "metal", "real_world", "7", "val"]


def test_manifest_comes_back(manifest, source):
    loaded = load_manifest(manifest, source)
    np.testing.assert_array_equal(loaded.indices, [0, 1, 2, 3])
    np.testing.assert_array_equal(loaded.groups, [0, 0, 7, 2])
    np.testing.assert_array_equal(loaded.splits, ["train", "train", "val", "test"])


def test_manifest_may_leave_out_and_reorder(manifest, source):
    rewrite(manifest, lambda rows: [rows[0], rows[4], rows[1]])
    manifest.write_bytes(b"\xef\xbb\xbf" + manifest.read_bytes())  # as spreadsheets save it
    loaded = load_manifest(manifest, source)
    np.testing.assert_array_equal(loaded.indices, [0, 3])
    np.testing.assert_array_equal(loaded.splits, ["train", "test"])


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda rows: [*rows, ["gone.png", "glass", "", "0", "val"]], "gone.png is not in the data"),
        (lambda rows: [*rows, rows[1]], "glass/한국 1.png is listed twice"),
        (lambda rows: [*rows[:2], ["glass/2.png", "metal", "", "0", "val"]], "'metal', in the data 'glass'"),
        (lambda rows: [*rows[:2], ["glass/2.png", "glass", "", "0", "dev"]], "has split 'dev'"),
        (lambda rows: rows[:1], "lists no file"),
        (lambda rows: rows[1:], "must be a CSV file with the columns file, label"),
    ],
)
def test_manifests_that_do_not_fit(manifest, source, change, words):
    rewrite(manifest, change)
    with pytest.raises(ConfigError) as error:
        load_manifest(manifest, source)
    assert words in str(error.value)
    assert str(error.value).startswith("config.data.split.manifest: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("group", ["20261130123456", "9" * 30, "street 7"])
def test_a_group_of_a_manifest_may_be_a_long_number_or_a_name(manifest, source, group):
    names = (group, group, "2", "")
    rewrite(
        manifest, lambda rows: [rows[0], *([*r[:3], g, r[4]] for r, g in zip(rows[1:], names, strict=True))]
    )
    groups = load_manifest(manifest, source).groups
    assert groups.dtype == np.int32 and groups.tolist() == [0, 0, 1, 2]  # a blank one is alone


@pytest.mark.parametrize("splits", [("train", "test"), ("test", "train"), ("val", "train"), ("test", "val")])
def test_a_copy_of_images_in_several_splits_counts_as_learned(tmp_path, source, splits):
    hashes = np.array([255, 255], np.uint64)
    save_manifest(tmp_path / "run.csv", source.select([0, 1]), np.arange(2), splits, hashes)
    new = dataclasses.replace(source.select([0]), names=("new.png",))
    first = "train" if "train" in splits else "val"
    assert recognize(tmp_path / "run.csv", new, hashes[:1]).tolist() == [first]


def test_many_misfits_are_counted(manifest, source):
    rewrite(manifest, lambda rows: rows + [[f"gone{i}.png", "glass", "", "0", "val"] for i in range(30)])
    with pytest.raises(ConfigError, match=r"gone19\.png is not in the data; and 10 more"):
        load_manifest(manifest, source)


def test_a_manifest_comes_back_as_a_spreadsheet_on_windows_saves_it(manifest, source):
    rows = [[row[0].replace("/", "\\"), *row[1:4], row[4].capitalize()] for row in read(manifest)]
    with manifest.open("w", encoding="utf-16", newline="") as file:
        csv.writer(file, delimiter=";").writerows(rows)
    loaded = load_manifest(manifest, source)
    np.testing.assert_array_equal(loaded.indices, [0, 1, 2, 3])
    np.testing.assert_array_equal(loaded.splits, ["train", "train", "val", "test"])


def test_manifest_that_cannot_be_read(tmp_path, source):
    with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.csv"):
        load_manifest(tmp_path / "nowhere.csv", source)
    (tmp_path / "binary.csv").write_bytes(b"\x80\x00\x01")
    with pytest.raises(ConfigError, match="cannot read"):
        load_manifest(tmp_path / "binary.csv", source)
