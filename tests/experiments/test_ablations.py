"""Every run of the ablations is a recipe that exists, with keys that exist, at both sizes."""

import pytest

from experiments import ablation_tables
from experiments.ablations import MORE_SEEDS, NETWORKS, RUNS, SEED, SETS, TABLES, commands, flags, seeds_of
from wastejax import config as configs
from wastejax import models
from wastejax.benchmark.networks import config_of


def resolved(run: str, small: bool, data_set: str = "trashnet"):
    recipe, *overrides = flags(run, SEED, data_set, small)
    config = configs.load_recipe(recipe.removeprefix("--config="))
    configs.apply_overrides(config, overrides)
    configs.check(config)
    for size in (config.data.image_size, *config.data.progressive):
        models.check(config.model, size)
    return config


@pytest.mark.parametrize("data_set", SETS)
@pytest.mark.parametrize("small", [True, False])
def test_every_run_can_be_configured(small, data_set):
    for run in RUNS:
        config = resolved(run, small, data_set)
        assert not small or config.data.image_size == (128 if data_set == "trashnet_128" else 64)


def test_each_step_changes_what_its_row_says():
    step = {run: configs.flatten(resolved(run, small=True)) for run in RUNS}

    def changed(before: str, after: str) -> set[str]:
        return {key for key in step[before] if step[before][key] != step[after][key]}

    assert changed("efficientnet_plain", "efficientnet_augmented") == {"data.augmentation"}
    assert changed("efficientnet_augmented", "efficientnet_eca") == {
        "model.attention",
        "model.fused_attention",
        "model.activation",
    }
    assert step["efficientnet_augmented"]["model.activation"] is None  # the paper's, which is
    assert step["efficientnet_eca"]["model.activation"] == "silu"
    assert changed("efficientnet_eca", "efficientnet_eca_leaky") == {"model.activation"}
    assert changed("mobilevit_techniques", "mobilevit_strong") == {"data.augmentation"}
    assert changed("mobilevit_strong", "mobilevit_ir") == {"model.mixer"}
    assert changed("mobilevit_ir", "ir_basic") == {"data.augmentation"}
    assert changed("mobilevit_techniques", "ir_basic") == {"model.mixer"}
    assert changed("ir_basic", "ir_taught") == {"distill.teacher"}
    assert changed("mobilevit_ir", "ir_progressive") == {"data.progressive"}


def test_networks_timed_are_those_trained():
    for run, network in NETWORKS.items():
        trained = models.complete(resolved(run, small=True).model)
        ignored = ("dropout", "drop_path")  # of no consequence for the time of an answer
        timed = models.complete(config_of(network))
        assert {k: v for k, v in trained.items() if k not in ignored} == {
            k: v for k, v in timed.items() if k not in ignored
        }


def test_tables_name_runs_that_exist_and_the_first_seed_comes_first():
    assert {run for table in TABLES.values() for run in table} <= RUNS.keys() & ablation_tables.ROWS.keys()
    assert MORE_SEEDS.keys() <= RUNS.keys()
    wanted = seeds_of(["mobilevit_strong", "mobilevit_ir@19"])
    assert wanted == [
        ("mobilevit_ir", 19),
        ("mobilevit_strong", 17),
        ("mobilevit_strong", 18),
        ("mobilevit_strong", 19),
    ]


@pytest.mark.parametrize(
    ("wanted", "runs"),
    [
        (["ir_taught"], ["pretrained_17", "ir_taught_17"]),
        (["ir_taught@18", "pretrained"], ["pretrained_17", "pretrained_18", "ir_taught_18"]),
        (["ir_taught", "pretrained"], ["pretrained_17", "ir_taught_17"]),
    ],
)
def test_the_commands_of_the_full_size_train_a_teacher_before_its_pupil(wanted, runs):
    lines = commands(wanted, "trashnet")
    assert [line.partition("--workdir=runs/")[2] for line in lines] == runs
    assert f"--config.distill.teacher=runs/{runs[-2]} " in lines[-1]
