"""PyTorch as a peer, by a stand-in for it: what is compiled, what is said where that cannot be, and memory."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from wastejax.benchmark import data, peers, report, run, timing
from wastejax.benchmark.networks import Case
from wastejax.benchmark.timing import Settings

# What `torch_forms` asks of PyTorch and timm. A model takes 2 ms in channels_last, 6 ms in the other format, and
# compiled a quarter of that after a first call of 50 ms.
TORCH = """
import contextlib, os, time
__version__ = "0"
contiguous_format, channels_last, float32 = "contiguous", "channels_last", "float32"
inference_mode = contextlib.nullcontext
def set_num_threads(count): pass
class cuda:
    is_available = staticmethod(lambda: False)
class backends:
    class cuda:
        class matmul: pass
    class cudnn: pass
class Tensor:
    is_cuda = False
    def to(self, *_, **__): return self
def randn(*shape): return Tensor()
def compile(model):
    if os.environ.get("BROKEN"):
        raise RuntimeError("no such thing\\nand more")
    compiled = type(model)()
    compiled.ms, compiled.first = model.ms / 4, 50
    return compiled
class Model:
    ms, first = 6, 0
    def to(self, device, dtype, memory_format):
        self.ms = 2 if memory_format == "channels_last" else 6
        return self
    def eval(self): return self
    def __call__(self, images):
        time.sleep((self.first or self.ms) / 1e3)
        self.first = 0
"""
TIMM = "import torch\n__version__ = '0'\ndef create_model(*_, **__): return torch.Model()\n"
CASE = Case("mobilevit_s", 64, 1, runtime="timm")


@pytest.fixture
def python(tmp_path) -> str:
    """A Python that has the stand-ins."""
    (tmp_path / "torch.py").write_text(TORCH)
    (tmp_path / "timm.py").write_text(TIMM)
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    wrapper = tmp_path / "python"
    wrapper.write_text(
        f'#!/bin/sh\nPATH="{tmp_path}:$PATH" PYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n'
    )
    wrapper.chmod(0o755)
    return str(wrapper)


def test_the_faster_memory_format_is_compiled_too_and_its_first_call_is_told_apart(python):
    with peers.Peer(CASE, 1, python) as peer:
        assert peer.forms == ["contiguous", "channels_last", "channels_last, compiled"]
        assert 0.05 <= peer.about["compile_s"] < 1 and peer.without == {}
        times = {(CASE, form): [peer.run(form, 3)] for form in peer.forms}
    ours = Case("mobilevit_s", 64, 1)
    found = report.rows({(ours, ""): [[1.0]], **times}, {ours: {"device": "cpu"}, CASE: peer.about})
    (row,) = (row for row in found["cases"] if row["runtime"] == "timm")
    assert row["form"] == "channels_last, compiled"  # the best of all counts
    assert list(row["slower_forms_ms"]) == ["contiguous", "channels_last"]
    lines: list[str] = []
    report.show({"cases": [row], "ratios": [], "missing": []}, lines.append)
    assert f"{row['compile_s']:.1f}" in lines[1]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("CXX", "no-such-compiler", "torch.compile: needs a C++ compiler, and there is no no-such-compiler"),
        ("BROKEN", "1", "torch.compile: no such thing"),
    ],
)
def test_what_cannot_be_compiled_is_named_in_one_line_and_the_rest_is_timed(
    python, monkeypatch, name, value, why
):
    monkeypatch.setenv(name, value)
    with peers.Peer(CASE, 1, python) as peer:
        assert peer.forms == ["contiguous", "channels_last"]
        (found,) = peer.without.values()
    assert found.startswith(why) and "\n" not in found
    row = report.key(CASE) | {"form": "compiled", "why": found}
    lines: list[str] = []
    report.show({"cases": [], "ratios": [], "missing": [row]}, lines.append)
    assert lines[-1] == f"  not measured: mobilevit_s timm compiled, infer: {found}"


HUNGRY = """
import json, sys
sys.path.insert(0, {folder!r})
from peer_worker import serve
def forms(case):
    held = bytearray(8 << 20)
    def call():
        block = bytearray(case["batch"] << 20)
        block[::4096] = b"x" * len(block[::4096])
    return {{case["form"]: call}}, {{"device": "cpu"}}, {{}}
