"""The direction of the house: imports only point backwards along images -> batches -> model -> run -> answer."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "wastejax"
# What each folder or module may import; itself is always allowed.
ALLOWED = {
    "errors": set(),
    "files": set(),
    "config": {"errors"},
    "data": {"errors", "files"},
    "models": {"errors", "files"},
    "process": {"data"},
    "jit": {"process"},
    "bundle": {"errors", "files", "jit", "data", "models"},
    "evaluation": {"errors", "files", "jit", "data", "models", "bundle"},
    "training": {"errors", "files", "config", "jit", "data", "models", "bundle", "evaluation"},
    "deployment": {"errors", "files", "config", "jit", "data", "models", "bundle", "evaluation"},
    "benchmark": {
        "errors",
        "files",
        "process",
        "config",
        "jit",
        "data",
        "models",
        "bundle",
        "evaluation",
        "training",
    },
    "main": {"errors", "process", "benchmark", "training", "evaluation", "deployment", "models", "data"},
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def part(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = [p for p in sorted(ROOT.rglob("*.py")) if p != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_backwards(path):
    known = set(ALLOWED)
    mine = part(path)
    used = {name.split(".")[1] for name in imports(path) if name.startswith("wastejax.")} & known
    assert used - {mine} <= ALLOWED[mine]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_frameworks_stay_where_they_belong(path):
    used = {name.split(".")[0] for name in imports(path)}
    if part(path) == "data":
        assert not used & {"jax", "flax", "optax", "orbax"}
    linen = {name for name in imports(path) if name.startswith("flax.linen")}
    if part(path) != "models":
        assert not linen
