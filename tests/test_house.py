"""The house keeps its order: layers, quick imports, licences, no pickles."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "hooks": set(),
    "zoo": {"hooks"},
    "samplers": {"hooks"},
    "probes": {"hooks", "zoo", "samplers"},
    "analysis": {"hooks", "zoo", "samplers", "probes"},
    "figures": {"hooks", "zoo", "samplers", "probes", "analysis"},
}

ROOMS = {
    "hooks": (("noise", "points"), ("record", "edits"), ("store",)),
    "zoo": (("load",), ("family",), ("lora",)),
    "samplers": (("plans",), ("composite",), ("rivals",)),
    "analysis": (("measures",), ("traces",), ("sampling",), ("experiments",)),
    "figures": (("kit",), ("",), ("report",)),
}
"""The rooms of a folder, floor by floor: a room imports from lower floors only, and from the files
that lie in the folder itself, "", where these are not given a floor of their own."""


def modules() -> dict[str, Path]:
    """Dotted name below xhat → file, of every folder of ours."""
    paths = [path for folder in MAY_IMPORT for path in sorted((ROOT / folder).glob("**/*.py"))]
    parts = {path: path.relative_to(ROOT).with_suffix("").parts for path in paths}
    return {".".join(p[:-1] if p[-1] == "__init__" else p): path for path, p in parts.items()}


MODULES = modules()


def exports(package: str) -> dict[str, str]:
    """Name → the module that it is loaded from on first use, of a package of ours."""
    init = ROOT / "src" / "xhat" / package.replace(".", "/") / "__init__.py"
    for node in ast.parse(init.read_text()).body if init.exists() else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("_EXPORTS", "_HOMES"):
            homes: dict[str, str] = ast.literal_eval(node.value)
            return homes
    return {}


def imports(path: Path) -> set[str]:
    """Modules of ours that a file imports, anywhere in it: at the top, in functions, for types.

    A name that a package loads on first use is imported from where it is defined."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "xhat":
            package = node.module.removeprefix("xhat").removeprefix(".")
            homes = exports(package)
            names |= {homes.get(a.name, f"{node.module}.{a.name}") for a in node.names}
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
    return {n.removeprefix("xhat.") for n in names if n.startswith("xhat.")} & MODULES.keys()


ARROWS = {name: imports(path) - {name} for name, path in MODULES.items()}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_go_one_way(folder):
    for name in (n for n in MODULES if n.split(".")[0] == folder):
        assert {n.split(".")[0] for n in ARROWS[name]} <= MAY_IMPORT[folder] | {folder}, name


@pytest.mark.parametrize("folder", ROOMS)
def test_rooms_of_a_folder_import_downward(folder):
    floors = {room: i for i, floor in enumerate(ROOMS[folder]) for room in floor}

    def room(name: str) -> str | None:
        parts = name.split(".")
        inside = parts[1] if parts[0] == folder and len(parts) > 1 and parts[1] in floors else ""
        return inside if inside in floors and parts[0] == folder else None

    upward = {
        (f"{folder}.{room(name)}", f"{folder}.{room(other)}"): name
        for name, others in ARROWS.items()
        for other in others
        if room(name) is not None and room(other) is not None and room(name) != room(other)
        if floors[room(other)] >= floors[room(name)]
    }
    assert not upward, upward


def cycles() -> list[set[str]]:
    """Sets of two files or more of which each imports every other, at once or by way of others."""
    numbers = {name: i for i, name in enumerate(ARROWS)}
    links = np.zeros((len(numbers), len(numbers)), dtype=bool)
    for name, others in ARROWS.items():
        links[numbers[name], [numbers[o] for o in others]] = True
    count, part = connected_components(links, directed=True, connection="strong")
    names = np.array(list(numbers))
    return [set(names[part == i].tolist()) for i in range(count) if (part == i).sum() > 1]


def test_no_files_import_each_other():
    there = cycles()
    assert not there, f"files that import each other: {[sorted(c) for c in there]}"


def test_every_folder_is_linked_into_the_package():
    for folder in MAY_IMPORT:
        link = ROOT / "src" / "xhat" / folder
        assert link.is_symlink()
        assert link.resolve() == ROOT / folder


@pytest.mark.parametrize("doing", ["", "xhat.cli._parser()"])
def test_import_and_arguments_are_light(doing):
    code = f"import sys, json, xhat, xhat.cli; {doing}\nprint(json.dumps(sorted(sys.modules)))"
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


INTERFACES = {"draw", "run", "arguments", "sentences", "figure_data"}
"""What every figure, command and experiment has under one name."""


def test_no_public_name_is_defined_twice():
    places: dict[str, list[str]] = {}
    for folder in MAY_IMPORT:
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.parse(file.read_text(encoding="utf-8")).body:
                named = isinstance(node, ast.FunctionDef | ast.ClassDef)
                if named and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    twice = {n: at for n, at in places.items() if len(at) > 1 and n not in INTERFACES}
    assert not twice
