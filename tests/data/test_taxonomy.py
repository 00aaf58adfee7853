import json

import numpy as np
import pytest

from wastejax.bundle import Bundle, load_bundle, save_bundle
from wastejax.data.drawing.dataset import CLASSES
from wastejax.data.taxonomy import (
    COUNTRIES,
    KOREA,
    LANGUAGES,
    load_taxonomy,
    parse_taxonomy,
    with_looks,
)
from wastejax.data.transforms import Preprocessing
from wastejax.deployment.formats import load_predictor
from wastejax.deployment.labels import describe
from wastejax.errors import ConfigError
from wastejax.evaluation.metrics import score
from wastejax.evaluation.report.run import write_report

TRASHNET = ("cardboard", "glass", "metal", "paper", "plastic", "trash")


@pytest.fixture(scope="module")
def korea():
    return load_taxonomy()


def test_every_class_of_both_sets_has_a_bin_a_name_advice_and_a_source(korea):
    assert len(CLASSES) == 30 and korea.unknown((*CLASSES, *TRASHNET)) == []
    assert set(korea.classes) == {*CLASSES, *TRASHNET}
    for item in korea.classes.values():
        assert item.sources and all(korea.sources[s]["url"].startswith("http") for s in item.sources)
    for named in (*korea.bins.values(), *korea.classes.values()):
        assert any("가" <= letter <= "힣" for letter in named.name("ko")) and named.name().isascii()
        assert "\n" not in named.advice() + named.advice("ko") and len(named.advice()) <= 110


def test_the_counter_intuitive_rules(korea):
    # 분리배출.kr, entries 티백, 계란껍질, 녹차잎, 빨대, 아이스크림 숟가락, 샴푸, 무색페트병, 카페 일회용컵
    expected = {
        "tea_bags": "general",
        "eggshells": "general",
        "coffee_grounds": "general",
        "food_waste": "food",
        "plastic_straws": "plastics",
        "disposable_plastic_cutlery": "plastics",
        "plastic_cup_lids": "plastics",
        "plastic_water_bottles": "clear_pet",
        "plastic_soda_bottles": "clear_pet",
        "plastic_detergent_bottles": "plastics",
        "paper_cups": "cups_and_cartons",
        "plastic_shopping_bags": "film",
        "aerosol_cans": "metal_cans",
    }
    assert {name: korea.classes[name].bin for name in expected} == expected


@pytest.mark.parametrize("country", COUNTRIES)
def test_every_country_has_a_dated_rule_for_every_class_in_english_and_its_own_language(country):
    rules = load_taxonomy(country)
    assert set(rules.classes) == {*CLASSES, *TRASHNET}
    local = {"korea": "ko", "england": "en", "germany": "de", "japan": "ja", "france": "fr"}[country]
    for rule in rules.bins.values():
        assert {"en", "advice_en", local, f"advice_{local}"} <= rule.texts.keys()
    for item in rules.classes.values():
        assert item.sources and set(LANGUAGES) <= item.texts.keys()
        assert ("advice_en" in item.texts) == (f"advice_{local}" in item.texts)
        assert all(rules.sources[s]["url"].startswith("http") for s in item.sources)
    assert {item.bin for item in rules.classes.values()} <= rules.bins.keys()
    cited = {source for item in rules.classes.values() for source in item.sources}
    assert cited == rules.sources.keys() if country != "korea" else cited <= rules.sources.keys()
    if country != "korea":  # the Korean sources carry theirs in the title
        assert all(source["date"][:2] == "20" for source in rules.sources.values())


def test_countries_differ_where_their_rules_do():
    # SI 2024/666 schedule 1 (England), BMUV list of the Biotonne (Germany), Yokohama's list, French sorting rules
    bins = {country: load_taxonomy(country).bins_of(["tea_bags", "styrofoam_cups"]) for country in COUNTRIES}
    assert bins == {
        "korea": ("general", "styrofoam"),
        "england": ("food", "general"),
        "germany": ("organic", "yellow"),
        "japan": ("burnable", "plastics"),
        "france": ("organic", "sorting"),
    }


def test_texts_fall_back_to_english_and_a_class_without_rule_to_its_own_name(tmp_path):
    rules = KOREA.read_text() + '\n[classes.light_bulbs]\nbin = "general"\nsources = ["guideline"]\n'
    (tmp_path / "town.toml").write_text(rules)
    bulbs = load_taxonomy(tmp_path / "town.toml").classes["light_bulbs"]
    assert bulbs.name("ko") == "light bulbs" and bulbs.advice("ko") == ""
    assert load_taxonomy("germany").bins["yellow"].name("ja") == "yellow bin or bag (packaging)"
    assert load_taxonomy("germany").classes["tea_bags"].name("fr") == "sachet de thé"


