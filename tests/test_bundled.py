"""What models are called in results, whoever writes these."""

import pytest

from wastejax.bundled import FOLDER, name_of


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (None, "bundled"),
        ("bundled", "bundled"),
        (FOLDER, "bundled"),
        ("runs/mine", "mine"),
        ("runs/mine/bundle", "mine"),
        ("runs/mine/", "mine"),
        ("files/a.onnx", "a.onnx"),
    ],
)
def test_models_are_called_by_what_their_user_knows(tmp_path, monkeypatch, model, name):
    monkeypatch.chdir(tmp_path)
    assert name_of(model) == name
