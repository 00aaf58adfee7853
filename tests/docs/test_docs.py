"""Links lead somewhere, README stays short, and the generated reference is what the commands say."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_links_lead_somewhere():
    check = script("check")
    pages = check.documents()
    assert ROOT / "docs" / "README.md" in pages
    assert [line for page in pages for line in check.broken_links(page)] == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[a](b.md)", None),
        ("[a](b.md#two-words-1)", None),
        ("[`code` and *more*](sub/../b.md#two-words)", None),
        ("[a](https://example.org/nothing)", None),
        ("`[a](missing.md)`", None),
        ("```sh\n[a](missing.md)\n```", None),
        ("[a](missing.md)", "a.md: no file missing.md"),
        ("![a](missing.png)", "a.md: no file missing.png"),
        ("[a](b.md#three-words)", "a.md: no heading b.md#three-words"),
        ("[a](../b.md)", "a.md: no file ../b.md"),
        ("[a](#here)\n# Here, or there?", "a.md: no heading #here"),
        ("[a](#here-or-there)\n# Here, or there?", None),
    ],
)
def test_a_broken_link_is_named(tmp_path, text, problem):
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.md").write_text("# Two `words`\n\n```\n# No heading\n```\n\n## Two words\n")
    (tmp_path / "a.md").write_text(text)
    assert script("check").broken_links(tmp_path / "a.md", tmp_path) == ([problem] if problem else [])


def test_readme_fits_on_two_pages():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_every_page_of_the_documentation_is_reachable():
    check = script("check")
    seen, queue = set(), [ROOT / "README.md"]
    while queue:
        page = queue.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        targets = check.LINK.findall(check.CODE.sub("", page.read_text()))
        queue += [
            (page.parent / target.partition("#")[0]).resolve() for target in targets if ":" not in target
        ]
    assert sorted(set((ROOT / "docs").rglob("*.md")) - seen) == []


def test_the_command_line_reference_is_what_the_parsers_say():
    cli = script("cli")
    page = cli.page()
    assert cli.PAGE.read_text() == page
    assert "| `--format=onnx\\|" in page  # choices stay in their cell
