"""What an audit says of images that are no files of their own: crops of boxes, and images in tables."""

from pathlib import Path

import pytest

from tests.data.by_tools import write
from wastejax.auditing.findings import audit, summary
from wastejax.data.formats.any import open_path

TOOLS = Path(write.__file__).parent


@pytest.mark.parametrize("name", ["coco/annotations.json", "parquet"])
def test_images_without_an_ending_of_their_own_are_not_called_misnamed(name):
    """Crops are PNG by design, whatever their photograph is; rows of Parquet have numbers."""
    if name == "parquet":
        pytest.importorskip("pyarrow")
    found = summary(audit(open_path(TOOLS / name)))
    assert found["num_readable"]
    assert [kind for kind in found["files"]["odd"] if " named " in kind] == []
