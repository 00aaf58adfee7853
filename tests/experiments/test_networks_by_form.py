"""Every family in every form: the whole table is slow; the smallest network stands for it in `make test`."""

import json

import pytest

from experiments.networks_by_form import FORMS, NETWORKS, PAGE, RESULT, cell, page
from wastejax.models import FAMILIES

QUICK = "PyramidNet, CIFAR stem"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {name: tmp_path_factory.mktemp("network") for name in NETWORKS}


def test_every_family_has_a_row_and_the_page_is_made_of_the_measurement():
    assert {network.model["name"] for network in NETWORKS.values()} == FAMILIES.keys()
    rows = json.loads(RESULT.read_text())
    assert rows and rows.keys() <= NETWORKS.keys()
    assert all(row["cells"].keys() == FORMS.keys() for row in rows.values())
    assert PAGE.read_text() == "\n".join(page(rows)) + "\n"


@pytest.mark.parametrize(
    "form", ["train", "frozen blocks", "bfloat16", "predict", "ONNX Runtime", "StableHLO"]
)
def test_the_smallest_network_in(form, folders):
    assert cell(QUICK, form, folders[QUICK])


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", NETWORKS)
def test_network_in_form(name, form, folders):
    assert cell(name, form, folders[name])
