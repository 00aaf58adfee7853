import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The development pictures: WASTEJAX_DATA, or ../shared/data beside the checkout; skips where absent."""
    root = Path(os.environ.get("WASTEJAX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (root / "trashnet").is_dir():
        pytest.skip(f"no development pictures at {root}")
    return root
