"""`predict --out`: any number of images in parts, of which a kill, a change or a bad shard loses none."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from PIL import Image

from wastejax.cli.many import predict as predict_parts
from wastejax.data.collections.parts import images, parts_of
from wastejax.data.formats.walk import walk
from wastejax.data.taxonomy import load_taxonomy
from wastejax.data.transforms import Preprocessing
from wastejax.deployment import predictor as predictors
from wastejax.deployment.answers import answers
from wastejax.deployment.many import job
from wastejax.deployment.many.job import ABOUT, Asked
from wastejax.deployment.many.job import predict_parts as answer_parts
from wastejax.errors import UserError
from wastejax.main import parser
from wastejax.runtime import ray_cluster

CLASSES = ("aluminum_soda_cans", "steel_food_cans", "paper_cups")  # of which two share a bin


def mean_colors(pause: float = 0.0) -> predictors.Predictor:
    """A model whose probabilities are the shares of red, green and blue."""

    def probabilities(squares: np.ndarray) -> np.ndarray:
        time.sleep(pause)
        sums = squares.astype(np.float64).sum((1, 2)) + 1e-9
        return (sums / sums.sum(1, keepdims=True)).astype(np.float32)

    rules = load_taxonomy("korea").only(CLASSES)
    return predictors.Predictor(Path("mean"), "numpy", CLASSES, Preprocessing(16), rules, probabilities)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Thirteen images in folders, one of them no image, beside an exported model that is not opened."""
    rng = np.random.default_rng(5)
    for i in range(12):
        path = tmp_path / "images" / f"day{i % 3}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (1, 1, 3), np.uint8)).resize((30, 20)).save(path)
    (tmp_path / "images" / "day1" / "bad.jpg").write_bytes(b"no image")
    (tmp_path / "model.onnx").write_bytes(b"first")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "load_engine", lambda *arguments: mean_colors())
    return tmp_path


ASKED = Asked("model.onnx", reject_below=0.4)


def rows_of(out: Path) -> list[dict]:
    files = sorted(out.glob("part-*.parquet"))
    return [row for file in files for row in parquet.read_table(file).to_pylist()]


def test_answers_are_those_of_the_command_without_parts(folder):
    done = answer_parts(["images"], "out", ASKED, part_size=5)
    assert (done.parts, done.counts.images, done.counts.unreadable) == (3, 13, 1)
    names = ["/".join(("images", *path)) for path in walk("images", "--data").images]
    expected = list(answers(mean_colors(), names, top=3, reject_below=0.4))
    rows = rows_of(folder / "out")
    assert [row["file"] for row in rows] == names
    for row, answer in zip(rows, expected, strict=True):
        assert row["reason"] == answer.error
        if answer.error:
            assert not row["kept"] and row["answer"] is None and row["probabilities"] is None
            continue
        best = answer.guesses[0]
        assert (row["answer"], row["bin"], row["kept"]) == (best.label, best.bin, not answer.rejected)
        assert (row["bin_probability"], row["class_sure"]) == (
            pytest.approx(answer.bin_probability),
            answer.class_sure,
        )
        assert sorted(row["probabilities"])[::-1] == [guess.probability for guess in answer.guesses]
    assert {(row["kept"], row["class_sure"]) for row in rows} == {(True, True), (True, False), (False, False)}
    sizes = [parquet.read_metadata(file).num_rows for file in sorted((folder / "out").glob("part-*"))]
    assert sizes == [5, 5, 3]
    assert json.loads((folder / "out" / ABOUT).read_text())["finished"]["images"] == 13


