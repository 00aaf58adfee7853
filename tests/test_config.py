import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from wastejax import config as configs
from wastejax import models
from wastejax.errors import ConfigError, UserError
from wastejax.keys import Key
from wastejax.training.claim import claim
from wastejax.training.train import resolve

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "configuration.md"


@pytest.fixture
def recipe():
    return configs.load_recipe("mobilevit_ir")


def test_every_recipe_loads_by_name_and_passes_its_own_checks():
    names = configs.recipe_names()
    assert {"mobilevit", "mobilevit_ir", "efficientnetv2", "efficientnetv2_eca"} <= set(names)
    for name in names:
        config = configs.load_recipe(name)
        configs.check(config)
        models.check(config.model, config.data.image_size)


def test_every_key_says_what_it_does_and_takes_its_own_default():
    common = configs.common()
    families = {f"model.{name}": key for keys in common.FAMILIES.values() for name, key in keys.items()}
    for name, key in (common.KEYS | families).items():
        assert len(key.text) > 10 and key.text.endswith("."), name
        key.check(name, key.default)
        if key.default is not None and key.default != () and key.kind is not str:
            text = ",".join(map(str, key.default)) if key.kind is tuple else str(key.default)
            assert key.parse(name, text) == key.default


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_one_new_entry_can_be_overridden_is_checked_and_documented_and_older_runs_resume(
    monkeypatch, tmp_path
):
    (tmp_path / "config.json").write_text(configs.to_json(configs.load_recipe("mobilevit_ir")))
    common = configs.common()
    monkeypatch.setitem(common.KEYS, "train.grace", Key(default=2, least=1, most=5, text="Epochs of grace."))
    config = configs.load_recipe("mobilevit_ir")
    assert claim(tmp_path, config)
    assert configs.apply_overrides(config, ["--config.train.grace=3"]) == {"train.grace"}
    assert config.train.grace == 3
    configs.check(config)
    with pytest.raises(UserError, match=r"another config: config\.train\.grace \(2 -> 3\)"):
        claim(tmp_path, config)
    with pytest.raises(ConfigError, match=r"config\.train\.grace: expects an integer such as 2, is 'a'"):
        configs.apply_overrides(config, ["--config.train.grace=a"])
    config.train.grace = 6
    with pytest.raises(ConfigError, match=r"config\.train\.grace: must be an integer >= 1 and <= 5, is 6"):
        configs.check(config)
    page = load(REFERENCE.parents[1] / "configuration.py").page()
    assert "| `train.grace` | `2` | an integer >= 1 and <= 5 | Epochs of grace. |" in page


def test_the_reference_is_made_from_the_keys():
    assert REFERENCE.read_text() == load(REFERENCE.parents[1] / "configuration.py").page(), "run make docs"


def test_a_run_resumes_with_another_value_where_that_changes_nothing(tmp_path):
    config = configs.load_recipe("mobilevit_ir")
    (tmp_path / "config.json").write_text(configs.to_json(config))
    configs.apply_overrides(
        config,
        [
            "--config.data.cache=False",
            "--config.data.workers=0",
            "--config.train.checkpoint_minutes=1",
            "--config.eval.batch_size=2",
        ],
    )
    assert claim(tmp_path, config)


def test_an_old_name_is_understood_in_overrides_recipes_and_stored_runs(recipe, tmp_path):
    assert configs.apply_overrides(recipe, ["--config.optim.backbone_lr=0.5"]) == {"optim.backbone_lr_factor"}
    assert recipe.optim.backbone_lr_factor == 0.5
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import mobilevit_ir\n\ndef get_config():\n"
        "    config = mobilevit_ir.get_config()\n    config.optim.backbone_lr = 0.5\n    return config\n"
    )
    mine = configs.load_recipe(str(path))
    assert configs.differences(mine, recipe) == []
    stored = json.loads(configs.to_json(recipe))
    stored["optim"]["backbone_lr"] = stored["optim"].pop("backbone_lr_factor")
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert claim(tmp_path, recipe)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.epochs", 1.5),
        ("train.epochs", True),
        ("optim.learning_rate", float("inf")),
        ("optim.learning_rate", float("nan")),
        ("data.mean", (0.5, 0.5)),
        ("data.mean", 0.5),
        ("data.leave_out", "shoes"),
        ("data.cache", 1),
        ("data.dir", 3),
        ("model.dropout", 1.0),
        ("data.split.hamming", 33),
        ("data.split.group", "no"),
        ("data.on_bad_image", "ignore"),
    ],
)
def test_a_value_that_a_recipe_set_wrongly_is_refused(key, value):
    with pytest.raises(ConfigError, match=f"^config.{key}: "):
        configs.common().KEYS[key].check(key, value)