def test_names_are_matched_without_regard_to_spelling(korea):
    assert korea.bins_of(["Tea Bags", "PLASTIC-STRAWS", "glass"]) == ("general", "plastics", "glass")
    assert korea.bins_of(["glass", "spaceship"]) is None
    assert korea.unknown(["glass", "spaceship"]) == ["spaceship"]


def test_what_a_bundle_keeps_is_enough(korea):
    kept = korea.only(["Glass", "tea_bags", "spaceship"])
    again = parse_taxonomy(json.loads(json.dumps(kept.to_dict())), "bundle.json")
    assert again == kept
    assert list(kept.classes) == ["Glass", "tea_bags"] and set(kept.bins) == {"glass", "general"}
    assert kept.find("glass") == korea.find("glass")
    assert set(kept.sources) == {"item_glass", "geumcheon", "item_tea_bag", "yeonsu_food"}


def test_a_municipality_of_ones_own(tmp_path):
    rules = KOREA.read_text().replace(
        '[classes.tea_bags]\nbin = "general"', '[classes.tea_bags]\nbin = "food"'
    )
    (tmp_path / "town.toml").write_text(rules)
    assert load_taxonomy(tmp_path / "town.toml").classes["tea_bags"].bin == "food"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('bin = "food"', 'bin = "fod"', "[classes.food_waste] has bin 'fod'; did you mean 'food'?"),
        ('sources = ["yeonsu_food"]', 'sources = ["yeonsu"]', "did you mean 'yeonsu_food'?"),
        ('ko = "유리병류"\n', "", "[bins.glass] lacks ko"),
        ('bin = "food"\n', "", "[classes.food_waste] lacks bin"),
        ('en = "paper"\n', "en = 3\n", "en in [bins.paper] must be text"),
        ("[bins.paper]", "[bins.paper", "cannot read"),
        ('bin = "food"\n', 'bin = "food"\ncolor = "red"\n', "[classes.food_waste] has color"),
    ],
)
def test_a_wrong_file_is_named_with_the_place(tmp_path, old, new, problem):
    path = tmp_path / "town.toml"
    path.write_text(KOREA.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        load_taxonomy(path)
    assert problem in str(error.value) and str(path) in str(error.value)
    assert str(error.value).startswith("config.data.taxonomy: ") and "\n" not in str(error.value)


def test_two_rules_of_one_class_are_refused_where_they_differ(tmp_path, korea):
    path = tmp_path / "town.toml"
    rule = '\n[classes."Tea Bags"]\nbin = "food"\nsources = []\n'
    path.write_text(KOREA.read_text() + rule)
    with pytest.raises(ConfigError, match=r"\[classes\.Tea Bags\] and \[classes\.tea_bags\] are one class"):
        load_taxonomy(path)
    # A bundle may have been trained on both spellings.
    kept = korea.only(["Tea Bags", "tea_bags"])
    assert parse_taxonomy(json.loads(json.dumps(kept.to_dict())), "bundle.json") == kept


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path, korea):
    path = tmp_path / "town.toml"
    path.write_text(KOREA.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert load_taxonomy(path).to_dict() == korea.to_dict()


def test_a_missing_file_is_named():
    with pytest.raises(
        ConfigError,
        match=r"/nowhere\.toml: no such taxonomy; choices: england, france, germany, japan, korea; give",
    ):
        load_taxonomy("/nowhere.toml")
    with pytest.raises(ConfigError, match=r"germny: no such taxonomy; did you mean 'germany'\?"):
        load_taxonomy("germny")


def test_bin_accuracy_sums_the_probabilities_of_the_classes():
    classes, bins = ["jar", "steel", "aluminium"], ["glass", "cans", "cans"]
    probabilities = np.array(
        [
            [0.4, 0.3, 0.3],  # a can, 0.6 against 0.4, although the jar is the most probable class
            [0.5, 0.4, 0.1],  # a tie: the first bin
            [0.1, 0.2, 0.7],
            [0.9, 0.05, 0.05],
        ]
    )
    labels = np.array([1, 0, 1, 2])
    scores = score(np.log(probabilities), labels, classes, bins=bins)
    assert scores["top1"] == 0.25  # only the second image
    assert scores["bin_top1"] == 0.75  # all but the last
    assert scores["per_bin"]["cans"] == {
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "f1": pytest.approx(0.8),
        "support": 3,
    }
    assert scores["per_bin"]["glass"]["precision"] == 0.5 and scores["per_bin"]["glass"]["recall"] == 1.0
    low, high = scores["bin_ci95"]
    assert low < 0.75 < high
    assert "bin_top1" not in score(np.log(probabilities), labels, classes)


def save(path, classes, **options):
    variables = {
        "params": {"classifier": {"kernel": np.ones((2, len(classes)), np.float32)}},
        "batch_stats": {},
    }
    save_bundle(path, Bundle(variables, {}, tuple(classes), Preprocessing(32), **options))


def test_a_bundle_keeps_its_bins(tmp_path):
    rules = KOREA.read_text().replace('name = "South Korea"', 'name = "A town"')
    (tmp_path / "town.toml").write_text(rules)
    save(tmp_path / "b", ["glass", "tea_bags"], taxonomy=load_taxonomy(tmp_path / "town.toml"))
    bundle = load_bundle(tmp_path / "b")
    assert bundle.bins == ("glass", "general") and bundle.taxonomy.name == "A town"
    assert bundle.taxonomy.find("tea_bags").name("ko") == "티백"


def test_a_bundle_from_before_there_were_bins_has_koreas(tmp_path, korea):
    save(tmp_path, ["glass", "spaceship"])
    about = json.loads((tmp_path / "bundle.json").read_text())
    del about["taxonomy"]
    (tmp_path / "bundle.json").write_text(json.dumps(about))
    bundle = load_bundle(tmp_path)
    assert bundle.taxonomy == korea.only(["glass"]) and bundle.bins is None


def test_the_report_has_a_section_on_bins(tmp_path):
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.4, 0.35, 0.25], [0.8, 0.1, 0.1]]))
    labels, classes = np.array([0, 1, 1, 2]), ["glass", "metal", "steel_food_cans"]
    scores = score(logits, labels, classes, bins=load_taxonomy().bins_of(classes))
    path = write_report(tmp_path, {}, [], scores, {"bins": {"metal_cans": "metal cans"}})
    text = path.read_text()
    assert "**The right bin: 75.0 %**" in text
    assert "| metal cans | 66.7 % | 100.0 % | 3 |" in text
    assert text.index("| metal cans |") < text.index("| glass | 100.0 % | 50.0 % | 1 |")
    path = write_report(tmp_path, {}, [], score(logits, labels, classes), {"without_bin": ["spaceship"]})
    assert "Not judged: the rules in use (`config.data.taxonomy`) lack `spaceship`." in path.read_text()