def test_what_is_there_is_not_answered_again(folder, monkeypatch):
    answer_parts(["images"], "out", ASKED, part_size=5)
    before = {file: file.read_bytes() for file in (folder / "out").glob("part-*")}
    (folder / "out" / "part-00001.parquet").unlink()
    (folder / "out" / "part-00002.parquet").write_bytes(b"")  # as after a power cut
    done = answer_parts(["images"], "out", ASKED, part_size=5)
    assert (done.counts.images, done.now.images) == (13, 8)
    assert {file: file.read_bytes() for file in (folder / "out").glob("part-*")} == before
    monkeypatch.setattr(job, "load_engine", None)  # not even the model is loaded
    assert answer_parts(["images"], "out", ASKED, part_size=5).now.images == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: Path("model.onnx").write_bytes(b"second"), "another --model"),
        (
            lambda: Path("images/day0/00.png").write_bytes(b"changed"),
            "part-00000.parquet: answers for other images",
        ),
        (
            lambda: Path("images/day2/99.png").write_bytes(b"new"),
            "part-00002.parquet: answers for other images",
        ),
        (lambda: [Path(f"images/day2/{i:02}.png").unlink() for i in (2, 5, 8, 11)], "part-0000"),
        (lambda: Path("out/_predict.json").write_text("{"), "damaged"),
        (lambda: Path("out/_predict.json").unlink(), "holds parts of something else"),
    ],
)
def test_answers_of_other_images_or_models_are_not_mixed(folder, change, words):
    answer_parts(["images"], "out", ASKED, part_size=5)
    before = {file: file.read_bytes() for file in (folder / "out").glob("part-*")}
    change()
    with pytest.raises(UserError, match=words) as error:
        answer_parts(["images"], "out", ASKED, part_size=5)
    assert "\n" not in str(error.value)
    assert {file: file.read_bytes() for file in (folder / "out").glob("part-*")} == before


def test_other_options_are_named(folder):
    answer_parts(["images"], "out", ASKED, part_size=5)
    for asked, inputs, size, words in (
        (Asked("model.onnx", reject_below=0.5), ["images"], 5, "another --reject-below;"),
        (ASKED, ["images"], 6, "another --part-size;"),
        (ASKED, ["images/day0"], 5, "another inputs;"),
    ):
        with pytest.raises(UserError, match=words):
            answer_parts(inputs, "out", asked, part_size=size)
    # What changes no answer may differ.
    assert answer_parts(["images"], "out", Asked("model.onnx", threads=1, batch_size=3, reject_below=0.4), 5)


def test_shards_hold_the_same_images_as_their_folder(folder):
    plain = {Path(row["file"]).name: row for row in run(folder, ["images"])}
    with tarfile.open("a.tar", "w") as first, tarfile.open("b.tar.gz", "w:gz") as second:
        for i, path in enumerate(sorted(Path("images").rglob("*.*"))):
            (first if i % 2 else second).add(path)
        first.add("model.onnx", "images/day0/00.json")  # WebDataset keeps labels beside images
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": path.name}}
        for path in sorted(Path("images").rglob("*.*"))
    ]
    parquet.write_table(pa.Table.from_pylist(rows), "c.parquet", row_group_size=4)
    tars = run(folder, ["a.tar", "b.tar.gz"])
    assert {Path(row["file"]).name: row | {"file": ""} for row in tars} == {
        name: row | {"file": ""} for name, row in plain.items()
    }
    assert tars[0]["file"].startswith("a.tar/images/day")
    found = run(folder, ["c.parquet"])
    assert [row["file"] for row in found[:2]] == ["c.parquet#0", "c.parquet#1"]
    by_order = [plain[path.name] for path in sorted(Path("images").rglob("*.*"))]
    assert [row | {"file": ""} for row in found] == [row | {"file": ""} for row in by_order]


def run(folder: Path, inputs: list[str]) -> list[dict]:
    out = folder / f"out-{len(list(folder.glob('out-*')))}"
    answer_parts(inputs, out, ASKED, part_size=5)
    return rows_of(out)


def test_a_shard_that_is_damaged_loses_only_what_it_lacks(folder):
    with tarfile.open("cut.tar", "w") as archive:
        for path in sorted(Path("images/day0").iterdir()):
            archive.add(path)
    whole = Path("cut.tar").read_bytes()
    at = whole.index(b"images/day0/09.png")
    Path("cut.tar").write_bytes(whole[: at + 600])
    Path("no.parquet").write_bytes(b"PAR1 or not")
    parquet.write_table(pa.table({"text": ["a"]}), "text.parquet")
    rows = run(folder, ["cut.tar", "no.parquet", "text.parquet", "images/day2"])
    assert [row["file"] for row in rows[:3]] == [f"cut.tar/images/day0/{i:02}.png" for i in (0, 3, 6)]
    assert rows[3]["file"] == "cut.tar" and "cannot be read to its end" in rows[3]["reason"]
    assert rows[4]["file"] == "no.parquet" and rows[4]["reason"]
    assert rows[5]["file"] == "text.parquet" and "no column of images, but text" in rows[5]["reason"]
    assert [row["reason"] for row in rows[6:]] == [""] * 4


