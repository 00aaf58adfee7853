"""What a server keeps for review: which images, how many, for how long, and that answers never suffer."""

import dataclasses
import errno
import io
import json
import threading
import time
import unicodedata
from types import SimpleNamespace

import pytest
from corrections_file import to_csv
from PIL import Image
from small_models import CLASSES, draw_images
from test_serve import ask, server, stand_in

from wastejax.auditing.collected import add_collected, review_collected
from wastejax.cli import serve as command
from wastejax.data.sources import open_folder
from wastejax.deployment.answers import Answer, Guess
from wastejax.deployment.server import collecting
from wastejax.deployment.server.collecting import Collector, Keep
from wastejax.deployment.website import PAGE
from wastejax.errors import UserError
from wastejax.main import parser

UNSURE = Answer("", (Guess("glass", "glass", 0.4), Guess("tea_bags", "food", 0.3)), rejected=True)
SURE = UNSURE._replace(rejected=False)


def encoded(shade: int, side: int = 60, **options) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (side, side // 2), (shade, 80, 255 - shade)).save(data, "JPEG", **options)
    return data.getvalue()


def collector(folder, said=None, **keep) -> Collector:
    said = [] if said is None else said
    return Collector(Keep(folder, **keep), "the_model", CLASSES, said.append, seed=3)


def kept(folder) -> list:
    return sorted(folder.glob("*/*.jpg"))


def test_rejected_images_are_kept_upright_and_without_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    exif[0x010F] = "a camera"
    working = collector(tmp_path / "kept")
    for data in (encoded(10, 3000, exif=exif), encoded(20), encoded(20)):
        working.offer(data, UNSURE)
        working.offer(encoded(200), SURE)
    working.close()
    images = kept(tmp_path / "kept")
    assert len(images) == working.counts["kept"] == 2  # the same bytes once, and none that was sure
    sizes = set()
    for path in images:
        with Image.open(path) as image:
            assert path.parent.name == "glass" and not image.getexif() and "exif" not in image.info
            sizes.add(image.size)
        about = json.loads((tmp_path / "kept" / "answers" / f"{path.stem}.json").read_text())
        assert about["file"] == f"glass/{path.name}" and about["why"] == "not sure"
        assert about["top"][1] == {"class": "tea_bags", "bin": "food", "probability": 0.3}
    assert sizes == {(512, 1024), (60, 30)}
    about = json.loads((tmp_path / "kept" / "answers" / "model.json").read_text())
    assert about == {"model": "the_model", "classes": list(CLASSES)}


def test_what_is_answered_with_a_higher_limit_of_pixels_is_kept_with_it(tmp_path):
    data = io.BytesIO()
    Image.new("RGB", (40, 30)).save(data, "PNG")
    for most, number in ((1000, 0), (1200, 1)):
        args = parser("serve").parse_args(
            ["serve", f"--collect={tmp_path / str(most)}", f"--max-pixels={most}"]
        )
        working = Collector(command.collecting(args), "the_model", CLASSES)
        working.offer(data.getvalue(), UNSURE)
        working.close()
        assert working.counts["kept"] == number


def test_a_share_of_the_others_is_kept(tmp_path):
    """400 draws of 10 %: 40, give or take three standard deviations."""
    working = collector(tmp_path, sample=0.1)
    offered = []
    working._queue.put_nowait = offered.append  # no need to write them all
    for _ in range(400):
        working.offer(b"", SURE)
    assert 22 <= len(offered) <= 58 and {why for *_, why in offered} == {"sample"}
    del working._queue.put_nowait
    working.close()


def test_the_oldest_go_by_size_and_by_age_also_those_of_an_earlier_server(tmp_path):
    for day in ("20200101", "20200102"):
        name = f"{day}-{'0' * 16}"
        (tmp_path / "glass").mkdir(exist_ok=True)
        (tmp_path / "answers").mkdir(exist_ok=True)
        (tmp_path / "glass" / f"{name}.jpg").write_bytes(b"x" * 100)
        (tmp_path / "answers" / f"{name}.json").write_text(json.dumps({"file": f"glass/{name}.jpg"}))
    (tmp_path / "glass" / f"20990101-{'0' * 16}.jpg.partial").write_bytes(b"x")  # a kill
    working = collector(tmp_path, days=30)
    working.offer(encoded(1), UNSURE)
    working.close()
    assert len(kept(tmp_path)) == 1 and working.counts["removed"] == 2
    assert not list(tmp_path.glob("*/2020*")) and not list(tmp_path.glob("*/*.partial"))
    size = sum(path.stat().st_size for path in tmp_path.glob("*/2*"))
    working = collector(tmp_path, bytes=int(2.5 * size))
    for shade in range(2, 8):
        working.offer(encoded(shade), UNSURE)
        wait_for(working._queue.empty)
    working.close()
    assert sum(path.stat().st_size for path in tmp_path.glob("*/2*")) <= 2.5 * size
    assert working.counts["removed"] >= 4 and len(kept(tmp_path)) == 2


def test_what_is_too_old_goes_though_no_other_image_comes(tmp_path, monkeypatch):
    """At the start what an earlier server left, later what has grown old since."""
    first = collector(tmp_path)
    first.offer(encoded(1), UNSURE)
    first.close()
    assert len(kept(tmp_path)) == 1
    days = [0.0]
    clock = SimpleNamespace(
        time=lambda: time.time() + 86_400 * days[0], gmtime=time.gmtime, strftime=time.strftime
    )
    monkeypatch.setattr(collecting, "time", clock)
    monkeypatch.setattr(collecting, "_PRUNE_EVERY", 0.05)
    running = collector(tmp_path, days=30)
    days[0] = 40.0
    wait_for(lambda: running.counts["removed"] == 1)
    running.close()
    assert not kept(tmp_path) and running.counts["kept"] == 0
    days[0] = 0.0
    second = collector(tmp_path)
    second.offer(encoded(2), UNSURE)
    second.close()
    days[0] = 40.0
    monkeypatch.setattr(collecting, "_PRUNE_EVERY", 3600.0)
    collector(tmp_path, days=30).close()
    assert not kept(tmp_path)


def test_days_are_counted_from_when_an_image_was_kept(tmp_path):
    """Six hours are a quarter of a day, on whichever day of the calendar an image was kept."""
    for hours in (5, 7, 23, 25):
        when = time.gmtime(time.time() - 3600 * hours)
        name = f"{time.strftime('%Y%m%d', when)}-{hours:016x}"
        for folder in ("glass", "answers"):
            (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / "glass" / f"{name}.jpg").write_bytes(b"x")
        about = {"file": f"glass/{name}.jpg", "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", when)}
        (tmp_path / "answers" / f"{name}.json").write_text(json.dumps(about))
    for days, left in ((40_000.0, 4), (float("inf"), 4), (1.0, 3), (0.25, 1)):
        collector(tmp_path, days=days).close()
        assert len(kept(tmp_path)) == left


