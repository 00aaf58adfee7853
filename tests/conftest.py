import os
from pathlib import Path

import pytest

# Tests of answers are of the model itself; those of other engines ask for them.
os.environ.setdefault("WASTEJAX_ENGINE", "jax")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the whole runs first: they are one file and the longest, and others can be tested beside them."""
    items.sort(key=lambda item: item.path.name != "test_run.py")


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The development images: WASTEJAX_DATA, or ../shared/data beside the checkout; skips where absent."""
    root = Path(os.environ.get("WASTEJAX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (root / "trashnet").is_dir():
        pytest.skip(f"no development images at {root}")
    return root