def test_parts_are_listed_as_they_are_needed(folder, monkeypatch):
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(Path(folder).name) or scandir(folder))
    parts = parts_of(["images"], 4)
    assert [name for name, _ in images(next(parts))] == [f"images/day0/{i:02}.png" for i in (0, 3, 6, 9)]
    assert listed == ["images", "day0"]
    assert [len(part.places) for part in parts] == [4, 4, 1]


@pytest.mark.parametrize("inputs", [["nowhere"], ["empty"], []])
def test_no_images_are_told_before_anything_is_loaded(folder, inputs, monkeypatch):
    Path("empty").mkdir()
    monkeypatch.setattr(job, "load_engine", None)
    with pytest.raises(UserError, match=r"no such file|no images"):
        answer_parts(inputs, "out", ASKED)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--workers=ray"], "--workers: only with --out"),
        (["--part-size=5"], "--part-size: only with --out"),
        (["--out=o", "--regions"], "--out and --regions"),
        (["--out=o", "--format=csv"], "leave --format off"),
        (["--out=o", "--address=auto"], "only with --workers=ray"),
        (["--out=o", "--part-size=0"], "--part-size: must be >= 1"),
        (["--out=model.onnx"], "--out=model.onnx: is a file"),
    ],
)
def test_options_that_do_not_go_together(folder, options, words):
    args = parser("predict").parse_args(["predict", "images", *options])
    with pytest.raises(UserError, match=words):
        predict_parts.check(args)


KILLED = """
import sys, time
sys.path[:0] = sys.argv[1:3]
import test_many
from wastejax.deployment.many import job
job.load_engine = lambda *arguments: test_many.mean_colors(pause=0.05)
job.predict_parts(["images"], "out", test_many.Asked("model.onnx", reject_below=0.4, batch_size=1), part_size=2)
"""


def test_after_kills_at_any_moment_no_row_is_lost_or_double(folder):
    expected = run(folder, ["images"])
    here = Path(__file__).resolve()
    command = [sys.executable, "-c", KILLED, str(here.parents[2]), str(here.parent)]
    for parts in (1, 3, 5):
        process = subprocess.Popen(command, cwd=folder)
        end = time.monotonic() + 60
        while len(list((folder / "out").glob("part-*.parquet"))) < parts and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(0.02 * parts)
        assert process.poll() is None  # killed in the middle
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert len(list((folder / "out").glob("part-*.parquet"))) < 7
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    assert rows_of(folder / "out") == expected
    assert not list((folder / "out").glob("*.partial"))


def test_two_processes_do_not_write_into_one_folder(folder):
    with job._alone(folder), pytest.raises(UserError, match="another process writes"):
        answer_parts(["images"], folder, ASKED)


def test_a_full_disk_leaves_no_half_file(folder, monkeypatch):
    def full(asked, predictor, part, sink):
        sink.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Asked, "answer", full)
    with pytest.raises(OSError, match="No space left"):
        answer_parts(["images"], "out", ASKED)
    assert {path.name for path in (folder / "out").iterdir()} == {ABOUT, ".lock"}


def test_images_behind_a_url_are_those_of_the_folder(folder):
    plain = [row | {"file": ""} for row in run(folder, ["images"])]
    memory = pytest.importorskip("fsspec").filesystem("memory")
    try:
        for path in sorted(Path("images").rglob("*.*")):
            memory.pipe(f"/bucket/{path}", path.read_bytes())
        memory.pipe("/bucket/images/notes.txt", b"")
        with tarfile.open("all.tar", "w") as archive:
            archive.add("images")
        memory.pipe("/shards/all.tar", Path("all.tar").read_bytes())
        rows = run(folder, ["memory://bucket/images"])
        assert [row | {"file": ""} for row in rows] == plain
        assert rows[0]["file"] == "memory:///bucket/images/day0/00.png"
        assert len(run(folder, ["memory://shards/all.tar"])) == 13
        with pytest.raises(UserError, match=r"no such file|nowhere"):
            answer_parts(["memory://nowhere"], "out", ASKED)
    finally:
        memory.store.clear()
    with pytest.raises(UserError, match="there is no scheme ftx://"):
        answer_parts(["ftx://nowhere"], "out", ASKED)


