"""The figures by file name: what there is, drawing one, redrawing all without running a model."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import xarray as xr

from xhat.analysis.files import check_folder
from xhat.figures.kit.data import SHIPPED, load_data
from xhat.figures.kit.style import DARK, RC, save, venue
from xhat.hooks.naming import nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parents[1]
# around pictures of fixed shape a constrained layout settles at the second pass, not at the first
LAYOUTS = 2


@dataclass(frozen=True)
class FigureEntry:
    """A figure: its name, which is that of its file and of its data; what it shows; whether its
    data is there.
    """

    name: str
    title: str
    caption: str
    there: bool


def figures(run: Path | None = None) -> list[FigureEntry]:
    """Every file of this folder with ``draw(data)``, and whether ``run`` (or the embedded family)
    has its data.
    """
    folder = SHIPPED if run is None else run / "data"
    return [
        FigureEntry(name, *said, (folder / f"{name}.nc").exists())
        for name, said in _drawn().items()
    ]


def draw(
    name: str,
    data: xr.Dataset | None = None,
    *,
    run: Path | None = None,
    at: str | None = None,
    dark: bool = False,
) -> Figure:
    """The figure ``name`` from ``data``, or from the data of ``run`` (default: of the embedded
    family).

    ``at``: a venue, whose widths are used. ``dark``: for a dark page. matplotlib's
    settings are left as they were. Raises ValueError for an unknown figure or venue, where there is
    no data, and for data without what the figure needs, which is named."""
    import matplotlib as mpl

    _check([name])
    data = load_data(name, run) if data is None else data
    module = import_module(f"xhat.figures.{name}")
    check_needs(name, data, getattr(module, "NEEDS", {}))
    with mpl.rc_context(RC | (DARK if dark else {})), venue(at) if at else nullcontext():
        figure = module.draw(data)
        for _ in range(LAYOUTS):
            figure.draw_without_rendering()
    return figure


def check_needs(name: str, data: xr.Dataset, needs: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse data that lack what a figure's ``NEEDS`` name: variables or coordinates, with their
    dimensions, which may come in any order and beside others.
    """
    if not isinstance(data, xr.Dataset):
        raise ValueError(f"the figure {name!r} is drawn from an xarray.Dataset, got {type(data)}")
    wrong = [
        n for n, dims in needs.items() if n not in data.variables or set(dims) - set(data[n].dims)
    ]
    if wrong:
        wanted = ", ".join(f"{n} ({', '.join(dims)})" for n, dims in needs.items())
        there = ", ".join(f"{n} ({', '.join(map(str, v.dims))})" for n, v in data.variables.items())
        raise ValueError(
            f"the figure {name!r} needs {wanted}; of these {', '.join(wrong)} is not in the data, "
            f"which have {there or 'nothing'}"
        )


def redraw(
    names: Iterable[str] = (), *, run: Path | None = None, out: Path, at: str | None = None
) -> dict[str, list[Path]]:
    """Draw the figures ``names`` (default: all whose data is there) into ``out``; name → [PDF,
    PNG].

    Raises ValueError for unknown names, for names without data, and where there is no data at all.
    """
    names = list(names)
    _check(names)
    check_folder(out)
    chosen = names or [entry.name for entry in figures(run) if entry.there]
    if not chosen:
        raise ValueError(
            f"no figure data in {SHIPPED if run is None else run / 'data'}: run `xhat demo` first"
        )
    return {name: save(draw(name, run=run, at=at), out / name) for name in chosen}


def _check(names: Iterable[str]) -> None:
    known = list(_drawn())
    for name in names:
        if name not in known:
            near = nearest(name, known) or known
            raise ValueError(
                f"unknown figure {name!r}; did you mean {near[0]!r}? `xhat figures --list` names "
                "them"
            )


@cache
def _drawn() -> dict[str, tuple[str, str]]:
    """name → (title, caption) of every file here that defines ``draw``, read without importing
    it.
    """
    found = {}
    for path in sorted(HERE.glob("*.py")):
        tree = ast.parse(path.read_text())
        defined = [
            node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "draw"
        ]
        if path.stem != "registry" and defined:
            found[path.stem] = _said(path.stem, tree)
    return found


def _said(name: str, tree: ast.Module) -> tuple[str, str]:
    """``TITLE`` and ``CAPTION`` of a file, or its name and the first line of its docstring."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    line = (ast.get_docstring(tree) or "").partition("\n")[0]
    return str(constants.get("TITLE", name.replace("_", " ").capitalize())), str(
        constants.get("CAPTION", line)
    )
