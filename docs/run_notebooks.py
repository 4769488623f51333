"""Runs the notebooks and keeps what they show, so that a page of the repository shows it too.

    python docs/run_notebooks.py              # all
    python docs/run_notebooks.py 1_trace 4    # those whose names begin so

What differs from run to run is not kept: counts, times, bars of progress. Of a table or a figure
one form is kept; tests/notebooks runs each again and compares."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FORMS = ("image/png", "text/html", "text/plain")
"""Of what a cell shows in several forms, the first of these is kept; a page of HTML that is larger
than ``LARGEST`` characters gives way to text."""
LARGEST = 20_000
WIDGET = "application/vnd.jupyter.widget-view+json"  # a bar of progress
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
MARKUP = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.DOTALL)
PLACES = re.compile(r"0x[0-9a-f]+|(?:/[\w.-]+)+/?|[\w-]*[0-9a-f]{8,}")


def run(path: Path, folder: Path) -> Any:
    """The notebook after a run in ``folder``, from top to bottom, with no limit of time."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    where = {"metadata": {"path": folder}}
    NotebookClient(
        notebook, timeout=None, startup_timeout=600, iopub_timeout=600, resources=where
    ).execute()
    return notebook


def kept(notebook: Any) -> Any:
    """The notebook with the outputs that are kept, in place."""
    for cell in notebook.cells:
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        cell.execution_count = None
        cell.outputs = [o for o in map(_kept, cell.outputs) if o is not None]
    notebook.metadata = {"kernelspec": notebook.metadata.get("kernelspec", {})}
    return notebook


def _kept(output: Any) -> Any:
    if output.output_type == "stream":
        return output if output.name == "stdout" and output.text.strip() else None
    if output.output_type not in ("display_data", "execute_result"):
        return output
    if WIDGET in output.data:
        return None
    there = [f for f in FORMS if f in output.data and _small(f, output.data[f])]
    if not there:
        return None
    output.data = {there[0]: output.data[there[0]]}
    output.metadata = {}
    if output.output_type == "execute_result":
        output.execution_count = None
    return output


def _small(form: str, data: str) -> bool:
    return form == "image/png" or len(data) <= LARGEST


def shape(output: Any) -> tuple[str, str]:
    """What an output must be in another run: its form, and its words without numbers and places."""
    if output.output_type == "stream":
        return "stdout", _words(output.text)
    form, data = next(iter(output.data.items()))
    if form == "image/png":
        return form, ""
    return form, _words(MARKUP.sub(" ", data) if form == "text/html" else data)


def _words(text: str) -> str:
    return " ".join(NUMBER.sub("#", PLACES.sub("@", text)).split())


def main(names: list[str]) -> int:
    import nbformat

    chosen = [p for p in NOTEBOOKS if not names or any(p.name.startswith(n) for n in names)]
    if not chosen:
        print(f"no notebook begins so: there are {', '.join(p.stem for p in NOTEBOOKS)}")
        return 2
    from tempfile import TemporaryDirectory

    for path in chosen:
        with TemporaryDirectory() as folder:
            notebook = kept(run(path, Path(folder)))
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
