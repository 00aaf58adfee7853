"""Every table of results in README.md and docs is what its committed JSON says."""

from experiments import readme


def test_the_tables_are_made_from_the_results():
    texts = {path: path.read_text() for path in readme.FILES}
    named = [match[1] for text in texts.values() for match in readme.BLOCK.findall(text)]
    assert set(named) == set(readme.TABLES)
    assert {path: readme.filled(text, path) for path, text in texts.items()} == texts


def test_a_number_changed_by_hand_is_noticed():
    path = readme.ROOT / "README.md"
    text = path.read_text()
    top1 = readme.percent(readme.load("household_waste_lite0")["test"]["top1"])
    assert top1 in text
    assert readme.filled(text.replace(top1, "99.9 %"), path) == text


def test_links_of_a_table_lead_from_its_page():
    path = readme.ROOT / "docs" / "results" / "trained-models.md"
    assert "](../../experiments/results/household_waste_lite0.json)" in readme.filled(path.read_text(), path)