def test_answers_follow_the_rules_that_are_asked_for_after_training(tmp_path):
    save(tmp_path / "b", ["glass", "tea_bags"])
    assert load_bundle(tmp_path / "b").bins == ("glass", "general")
    assert load_bundle(tmp_path / "b", "germany").bins == ("glass", "organic")
    predictor = load_predictor(None, taxonomy="england")
    assert predictor.bin_of("tea_bags") == "food" and predictor.bin_of("styrofoam_cups") == "general"
    shown = describe(predictor, 0.5)
    assert shown["region"] == "England" and shown["bins"]["food"]["ja"] == "food waste"
    assert next(c["de"] for c in shown["classes"] if c["name"] == "tea_bags") == "Teebeutel"
    with pytest.raises(ConfigError, match=r"--taxonomy: atlantis: no such taxonomy"):
        load_predictor(None, taxonomy="atlantis")


def test_bins_have_looks_also_where_a_bundle_was_stored_before_they_had(korea):
    content = korea.to_dict()
    assert parse_taxonomy(content, "here") == korea
    for b in content["bins"].values():
        del b["color"], b["sign"]
    stored = parse_taxonomy(content, "here")
    assert stored.bins["glass"].color == "" and with_looks(stored) == korea
    content["name"] = "Elsewhere"
    assert with_looks(parse_taxonomy(content, "here")).bins["glass"].sign == ""


@pytest.mark.parametrize(
    ("look", "message"),
    [({"color": "green"}, r"\[bins\.glass\] has color 'green'"), ({"sign": "botle"}, "bottle")],
)
def test_a_look_that_cannot_be_is_named(korea, look, message):
    content = korea.to_dict()
    content["bins"]["glass"] |= look
    with pytest.raises(ConfigError, match=message):
        parse_taxonomy(content, "here")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('bin = "dry"', 'bin = ["dry"]', "bin in .* must be the name"),
        ("sources = []", 'sources = [["x"]]', "sources in"),
    ],
)
def test_a_list_where_a_name_belongs_is_one_line(tmp_path, old, new, words):
    rules = '[bins.dry]\nen = "dry"\nadvice_en = "dry"\n[classes.can]\nbin = "dry"\nsources = []\n'
    path = tmp_path / "rules.toml"
    path.write_text(rules.replace(old, new))
    with pytest.raises(ConfigError, match=words) as error:
        load_taxonomy(path)
    assert "\n" not in str(error.value)
