"""Every command of README and docs: run in its order, page by page, in a fresh copy with images of one's own.

What a page shows in a ```sh block is run there, unless the line above it is `<!-- not run: REASON -->`; the
options of such a block are checked all the same. `my_images` is a folder of classes, `photos` one of images,
`photo.jpg` an image. What would install is only looked at: make's targets have to exist, and pip's extras.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from wastejax.data.drawing.dataset import draw
from wastejax.main import parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<why>[^\n]*) -->\n\n?)?^```sh\n(?P<text>.*?)^```", re.DOTALL | re.MULTILINE
)
SHELL = """
trap 'echo "failed: $BASH_COMMAND" >&2' ERR
wastejax() { python -m wastejax.main "$@"; }
pip() { echo "pip $*"; }
"""
IN_CHECKOUT = 'make() { command make --dry-run "$@" > /dev/null; }\n'
ELSEWHERE = 'make() { [ "$1" != train ] || wastejax --config=mobilevit_ir --config.train.epochs=1; }\n'


def blocks(page: str, run: bool) -> list[str]:
    """The blocks of a page that are to be run, or those that are not."""
    found = BLOCK.finditer((ROOT / page).read_text())
    return [match["text"] for match in found if (match["why"] is None) == run]


def commands(page: str) -> list[list[str]]:
    """Every command of a page as its words, also of the blocks that are not run."""
    text = "\n".join(blocks(page, True) + blocks(page, False)).replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [words for words in lines if words]


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A fresh copy of what git knows, as it is now, with images of one's own beside it."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no checkout to copy")
    root = tmp_path_factory.mktemp("fresh") / "wastejax"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    return with_images(root)


def with_images(folder: Path) -> Path:
    """Puts the images that pages speak of into a folder, and an environment that leaves the test's own active."""
    for name in ("aluminum_soda_cans", "glass_beverage_bottles", "shoes"):
        (folder / "my_images" / name).mkdir(parents=True)
        for i in range(8):
            draw(name, i, "default").save(folder / "my_images" / name / f"{i}.jpg")
    (folder / "photos").mkdir()
    draw("shoes", 20, "real_world").save(folder / "photos" / "a.jpg")
    draw("shoes", 21, "real_world").save(folder / "photo.jpg")
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").write_text("")
    return folder


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page == "README.md" else pytest.mark.slow)
        for page in PAGES
        if blocks(page, run=True)
    ],
)
def test_the_commands_of_a_page_run_in_their_order(copy, page, tmp_path):
    run_page(page, copy, IN_CHECKOUT, WASTEJAX_CACHE=str(tmp_path / "cache"))


def run_page(page: str, folder: Path, make: str, **env: str) -> None:
    """Runs the commands of a page in a folder; `make` says what that command does there."""
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", SHELL + make + "\n".join(blocks(page, run=True))],
        cwd=folder,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | env,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert "Traceback" not in done.stderr, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A folder with what a wheel installs, without what it asks for."""
    scratch = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", "--no-deps", f"--wheel-dir={scratch}", str(ROOT)], check=True)
    (built,) = scratch.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", f"--target={scratch / 'site'}", str(built)], check=True)
    return scratch / "site"


@pytest.mark.slow  # pip fetches what builds a wheel; and the commands take minutes
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, run=True)])
def test_they_run_where_a_wheel_is_installed_and_no_checkout_is_near(wheel, page, tmp_path):
    place = {"PYTHONPATH": str(wheel), "WASTEJAX_CACHE": str(tmp_path / "cache")}
    where = [sys.executable, "-c", "import wastejax; print(wastejax.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=os.environ | place, capture_output=True, text=True)
    assert Path(found.stdout.strip()).is_relative_to(wheel)
    run_page(page, with_images(tmp_path / "mine"), ELSEWHERE, **place)


@pytest.mark.parametrize("page", PAGES)
def test_the_options_of_every_command_exist(page):
    for words in commands(page):
        if words[0] != "wastejax":
            continue
        arguments = words[1:]
        if arguments[0].startswith("--config"):
            arguments = ["train", *arguments]
        _, rest = parser(arguments[0]).parse_known_args(arguments)
        assert all(word.startswith("--config.") for word in rest), words


def test_what_pages_install_and_make_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for page in PAGES:
        for words in commands(page):
            for extra in re.findall(r"^\.\[(.*)\]$", words[-1]) if words[0] == "pip" else ():
                assert set(extra.split(",")) <= extras.keys(), (page, words)
            if words[0] == "make":
                assert words[1] in targets, (page, words)


def test_a_block_without_a_reason_is_run():
    text = "<!-- not run: slow -->\n```sh\na\n```\n\ntext\n\n```sh\nb\n```\n"
    assert [(match["why"], match["text"]) for match in BLOCK.finditer(text)] == [
        ("slow", "a\n"),
        (None, "b\n"),
    ]