def test_closing_waits_for_no_thread_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(Collector, "_work", lambda self: None)
    working = collector(tmp_path)
    for shade in range(collecting.WAITING):
        working.offer(encoded(shade), UNSURE)
    ended = threading.Thread(target=working.close, daemon=True)
    ended.start()
    ended.join(10)
    assert not ended.is_alive()


def test_an_image_that_cannot_be_removed_is_said_once(tmp_path, monkeypatch):
    first = collector(tmp_path)
    first.offer(encoded(1), UNSURE)
    first.close()
    said, tries = [], []

    def prune(self, always=False):
        tries.append(always)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(collecting, "_PRUNE_EVERY", 0.01)
    monkeypatch.setattr(Collector, "_prune", prune)
    working = collector(tmp_path, said)
    wait_for(lambda: len(tries) > 3)
    working.close()
    assert said == [f"--collect={tmp_path}: an image could not be removed (permission denied)"]


def test_of_the_files_in_its_folder_a_collector_removes_only_its_own(tmp_path):
    name = f"20200101-{'a' * 16}"
    own = ["glass/001-front.jpg", "glass/2024-05-01.jpg", "notes/1-plan.json", "notes/a-b.partial"]
    own += [f"glass/{name}.jpg", f"glass/{name}.png", "answers/20200102-00.json", f"../{'b' * 8}.jpg"]
    files = [tmp_path / "kept" / file for file in own]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"mine" * 100)  # an image under our name has no answer of ours beside it
    (tmp_path / "kept" / "answers" / f"20200103-{'c' * 16}.json").write_text(
        '{"file": "glass/001-front.jpg"}'
    )
    working = collector(tmp_path / "kept", bytes=1, days=1)
    working.offer(encoded(1), UNSURE)
    working.close()
    assert all(file.read_bytes() == b"mine" * 100 for file in files)
    assert working.counts["removed"] == working.counts["kept"] == 1
    assert not list((tmp_path / "kept").glob(f"*/{time.strftime('%Y%m')}*"))


