"""What an installation that lacks packages says: one line, and a command that installs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
# Runs one command after the other in a process that finds no package of ABSENT; -> [[exit code, stderr], …].
BLOCKED = """
import contextlib, importlib.util, io, json, sys
absent, commands = json.loads(sys.argv[1])
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in absent else find(name, package)
from wastejax.main import main
said = []
for command in commands:
    sys.argv = ["wastejax", *command]
    error, code = io.StringIO(), 0
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            code = end.code
    said.append([code, error.getvalue()])
print(json.dumps(said))
"""
# What an installation for exported files does without, as the README makes one.
FULL = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax",
    "ml_collections",
    "scipy",
    "sklearn",
    "safetensors",
    "grain",
)
FULL += ("imagehash", "matplotlib", "rich", "cloudpickle", "tensorboardX", "tensorflow_datasets")


def without(absent: tuple[str, ...], *commands: str, cwd: Path) -> list[tuple[int, str]]:
    given = json.dumps([absent, [command.split() for command in commands]])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}){BLOCKED}", given],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def folder(tmp_path) -> Path:
    Image.new("RGB", (40, 30), "red").save(tmp_path / "photo.jpg")
    (tmp_path / "model.onnx").write_bytes(b"\x08\x08")
    for name in ("can", "jar"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 30), (10 * i, 0, 0)).save(tmp_path / "data" / name / f"{i}.jpg")
    return tmp_path


def test_without_jax_each_command_ends_in_a_line_that_says_how_to_get_it(folder):
    commands = (
        "predict photo.jpg",
        "predict --regions photo.jpg",
        "predict --heatmap=maps photo.jpg",
        "models",
        "export --format=onnx",
        "train --config=mobilevit_ir",
        "--config=mobilevit_ir --config.data.dir=data",
        "eval --data=data",
        "audit --data=data --out=found",
        "robustness --data=data --out=found",
        "compare a b",
        "benchmark",
        "serve",
    )
    for command, (code, error) in zip(commands, without(FULL, *commands, cwd=folder), strict=True):
        assert code == 2 and error.startswith("error: ") and error.count("\n") == 1, (command, error)
        assert "which is not installed: " in error and f" -m pip install -e {ROOT}" in error, (command, error)
    assert sorted(path.name for path in folder.iterdir()) == ["data", "model.onnx", "photo.jpg"]


@pytest.mark.parametrize(
    ("package", "command", "hint"),
    [
        ("uvicorn", "serve", "[serve]'"),
        ("jax2onnx", "export --format=onnx", "[export]'"),
        ("cv2", "predict camera:0", "-m pip install opencv-python-headless"),
        ("onnxruntime", "predict --model=model.onnx photo.jpg", "-m pip install onnxruntime"),
    ],
)
def test_a_missing_extra_is_named_with_a_command_that_works_in_a_checkout(folder, package, command, hint):
    [(code, error)] = without((package,), command, cwd=folder)
    assert code == 2 and error.count("\n") == 1, error
    assert hint in error and "install 'wastejax[" not in error


def test_the_hint_of_an_installed_wheel_names_the_packages_themselves(monkeypatch, tmp_path):
    from wastejax import errors

    monkeypatch.setattr(errors, "__file__", str(tmp_path / "site-packages" / "wastejax" / "errors.py"))
    listed = ["jax>=0.10", 'starlette>=1.10; extra == "serve"', 'uvicorn>=0.54; extra == "serve"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: listed)
    assert errors.install("serve").endswith(" -m pip install 'starlette>=1.10' 'uvicorn>=0.54'")


def test_what_answers_from_an_exported_file_needs_none_of_what_trains():
    modules = (
        "deployment.engines",
        "deployment.formats.onnx",
        "deployment.formats.litert",
        "deployment.server",
        "cli.predict",
        "cli.serve",
    )
    code = f"import sys; sys.modules.update(dict.fromkeys({FULL}))\n"
    code += "\n".join(f"import wastejax.{module}" for module in modules)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
