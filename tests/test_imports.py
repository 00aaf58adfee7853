"""The direction of the house: imports only point backwards along images -> batches -> model -> run -> answer."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "wastejax"
# What each folder or module may import; itself is always allowed.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "bundled": set(),
    "machine": set(),
    "progress": set(),
    "files": {"errors"},
    "keys": {"errors"},
    "config": {"errors", "keys"},
    "data": {"errors", "files", "progress"},
    "runtime": {"errors", "progress", "data", "machine"},
    "models": {"errors", "files", "progress", "config", "runtime", "machine"},
    "metadata": {"config", "data"},
    "bundle": {"errors", "files", "progress", "config", "runtime", "machine", "data", "models"},
}
ALLOWED["bundle"] |= {"bundled", "metadata"}
ALLOWED["evaluation"] = ALLOWED["bundle"] | {"bundle"}
ALLOWED["auditing"] = ALLOWED["evaluation"] | {"evaluation"}
ALLOWED["training"] = ALLOWED["evaluation"] | {"evaluation"}
ALLOWED["deployment"] = ALLOWED["evaluation"] | {"evaluation"}
ALLOWED["benchmark"] = ALLOWED["training"] | {"training", "deployment"}
ALLOWED["cli"] = ALLOWED["benchmark"] | {"benchmark", "auditing", "deployment"}
ALLOWED["api"] = ALLOWED["cli"]
ALLOWED["main"] = ALLOWED["cli"] | {"cli"}

FILES = {
    path.relative_to(PACKAGE.parent)
    .with_suffix("")
    .as_posix()
    .replace("/", ".")
    .removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
MODULES = [name for name in FILES if name != "wastejax"]


def import_nodes(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Every import statement below a node, also inside functions, but for those that only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from import_nodes(child)


@cache
def imports(path: Path) -> set[str]:
    """Every module that a file imports; of the package's own, the file that holds what is asked for."""
    found = set()
    for node in import_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            if node.module.startswith("wastejax"):
                names = {name if name in FILES else node.module for name in names}
            found |= names
    return found


def part(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_backwards(module):
    used = {part(name) for name in imports(FILES[module]) if name.startswith("wastejax.")}
    assert used - {part(module)} <= ALLOWED[part(module)]


def test_no_module_imports_itself_by_way_of_others():
    graph = {module: {name for name in imports(path) if name in FILES} for module, path in FILES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


@pytest.mark.parametrize("module", MODULES)
def test_frameworks_stay_where_they_belong(module):
    used = imports(FILES[module])
    if part(module) == "data":
        assert not {name.split(".")[0] for name in used} & {"jax", "flax", "optax", "orbax"}
    if part(module) != "models":
        assert not [name for name in used if name.startswith("flax.linen")]


@pytest.mark.parametrize("module", MODULES)
def test_only_layers_know_the_forms_for_a_cpu(module):
    if not module.startswith(("wastejax.models.layers.", "wastejax.models.cpu.")):
        assert not [name for name in imports(FILES[module]) if name.startswith("wastejax.models.cpu")]
