"""Files as bytes: all of them, and no more memory than they take."""

import os
import threading
import tracemalloc

import pytest

from wastejax.data import images


def test_reading_takes_no_more_memory_than_the_file(tmp_path):
    """Python sets memory aside for as much as is asked for, a gigabyte for a photograph of 3 MB."""
    (tmp_path / "small.jpg").write_bytes(bytes(3000))
    tracemalloc.start()
    try:
        assert images.read_file(tmp_path / "small.jpg") == bytes(3000)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1, 5, 3_000_000])
def test_what_does_not_say_its_size_is_read_to_its_end(tmp_path, size):
    pipe, data = tmp_path / "pipe", os.urandom(size)
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    assert images.read_file(pipe) == data
    writer.join()


@pytest.mark.parametrize(("size", "fits"), [(999, True), (1000, True), (1001, False), (5000, False)])
def test_a_file_larger_than_any_image_is_refused(tmp_path, monkeypatch, size, fits):
    monkeypatch.setattr(images, "_LARGEST_FILE", 1000)
    (tmp_path / "a.jpg").write_bytes(bytes(size))
    if fits:
        assert len(images.read_file(tmp_path / "a.jpg")) == size
        return
    with pytest.raises(OSError, match=r"(?i)too large"):
        images.read_file(tmp_path / "a.jpg")
