"""The review page in a real browser, opened as a file: by keyboard and by mouse, kept, merged and saved."""

import csv
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from corrections_file import to_csv
from PIL import Image
from small_models import CLASSES, draw_images
from test_serve import ask, server, stand_in

from wastejax.data.corrections import Corrections, Row, load_corrections
from wastejax.data.sources import open_folder
from wastejax.deployment.server.collecting import Collector, Keep
from wastejax.evaluation.report.review import Doubt, write_review

pytestmark = pytest.mark.slow  # a browser

selenium = pytest.importorskip("selenium", reason="the page's tests need the extra browser: selenium")
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

from experiments.browser import asked_hosts  # noqa: E402


@pytest.fixture
def source(tmp_path):
    return open_folder(draw_images(tmp_path / "images", 10))


@pytest.fixture
def page(driver, source, tmp_path):
    """A page of six doubts with an earlier correction of an image that is not on it, open in the browser."""
    doubts = [Doubt(i, "label error", "glass", 0.03, 0.94) for i in (4, 6)]
    doubts += [Doubt(i, "conflict", group=1) for i in (0, 1)]
    doubts += [Doubt(i, "mistake", "tea_bags", 0.1, 0.8) for i in (8, 9)]
    earlier = {"gone/1.png": Row("gone/1.png", "drop", "gone", 'a "note", quoted')}
    path = tmp_path / "out" / "review.html"
    write_review(path, "Review of images", source, doubts, CLASSES, earlier)
    downloads = download_to(driver, tmp_path / "downloads")
    asked_hosts(driver)
    driver.get(path.as_uri())
    return downloads


def download_to(driver, folder: Path) -> Path:
    folder.mkdir()
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    return folder


def press(driver, *keys: str) -> None:
    for key in keys:
        ActionChains(driver).send_keys(key).perform()


def text(driver, identity: str) -> str:
    return driver.find_element(By.ID, identity).get_property("textContent")


def saved(driver, downloads: Path) -> dict[str, Row]:
    driver.find_element(By.ID, "save").click()
    file = downloads / "corrections.csv"
    WebDriverWait(driver, 20).until(lambda _: file.is_file() and file.stat().st_size)
    rows = dict(load_corrections(file).rows)
    file.unlink()
    return rows


def current(driver) -> str:
    return driver.find_element(By.CSS_SELECTOR, "article.current").get_attribute("data-file")


def test_by_keyboard_alone(driver, page, source):
    names = [source.names[i] for i in (4, 6, 0, 1, 8, 9)]
    old = [source.classes[source.labels[i]] for i in (4, 6, 0, 1, 8, 9)]
    assert current(driver) == names[0] and text(driver, "progress") == "0 of 6 reviewed"
    press(driver, "s")  # takes the suggestion and goes on
    assert current(driver) == names[1]
    press(driver, "a", "d", "r")
    assert driver.switch_to.active_element.get_attribute("id") == "search"
    press(driver, "t", "e", "a", Keys.ENTER)
    press(driver, "d", "k", "u")  # dropped, then back to it and undone
    assert text(driver, "progress") == "4 of 6 reviewed"
    assert driver.switch_to.active_element.get_attribute("data-file") == names[4]
    assert saved(driver, page) == {
        names[0]: Row(names[0], "glass", old[0]),
        names[1]: Row(names[1], old[1], old[1], "checked"),
        names[2]: Row(names[2], "drop", old[2]),
        names[3]: Row(names[3], "tea_bags", old[3]),
        "gone/1.png": Row("gone/1.png", "drop", "gone", 'a "note", quoted'),
    }
    assert "Saved 5 corrections" in text(driver, "status")
    assert asked_hosts(driver) <= {""}  # it asks nobody


def test_by_mouse_and_what_was_done_is_there_after_a_reload(driver, page, source):
    def button(number: int, action: str):
        card = driver.find_elements(By.TAG_NAME, "article")[number]
        found = card.find_element(By.CSS_SELECTOR, f"[data-action={action}]")
        driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
        return found

    button(2, "drop").click()
    button(4, "suggest").click()
    button(0, "relabel").click()
    options = driver.find_elements(By.CSS_SELECTOR, "#options [role=option]")
    assert [option.text for option in options] == sorted(name.replace("_", " ") for name in CLASSES)
    driver.find_element(By.ID, "search").send_keys("cup")
    (only,) = driver.find_elements(By.CSS_SELECTOR, "#options [role=option]")
    only.click()
    driver.refresh()
    assert text(driver, "progress") == "3 of 6 reviewed"
    assert button(2, "drop").get_attribute("aria-pressed") == "true"
    rows = saved(driver, page)
    assert [rows[source.names[i]].label for i in (0, 8, 4)] == ["drop", "tea_bags", "paper_cups"]
    driver.find_element(By.CSS_SELECTOR, "#filter option[value=open]").click()
    assert len([a for a in driver.find_elements(By.TAG_NAME, "article") if a.is_displayed()]) == 3


