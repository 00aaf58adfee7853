"""Several sources whose labels do not agree, as one set of images."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image

from configs.common import get_config
from wastejax.config import apply_overrides, load_recipe
from wastejax.data import pipeline
from wastejax.data.description import open_description
from wastejax.data.description.label_map import load_label_map
from wastejax.data.duplicates import joined_groups
from wastejax.data.formats.boxes import Reading
from wastejax.data.prepare import prepare
from wastejax.data.split import deal_missing, load_manifest, recognize, save_manifest
from wastejax.data.transforms import AUGMENTATIONS, Preprocessing
from wastejax.errors import ConfigError, UserError

CLASSES = ("can", "cup", "jar")


def draw(folder, counts, seed):
    """Saves `counts` images of smooth random colors below each class folder."""
    rng = np.random.default_rng(seed)
    for label, count in counts.items():
        (folder / label).mkdir(parents=True)
        for i in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            coarse.resize((48, 40), Image.Resampling.BICUBIC).save(folder / label / f"{i:02}.png")


@pytest.fixture
def description(tmp_path, monkeypatch):
    """'home' has the classes; 'street' knows materials, and grounds without waste."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    draw(tmp_path / "home", {"can": 8, "cup": 8, "jar": 8}, 1)
    draw(tmp_path / "street", {"metal": 6, "not paper": 6, "ground": 6}, 2)
    (tmp_path / "map.csv").write_text(
        "source,label,classes,material\nstreet,metal,can,metal\nstreet,not paper,can;jar,metal;glass\n"
        "street,ground,,none\n"
    )
    (tmp_path / "groups.csv").write_text(
        "file,group\n" + "".join(f"metal/{i:02}.png,one photograph\n" for i in range(4))
    )
    path = tmp_path / "data.toml"
    path.write_text(
        'classes = "home"\nlabels = "map.csv"\n[sources.home]\npath = "home"\nweight = 3\n'
        '[sources.street]\npath = "street"\nweight = 1\ngroups = "groups.csv"\n'
    )
    return path


def test_a_label_means_the_classes_that_the_map_says(description):
    source = open_description(description).source
    assert source.classes == CLASSES
    meant = {
        name.rsplit("/", 1)[0]: {c for c, is_allowed in zip(CLASSES, row, strict=True) if is_allowed}
        for name, row in zip(source.names, source.allowed, strict=True)
    }
    assert meant == {
        "home/can": {"can"},
        "home/cup": {"cup"},
        "home/jar": {"jar"},
        "street/metal": {"can"},
        "street/not paper": {"can", "jar"},
        "street/ground": set(),
    }
    first = source.select([0, len(source) - 1])
    assert first.classes == CLASSES and first.members == ("home", "street")
    assert open_description(description).source.read(30) == (
        (description.parent / source.names[30]).read_bytes()
    )


def test_given_groups_stay_on_one_side_and_only_images_of_one_class_are_scored(description):
    config = get_config().data
    config.dir = str(description)
    dataset = prepare(config, 17, None)
    photograph = [
        name.startswith("street/metal/0") and name < "street/metal/04" for name in dataset.source.names
    ]
    assert sum(photograph) == 4
    assert len(set(dataset.groups[photograph])) == 1 and len(set(dataset.splits[photograph])) == 1
    for split in ("val", "test"):
        exact = dataset.source.allowed[dataset.indices(split)]
        assert len(exact) and (exact.sum(axis=1) == 1).all()
        assert len(dataset.all_indices(split)) > len(exact)
    assert dataset.weights == {"home": 3.0, "street": 1.0}


def test_a_source_of_a_few_images_a_class_is_tested_too(tmp_path):
    draw(tmp_path / "big", dict.fromkeys("abcde", 12), 1)
    draw(tmp_path / "own", dict.fromkeys("abcde", 2), 2)
    (tmp_path / "m.toml").write_text('classes="big"\n[sources.big]\npath="big"\n[sources.own]\npath="own"\n')
    config = get_config().data
    config.dir = str(tmp_path / "m.toml")
    dataset = prepare(config, 17, None)
    members = np.array(dataset.source.members)
    split = [int(np.sum(members[dataset.indices(split)] == "own")) for split in ("train", "val", "test")]
    assert split == [6, 2, 2]


