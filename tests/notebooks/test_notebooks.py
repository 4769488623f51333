"""Every notebook runs from top to bottom, and shows what it is committed with."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
nbformat = pytest.importorskip("nbformat")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def _load():
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "docs/run_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebooks = _load()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_shows_what_it_is_committed_with(path, tmp_path):
    committed = nbformat.read(path, as_version=4)
    run = notebooks.run(path, tmp_path)
    outputs = [o for cell in run.cells for o in cell.get("outputs", [])]
    assert all(o.output_type != "error" for o in outputs)
    for cell in run.cells:
        if re.match(r"[\w.]*draw\(", cell.source.splitlines()[-1]):  # what a cell ends in is shown
            assert any("image/png" in o.get("data", {}) for o in cell.outputs), cell.source
    for before, now in zip(committed.cells, notebooks.kept(run).cells, strict=True):
        shown = [[notebooks.shape(o) for o in cell.get("outputs", [])] for cell in (before, now)]
        assert shown[0] == shown[1], f"python docs/run_notebooks.py {path.name}\n{before.source}"


def test_they_show_pictures_and_nothing_that_changes():
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        cells = [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]
        outputs = [o for cell in cells for o in cell.outputs]
        assert outputs, path
        if not path.name.startswith("7"):  # which ends in a report, a page of its own
            assert any("image/png" in o.get("data", {}) for o in outputs), path
        assert all(cell.execution_count is None for cell in cells)
        assert path.stat().st_size < 1_000_000
