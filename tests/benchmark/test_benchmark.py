"""Times that can be believed: counts are checked, drift cancels out, what cannot run is named."""

import argparse
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wastejax.benchmark import data, networks, peer_worker, peers, report, timing
from wastejax.benchmark.networks import Case
from wastejax.cli import benchmark as command
from wastejax.errors import ConfigError, UserError

pytestmark = pytest.mark.slow  # minutes on two cores


def test_runners_take_turns_in_alternating_order(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0)
    turns = []

    def runner(name, seconds):
        def run(calls):
            turns.append((name, calls))
            return [seconds] * calls

        return run

    times = timing.interleave({"a": runner("a", 0.01), "b": runner("b", 1.0)}, rounds=3, seconds=0.05)
    assert [len(r) for r in times["a"]] == [5, 5, 5]  # as many as fit into a turn
    assert [len(r) for r in times["b"]] == [1, 1, 1]  # at least one
    warm_up, a, b = 4, [("a", 1), ("a", 5)], [("b", 1)]
    assert turns[warm_up:] == [*a, *b, *b, *a, *a, *b]


@pytest.mark.parametrize("wrong", [-1, 1])
def test_a_runner_that_miscounts_is_found_out(wrong):
    with pytest.raises(RuntimeError, match=r"cheat: asked for \d+ measured calls, got \d+"):
        timing.interleave({"cheat": lambda calls: [0.1] * (calls + wrong)}, rounds=1, seconds=1)


def test_every_call_is_made_and_timed():
    made = []
    times = peer_worker.seconds_of(lambda: made.append(len(made)), 7)
    assert len(times) == len(made) == 7 and min(times) >= 0


def test_a_ratio_survives_a_machine_that_slows_down():
    speed = np.linspace(1, 5, 12)  # the machine becomes five times slower while it is measured
    a, b = ([[s * t, 1.1 * s * t, 0.9 * s * t] for s in speed] for t in (0.3, 0.2))
    assert timing.ratio(a, b) == pytest.approx((1.5, 1.5, 1.5))
    one_after_the_other = statistics.median(np.ravel(a[:6])) / statistics.median(np.ravel(b[6:]))
    assert one_after_the_other < 1  # what would have been said without taking turns


def test_the_interval_is_as_wide_as_the_rounds_disagree():
    rng = np.random.default_rng(1)
    true, covered = 0.8, 0
    for _ in range(200):
        base = rng.lognormal(0, 0.05, 15)
        times = true * base * rng.lognormal(0, 0.1, 15)
        found = timing.ratio(times[:, None], base[:, None], resamples=500)
        covered += found.low <= true <= found.high
    assert 180 <= covered <= 200  # 95 % of 200, and what 15 rounds can do


def test_latency_is_of_all_calls():
    assert timing.latency([[0.001, 0.002], [0.003, 0.004, 0.005]]) == pytest.approx(
        {"p50": 3.0, "p90": 4.6, "p99": 4.96}
    )


A = Case("a", 64, 2)
ABOUT = {"device": "cpu", "parameters": 5}


def test_the_faster_memory_format_counts_and_ratios_name_their_sides():
    timm, b = Case("a", 64, 2, runtime="timm"), Case("b", 64, 2)
    times = {
        (A, ""): [[0.2], [0.2]],
        (timm, "contiguous"): [[0.8], [0.8]],
        (timm, "channels_last"): [[0.4], [0.4]],
        (b, ""): [[0.1], [0.1]],
    }
    rows = report.rows(times, {A: ABOUT, timm: ABOUT, b: ABOUT})
    assert [(r["model"], r["runtime"], r["form"]) for r in rows["cases"]] == [
        ("a", "jax", ""),
        ("a", "timm", "channels_last"),
        ("b", "jax", ""),
    ]
    assert rows["cases"][0]["images_per_second"] == pytest.approx(10)
    found = {(r["of"]["model"], r["to"]["runtime"], r["to"]["model"]): r["value"] for r in rows["ratios"]}
    assert found == pytest.approx({("a", "timm", "a"): 0.5, ("b", "jax", "a"): 0.5})


def test_times_on_different_devices_are_not_compared():
    timm = Case("a", 64, 2, runtime="timm")
    rows = report.rows({(A, ""): [[0.2]], (timm, ""): [[0.4]]}, {A: {"device": "gpu"}, timm: ABOUT})
    (row,) = rows["ratios"]
    assert row["not_comparable"] == "one on gpu, the other on cpu" and "value" not in row
    lines = []
    report.show({"cases": [], "ratios": [row], "missing": []}, lines.append)
    assert "not comparable" in lines[-1]


WORKER = """
import json, sys
case = json.loads(sys.argv[1])
print(json.dumps({"forms": ["x"], "about": {"device": "cpu"}}), flush=True)
for line in sys.stdin:
    form, calls = json.loads(line)
    if calls == 13:
        sys.exit("out of luck")
    print(json.dumps({"seconds": [case["threads"] / 100] * calls, "peak_mib": None}), flush=True)
"""