def test_two_tabs_keep_what_is_decided_in_either(driver, page, source):
    names = [source.names[i] for i in (4, 6, 0)]
    first, address = driver.current_window_handle, driver.current_url
    driver.switch_to.new_window("tab")
    try:
        driver.get(address)
        press(driver, "d")
        driver.switch_to.window(first)
        WebDriverWait(driver, 20).until(lambda d: text(d, "progress") == "1 of 6 reviewed")
        press(driver, "j", "a")
        driver.refresh()
        # One that was away, and was told of nothing, looks when it is back.
        driver.execute_script(
            "const kept = JSON.parse(localStorage[STORE]);"
            "kept.decisions.push([arguments[0], {label: 'drop', note: ''}]);"
            "localStorage[STORE] = JSON.stringify(kept);"
            "dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}));",
            names[2],
        )
        rows = saved(driver, page)
        assert [rows[name].label for name in names] == ["drop", source.label_names[6], "drop"]
    finally:
        driver.switch_to.window(next(h for h in driver.window_handles if h != first))
        driver.close()
        driver.switch_to.window(first)


def test_several_classes_an_image(driver, source, tmp_path):
    """By keyboard: the suggestion, one class added and one taken away, and all taken away; then it is read back."""
    sets = [["glass"], ["glass", "tea_bags"], ["paper_cups"], []] + [["glass"]] * 6
    several = source.with_several(sets)
    doubts = [Doubt(i, "mistake", "none" if i == 2 else "glass;paper_cups") for i in range(4)]
    write_review(tmp_path / "review.html", "Several", several, doubts, CLASSES)
    downloads = download_to(driver, tmp_path / "downloads")
    driver.get((tmp_path / "review.html").as_uri())
    press(driver, "s", "r", "p", "a", "p", "e", "r", Keys.ENTER)
    assert text(driver, "picked") == "It shows glass, paper cups, tea bags"
    press(driver, "t", "e", "a", Keys.ENTER, Keys.TAB, Keys.ENTER)  # Tab leads to Done
    press(driver, "r", "p", "a", "p", "e", "r", Keys.ENTER)
    assert text(driver, "picked") == "It shows none"
    press(driver, Keys.TAB, Keys.ENTER, "a")
    names, old = several.names, [";".join(names) or "none" for names in sets]
    rows = saved(driver, downloads)
    assert [rows[names[i]].label for i in range(4)] == [
        "glass;paper_cups",
        "glass;paper_cups",
        "none",
        "none",
    ]
    assert [rows[names[i]].old_label for i in range(4)] == old[:4] and rows[names[3]].note == "checked"
    fixed = Corrections(Path("c.csv"), "key", b"", rows).of(several).applied(several)
    assert fixed.label_names[:4] == ["glass;paper_cups", "glass;paper_cups", "", ""]


def test_earlier_corrections_are_merged_and_what_is_decided_here_stays(driver, page, source, tmp_path):
    press(driver, "d")
    here, there = source.names[4], source.names[6]
    file = tmp_path / "earlier.csv"
    # With a spreadsheet's mark at the start, another order of columns, and a line break in a note.
    file.write_bytes(
        (
            f'\ufefflabel,file,note\r\nglass,{here},\r\ntea_bags,{there},"two\nlines"\r\ndrop,"x, ""y"".png",\r\n'
        ).encode()
    )
    driver.find_element(By.ID, "load").send_keys(str(file))
    WebDriverWait(driver, 20).until(lambda d: "1 taken over" in text(d, "status"))
    assert "1 of images that are not on this page kept" in text(driver, "status")
    assert "1 decided otherwise here, which stays" in text(driver, "status")
    rows = saved(driver, page)
    assert rows[here].label == "drop" and rows[there] == Row(
        there, "tea_bags", source.classes[source.labels[6]], "two\nlines"
    )
    assert rows['x, "y".png'].label == "drop" and "gone/1.png" in rows
    for content, problem in (
        (b"no,table\n1,2\n", "has no columns file and label"),
        ("file,label\nä.jpg,glass\n".encode("cp1252"), "is not in UTF-8"),
    ):
        file.write_bytes(content)
        driver.find_element(By.ID, "load").send_keys(str(file))
        WebDriverWait(driver, 20).until(lambda d, problem=problem: problem in text(d, "status"))