serve(forms)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts this")
def test_the_peak_is_of_the_calls_alone(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(HUNGRY.format(folder=str(peers.WORKER.parent)))
    monkeypatch.setattr(peers, "WORKER", script)
    few, many = (
        run.peak_of(
            report.key(Case("x", 8, batch, mode="train", runtime="timm")) | {"form": "f"}, Settings(1)
        )
        for batch in (20, 120)
    )
    assert few is not None and many is not None
    assert many - few == pytest.approx(100, abs=10)


@pytest.mark.slow
def test_our_own_network_tells_its_memory():
    row = report.key(Case("efficientnetv2_tiny", 32, 4, mode="train")) | {"form": ""}
    found = run.peak_of(row, Settings(1))
    assert found is not None and 50 < found < 4000


DYING = """
import json, os, sys
print(json.dumps({{"forms": ["a", "b"], "about": {{"device": "cpu"}}}}), flush=True)
for asked, line in enumerate(sys.stdin):
    if asked == {asked}:
        {how}
        sys.exit("out of memory")
    _, calls = json.loads(line)
    print(json.dumps({{"seconds": [0.5] * calls, "peak_mib": None}}), flush=True)
"""
# At the first warm-up, in a later round, and in the middle of an answer.
DEATHS = [(0, "pass"), (6, "pass"), (1, "print('[', end='', flush=True)")]


@pytest.fixture(params=DEATHS, ids=str)
def dying(request, tmp_path, monkeypatch) -> None:
    """Makes peers die while they are timed."""
    asked, how = request.param
    script = tmp_path / "worker.py"
    script.write_text(DYING.format(asked=asked, how=how))
    monkeypatch.setattr(peers, "WORKER", script)
    monkeypatch.setattr(timing, "PAUSE", 0)


WHY = "ended with code 1: out of memory"


def test_a_peer_that_dies_while_it_is_timed_is_not_measured_and_the_rest_is(dying, monkeypatch):
    runner = lambda calls: [0.5] * calls  # noqa: E731
    monkeypatch.setattr(run.networks, "prepare", lambda case: (runner, {"device": "cpu"}))
    cases = [Case("a", 64, 1), Case("b", 64, 1), Case("a", 64, 1, runtime="timm")]
    found = run.measure(cases, Settings(1, rounds=3, seconds=0.1), lambda line: None)
    assert [(row["model"], row["runtime"], row["rounds"]) for row in found["cases"]] == [
        ("a", "jax", 3),
        ("b", "jax", 3),
    ]
    missing = {(row["runtime"], row["form"], row["why"]) for row in found["missing"]}
    assert missing == {("timm", "a", WHY), ("timm", "b", WHY)}
    assert [(row["of"]["model"], row["value"]) for row in found["ratios"]] == [("b", 1.0)]


def test_torchvision_that_dies_while_it_is_timed_is_not_measured_and_the_rest_is(
    dying, tmp_path, monkeypatch
):
    for name in ("a", "b"):
        (tmp_path / "png" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "png" / name / "1.png")
    monkeypatch.setattr(data, "BATCH", 2)
    monkeypatch.setattr(data, "seconds_of", lambda call, calls: [0.5] * calls)
    lines: list[str] = []
    rows, missing = data.measure_pipeline(tmp_path / "png", Settings(1, rounds=3, seconds=0.1), lines.append)
    assert [row["what"] for row in rows] == ["files", "files, 1 processes", "decoded cache"]
    whys = {row["what"]: row["why"] for row in missing}
    assert whys == {"torchvision, a": WHY, "torchvision, b": WHY}
    assert f"  not measured: torchvision, b: {WHY}" in lines


def test_what_is_asked_of_a_dead_peer_is_answered_with_why_it_died(tmp_path, monkeypatch):
    script = tmp_path / "worker.py"
    script.write_text(DYING.format(asked=0, how="pass"))
    monkeypatch.setattr(peers, "WORKER", script)
    with peers.Peer(CASE, 1) as peer:
        for _ in range(2):
            with pytest.raises(peers.PeerError, match=WHY):
                peer.run("a", 1)