def test_a_peer_answers_from_its_own_process(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    monkeypatch.setattr(peers, "WORKER", script)
    with peers.Peer(replace(A, runtime="timm"), threads=3) as peer:
        assert peer.forms == ["x"]
        assert peer.run("x", 2) == [0.03, 0.03]
        with pytest.raises(peers.PeerError, match="ended with code 1: out of luck"):
            peer.run("x", 13)
    assert peer._process.poll() is not None


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (Case("mobilevit_s", 64, 1, runtime="timm"), "is not installed"),
        (Case("mobilevit_s", 64, 1, runtime="openvino"), "is not installed"),
        (Case("mobilevit_s", 64, 1, mode="train", runtime="onnx"), "float32 inference only"),
    ],
)
def test_a_peer_that_cannot_run_says_why(tmp_path, case, why):
    # As on a machine without them: a module of that name that is not there.
    for name in ("timm", "torch", "openvino"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('gone', name={name!r})")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    with pytest.raises(peers.PeerError, match=why):
        peers.Peer(case, threads=1, python=str(python))


def arguments(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser.parse_args(given)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (["--models=mobilevit_z"], "did you mean"),
        (["--models=mobilevit_s+mixer=atention"], "config.model.mixer"),
        (["--models=mobilevit_s+mixer"], "is not key=value"),
        (["--mode=traim"], "did you mean 'train'?"),
        (["--against=tim"], "did you mean 'timm'?"),
        (["--batch-sizes=0"], "--batch-sizes=0: give positive whole numbers"),
        (["--models=mobilevit_s", "--sizes=100"], "config.data.image_size"),
        (["--reports=a", "--out=b"], "is not MODEL=report.json"),
        (["--threads=1000"], "--threads=1000: this process has"),
    ],
)
def test_wrong_arguments(given, hint):
    with pytest.raises(UserError, match=hint.replace("?", r"\?")):
        command.run(arguments(*given), lambda line: None)


def test_keys_of_a_model_can_be_changed():
    config = networks.config_of("mobilevit_s+mixer=inverted_residual+expansion=4")
    assert config == {"name": "mobilevit", "size": "s", "mixer": "inverted_residual", "expansion": 4}


def test_a_whole_benchmark(tmp_path):
    scores = tmp_path / "report.json"
    scores.write_text('{"top1": 0.8}')
    given = [
        "--models=efficientnetv2_tiny,efficientnetv2_tiny_eca",
        "--sizes=32,64",
        "--batch-sizes=2",
        "--against=stock,onnx",
        "--rounds=2",
        "--seconds=0.01",
        f"--reports=efficientnetv2_tiny={scores},efficientnetv2_tiny_eca={scores}",
        f"--out={tmp_path / 'out'}",
        "--peer-python=/bin/false",
    ]
    lines: list[str] = []
    command.run(arguments(*given), lines.append)
    result = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert len(result["cases"]) == 2 * 2 * 2
    for row in result["cases"]:
        assert row["rounds"] == len(row["round_ms"]) == 2 and row["calls"] >= 2
        assert 0 < row["ms"]["p50"] <= row["ms"]["p99"]
        assert row["parameters"] > 1000 and row["weights_mib"] >= 4 * row["parameters"] / 2**20
    small, large = (
        next(r for r in result["cases"] if r["size"] == size and r["runtime"] == "jax") for size in (32, 64)
    )
    assert large["gmacs"] == pytest.approx(4 * small["gmacs"], rel=0.05)
    assert {row["runtime"] for row in result["missing"]} == {"onnx"} and len(result["missing"]) == 4
    assert any("not measured: efficientnetv2_tiny onnx" in line for line in lines)
    names = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert names == {"latency_by_size_infer_float32_b2.png", "accuracy_infer_float32_b2.png"}


def test_the_data_pipeline(tmp_path, monkeypatch):
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    for name in ("a", "b"):
        (tmp_path / "from" / name).mkdir(parents=True)
        Image.new("RGB", (70, 50), (200, 10, 10)).save(tmp_path / "from" / name / "1.png")
    from wastejax.data.sources import open_folder

    folder: Path = tmp_path / "png"
    data.write_images(open_folder(tmp_path / "from"), folder, "png", {}, count=64)
    assert len(list(folder.rglob("*.png"))) == 64
    settings = timing.Settings(1, rounds=1, seconds=0.01, peer_python="/bin/false")
    rows, missing = data.measure_pipeline(folder, settings, lambda line: None)
    assert [row["what"] for row in rows] == ["files", "files, 1 processes", "decoded cache"]
    assert rows[0]["value"] == 1 and all(row["images_per_second"] > 0 for row in rows)
    assert missing == [{"format": "png", "what": "torchvision", "why": "ended with code 1: without a word"}]

    cases = data.trained(["efficientnetv2_tiny", "mobilevit_xxs_ir"], [32, 64], [8])
    assert [(case.model, case.size, case.batch) for case in cases] == [
        ("efficientnetv2_tiny", 32, 8),
        ("efficientnetv2_tiny", 64, 8),
        ("mobilevit_xxs_ir", 32, 8),
        ("mobilevit_xxs_ir", 64, 8),
    ]
    fed = data.measure_feeding(cases[0], folder, settings, lambda line: None, (2, 0.0))
    assert 0 < fed["low"] <= fed["rate"] <= fed["high"]
    with pytest.raises(ConfigError, match="multiple of 64"):
        data.trained(["mobilevit_xxs"], [100], [8])
