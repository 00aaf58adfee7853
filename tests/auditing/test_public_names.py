"""What an audit calls its model."""

from pathlib import Path

import pytest

from wastejax.auditing.run import _public


@pytest.mark.parametrize("given", ["runs/first", Path("runs/first")])
def test_a_model_has_its_own_name_however_its_path_is_given(given):
    assert _public(given) == "first"
    assert _public(None) is None and _public("pypi:efficientnet-lite0") == "pypi:efficientnet-lite0"
