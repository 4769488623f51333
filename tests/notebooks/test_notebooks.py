"""Every notebook runs from top to bottom, and is kept without outputs."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
nbformat = pytest.importorskip("nbformat")
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs(path, tmp_path):
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "strip the outputs first"
    where = {"metadata": {"path": tmp_path}}
    NotebookClient(
        notebook, timeout=None, startup_timeout=600, iopub_timeout=600, resources=where
    ).execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    shown = [o for o in outputs if o.output_type != "stream"]
    assert shown
    assert all(o.output_type != "error" for o in shown)
    for cell in notebook.cells:
        if re.match(r"[\w.]*draw\(", cell.source.splitlines()[-1]):  # what a cell ends in is shown
            assert any("image/png" in o.get("data", {}) for o in cell.outputs), cell.source


def test_there_are_notebooks():
    assert NOTEBOOKS
