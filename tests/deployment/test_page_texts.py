"""The page says everything in every language."""

import re

import pytest

from wastejax.data.taxonomy import COUNTRIES, LANGUAGES, load_taxonomy
from wastejax.deployment.website import PAGE

SHAPES = """
const { TEXTS, REGIONS } = await import(process.argv[1] + "/texts.js");
const shape = (value) => typeof value === "function" ? `function ${value.length}` : typeof value === "string"
  ? value.trim() : Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, shape(inner)]));
console.log(JSON.stringify({ texts: shape(TEXTS), regions: shape(REGIONS) }));
"""


@pytest.fixture(scope="module")
def page(node):
    return node(SHAPES)


def leaves(value, above=()):
    """{('reasons', '400'): 'damaged image', …}"""
    if not isinstance(value, dict):
        return {above: value}
    return {key: leaf for name, inner in value.items() for key, leaf in leaves(inner, (*above, name)).items()}


def test_every_language_says_the_same_things(page):
    assert set(page["texts"]) == set(LANGUAGES)
    english = leaves(page["texts"]["en"])
    assert len(english) > 30 and all(english.values())
    for language in LANGUAGES:
        other = leaves(page["texts"][language])
        assert other.keys() == english.keys() and all(other.values())
        kinds = [text for text in english.items() if text[1].startswith("function")]
        assert [(key, other[key]) for key, _ in kinds] == kinds
        if language != "en":
            same = [key for key in english if other[key] == english[key] and (key, other[key]) not in kinds]
            assert not same  # nothing was left untranslated


def test_the_page_offers_every_language_and_uses_the_texts_that_are_there(page):
    html = (PAGE / "index.html").read_text()
    script = "".join(path.read_text() for path in PAGE.glob("*.js"))
    assert set(re.findall(r'<option value="(\w+)"', html)) == set(LANGUAGES)
    used = set(re.findall(r'data-(?:text|label|alt)="(\w+)"', html))
    used |= set(re.findall(r"\b(?:texts|say\(\))\.(?!js\b)(\w+)", script))
    used |= set(re.findall(r'\b(?:tell\(|key: )"(\w+)"', script))
    assert used - {"shown"} == page["texts"]["en"].keys()  # "shown" is said with the answers' own words


def test_every_country_is_named_in_every_language(page):
    for country in COUNTRIES:
        assert page["regions"][load_taxonomy(country).name].keys() == set(LANGUAGES) - {"en"}
