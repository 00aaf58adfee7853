"""What is committed about exported forms: the table is the measurement, and the measurement keeps the promise."""

import json

import numpy as np
import pytest

from experiments import agreement

RESULT = json.loads((agreement.RESULTS / "agreement.json").read_text())


def test_the_table_is_made_of_the_measurement():
    text = (agreement.RESULTS / "agreement.md").read_text()
    assert text == "\n".join(agreement.report(RESULT)) + "\n"


@pytest.mark.parametrize("run", RESULT)
def test_float32_forms_answer_as_the_model_and_smaller_ones_nearly(run):
    forms = RESULT[run]["forms"]
    assert set(forms) == set(agreement.FORMS)
    for name, row in forms.items():
        assert row["pictures"] == 200
        if agreement.FORMS[name].precision == "none":
            assert row["agreement"] == 1 and row["largest_difference"] < 1e-4
        else:
            assert row["whole_split"]["pictures"] > 200
            assert row["agreement"] >= (0.99 if agreement.FORMS[name].precision == "fp16" else 0.93)


def test_forms_are_compared_image_by_image():
    reference = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
    other = np.array([[0.8, 0.2], [0.6, 0.4], [0.6, 0.4], [0.5, 0.5]])
    found = agreement.compare(reference, other, np.array([0, 0, 1, 0]))
    assert found["agreement"] == 0.75 and found["top1"] == 0.75
    assert found["largest_difference"] == pytest.approx(0.4)
