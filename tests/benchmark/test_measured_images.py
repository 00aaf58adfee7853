"""The images that the data pipeline is timed on, of a user's folder in which some may be damaged."""

import pytest
from PIL import Image

from wastejax.benchmark import data
from wastejax.benchmark.timing import Settings
from wastejax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for at in range(7):  # as many as the stride
        path = tmp_path / "images" / "ab"[at % 2] / f"{at}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (70, 50), (30 * at, 10, 10)).save(path)
    return tmp_path / "images"


def benchmark(folder, monkeypatch) -> tuple[list[str], list[int]]:
    """Returns what is said, and how many images there are to time of each format."""
    counts = []

    def measure(path, settings, say):
        counts.append(len(list(path.rglob("*.*"))))
        return [], []

    monkeypatch.setattr(data, "measure_pipeline", measure)
    monkeypatch.setattr(data, "COUNT", 16)
    monkeypatch.setattr(data.write_images, "__defaults__", (16,))
    lines: list[str] = []
    data.benchmark_data(str(folder), [], Settings(1), lines.append)
    return [line for line in lines if "passed over" in line], counts


def test_damaged_images_are_passed_over_and_named(folder, monkeypatch):
    assert benchmark(folder, monkeypatch) == ([], [16, 16])
    (folder / "a" / "0.png").write_bytes(b"")
    (folder / "b" / "3.png").write_bytes((folder / "b" / "3.png").read_bytes()[:60])
    said, counts = benchmark(folder, monkeypatch)
    assert counts == [16, 16] and "note: passed over a/0.png: empty file" in said and len(said) == 2


def test_many_damaged_images_are_counted_and_none_left_is_one_line(folder, monkeypatch):
    for at, path in enumerate(sorted(folder.rglob("*.png"))):
        if at:
            path.write_bytes(b"")
    said, counts = benchmark(folder, monkeypatch)
    assert counts == [16, 16] and said[-1] == "note: passed over 1 more that cannot be read"
    (folder / "a" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^--data: none of 7 images can be read, such as .*: empty file$"):
        benchmark(folder, monkeypatch)
