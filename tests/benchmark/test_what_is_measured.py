"""What `wastejax benchmark` is asked for is measured, or refused before anything is."""

import argparse
import json
import os

import pytest

from wastejax.benchmark import data, report, run
from wastejax.cli import benchmark as command
from wastejax.errors import UserError


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> None:
    """Keeps what the command sets for jax away from later tests."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def measure(*given: str) -> list[str]:
    """Returns what the command says."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    lines: list[str] = []
    command.run(parser.parse_args(given), lines.append)
    return lines


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("--models=mobilevit_s+dtype=bfloat16", "leave dtype out; --dtypes=float32,bfloat16 measures both"),
        ("--models=mobilevit_s+lowering=direct", "leave lowering out; --against=stock measures"),
        ("--peer-python=no-such-python", "is no program; give the path of a Python"),
    ],
)
def test_what_would_be_ignored_or_cannot_run_is_refused(given, hint):
    with pytest.raises(UserError, match=f"^{given.replace('+', '[+]')}: {hint}"):
        measure(given)


@pytest.fixture
def scores(tmp_path) -> str:
    """The report of a run."""
    file = tmp_path / "report=1.json"
    file.write_text(json.dumps({"test": {"top1": 0.8}}))
    return str(file)


def test_reports_name_networks_as_models_does(scores):
    models = ["mobilevit_s", "mobilevit_s+expansion=4", "mobilevit_s+expansion=4+dropout=0.1"]
    for model in models:
        assert report.load_scores(f"{model}={scores}", models) == {model: 0.8}
    with pytest.raises(UserError, match=r"begins with none of --models; did you mean 'mobilevit_s'\?$"):
        report.load_scores(f"mobilevit_x={scores}", ["mobilevit_s", "swin_t"])
    with pytest.raises(UserError, match=r"'mobilevit_s' is not MODEL=report\.json$"):
        report.load_scores("mobilevit_s", ["mobilevit_s"])


def test_reports_of_too_few_networks_for_a_figure_are_told(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "benchmark_networks", lambda groups, settings, say: {"cases": []})
    given = ["--models=mobilevit_s,mobilevit_xs", f"--out={tmp_path / 'out'}"]
    one, two = f"--reports=mobilevit_s={scores}", f",mobilevit_xs={scores}"
    assert measure(*given, one)[0].startswith("note: no figure of latency against accuracy: --reports names")
    assert not any("note" in line for line in measure(*given, one + two))


@pytest.mark.parametrize(
    ("given", "sizes"), [([], [32]), (["--batch-sizes=8,64"], [8, 64]), (["--batch-sizes=1,32"], [1, 32])]
)
def test_every_batch_size_is_trained_with(monkeypatch, given, sizes):
    trained = []
    monkeypatch.setattr(data, "benchmark_data", lambda name, cases, settings, say: trained.extend(cases))
    measure("--data=drawn", "--models=efficientnetv2_tiny", "--sizes=32", *given)
    assert [case.batch for case in trained] == sizes


def test_networks_are_measured_at_one_image_and_at_many(monkeypatch):
    asked = []
    monkeypatch.setattr(run, "benchmark_networks", lambda groups, settings, say: asked.extend(groups))
    measure("--models=efficientnetv2_tiny")
    assert [case.batch for group in asked for case in group] == [1, 32]
