"""How every figure looks: widths of the big venues, one colour a model throughout, fonts that
print.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VENUES: dict[str, dict[str, float]] = {
    "icml": {"column": 3.25, "text": 6.75},
    "cvpr": {"column": 3.25, "text": 6.875},
    "neurips": {"column": 2.68, "text": 5.5},
    "iclr": {"column": 2.68, "text": 5.5},
    "acl": {"column": 3.03, "text": 6.3},
    "ieee": {"column": 3.5, "text": 7.16},
    "nature": {"column": 3.5, "text": 7.2},
}
"""Inches of one column and of the full text, by venue; "column" is half the text where the page has
one column."""

WIDTHS = dict(VENUES["icml"])
"""Inches of a figure where no venue is named."""

# Okabe & Ito 2008 and, for wine and teal, Tol 2021: told apart by colour-blind readers, and in grey
# by lightness.
COLOURS = {
    "base": "#0072B2",
    "base_few": "#56B4E9",
    "student": "#D55E00",
    "dmd": "#D55E00",  # the embedded pair's student
    "hybrid": "#009E73",
    "lcm": "#E69F00",
    "turbo": "#CC79A7",
    "em": "#882255",
    "lightning": "#DDCC77",
    "pruned": "#117733",
    "skip": "#44AA99",
    "fresh": "#999933",
    "real": "#333333",
    "untrained": "#999999",
    "x_t": "#666666",
    "policy": "#000000",
    "hybrid_one": "#8CC63F",
    "control": "#AA4499",
    "control_hybrid": "#332288",
    "late": "#AA4499",  # students that commit late
}
OTHER = "#777777"
"""The colour of whatever has none of its own; several are told apart by marker and label."""

LABELS = {
    "base": "base",
    "base_few": "few-step base",
    "student": "student",
    "dmd": "DMD",
    "hybrid": "hybrid",
    "hybrid_one": "hybrid, one evaluation",
    "control": "late control",
    "control_hybrid": "control's hybrid",
    "lcm": "LCM",
    "turbo": "Turbo",
    "em": "EM",
    "lightning": "Lightning",
    "pruned": "pruned",
    "skip": "first step skipped",
    "later": "later steps the base's",
    "fresh": "fresh noise",
    "real": "real pictures",
    "untrained": "untrained",
    "x_t": "x_t",
}
MARKERS = {
    "base": "o",
    "base_few": "v",
    "student": "s",
    "dmd": "s",
    "hybrid": "D",
    "lcm": "^",
    "turbo": "P",
    "em": "X",
    "lightning": "*",
    "pruned": "h",
    "skip": "<",
    "fresh": ">",
    "real": "*",
    "hybrid_one": "d",
    "control": "p",
    "control_hybrid": "h",
    "late": "p",
}

RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "legend.fontsize": 7,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "text.parse_math": False,  # names from outside are printed letter by letter, dollars too
}
"""In force while a figure is drawn (:func:`xhat.figures.kit.registry.draw`), and no longer."""

_DARK, _LIGHT = "#16181c", "#e6e6e6"
DARK: dict[Any, Any] = {
    "figure.facecolor": _DARK,
    "axes.facecolor": _DARK,
    "axes.edgecolor": _LIGHT,
    "axes.labelcolor": _LIGHT,
    "text.color": _LIGHT,
    "xtick.color": _LIGHT,
    "ytick.color": _LIGHT,
}
"""Beside :data:`RC`, on a dark page."""

_venue: ContextVar[dict[str, float] | None] = ContextVar("venue", default=None)


def colour(model: str) -> str:
    """The one colour of a model or arm; ``hybrid_guided`` is drawn as ``hybrid``, what is unknown
    in grey.

    >>> colour("base_few"), colour("hybrid_guided") == colour("hybrid"), colour("another") == OTHER
    ('#56B4E9', True, True)
    """
    return COLOURS.get(_known(model), OTHER)


def label(model: str) -> str:
    """A model's name in words; names that are not known lose their underscores.

    >>> label("dmd"), label("hybrid_guided")
    ('DMD', 'hybrid guided')
    """
    return LABELS.get(model, model.replace("_", " "))


def marker(model: str) -> str:
    """The marker that goes with the colour, for readers who see none."""
    return MARKERS.get(_known(model), "o")


def _known(model: str) -> str:
    """The longest name with a colour that ``model`` starts with, word by word."""
    words = model.split("_")
    prefixes = ("_".join(words[:n]) for n in range(len(words), 0, -1))
    return next((p for p in prefixes if p in COLOURS), model)


def width(name: str) -> float:
    """Inches of ``"column"`` or ``"text"`` at the venue in force."""
    return (_venue.get() or WIDTHS)[name]


@contextmanager
def venue(name: str) -> Iterator[None]:
    """Figures drawn inside have this venue's widths. Raises ValueError for an unknown one, naming
    those that are.
    """
    if name not in VENUES:
        raise ValueError(f"unknown venue {name!r}; there are {', '.join(VENUES)}")
    token = _venue.set(VENUES[name])
    try:
        yield
    finally:
        _venue.reset(token)


def new_figure(of_width: str, height: float) -> Figure:
    """An empty figure, not tied to any window: ``of_width`` "column" or "text", ``height`` in
    inches.
    """
    from matplotlib.figure import Figure

    _tell_notebooks(Figure)
    return Figure(figsize=(width(of_width), height), layout="constrained")


def _tell_notebooks(kind: type) -> None:
    """Have a notebook show figures as pictures: importing pyplot would, and nothing here needs
    it.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if shell is None or any(
        kind in f.type_printers for f in shell.display_formatter.formatters.values()
    ):
        return
    from IPython.core.pylabtools import select_figure_formats

    select_figure_formats(shell, {"png"})


def noise_axis(axis: Axes) -> None:
    """Make x the noise level: logarithmic, falling from left to right as sampling runs, with plain
    numbers.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set(xscale="log", xlabel="noise level σ")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    if not axis.xaxis_inverted():
        axis.invert_xaxis()


def plain_log(axis: Any, values: Any) -> None:
    """A logarithmic axis (``axes.xaxis`` or ``.yaxis``) with plain numbers around ``values``: 1, 2
    and 5 of each decade.
    """
    import numpy as np
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    seen = np.asarray(values, dtype=float)
    seen = seen[np.isfinite(seen) & (seen > 0)]
    decades = range(int(np.floor(np.log10(seen.min()))) - 1, int(np.ceil(np.log10(seen.max()))) + 1)
    steps = (1, 2, 5) if len(decades) < 5 else (1,)
    axis.set_major_locator(FixedLocator([m * 10.0**d for d in decades for m in steps]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write PDF (fonts embedded as type 42, byte-identical when redrawn) and PNG."""
    import matplotlib as mpl

    stem.parent.mkdir(parents=True, exist_ok=True)
    pdf, png = stem.with_suffix(".pdf"), stem.with_suffix(".png")
    with mpl.rc_context(RC):
        figure.savefig(pdf, metadata={"CreationDate": None})
        figure.savefig(png, metadata={"Software": None})
    return [pdf, png]
