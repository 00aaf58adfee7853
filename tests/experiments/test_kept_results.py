"""What experiments keep is what tables are made of, and holds no path of the measuring machine."""

import argparse
import json
from pathlib import Path

from experiments import leakage, readme
from experiments.record import measured
from wastejax import config as configs


def test_a_table_of_leaking_splits_is_made_of_what_is_measured_now(tmp_path, monkeypatch):
    runs = {split: tmp_path / split for split in leakage.SPLITS}
    for run in runs.values():
        run.mkdir()
        (run / "manifest.csv").write_text("file,group\na/1.png,0\na/1__copy_flipped.jpg,0\n")
        (run / "report.json").write_text('{"facts": {"hardware": "x"}}')
    scores = {kind: {"num_images": 9, "top1": 0.75, "ci95": [0.7, 0.8]} for kind in ("test", "unseen")}
    pairs = [{"seed": seed, "commands": {}} | dict.fromkeys(leakage.SPLITS, scores) for seed in (17, 18)]
    monkeypatch.setattr(leakage, "CHANGES", {"flipped": leakage.flipped})
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    for count, named in ((1, "plain random"), (2, "plain random, seed 18")):
        args = argparse.Namespace(data=Path("set"))
        leakage.write(tmp_path / "leakage.json", args, "0" * 40, runs, pairs[:count])
        table = readme.leakage()
        assert f"| {named} | 75.0 % (70.0 to 80.0) | 75.0 % (70.0 to 80.0) |\n" in table
        assert len(table.splitlines()) == 2 + 3 * count


def test_confusions_are_read_from_where_they_are_measured_now(tmp_path, monkeypatch):
    old = json.loads((readme.RESULTS / "composition.json").read_text())["models"]
    name, one = next(iter(old.items()))
    assert name in readme.composition()
    one["images_to_know_it_by"] = one.pop("images_for_confusions")
    now = {"models": {}, "without_probabilities": {"measured now": one}}
    (tmp_path / "composition_images.json").write_text(json.dumps(now))
    monkeypatch.setattr(readme, "RESULTS", tmp_path)
    assert f"| measured now | {one['images_to_know_it_by']} | even |" in readme.composition()


def test_a_kept_run_holds_no_path(tmp_path):
    config = configs.load_recipe("mobilevit_ir")
    paths = {
        "data.dir": "/mnt/of me/set",
        "data.source": "shards:/mnt/shards",
        "data.taxonomy": "/mnt/of me/own.toml",
        "data.corrections": "/mnt/corrections.csv",
        "data.split.manifest": "/mnt/manifest.csv",
        "distill.teacher": "/mnt/runs/teacher",
        "data.leave_out": ("shoes",),
    }
    configs.apply_overrides(config, configs.as_arguments(paths))
    settings = " ".join(f"'{argument}'" for argument in configs.settings(config))
    facts = {
        "command": f"python -m wastejax.main {settings} --workdir=/mnt/run",
        "settings": settings,
        "hardware": "x",
        "corrections": {"file": "/mnt/corrections.csv"},
        "notes": ["/mnt/a/m.csv: 3 of 4 images/s (/mnt/b) are of https://pypi.org/project/a"],
    }
    (tmp_path / "report.json").write_text(json.dumps({"facts": facts, "top1": 0.5}))
    (tmp_path / "config.json").write_text(configs.to_json(config))
    (tmp_path / "metrics.csv").write_text("epoch,loss\n1,0.5\n")
    kept = measured(tmp_path, "0" * 40)
    text = json.dumps(kept)
    assert "/mnt" not in text and "of me" not in text
    assert kept["config"]["data"]["source"] == "shards:shards" and kept["config"]["data"]["dir"] == "set"
    assert "'--config.data.taxonomy=own.toml'" in kept["facts"]["settings"]
    assert kept["command"].endswith(" --workdir=run")
    assert kept["facts"]["notes"] == ["m.csv: 3 of 4 images/s (b) are of https://pypi.org/project/a"]
    assert kept["config"]["data"]["leave_out"] == ["shoes"]
