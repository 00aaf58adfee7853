"""What can be read at a glance: short functions and files, few parameters, folders that one look takes in.

Ruff limits parameters and statements; lines, files and folders it does not know.
"""

import ast
from collections import Counter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "wastejax"
FILES = sorted(PACKAGE.rglob("*.py"))
LINES_OF_A_FILE, LINES_OF_A_FUNCTION, PARAMETERS, FILES_OF_A_FOLDER = 400, 60, 7, 13


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LINES_OF_A_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            assert node.end_lineno - node.lineno < LINES_OF_A_FUNCTION, node.name
            assert len([name for name in names if name not in ("self", "cls")]) <= PARAMETERS, node.name


def test_no_folder_has_more_files_than_one_look_takes_in():
    full = Counter(path.parent for path in FILES)
    assert {str(f.relative_to(PACKAGE)): n for f, n in full.items() if n > FILES_OF_A_FOLDER} == {}