def test_a_blank_group_is_none(description):
    (description.parent / "groups.csv").write_text(
        "file,group\nmetal/00.png,one\nmetal/01.png,one\nmetal/02.png,\nmetal/03.png, \n"
    )
    mixture = open_description(description)
    given = dict(zip(mixture.source.names, mixture.together, strict=True))
    assert [given[f"street/metal/0{i}.png"] for i in range(4)] == ["street/one"] * 2 + [""] * 2


def test_groups_of_images_that_are_not_there_are_told(description):
    groups = description.parent / "groups.csv"
    groups.write_text("file,group\nmetal/00.png,one\nmetal/001.png,one\n")
    notes = open_description(description).source.notes
    assert any("1 of 2 rows name no image, such as 'metal/001.png'" in note for note in notes)
    groups.write_text("file,group\n/photos/00.png,one\n/photos/01.png,one\n")
    with pytest.raises(
        ConfigError, match=r"2 of 2 rows name no image, .*files are named as '.*png' is"
    ) as error:
        open_description(description)
    assert "\n" not in str(error.value)


def test_an_image_in_two_groups_of_a_file_is_refused(description):
    groups = description.parent / "groups.csv"
    groups.write_text("file,group\nmetal/00.png,one\nmetal/00.png,one\nmetal/01.png,one\n")
    open_description(description)  # said twice
    groups.write_text("file,group\nmetal/00.png,one\nmetal/01.png,one\nmetal/00.png,two\n")
    with pytest.raises(ConfigError, match=r"metal/00\.png is of the groups 'one' and 'two'") as error:
        open_description(description)
    assert "\n" not in str(error.value)


