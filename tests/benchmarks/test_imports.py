"""Benchmarks are run by hand: what they import must be there on the day they are."""

import ast
from importlib import import_module
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "benchmarks").glob("*.py"))


def imported(path):
    """(module, name) of every import from this project in a script, those in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "xhat":
            yield from ((node.module, alias.name) for alias in node.names)


def is_there(module, name):
    if hasattr(import_module(module), name):
        return True
    try:
        import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_what_a_benchmark_imports_is_there_and_public(path):
    names = list(imported(path))
    assert [n for n in names if not is_there(*n)] == []
    assert [n for n in names if n[1].startswith("_")] == []