def test_a_folder_of_other_files_is_no_place_to_collect_in(tmp_path):
    args = parser("serve").parse_args(["serve", f"--collect={tmp_path / 'kept'}"])
    (tmp_path / "kept" / "lost+found").mkdir(parents=True)
    (tmp_path / "kept" / ".DS_Store").touch()
    assert command.collecting(args)
    working = collector(tmp_path / "kept")
    working.offer(encoded(1), UNSURE)
    working.close()
    assert command.collecting(args)
    (tmp_path / "kept" / "answers" / "model.json").unlink()
    with pytest.raises(UserError, match=r"^--collect=.*: is a folder of other files.*; name a new one$"):
        command.collecting(args)


def test_a_full_disk_breaks_no_answer_and_is_said_once(tmp_path, monkeypatch):
    full, said = threading.Event(), []
    full.set()
    write = collecting.write_bytes

    def write_bytes(path, data):
        if full.is_set() and path.suffix == ".jpg":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(collecting, "write_bytes", write_bytes)
    working = collector(tmp_path / "kept", said)
    with server(stand_in(), reject_below=2.0, collector=working) as port:
        for shade in (10, 11, 12):
            status, _, body = ask(port, "POST", "/predict", encoded(shade))
            assert status == 200 and json.loads(body)["answers"][0]["rejected"]
        wait_for(lambda: working.counts["failed"] == 3)
        assert b'wastejax_collected_total{outcome="failed"} 3' in ask(port, "GET", "/metrics")[2]
        full.clear()
        ask(port, "POST", "/predict", encoded(13))
        wait_for(lambda: working.counts["kept"] == 1)
    assert len(said) == 2 and "no space left on device" in said[0] and "answers go on" in said[0]
    assert "kept again" in said[1]
    assert len(kept(tmp_path / "kept")) == 1
    assert len(list((tmp_path / "kept" / "answers").glob("2*.json"))) == 1  # no answer without its image


def wait_for(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_slow_disk_holds_nobody_up(tmp_path, monkeypatch):
    slow = threading.Event()
    monkeypatch.setattr(Collector, "_write", lambda self, *offered: slow.wait(60))
    working = collector(tmp_path)
    for shade in range(collecting.WAITING + 6):
        working.offer(encoded(shade), UNSURE)  # would hang here
    assert working.counts["busy"] >= 5
    slow.set()
    working.close()


def test_without_being_asked_nothing_is_kept():
    with server(stand_in(), reject_below=2.0) as port:
        ask(port, "POST", "/predict", encoded(10))
        assert b"collected" not in ask(port, "GET", "/metrics")[2]
        assert json.loads(ask(port, "GET", "/labels")[2])["collects"] is False


def test_the_page_is_told_that_images_may_be_kept(tmp_path):
    working = collector(tmp_path)
    with server(stand_in(), collector=working) as port:
        assert json.loads(ask(port, "GET", "/labels")[2])["collects"] is True
    app = (PAGE / "app.js").read_text()
    assert "now.labels.collects ? say().collected : say().remote" in app


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--collect-sample=0.1"], "--collect-sample: only with --collect=DIR"),
        (["--collect=DIR", "--collect-sample=1.5"], "--collect-sample: must be a share from 0 to 1"),
        (["--collect=DIR", "--collect-days=0"], "--collect-days: must be > 0"),
        (["--collect=DIR", "--collect-days=inf"], "--collect-days: must be > 0, and at most 36,500; is inf"),
        (["--collect=DIR", "--collect-days=nan"], "--collect-days: must be > 0"),
        (["--collect=DIR", "--collect-days=400000"], "at most 36,500; is 400000"),
        (["--collect=DIR", "--collect-most=lots"], "--collect-most=lots: give a size, as 500MB or 2GB"),
        (["--collect=DIR", "--collect-most=0MB"], "--collect-most=0MB: give a size"),
        (["--collect=FILE"], "--collect=.*is a file"),
    ],
)
def test_what_cannot_be_is_said_before_the_model_is_loaded(tmp_path, options, message):
    (tmp_path / "file").touch()
    options = [
        o.replace("DIR", str(tmp_path / "new")).replace("FILE", str(tmp_path / "file")) for o in options
    ]
    args = parser("serve").parse_args(["serve", *options])
    with pytest.raises(UserError, match=message):
        command.collecting(args)


