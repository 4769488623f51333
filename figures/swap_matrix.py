"""The swap matrix: who makes which step, and what comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xhat.analysis.measures.registry import headlines, measure_label
from xhat.figures.kit.forest import forest, varying
from xhat.figures.kit.style import colour, label, new_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLE = "Swap matrix"
CAPTION = (
    "Left: who makes each step of the student's schedule, noise falling from left to right. Right: "
    "each row less the student alone, on the same prompts and seeds, with its 95 % interval: clear "
    "of the line, a difference is shown. Dotted: the base at every step."
)
NEEDS = {"kind": ("arm",), "vendi_q2_less_student": ("arm", "bound")}
LETTERS = {"s": "student", "b": "base", "f": "base, then fresh noise", "B": "base, guided"}
SHOWN = {"s": "s", "b": "b", "f": "f", "B": "g"}
GUIDED = "#003D66"  # the base's colour, darker
WORDS = {
    "leading": "base first",
    "trailing": "base last",
    "single": "base once",
    "all but one": "student once",
    "all": "base alone",
}
KINDS = ("none", "leading", "trailing", "single", "all but one", "all")


def draw(data: xr.Dataset) -> Figure:
    """``data``: :func:`xhat.analysis.experiments.swaps.swap_matrix`; ``attrs["student"]`` names the
    student.
    """
    rank = [KINDS.index(kind) for kind in data["kind"].values]
    letters = ["sbfB".index((set(p) - {"s"} or {"s"}).pop()) for p in data["arm"].values.tolist()]
    data = data.isel(arm=np.lexsort((letters, rank)))
    shown = varying(data, [f"{name}_less_student" for name in headlines(data.data_vars)])
    panels = {name: measure_label(name.removesuffix("_less_student")) for name in shown}
    rows = data.sizes["arm"]
    figure = new_figure("text", 0.165 * rows + 1.05)
    axes = figure.subplots(
        1, 1 + len(panels), sharey=True, width_ratios=[1.1, *[1.3] * len(panels)]
    )
    _cells(axes[0], data)
    place = np.arange(rows) + np.array([KINDS.index(k) for k in data["kind"].values]) * 0.5
    student = data.attrs.get("student", "student")
    shades = [_shade(pattern, student) for pattern in data["arm"].values.tolist()]
    for axis, (name, text) in zip(axes[1:], panels.items(), strict=True):
        forest(axis, data, name, place, shades)
        axis.axvline(0, color=colour(student), lw=0.8, zorder=0)
        alone = data[name].isel(arm=[set(p) == {"b"} for p in data["arm"].values.tolist()])
        axis.axvline(float(alone.sel(bound="estimate")[0]), color=colour("base"), lw=0.8, ls=":")
        axis.set_xlabel(text)
    axes[1].set_title(f"less {label(student)} alone", loc="left")
    _key(figure, data, student)
    return figure


def _key(figure: Figure, data: xr.Dataset, student: str) -> None:
    """What the letters and colours of the squares are."""
    from matplotlib.patches import Patch

    there = set("".join(data["arm"].values.tolist()))
    handles = [
        Patch(color=_shade(letter, student), label=f"{SHOWN[letter]}: {text}")
        for letter, text in LETTERS.items()
        if letter in there
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=4)


def _cells(axis: Axes, data: xr.Dataset) -> None:
    """A square for each step, in its maker's colour, with a letter."""
    from matplotlib.patches import Rectangle

    patterns, student = data["arm"].values.tolist(), data.attrs.get("student", "student")
    kinds = data["kind"].values.tolist()
    steps = len(patterns[0])
    for row, (pattern, kind) in enumerate(zip(patterns, kinds, strict=True)):
        y = row + 0.5 * KINDS.index(kind)
        for step, letter in enumerate(pattern):
            shade = _shade(letter, student)
            axis.add_patch(Rectangle((step + 0.04, y - 0.45), 0.92, 0.9, color=shade, lw=0))
            at: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": 7}
            axis.text(step + 0.5, y, SHOWN[letter], color="white", **at)
        if row == 0 or kinds[row - 1] != kind:
            axis.text(-0.25, y, _named(kind, student), ha="right", va="center", fontsize=7)
    axis.set(xlim=(0, steps), ylim=(len(patterns) + 0.5 * len(KINDS) - 0.5, -0.8), yticks=[])
    axis.set_xticks(np.arange(steps) + 0.5, [str(step + 1) for step in range(steps)])
    axis.set_xlabel("step")
    axis.tick_params(length=0)
    for spine in axis.spines.values():
        spine.set_visible(False)


def _named(kind: str, student: str) -> str:
    """Which steps the base makes, in words."""
    return label(student) if kind == "none" else WORDS[kind]


def _shade(pattern: str, student: str) -> str:
    letters = set(pattern) - {"s"}
    return (
        colour(student)
        if not letters
        else {"b": colour("base"), "f": colour("base_few"), "B": GUIDED}[letters.pop()]
    )
