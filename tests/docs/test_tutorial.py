"""docs/tutorial-python.md, run from top to bottom as in a notebook."""

import re
from pathlib import Path

import pytest

import wastejax

TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial-python.md"


def test_it_shows_every_function():
    text = TUTORIAL.read_text()
    functions = {name for name in wastejax.__all__ if name[0].islower()}
    assert {name for name in functions if f"wastejax.{name}(" in text} == functions


@pytest.mark.slow  # tests/test_api.py trains, scores and exports by the examples of the same functions
def test_every_block_runs_and_says_what_the_text_promises(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WASTEJAX_CACHE", str(tmp_path / "cache"))
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(), re.S):
        exec(compile(block, str(TUTORIAL), "exec"), names)
    said = capsys.readouterr().out
    assert "aluminum_soda_cans metal_cans" in said
    assert "36 files, 36 distinct" in said
    assert "top-1" in said and said.rstrip().endswith("(1, 3)")
    assert names["mine"].classes == ("cans", "cups", "paper")