@pytest.mark.parametrize(
    ("text", "count"), [("1GB", 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 1610612736), ("9", 9), ("2k", 2000)]
)
def test_sizes(text, count):
    assert command.number_of_bytes(text) == count


def test_from_the_server_into_class_folders(tmp_path):
    """Kept images are reviewed, and what was said of them lies beside the images of its class."""
    data, said = draw_images(tmp_path / "data", 10), []
    working = collector(tmp_path / "kept")
    for shade in (10, 20, 30, 40):
        working.offer(encoded(shade), UNSURE)
    working.close()
    page = review_collected(tmp_path / "kept", tmp_path / "out", say=said.append)
    assert page.is_file() and "4 of 4 images" in said[-1]
    names = [str(path.relative_to(tmp_path / "kept")) for path in kept(tmp_path / "kept")]
    file = tmp_path / "c.csv"
    rows = [
        (names[0], "tea_bags"),
        (names[1], "drop"),
        (names[2], "glass"),
        ("glass/20200101-00.jpg", "glass"),
    ]
    file.write_text(to_csv(rows))
    before = {path: path.read_bytes() for path in data.rglob("*.*")}
    assert add_collected(tmp_path / "kept", file, data, said.append) == {"tea_bags": 1, "glass": 1}
    new = set(data.rglob("*.*")) - set(before)
    assert {str(path.relative_to(data)) for path in new} == {
        f"tea_bags/{names[0].split('/')[1]}",
        f"glass/{names[2].split('/')[1]}",
    }
    assert all(path.read_bytes() == content for path, content in before.items())
    assert "1 reviewed images are not in" in said[-1]
    assert add_collected(tmp_path / "kept", file, data, said.append) == {}  # twice is as good as once
    review_collected(tmp_path / "kept", tmp_path / "out", file, said.append)
    assert "1 of 1 images" in said[-1]  # what was reviewed is not shown again
    file.write_text(to_csv([(names[3], "glas")]))
    with pytest.raises(UserError, match=r"has no class 'glas'; did you mean 'glass'"):
        add_collected(tmp_path / "kept", file, data)


@pytest.mark.parametrize(
    "folder",
    [unicodedata.normalize("NFD", "유리"), "유리".encode("euc-kr").decode("utf-8", "surrogateescape")],
)
def test_images_are_added_to_folders_whatever_their_names_are_encoded_in(tmp_path, folder):
    for place in (tmp_path / "data" / folder, tmp_path / "data" / "can", tmp_path / "kept" / "day"):
        place.mkdir(parents=True)
        (place / f"{place.name[:3]}.jpg").write_bytes(encoded(10))
    label = next(name for name in open_folder(tmp_path / "data").classes if name != "can")
    file = tmp_path / "c.csv"
    file.write_text(to_csv([("day/day.jpg", label)]), encoding="utf-8")
    assert add_collected(tmp_path / "kept", file, tmp_path / "data") == {label: 1}
    assert (tmp_path / "data" / folder / "day.jpg").read_bytes() == encoded(10)
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_an_image_that_is_there_as_another_class_is_told_without_a_search_for_each(tmp_path, monkeypatch):
    class Names(tuple):
        def index(self, *_):
            raise AssertionError("searched")

    def opened(*arguments):
        source = open_folder(*arguments)
        return dataclasses.replace(source, names=Names(source.names))

    monkeypatch.setattr("wastejax.auditing.collected.open_folder", opened)
    data, said = draw_images(tmp_path / "data", 10), []
    for folder in (tmp_path / "kept", data):
        (folder / "glass").mkdir(parents=True, exist_ok=True)
        (folder / "glass" / "20200101-00.jpg").write_bytes(encoded(10))
    file = tmp_path / "c.csv"
    file.write_text(to_csv([("glass/20200101-00.jpg", "tea_bags")]))
    assert add_collected(tmp_path / "kept", file, data, said.append) == {}
    note = "note: glass/20200101-00.jpg is there as glass, and was reviewed as tea_bags: move it yourself"
    assert note in said
