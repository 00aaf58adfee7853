"""Every table of results in the README is what its committed JSON says."""

from pathlib import Path

from experiments import readme

ROOT = Path(__file__).resolve().parents[1]


def test_the_tables_are_made_from_the_results():
    texts = [path.read_text() for path in readme.FILES]
    named = [match[1] for text in texts for match in readme.BLOCK.findall(text)]
    assert set(named) == set(readme.TABLES)
    assert [readme.filled(text) for text in texts] == texts


def test_a_number_changed_by_hand_is_noticed():
    text = (ROOT / "README.md").read_text()
    top1 = readme.percent(readme.load("household_waste_lite0")["test"]["top1"])
    assert top1 in text
    assert readme.filled(text.replace(top1, "99.9 %")) == text
