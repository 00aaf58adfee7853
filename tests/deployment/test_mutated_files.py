"""Files damaged at random, through predict, audit and the server: a bad image is one bad row, and no more."""

import json
import time
from pathlib import Path
from random import Random

import psutil
import pytest
from file_kinds import KINDS
from test_file_kinds import answers, served
from test_serve import server, stand_in

from wastejax.cli import audit
from wastejax.data.images import BadImage, decode
from wastejax.deployment.server.app import Limits
from wastejax.main import parser

SECONDS = 10  # for one file, on a busy machine; none of these has more than 10,000 pixels
GROWTH = (
    100 * 2**20
)  # bytes from the first half of the files to the second: what a leak of one image a file exceeds
EXTREMES = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\xff\xff",
    b"\x80\0\0\0",
)


def mutate(data: bytes, rng: Random, other: bytes) -> bytes:
    """Returns a file changed in one to three ways."""
    for _ in range(rng.randint(1, 3)):
        # Half of the changes go where headers lie.
        at = rng.randrange(min(len(data), 200) if rng.random() < 0.5 else len(data))
        length = rng.choice((1, 2, 4, 16, 100, 1000))
        match rng.randrange(7):
            case 0:
                data = data[:at] + rng.randbytes(rng.randint(1, 4)) + data[at + 1 :]
            case 1:
                data = data[:at]
            case 2:
                data = data[:at] + data[at + length :]
            case 3:
                data = data[: at + length] + data[at:]
            case 4:
                data = data[:at] + rng.choice(EXTREMES) + data[at + 4 :]
            case 5:
                data = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
            case 6:
                data = data[:at] + other[at : at + length] + data[at + length :]
        if not data:
            break
    return data


def damaged_files(folder: Path, count: int) -> dict[str, Path]:
    """Writes `count` files, made from every kind in turn, as two classes."""
    kinds = [(ending, make()) for ending, make in KINDS.values()]
    paths = {}
    for number in range(count):
        rng = Random(number)
        ending, data = kinds[number % len(kinds)]
        name = f"{'ab'[number % 2]}/{number:05}{ending}"
        paths[name] = folder / name
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_bytes(mutate(data, rng, rng.choice(kinds)[1]))
    return paths


def through_all(folder: Path, count: int, monkeypatch) -> dict[str, int | float]:
    """Sends damaged files through everything and checks what comes out; returns what was counted."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(folder / "cache"))
    files = damaged_files(folder / "files", count)
    slowest, memory = 0.0, []
    for number, path in enumerate(files.values()):
        start = time.perf_counter()
        try:
            assert decode(path.read_bytes()).mode == "RGB"
        except BadImage as error:
            assert str(error) and "\n" not in str(error)
        slowest = max(slowest, time.perf_counter() - start)
        if number in (count // 2, count - 1):
            memory.append(psutil.Process().memory_info().rss)
    assert slowest < SECONDS
    assert memory[1] - memory[0] < GROWTH

    model = stand_in()
    said = answers(files, model, monkeypatch)
    assert len(said) == count
    bad = {name for name, answer in said.items() if "error" in answer}
    assert all(set(answer) == {"file", "error"} for name, answer in said.items() if name in bad)

    lines: list[str] = []
    arguments = ["audit", f"--data={folder / 'files'}", f"--out={folder / 'audit'}"]
    audit.run(parser("audit").parse_args(arguments), lines.append)
    found = json.loads((folder / "audit" / "audit.json").read_text())
    assert found["num_files"] == count
    assert set(found["unreadable"]) == bad

    with server(model, Limits()) as port:
        assert without_limits(served(files, port)) == without_limits(said)
        memory.append(psutil.Process().memory_info().rss)
    return {
        "files": count,
        "unreadable": len(bad),
        "slowest decode, s": slowest,
        "growth, MB": (memory[1] - memory[0]) / 1e6,
    }


def without_limits(said: dict[str, dict]) -> dict[str, dict]:
    """Returns answers whose reasons end before the largest number of pixels, which the server has its own of."""
    return {
        name: answer | ({"error": answer["error"].split(": at most")[0]} if "error" in answer else {})
        for name, answer in said.items()
    }


def test_damaged_files_are_bad_rows(tmp_path, monkeypatch):
    counted = through_all(tmp_path, 160, monkeypatch)
    assert 40 < counted["unreadable"] < 140


@pytest.mark.slow
def test_two_thousand_damaged_files_are_bad_rows(tmp_path, monkeypatch, record_property):
    counted = through_all(tmp_path, 2000, monkeypatch)
    assert 500 < counted["unreadable"] < 1700
    for name, value in counted.items():
        record_property(name, value)
    print(counted)