def test_overrides_take_the_type_of_the_default(recipe):
    given = configs.apply_overrides(
        recipe,
        [
            "--config.train.epochs=3",
            "--config.optim.learning_rate=1",
            "--config.data.mean=(0,0.5,1)",
            "--config.data.split.ratios=[8,1,1]",
            "--config.data.cache=False",
            "--config.data.dir=123",
            "--config.model.depths=(1,1,1)",
        ],
    )
    assert recipe.train.epochs == 3 and isinstance(recipe.train.epochs, int)
    assert recipe.optim.learning_rate == 1.0 and isinstance(recipe.optim.learning_rate, float)
    assert recipe.data.mean == (0.0, 0.5, 1.0)
    assert recipe.data.split.ratios == (8, 1, 1)
    assert recipe.data.cache is False
    assert recipe.data.dir == "123"
    assert "data.split.ratios" in given and len(given) == 7


@pytest.mark.parametrize(
    ("argument", "key", "hint"),
    [
        ("--config.train.epoch=3", "config.train.epoch", "did you mean 'train.epochs'?"),
        ("--config.train.epochs=abc", "config.train.epochs", "expects an integer such as 100"),
        ("--config.train.epochs=3.5", "config.train.epochs", "expects an integer such as 100"),
        ("--config.train.epochs=True", "config.train.epochs", "expects an integer such as 100"),
        ("--config.train.epochs", "config.train.epochs", "needs a value"),
        ("--config.train=3", "config.train", "group of keys"),
        ("--config.data.cache=maybe", "config.data.cache", "expects True or False"),
        ("--config.data.mean=(1,2)", "config.data.mean", "expects 3 numbers such as 0.0,0.0,0.0"),
        ("--config.data.mean=0.5", "config.data.mean", "expects 3 numbers such as 0.0,0.0,0.0"),
    ],
)
def test_a_wrong_override_names_key_and_remedy(recipe, argument, key, hint):
    with pytest.raises(ConfigError) as error:
        configs.apply_overrides(recipe, [argument])
    assert str(error.value).startswith(f"{key}: ")
    assert hint in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("argument", "hint"),
    [
        ("--config.train.epochs=-3", ">= 1"),
        ("--config.data.augmentation=stronk", "did you mean 'strong'?"),
        ("--config.optim.learning_rate=0", "> 0"),
        ("--config.optim.name=adamww", "did you mean 'adamw'?"),
        ("--config.train.accumulate=7", "must divide"),
        ("--config.data.std=(0,1,1)", "> 0"),
        ("--config.data.source=kaggle", "tfds:NAME"),
        ("--config.data.split.ratios=(0,1,1)", "> 0"),
        ("--config.data.split.hamming=-1", ">= 0 and <= 32"),
        ("--config.data.split.group=hash", "did you mean 'phash'?"),
        ("--config.data.on_bad_image=skipp", "did you mean 'skip'?"),
        ("--config.data.progressive=8,64", ">= 16 and <= 2,048"),
        ("--config.data.progressive=8", ">= 16 and <= 2,048"),
    ],
)
def test_an_impossible_value_is_refused(recipe, argument, hint):
    configs.apply_overrides(recipe, [argument])
    with pytest.raises(ConfigError, match="config") as error:
        configs.check(recipe)
    assert hint in str(error.value)


def test_another_family_is_another_recipe(recipe):
    configs.apply_overrides(recipe, ["--config.model.name=efficientnetv2"])
    with pytest.raises(
        ConfigError, match=r"^config\.model\.name: .* than efficientnetv2; .*lite0, .*_glu"
    ) as error:
        configs.check(recipe)
    assert "mobilevit" not in str(error.value)


def test_a_recipe_without_a_key_says_what_to_begin_with(recipe):
    recipe.unlock()
    del recipe.train.accumulate
    with pytest.raises(ConfigError, match=r"^config\.train\.accumulate: the recipe lacks this key; .*common"):
        configs.check(recipe)


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'mobilevit_ir'"):
        configs.load_recipe("mobilevit_ri")
    with pytest.raises(UserError, match="did you mean 'mobilevit_ir'"):
        configs.load_recipe("nowhere/mobilevit_irr.py")


def test_json_round_trip_has_no_differences(recipe):
    again = configs.from_json(configs.to_json(recipe))
    assert configs.differences(recipe, again) == []
    again.train.epochs = 5
    again.unlock()
    del again.eval.bootstrap
    assert configs.differences(recipe, again) == [
        "config.eval.bootstrap (1000 -> absent)",
        "config.train.epochs (100 -> 5)",
    ]


def test_a_recipe_outside_the_repository_can_build_on_ours(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from configs import mobilevit\n\ndef get_config():\n"
        "    config = mobilevit.get_config()\n    config.train.epochs = 7\n    return config\n"
    )
    code = f"from wastejax.config import load_recipe; print(load_recipe({str(path)!r}).train.epochs)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "7", done.stderr


@pytest.mark.parametrize(
    "text", ["shoes,tea_bags", "('shoes', 'tea_bags')", '["shoes","tea_bags"]', " shoes , tea_bags,"]
)
def test_names_are_given_with_commas(recipe, text):
    assert configs.apply_overrides(recipe, [f"--config.data.leave_out={text}"]) == {"data.leave_out"}
    assert recipe.data.leave_out == ("shoes", "tea_bags")
    configs.apply_overrides(recipe, ["--config.data.leave_out="])
    assert recipe.data.leave_out == ()
    assert configs.from_json(configs.to_json(recipe)).data.leave_out == ()


