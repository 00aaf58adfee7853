"""A run from shards: trains, resumes, is scored and scored again like one from the folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import draw_images

ROOT = Path(__file__).resolve().parents[2]
TINY = [
    "--config=efficientnetv2",
    "--config.model.size=tiny",
    "--config.data.image_size=32",
    "--config.train.batch_size=8",
    "--config.optim.warmup_epochs=0",
    "--config.data.workers=0",
]


def wastejax(*arguments: str, cwd: Path) -> str:
    environment = os.environ | {"WASTEJAX_CACHE": str(cwd / "cache"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "wastejax.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_run_from_shards_is_that_from_the_folder(tmp_path):
    draw_images(tmp_path / "data", 40)
    wastejax("shard", "--data=data", "--out=shards", "--shard-size=16", cwd=tmp_path)
    for name, source in (
        ("folder", "--config.data.dir=data"),
        ("shards", "--config.data.source=shards:shards"),
    ):
        run = [*TINY, source, f"--workdir={name}", "--config.train.epochs=2"]
        wastejax(*run, cwd=tmp_path)
        assert "this run is finished" in wastejax(*run, cwd=tmp_path)
    scores = [json.loads((tmp_path / name / "report.json").read_text()) for name in ("folder", "shards")]
    for score in scores:
        del score["facts"]
    assert scores[0] == scores[1]
    manifests = [(tmp_path / name / "manifest.csv").read_text().splitlines() for name in ("folder", "shards")]
    assert [line.split(",")[:5] for line in manifests[0]] == [line.split(",")[:5] for line in manifests[1]]
    said = wastejax("eval", "--model=shards", "--out=scores.json", cwd=tmp_path)
    # Eight images a class, 3 : 1 : 1, are dealt 5, 2 and 1.
    assert "5 images of 5 classes" in said
    again = json.loads((tmp_path / "scores.json").read_text())
    for key in ("num_images", "top1", "loss", "confusion", "per_class"):
        assert again[key] == scores[1][key], key
