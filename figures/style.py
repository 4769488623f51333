"""How every figure looks: sizes of the big venues, one colour a model, fonts that print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTHS = {"column": 3.25, "text": 6.75}
"""Inches: one column (ICML, CVPR) and the full text width."""

# Okabe & Ito (2008), safe for colour-blind readers.
COLOURS = {
    "base": "#0072B2",
    "student": "#D55E00",
    "hybrid": "#009E73",
    "base_few": "#56B4E9",
}
LABELS = {"base": "base", "student": "student", "hybrid": "hybrid", "base_few": "base, student's steps"}

RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
}


def new_figure(width: str, height: float) -> Figure:
    """An empty figure, not tied to any window, of a venue's width and a height in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams.update(RC)
    return Figure(figsize=(WIDTHS[width], height), layout="constrained")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write PDF (byte-identical when redrawn) and PNG."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    pdf, png = stem.with_suffix(".pdf"), stem.with_suffix(".png")
    figure.savefig(pdf, metadata={"CreationDate": None})
    figure.savefig(png)
    return [pdf, png]
