"""An unknown name is told with the nearest known one, and what there is."""

import ast
from pathlib import Path

import pytest

from xhat.hooks.naming import UnknownName, nearest, suggestion

ROOT = Path(__file__).parents[2]


def test_the_nearest_comes_first_and_nothing_far_is_suggested():
    assert nearest("hybird", ["base", "hybrid", "hybrids"], 2) == ["hybrid", "hybrids"]
    assert suggestion("hybird", ["base", "hybrid"]) == "; did you mean 'hybrid'?"
    assert suggestion("zzz", ["base", "hybrid"]) == ""


def test_an_unknown_name_is_a_value_error_that_says_what_there_is():
    with pytest.raises(ValueError, match="unknown arm 'zzz'; there are base, hybrid"):
        raise UnknownName("arm", "zzz", ["base", "hybrid"])
    error = UnknownName("arm", "hybird", ["base", "hybrid"], "see `xhat models`")
    assert str(error) == "unknown arm 'hybird'; did you mean 'hybrid'? see `xhat models`"


def test_names_are_matched_in_one_place():
    for folder in ("hooks", "zoo", "samplers", "probes", "analysis", "figures"):
        for path in (ROOT / folder).rglob("*.py"):
            names = [
                alias.name
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Import)
                for alias in node.names
            ] + [
                node.module
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.ImportFrom)
            ]
            assert "difflib" not in names or path.name == "naming.py", path
