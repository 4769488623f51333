"""The house keeps its order: layers, quick imports, licences, no pickles."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "hooks": set(),
    "zoo": {"hooks"},
    "samplers": {"hooks"},
    "probes": {"hooks", "zoo", "samplers"},
    "analysis": {"hooks", "zoo", "samplers", "probes"},
    "figures": {"hooks", "zoo", "samplers", "probes", "analysis"},
}


def imported(path: Path) -> set[str]:
    """Folders of ours that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [node.module] if node.module != "xhat" else [f"xhat.{a.name}" for a in node.names]
            )
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        found |= {n.split(".")[1] for n in names if n.startswith("xhat.")}
    return found & set(MAY_IMPORT)


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_go_one_way(folder):
    for path in sorted((ROOT / folder).glob("**/*.py")):
        assert imported(path) <= MAY_IMPORT[folder] | {folder}, path


def test_every_folder_is_linked_into_the_package():
    for folder in MAY_IMPORT:
        link = ROOT / "src" / "xhat" / folder
        assert link.is_symlink()
        assert link.resolve() == ROOT / folder


def test_import_is_light():
    code = "import sys, json, xhat; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
    )
    assert not {"torch", "diffusers", "transformers", "matplotlib", "xarray"} & set(loaded)


def test_every_export_exists():
    import xhat

    for name in xhat.__all__:
        assert getattr(xhat, name) is not None


def test_unknown_export_is_an_attribute_error():
    import xhat

    with pytest.raises(AttributeError, match="no attribute 'tracer'"):
        _ = xhat.tracer


def test_pickles_are_read_with_weights_only():
    for path in ROOT.glob("[!.]*/**/*.py"):
        for line in path.read_text().splitlines():
            if re.search(r"torch\.load\(", line) and path != Path(__file__):
                assert "weights_only=True" in line, path


@pytest.mark.parametrize("package", ["zoo", "samplers", "probes", "analysis", "figures"])
def test_what_a_package_exports_is_there_and_no_module_of_it_has_that_name(package):
    from importlib import import_module

    module = import_module(f"xhat.{package}")
    for name in module._EXPORTS:
        assert getattr(module, name) is not None
        assert not (ROOT / package / f"{name}.py").exists(), (
            f"{name}: which of the two it is depends on import order"
        )


def test_the_version_is_written_once():
    import xhat

    metadata = (ROOT / "pyproject.toml").read_text()
    assert 'dynamic = ["version"]' in metadata
    assert not re.search(r'^version = "', metadata, re.MULTILINE)
    assert f"\nversion: {xhat.__version__}\n" in (ROOT / "CITATION.cff").read_text()