def test_for_screen_readers_and_in_the_dark(driver, page):
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]

    def named(role: str) -> list[str]:
        nodes = [n for n in tree if n.get("role", {}).get("value") == role and not n["ignored"]]
        return [node.get("name", {}).get("value", "").strip() for node in nodes]  # Chromium 150 keeps a blank

    assert (
        all(named("button")) and len(named("button")) == 4 * 6 + 4 + 1 + 1
    )  # cards, suggestions, save, file
    assert named("image") == [f"image {i}" for i in range(1, 7)]
    assert len(named("article")) == 6 and all(name.startswith("Labeled ") for name in named("article"))
    assert named("combobox") == ["Show"] and named("status")
    press(driver, "r", Keys.ESCAPE)
    assert driver.switch_to.active_element.tag_name == "article"  # the focus is back where it was
    driver.find_element(By.ID, "keys").click()
    press(driver, "d")
    assert text(driver, "progress") == "0 of 6 reviewed"  # single keys can be turned off
    shades = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        style = "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
        shades[scheme] = driver.execute_script(style)
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert shades == {
        "light": ["rgb(31, 41, 51)", "rgb(255, 255, 255)"],
        "dark": ["rgb(228, 231, 235)", "rgb(20, 24, 29)"],
    }


def test_from_what_a_server_kept_to_a_better_model(driver, tmp_path, monkeypatch):
    """Serve, collect, review in the browser, add, train with corrections, score: the guide, in its order."""
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    data = draw_images(tmp_path / "data", 40)
    kept = Collector(Keep(tmp_path / "collected"), "stand-in", CLASSES)
    with server(stand_in(), reject_below=2.0, collector=kept) as port:
        for shade in (0, 60, 250):
            image = io.BytesIO()
            Image.effect_noise((64, 64), 20).point(lambda v, s=shade: v // 4 + s * 3 // 4).save(image, "PNG")
            assert ask(port, "POST", "/predict", image.getvalue())[0] == 200
    assert kept.counts["kept"] == 3
    run("audit", f"--collected={tmp_path / 'collected'}", f"--out={tmp_path / 'review'}")
    downloads = download_to(driver, tmp_path / "downloads")
    driver.get((tmp_path / "review" / "review.html").as_uri())
    press(driver, "a", "d", "r", *"glass", Keys.ENTER)
    first, dropped, third = (
        article.get_attribute("data-file") for article in driver.find_elements(By.TAG_NAME, "article")
    )
    rows = saved(driver, downloads)
    assert [rows[name].label for name in (first, dropped, third)] == [first.split("/")[0], "drop", "glass"]
    file = tmp_path / "corrections.csv"
    file.write_text(to_csv(rows.values()))
    run("add", f"--collected={tmp_path / 'collected'}", f"--corrections={file}", f"--data={data}")
    assert (data / first).is_file() and (data / "glass" / Path(third).name).is_file()
    assert not list(data.rglob(Path(dropped).name))

    relabeled = "paper_cups/02.png"
    file.write_text(to_csv([(relabeled, "glass", "paper_cups"), ("glass/01.jpg", "drop", "glass")]))
    options = [
        "--config=efficientnetv2_eca",
        "--config.model.size=tiny",
        "--config.data.image_size=32",
        "--config.train.epochs=1",
        "--config.train.batch_size=8",
        "--config.data.split.group=none",
        f"--config.data.dir={data}",
        f"--config.data.corrections={file}",
        f"--workdir={tmp_path / 'run'}",
    ]
    run(*options)
    facts = json.loads((tmp_path / "run" / "report.json").read_text())["facts"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert facts["corrections"] == {"sha256": digest, "relabeled": 1, "dropped": 1, "confirmed": 0}
    assert (tmp_path / "run" / "corrections.csv").read_bytes() == file.read_bytes()
    assert digest in (tmp_path / "run" / "report.md").read_text()
    with (tmp_path / "run" / "manifest.csv").open() as lines:
        listed = {row["file"]: row["label"] for row in csv.DictReader(lines)}
    assert listed[relabeled] == "glass" and "glass/01.jpg" not in listed and first in listed
    assert "is finished" in run(*options)
    out = run(
        "eval", f"--model={tmp_path / 'run'}", "--split=train", f"--review={tmp_path / 'mistakes.html'}"
    )
    assert f"{facts['splits']['train']:,} images" in out
    driver.get((tmp_path / "mistakes.html").as_uri())
    assert text(driver, "title") == "Mistakes of run"
    file.write_text(to_csv([(relabeled, "glass")]))
    assert "has changed since the run began" in run(*options, code=2)


def run(*arguments: str, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "wastejax.main", *arguments], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr
