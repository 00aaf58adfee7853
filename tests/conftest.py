import os
import tempfile
from pathlib import Path

import pytest

# Tests of answers are of the model itself; those of other engines ask for them.
os.environ.setdefault("WASTEJAX_ENGINE", "jax")
# The files that take longest, longest first: a file is never split, and others can be tested beside these.
LONGEST = ("test_run.py", "test_models.py", "test_api.py", "test_step.py", "test_class_maps.py")


def pytest_configure(config: pytest.Config) -> None:
    """Lets the tests of a worker, and the commands that they start, share compiled programs.

    Each worker has a folder of its own, as jax does not write them in one move.
    """
    only_hands_out = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if only_hands_out or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = tempfile.TemporaryDirectory(prefix="wastejax-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")


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
