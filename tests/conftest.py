import os
from pathlib import Path

import pytest

# Tests of answers are of the model itself; those of other engines ask for them.
os.environ.setdefault("WASTEJAX_ENGINE", "jax")
# The files that take longest, longest first: a file is never split, and others can be tested beside these.
LONGEST = ("test_run.py", "test_models.py", "test_api.py", "test_step.py", "test_class_maps.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, so that no worker is left with one at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The development images: WASTEJAX_DATA, or ../shared/data beside the checkout; skips where absent."""
    root = Path(os.environ.get("WASTEJAX_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (root / "trashnet").is_dir():
        pytest.skip(f"no development images at {root}")
    return root