@pytest.mark.parametrize(
    "names",
    [
        ("cans (steel)",),
        ("a, b",),
        ("(x)", "[y]"),
        ("(x)",),
        ("'q'", 'b"c'),
        (" s ",),
        ("5", "6"),
        ("glass",),
    ],
)
def test_names_of_any_spelling_survive_the_way_through_text(recipe, names):
    configs.apply_overrides(recipe, configs.as_arguments({"data.leave_out": names}))
    assert recipe.data.leave_out == names
    again = configs.load_recipe("mobilevit_ir")
    configs.apply_overrides(again, configs.settings(recipe))
    assert again.data.leave_out == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cans (steel)", ("cans (steel)",)),
        ("(a),(b)", ("(a)", "(b)")),
        ("(a, b)", ("a", "b")),
        ("['cups, paper']", ("cups, paper",)),
    ],
)
def test_only_a_pair_of_brackets_around_all_names_is_not_part_of_them(recipe, text, names):
    configs.apply_overrides(recipe, [f"--config.data.leave_out={text}"])
    assert recipe.data.leave_out == names


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        ("efficientnetv2_eca", "model.activation"),
        ("efficientnetv2_eca", "model.attention"),
        ("pyramidnet_asam", "model.stem"),
    ],
)
def test_none_is_a_value_where_the_key_says_so(recipe, key):
    config = configs.load_recipe(recipe)
    configs.apply_overrides(config, [f"--config.{key}=None"])
    configs.check(config)
    assert configs.flatten(config)[key] is None
    models.check(config.model, config.data.image_size)


def test_no_attention_is_not_the_papers_attention():
    config = configs.load_recipe("efficientnetv2_eca")
    configs.apply_overrides(config, ["--config.model.attention=none", "--config.model.activation=none"])
    assert config.model.attention == "none" and config.model.activation is None


def test_one_size_to_grow_from_is_a_list_of_one(recipe):
    with pytest.raises(ConfigError, match=r"config\.data\.progressive: expects integers, is 'a'"):
        configs.apply_overrides(recipe, ["--config.data.progressive=a"])
    configs.apply_overrides(recipe, ["--config.data.progressive=128"])
    assert recipe.data.progressive == (128,)
    for text, sizes in (("96,128", (96, 128)), ("()", ())):  # whatever the recipe had
        configs.apply_overrides(recipe, [f"--config.data.progressive={text}"])
        assert recipe.data.progressive == sizes


def test_a_size_that_the_network_cannot_take_names_the_key_that_asked_for_it():
    arguments = ["--config.data.image_size=128", "--config.data.progressive=100,128"]
    with pytest.raises(
        ConfigError, match=r"config\.data\.progressive: training at 100 px: .* multiple of 64"
    ):
        resolve("mobilevit", arguments, print)


def test_a_teacher_that_is_not_there_and_too_many_frozen_blocks_stop_before_any_work():
    for override, message in (
        ("distill.teacher=nowhere", r"config\.distill\.teacher: nowhere: no such run or bundle"),
        ("optim.frozen_blocks=99", r"config\.optim\.frozen_blocks: must be <= 18 for this network, is 99"),
    ):
        arguments = ["--config.model.size=lite0", "--config.init.weights=", f"--config.{override}"]
        with pytest.raises(ConfigError, match=message):
            resolve("efficientnet_lite0", arguments, lambda line: None)


def test_a_recipe_decides_whether_images_are_prepared_as_published_weights_want_them(monkeypatch):
    monkeypatch.setattr("wastejax.training.init.check_weights", lambda config, shapes: None)
    arguments = ["--config.data.dir=."]

    def prepared(recipe: str, *more: str) -> tuple[int, float]:
        data = resolve(recipe, [*arguments, *more], lambda line: None).data
        return data.image_size, data.crop

    assert prepared("efficientnet_lite2") == (256, 1.0)  # the recipe's own
    assert prepared("efficientnet_lite2", "--config.init.preprocessing=True") == (260, 0.875)  # the weights'
    both = "--config.init.preprocessing=True", "--config.data.crop=1.0"
    assert prepared("efficientnet_lite2", *both) == (260, 1.0)  # the command line wins


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def get_config(:", "line 1: is no Python"),
        ("def get_config():\n    pass", r"get_config\(\) returns nothing"),
        ("def get_config():\n    return {}", r"get_config\(\) returns a dict; return a ConfigDict"),
    ],
)
def test_a_recipe_that_is_none_is_one_line(tmp_path, text, words):
    path = tmp_path / "own.py"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as error:
        configs.load_recipe(str(path))
    assert "\n" not in str(error.value)


def test_an_empty_tuple_is_an_override():
    arguments = configs.as_arguments({"data.progressive": (), "data.leave_out": []})
    config = configs.load_recipe("efficientnet_lite2")
    assert config.data.progressive
    configs.apply_overrides(config, arguments)
    assert config.data.progressive == () and config.data.leave_out == ()
