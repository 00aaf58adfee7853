"""Options that would be ignored, and `~` in paths: for all commands."""

import argparse

import pytest

from wastejax import main
from wastejax.errors import UserError

IGNORED = """
predict photo.jpg --every=2: --every: only with a camera or a video
predict photo.jpg --smoothing=0: --smoothing: only with a camera or a video
predict clip.mp4 --smoothing=0 --regions: --smoothing: only with a camera or a video, and without --regions
predict photo.jpg --regions --top=1: --top: only without --regions
predict photo.jpg --regions --batch-size=1: --batch-size: only with images, and without --regions
predict photo.jpg --out=o --top=1: --top: only without --out
predict clip.mp4 --max-pixels=9: --max-pixels: only with images
predict clip.mp4 --batch-size=9: --batch-size: only with images
predict clip.mp4 --heatmap=d: --heatmap: only with images
predict clip.mp4 --regions --draw=d: --draw: only with images
predict photo.jpg --draw=d: --draw: only with --regions
predict photo.jpg --workers=ray: --workers: only with --out
predict photo.jpg --part-size=5: --part-size: only with --out
predict photo.jpg --address=auto: --address: only with --out
predict photo.jpg --cores=2: --cores: only with --out
predict photo.jpg --out=o --cores=2: --cores: only with --workers=ray
predict photo.jpg --out=o --address=auto: --address: only with --workers=ray
serve --collect-sample=0.1: --collect-sample: only with --collect=DIR
serve --collect-most=1GB: --collect-most: only with --collect=DIR
serve --collect-days=3: --collect-days: only with --collect=DIR
export --format=litert --profile: --profile: only with --format=onnx
export --format=bundle --report=r.json: --report: only with --format=onnx or stablehlo or litert
export --format=bundle --input=float32: --input: only with --format=onnx or
export --format=bundle --class-map: --class-map: only with --format=onnx or
export --format=bundle --images=3: --images: only with --format=onnx or
export --format=bundle --data=d: --data: only with --format=onnx or
export --format=bundle --calibrate=d: --calibrate: only with --format=onnx or
export --format=onnx --calibrate=d: --calibrate=d: only with --quantize=int8
eval --labels=l.csv: --labels: only with --data, the folder whose labels it explains
eval --labels=l.csv --data=d --split=test: --labels and --split: give one of them
eval --labels=l.csv --data=d --review=r.html: --labels and --review: give one of them
compare a b --split=test: --split: only with --data
compare a b --corrections=c.csv: --corrections: only with --data
compare a b --labels=l.csv --data=d --corrections=c.csv: --corrections: only without --labels
compare a b --labels=l.csv: --labels: only with --data
compare a b --labels=l.csv --data=d --split=test: --split: only without --labels
audit --collected=c --out=o --write-manifest: --write-manifest: only with --data
audit --collected=c --out=o --split=m.csv: --split: only with --data
audit --collected=c --out=o --workers=ray: --workers: only with --data
shard --data=d --out=o --manifest=m.csv --ratios=8,1,1: --ratios: only without --manifest
shard --data=d --out=o --manifest=m.csv --group=none: --group: only without --manifest
shard --data=d --out=o --manifest=m.csv --hamming=2: --hamming: only without --manifest
shard --data=d --out=o --manifest=m.csv --seed=3: --seed: only without --manifest
shard --data=d --out=o --group=none --hamming=2: --hamming: only with --group=phash
benchmark --data=d --mode=train: --mode: only without --data
benchmark --data=d --dtypes=bfloat16: --dtypes: only without --data
benchmark --data=d --against=timm: --against: only without --data
benchmark --data=d --reports=a=r.json: --reports: only without --data
benchmark --reports=a=r.json: --reports: only with --out
train --config=mobilevit_ir --process=1: --process: only with --coordinator=HOST:PORT
train --config=mobilevit_ir --processes=2: --processes: only with --coordinator=HOST:PORT
"""


@pytest.mark.parametrize("line", IGNORED.strip().splitlines())
def test_an_option_that_would_be_ignored_is_refused_before_anything_slow(line, tmp_path, monkeypatch):
    command, _, told = line.partition(": ")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(main.process, "prepare", lambda: None)
    monkeypatch.setattr("wastejax.deployment.camera.importlib.util.find_spec", lambda _: True)
    with pytest.raises(UserError) as raised:
        main.dispatch(command.split())
    assert str(raised.value).startswith(told)
    assert not list(tmp_path.iterdir())


def options(command):
    """The options of a command that take any text, paths among them."""
    top = main.parser(command)
    (commands,) = (action for action in top._actions if isinstance(action, argparse._SubParsersAction))
    return [
        action
        for action in commands.choices[command]._actions
        if action.option_strings and action.nargs is None and action.type is None and not action.choices
    ]


@pytest.mark.parametrize("command", main.COMMANDS)
def test_a_home_folder_is_found_behind_every_option(command, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    needed = [f"{a.option_strings[0]}=~/x" for a in options(command) if a.required]
    if command == "audit":
        needed.append("--data=~/x")
    if command == "export":
        needed.append("--format=onnx")
    positional = ["a", "b"] if command == "compare" else []
    for action in options(command):
        if command == "audit" and "--collected" in action.option_strings:
            continue
        given = [command, *positional, *needed, f"{action.option_strings[0]}=~/x/~y"]
        args, _ = main.parser(command).parse_known_args(given)
        assert vars(args)[action.dest] in ("/home/somebody/x/~y", ["/home/somebody/x/~y"])


def test_a_home_folder_is_found_in_keys_and_in_lists(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    given = ["train", "--config=r", "--config.data.dir=~/x", "--config.data.source=shards:~/x"]
    _, rest = main.parser("train").parse_known_args(given)
    assert rest == ["--config.data.dir=/home/somebody/x", "--config.data.source=shards:/home/somebody/x"]
    args, _ = main.parser("benchmark").parse_known_args(["benchmark", "--reports=a=~/x.json,b=~/y.json"])
    assert args.reports == "a=/home/somebody/x.json,b=/home/somebody/y.json"
    for kept in ("a~/x", "x/~", "~~/x", "photo~", "~no_such_user/x"):
        args, _ = main.parser("predict").parse_known_args(["predict", f"--out={kept}"])
        assert args.out == kept