S3 = "http://127.0.0.1:5123"


@pytest.fixture
def bucket(monkeypatch):
    """An S3 server on loopback, and a client of it."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 5123)
    pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", S3)
    server.start()
    import boto3

    client = boto3.client("s3", endpoint_url=S3)
    client.create_bucket(Bucket="plant")
    yield client
    server.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the server
def test_images_in_s3_are_those_of_the_folder(folder, bucket):
    plain = [row | {"file": ""} for row in run(folder, ["images"])]
    for path in Path("images").rglob("*.*"):
        bucket.upload_file(str(path), "plant", str(path))
    assert [row | {"file": ""} for row in run(folder, ["s3://plant/images"])] == plain
    with pytest.raises(UserError, match="s3://plant/nowhere: "):
        answer_parts(["s3://plant/nowhere"], "out", ASKED)


RAY = """
import sys
sys.path[:0] = sys.argv[1:3]
import test_many
from wastejax.deployment.many import job, on_ray
nodes = set()
asked = test_many.Asked("bundle", engine="jax", batch_size=4, reject_below=0.4)
answerer = on_ray.on_ray(asked, sys.argv[3] or None, tell=nodes.add) if sys.argv[3] != "local" else None
done = job.predict_parts(["images"], sys.argv[4], asked, 2, answerer)
print(len(nodes), done.now.images)
"""
ALIVE = """
import sys
import ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print(sum(node["Alive"] for node in ray.nodes()))
"""


@pytest.mark.parametrize("address", ["127.0.0.1:9", "127.0.0.1:99999", "ray://no.such.host.invalid:10001"])
def test_no_cluster_at_an_address_is_told_at_once(address):
    with pytest.raises(UserError, match=r"--address=.*no Ray cluster there"):
        ray_cluster.reach(address)
    ray_cluster.reach(None), ray_cluster.reach("auto")


@pytest.mark.slow
def test_ray_answers_as_one_process_does_and_uses_both_of_two_nodes(folder):
    pytest.importorskip("ray")
    from small_models import write_bundle

    write_bundle(folder / "bundle")
    here = Path(__file__).resolve()

    def answer(address: str, out: str) -> str:
        command = [sys.executable, "-c", RAY, str(here.parents[2]), str(here.parent), address, out]
        environment = os.environ | {"PYTHONPATH": str(here.parents[2]), "RAY_AUTH_MODE": "disabled"}
        done = subprocess.run(
            command, cwd=folder, env=environment, text=True, capture_output=True, timeout=900
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    assert answer("local", "here").split()[1] == "13"
    assert answer("", "one").split()[1] == "13"
    # Nodes of their own, not any that this machine may run already.
    ray = Path(sys.executable).with_name("ray")
    environment = os.environ | {"PYTHONPATH": str(here.parents[2]), "RAY_AUTH_MODE": "disabled"}
    common = [str(ray), "start", "--num-cpus=1", "--block", "--object-store-memory=100000000"]
    head = [*common, "--head", "--port=6391", "--include-dashboard=false"]
    nodes = [subprocess.Popen(head, env=environment, cwd=folder, stdout=subprocess.DEVNULL)]

    def until_alive(wanted: int) -> None:
        asking = [sys.executable, "-c", ALIVE, "127.0.0.1:6391"]
        for _ in range(60):  # how long a node takes to start is the machine's affair
            done = subprocess.run(asking, env=environment, text=True, capture_output=True, timeout=300)
            if done.stdout.split()[-1:] == [str(wanted)]:
                return
            time.sleep(1)
        raise AssertionError(done.stdout + done.stderr)

    try:
        until_alive(1)
        second = [*common, "--address=127.0.0.1:6391"]
        nodes.append(subprocess.Popen(second, env=environment, cwd=folder, stdout=subprocess.DEVNULL))
        until_alive(2)
        assert answer("127.0.0.1:6391", "two").split() == ["2", "13"]
    finally:
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.wait(60)
    assert rows_of(folder / "here") == rows_of(folder / "one") == rows_of(folder / "two")
