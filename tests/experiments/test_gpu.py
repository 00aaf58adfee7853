"""The measurement for a GPU in miniature, on a CPU: every row is written, a stop loses none, the page says all."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments import gpu, gpu_agreement, gpu_tables
from wastejax.benchmark.networks import config_of
from wastejax.config import load_recipe
from wastejax.models import complete

CONFIGS = Path(gpu.__file__).resolve().parents[1] / "configs"


def test_every_recipe_is_measured_as_the_network_that_it_trains():
    files = {path.stem for path in CONFIGS.glob("*.py")} - {"__init__", "common"}
    assert gpu.RECIPES.keys() == files
    for recipe, model in gpu.RECIPES.items():
        wanted = {k: v for k, v in load_recipe(recipe).model.to_dict().items() if v is not None}
        found, names = complete(config_of(model)), complete(wanted)
        free = {"drop_path", "dropout", "dtype"}
        assert {k: v for k, v in found.items() if k not in free} == {
            k: v for k, v in names.items() if k not in free
        }


def test_the_most_important_rows_come_first():
    names = [name for name, _ in gpu.rows(gpu.whole("python"), False, print)]
    assert names[0] == "agreement" and names[1].startswith("study") and len(set(names)) == len(names)
    kinds = [name.split()[0] for name in names]
    assert list(dict.fromkeys(kinds)) == ["agreement", "study", "recipes", "train", "fed", "memory"]
    assert sum(kind == "recipes" for kind in kinds) == 6  # three batches in two dtypes


def test_a_row_is_written_when_it_is_measured_and_not_measured_again(tmp_path, monkeypatch):
    options = ["--tiny", "--rows=recipes", f"--out={tmp_path}", "--commit=abc", "--peer-python=/bin/false"]
    gpu.main(options)
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert kept["about"]["commit"] == "abc" and kept["about"]["device"]
    row = kept["rows"]["recipes float32 batch 2"]
    assert [case["model"] for case in row["cases"]] == ["efficientnetv2_tiny_eca"]
    page = (tmp_path / "gpu.md").read_text()
    assert "| `efficientnetv2_tiny_eca` | 32 | " in page and "float32, batch 2, ms" in page
    monkeypatch.setattr(gpu, "measure", None)  # would fail
    gpu.main(options)
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"] == kept["rows"]


def test_nothing_begins_when_the_minutes_are_nearly_over(tmp_path, monkeypatch, capsys):
    clock = itertools.chain([0.0, 0.0], itertools.repeat(470.0))  # of 480 seconds
    monkeypatch.setattr(gpu, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    gpu.main(["--tiny", "--rows=recipes", f"--out={tmp_path}", "--commit=abc"])
    assert "stopped before the minutes are over" in capsys.readouterr().out
    assert not (tmp_path / "gpu.json").exists()


def test_it_stops_by_itself_and_what_was_written_stays(tmp_path):
    code = f"""
import threading, time
from pathlib import Path
from experiments import gpu
about = {{"device": "x", "commit": "y", "notes": [], "command": "c", "backend": "b", "hardware": "h",
         "date": "2026-01-01", "versions": {{"jax": "0"}}, "compiled_at_once": 1}}
kept = gpu.Kept(Path({str(tmp_path)!r}), about)
kept.add("memory a", {{"jax": 2.0, "timm": 4.0, "batch": 1}})
threading.Timer(0.1, kept.stop, ["over"]).start()
time.sleep(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0 and "stopped: over" in done.stdout
    assert json.loads((tmp_path / "gpu.json").read_text())["rows"]["memory a"]["jax"] == 2.0
    assert "| `a` | 1 | 2 | 4 | 0.50 |" in (tmp_path / "gpu.md").read_text()


def test_the_page_names_what_is_beyond_its_limit():
    row = {"model": "m", "what": "logits, float32", "error": 0.5, "limit": 1e-4, "within": False}
    text = "\n".join(gpu_tables.agreement({"agreement": {"devices": ["a", "b"], "rows": [row]}}))
    assert "| m | logits, float32 | 5.0e-01 | 0.0001 | **no** |" in text


def test_a_network_that_fails_leaves_the_others_to_be_measured(monkeypatch):
    plan = gpu.tiny("/bin/false")
    said = []

    def measure(cases, settings, say, together=1):
        if any(case.model == "b" for case in cases):
            raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand more")
        return {"cases": [case.model for case in cases], "ratios": [], "missing": []}

    monkeypatch.setattr(gpu, "measure", measure)
    found = gpu.measure_apart([gpu.Case("a", 8, 1), gpu.Case("b", 8, 1)], plan, said.append)
    assert found["cases"] == ["a"] and found["missing"][0]["why"] == "RESOURCE_EXHAUSTED: out of memory"


def test_a_row_that_fails_is_named_and_the_next_one_measured(tmp_path, monkeypatch):
    def fails():
        raise RuntimeError("no such card\nand more")

    made = [("memory a", fails), ("memory b", lambda: {"jax": 2.0, "timm": None, "batch": 1})]
    monkeypatch.setattr(gpu, "rows", lambda *_: made)
    gpu.main(["--tiny", f"--out={tmp_path}", "--commit=abc"])
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert list(kept["rows"]) == ["memory b"] and kept["failed"] == {"memory a": "no such card"}
    assert "Not measured: memory a: no such card." in (tmp_path / "gpu.md").read_text()


@pytest.mark.slow
def test_all_of_it_in_miniature(tmp_path):
    # When its minutes are over it ends the process, which here is the tests'.
    gpu.main(["--tiny", f"--out={tmp_path}", "--peer-python=/bin/false", "--commit=abc", "--minutes=120"])
    kept = json.loads((tmp_path / "gpu.json").read_text())
    names = [name for name, _ in gpu.rows(gpu.tiny("/bin/false"), True, print)]
    assert list(kept["rows"]) == names
    found = kept["rows"]["agreement"]["rows"]
    assert {row["what"] for row in found} == gpu_agreement.LIMITS.keys()
    assert [row for row in found if not row["within"]] == []
    page = (tmp_path / "gpu.md").read_text()
    titles = (
        "Card and CPU agree",
        "The study's steps",
        "Every recipe",
        "Training steps",
        "Training fed",
        "Memory",
    )
    assert all(f"## {title}" in page for title in titles) and "Not measured: " in page