def test_groups_of_a_file_do_not_tear_crops_of_one_photograph_apart(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    Image.new("RGB", (40, 40)).save(tmp_path / "b.png")
    images = [
        {"id": i, "file_name": name, "width": 40, "height": 40} for i, name in enumerate(("a.png", "b.png"))
    ]
    rows = [{"image_id": i // 2, "category_id": i % 2, "bbox": [20 * (i % 2), 0, 20, 20]} for i in range(4)]
    categories = [{"id": 0, "name": "can"}, {"id": 1, "name": "jar"}]
    content = {"images": images, "annotations": rows, "categories": categories}
    (tmp_path / "all.json").write_text(json.dumps(content))
    (tmp_path / "groups.csv").write_text("file,group\na.png#0,table\nb.png#1,table\n")
    path = tmp_path / "data.toml"
    path.write_text('classes = "one"\n[sources.one]\npath = "all.json"\n')
    assert len(set(open_description(path).together)) == 2
    path.write_text(path.read_text() + 'groups = "groups.csv"\n')
    assert len(set(open_description(path).together)) == 1


def test_groups_are_joined_over_images_that_two_groups_share():
    #      near-duplicates: 0 1 | 2 | 3 | 4
    found = joined_groups(np.array([0, 0, 1, 2, 3], np.int32), ["", "a", "a", "b", ""])
    assert found.tolist() == [0, 0, 0, 1, 2]


@pytest.mark.parametrize("shares", [(3, 1), (0.9, 0.07, 0.03), (1, 1, 1), (1,)])
def test_turns_follow_the_shares_at_every_length(shares):
    turns = pipeline.take_turns(shares)
    wanted = np.array(shares) / sum(shares)
    for length in (4, 16, len(turns)):
        taken = np.bincount(turns[:length], minlength=len(shares))
        assert np.abs(taken - wanted * length).max() < 1.5


def test_batches_draw_sources_by_weight_the_same_from_any_step(description):
    source = open_description(description).source
    mix = pipeline.Mix(source.members, {"home": 3.0, "street": 1.0})

    def batches(start, stop):
        augment = AUGMENTATIONS["basic"](Preprocessing(16), 0.5)
        read, indices = pipeline.Reader(source), np.arange(len(source))
        drawn = pipeline.TrainingImages(read, indices, augment, batch_size=8, seed=17, mix=mix)
        return list(pipeline.train_batches(drawn, start, stop))

    whole = batches(0, 12)
    for batch in whole:
        assert [source.members[i] for i in batch["index"]].count("street") == 2
        np.testing.assert_array_equal(batch["allowed"], source.allowed[batch["index"]])
    # 18 images of 'street' are drawn within nine batches, each once.
    drawn = [i for b in whole[:9] for i in b["index"] if source.members[i] == "street"]
    assert sorted(drawn) == list(range(24, 42))
    for ours, theirs in zip(whole[5:], batches(5, 12), strict=True):
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_what_is_wrong_with_a_description_is_said(description):
    text = description.read_text()

    def problem(old, new):
        description.write_text(text.replace(old, new))
        with pytest.raises(ConfigError) as error:
            open_description(description)
        return str(error.value)

    assert "did you mean 'weight'" in problem("weight = 1", "wieght = 1")
    assert "must be a number above 0" in problem("weight = 1", "weight = 0")
    assert "there is no source 'house'" in problem('classes = "home"', 'classes = "house"')
    assert "does not exist" in problem('path = "street"', 'path = "nowhere"')
    assert "say in `meanings`" in problem('labels = "map.csv"\n', "")
    assert "cannot read" in problem("[sources.home]", "[sources.home")
    map_file = description.parent / "map.csv"
    rows = map_file.read_text()
    map_file.write_text(rows.replace("street,metal,can", "street,metal,cam"))
    assert "'metal' means 'cam'" in problem("x", "x") and "did you mean 'can'" in problem("x", "x")
    map_file.write_text(rows.replace("street,ground,,none\n", ""))
    assert "does not say what the label 'ground' means" in problem("x", "x")
    map_file.write_text(rows + "street,metal,jar,metal\n")
    assert "has two meanings" in problem("x", "x")
    with pytest.raises(UserError, match="has no column 'classes'"):
        bad = description.parent / "bad.csv"
        bad.write_text("label,class\n")
        load_label_map(bad)


def test_splits_that_only_some_sources_come_with_are_refused(tmp_path):
    draw(tmp_path / "home" / "Training", {"can": 2, "jar": 2}, 1)
    draw(tmp_path / "home" / "Testing", {"can": 2, "jar": 2}, 2)
    draw(tmp_path / "street", {"can": 2, "jar": 2}, 3)
    path = tmp_path / "data.toml"
    path.write_text('classes = "home"\n[sources.home]\npath = "home"\n[sources.street]\npath = "street"\n')
    with pytest.raises(
        ConfigError, match=r"data\.toml: the images of home come with splits and those of street"
    ):
        open_description(path)
    path.write_text('classes = "home"\n[sources.home]\npath = "home"\n')
    assert set(open_description(path).source.splits) == {"train", "test"}


def test_a_class_is_of_the_materials_that_all_its_labels_allow(tmp_path):
    path = tmp_path / "map.csv"
    path.write_text("label,classes,material\nmetal,can,metal\nnot paper,can;jar,metal;glass\nground,,none\n")
    assert load_label_map(path).materials(CLASSES) == ({"metal"}, frozenset(), {"metal", "glass"})


def write_mixture(folder, classes, meanings):
    """Writes a description of 'home', whose labels are classes, and 'street', whose labels mean what is given."""
    path = folder / "mix.toml"
    path.write_text(
        f'classes = {classes}\n[sources.home]\npath = "home"\n[sources.street]\npath = "street"\n'
        f"meanings = {{ {meanings} }}\n"
    )
    return path


def prepared(path):
    config = get_config().data
    config.dir = str(path)
    return prepare(config, 17, None)


def test_a_class_of_one_object_is_refused_whatever_images_may_show_it_too(tmp_path):
    draw(tmp_path / "home", {"can": 8, "jar": 8}, 1)
    draw(tmp_path / "home", {"bottle": 1}, 2)
    for i in range(1, 4):
        (tmp_path / f"home/bottle/0{i}.png").write_bytes((tmp_path / "home/bottle/00.png").read_bytes())
    draw(tmp_path / "street", {"glass": 8}, 3)
    path = write_mixture(tmp_path, '"home"', 'glass = ["bottle", "jar"]')
    with pytest.raises(
        ConfigError, match=r"class 'bottle' has no image in val and test: its 4 form 1 groups"
    ):
        prepared(path)


def test_every_split_has_images_that_are_known_to_show_a_class(tmp_path):
    draw(tmp_path / "home", {"bottle": 3, "jar": 12}, 1)
    draw(tmp_path / "street", {"glass": 30, "ground": 3}, 2)
    path = write_mixture(tmp_path, '"home"', 'glass = ["bottle", "jar"], ground = []')
    source = open_description(path).source
    of = np.array([name.rpartition("/")[0] for name in source.names])
    for seed in range(5):
        splits, _ = deal_missing(source, None, np.arange(len(source)), seed=seed)
        for label in ("home/bottle", "street/ground"):
            assert sorted(splits[of == label]) == ["test", "train", "val"]


@pytest.mark.parametrize("given", [("train", "val", "test"), ("train", "test")])
def test_a_class_is_learned_from_labels_that_mean_several_alone_where_splits_are_given(tmp_path, given):
    number = 6 // len(given)  # without val, a part of train is set aside
    for split in given:
        draw(tmp_path / "home" / split, {"can": number, "cup": number}, len(split))
        draw(tmp_path / "street" / split, {"glass": number}, 10 + len(split))
    path = write_mixture(tmp_path, '["bottle", "can", "cup", "jar"]', 'glass = ["bottle", "jar"]')
    dataset = prepared(path)
    for split in ("val", "test"):
        assert (
            f"{split} has no images of bottle, jar: they are learned, and not scored there" in dataset.notes
        )
    assert dataset.source.contents.sum(axis=0).tolist() == [0, 6, 6, 0]


@pytest.mark.parametrize("empty", ["val", "test"])
def test_a_split_without_an_image_that_can_be_scored_is_refused_before_training(tmp_path, empty):
    full = "test" if empty == "val" else "val"
    for split in ("train", full):
        draw(tmp_path / "home" / split, {"can": 2, "jar": 2}, len(split))
    for split in ("train", empty):
        draw(tmp_path / "street" / split, {"glass": 2}, 10 + len(split))
    path = write_mixture(tmp_path, '"home"', 'glass = ["can", "jar"]')
    with pytest.raises(ConfigError, match=f"no image whose label means one class is left for {empty};"):
        prepared(path)


def test_a_manifest_names_all_that_a_label_can_mean_and_takes_that_of_an_earlier_version(tmp_path):
    draw(tmp_path / "home", {"bottle": 4, "can": 4, "jar": 4}, 1)
    draw(tmp_path / "street", {"glass": 4, "ground": 4}, 2)
    path = write_mixture(tmp_path, '"home"', 'glass = ["bottle", "jar"], ground = []')
    dataset = prepared(path)
    manifest = tmp_path / "manifest.csv"
    save_manifest(manifest, dataset.source, dataset.groups, dataset.splits, dataset.phash)
    text = manifest.read_text()
    labels = dict(line.split(",")[:2] for line in text.splitlines())
    assert labels["street/glass/00.png"] == "bottle;jar" and labels["street/ground/00.png"] == ""
    assert labels["home/jar/00.png"] == "jar"
    for changed in (text, text.replace(",bottle;jar,", ",bottle,").replace(",,", ",bottle,")):
        manifest.write_text(changed)
        assert load_manifest(manifest, dataset.source).splits.tolist() == dataset.splits.tolist()
        known = recognize(manifest, dataset.source, dataset.phash)
        assert known.tolist() == dataset.splits.tolist()
    manifest.write_text(text.replace(",bottle;jar,", ",can,"))
    with pytest.raises(ConfigError, match=r"00\.png is labeled 'can', in the data 'bottle;jar'"):
        load_manifest(manifest, dataset.source)


def test_near_duplicates_are_at_odds_only_if_no_class_fits_them_all(tmp_path):
    draw(tmp_path / "home", {"bottle": 5, "can": 5, "jar": 5}, 1)
    for copy, of in (
        ("glass/0", "jar/00"),
        ("glass/1", "bottle/01"),
        ("glass/2", "can/02"),
        ("ground/3", "can/03"),
    ):
        (tmp_path / "street" / copy).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"street/{copy}.png").write_bytes((tmp_path / f"home/{of}.png").read_bytes())
    (tmp_path / "street/ground/4.png").write_bytes((tmp_path / "street/ground/3.png").read_bytes())
    path = write_mixture(tmp_path, '"home"', 'glass = ["bottle", "jar"], ground = []')
    notes = prepared(path).notes
    assert "9 of 20 images are near-duplicates of others, in 4 groups" in notes
    assert "groups of near-duplicates that span several classes (label errors?): 2" in notes


def test_training_refuses_what_needs_one_class_for_each_image(description):
    from wastejax.training.train import resolve

    data = f"--config.data.dir={description}"
    with pytest.raises(ConfigError, match=r"config\.loss\.mixup: does not work with a data description"):
        resolve("mobilevit_ir", [data, "--config.loss.mixup=0.2"], lambda line: None)
    with pytest.raises(ConfigError) as told:  # of a recipe that mixes images by itself
        resolve("efficientnet_lite2", [data, "--config.data.leave_out=glass"], lambda line: None)
    arguments = [word for word in shlex.split(str(told.value)) if word.startswith("--")]
    given = [argument.partition("=")[0].removeprefix("--config.") for argument in arguments]
    assert given == ["loss.mixup", "loss.cutmix", "data.leave_out"]
    config = load_recipe("efficientnet_lite2")
    apply_overrides(config, arguments)
    assert (config.loss.mixup, config.loss.cutmix, config.data.leave_out) == (0, 0, ())


def test_several_labels_leave_open_what_a_source_does_not_tell(tmp_path):
    """A folder knows two classes of three, boxes two, of which one is either of two; grounds show none at all."""
    draw(tmp_path / "home", {"can": 4, "cup": 4}, 1)
    draw(tmp_path / "ground", {"street": 2}, 2)
    draw(tmp_path / "photos", {"x": 4}, 3)
    (tmp_path / "photos" / "list.csv").write_text(
        "file,labels\nx/00.png,metal;bottle\nx/01.png,bottle\nx/02.png,\nx/03.png,metal;sky\n"
    )
    path = tmp_path / "all.toml"
    path.write_text(
        'classes = ["can", "cup", "jar"]\n[sources.home]\npath = "home"\n'
        '[sources.ground]\npath = "ground"\nmeanings = { street = [] }\n'
        '[sources.photos]\npath = "photos/list.csv"\n'
        'meanings = { metal = ["can"], bottle = ["can", "jar"], sky = [] }\n'
    )
    source = open_description(path, reading=Reading(several=True)).source
    truth = {
        name: "".join("-0+"[v + 1] for v in row) for name, row in zip(source.names, source.truth, strict=True)
    }
    assert {name: truth[name] for name in truth if "home" not in name} == {
        "ground/street/00.png": "000",  # said to be none of the classes
        "ground/street/01.png": "000",
        "photos/x/00.png": "+--",  # a can, and a bottle that is a can or a jar; of cups nobody said anything
        "photos/x/01.png": "--" + "-",
        "photos/x/02.png": "0-0",
        "photos/x/03.png": "+-0",
    }
    assert {truth[f"home/can/0{i}.png"] for i in range(4)} == {"+0-"}
    assert {truth[f"home/cup/0{i}.png"] for i in range(4)} == {"0+-"}
    assert source.classes == CLASSES and source.allowed is None and source.label_names[-1] == "can"
    assert "home: its labels leave open jar: there they are neither learned nor scored" in source.notes
    read = pipeline.Reader(source)
    images = pipeline.TrainingImages(
        read, np.arange(len(source)), AUGMENTATIONS["none"](Preprocessing(16), 0.5), batch_size=4, seed=1,
        mix=pipeline.Mix(source.members, {"home": 1.0, "ground": 1.0, "photos": 2.0}),
    )  # fmt: skip
    for batch in pipeline.train_batches(images, 0, 3):
        for name in ("shown", "unsaid"):
            np.testing.assert_array_equal(batch[name], getattr(source, name)[batch["index"]])
        assert sum(source.members[i] == "photos" for i in batch["index"]) == 2
