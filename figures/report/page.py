"""The report of a run: one HTML file that needs nothing else. The finding in a sentence and a
picture, how sure it is, where it happens, what to do.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from markupsafe import Markup

from xhat.analysis.experiments.arm_table import contrast
from xhat.analysis.experiments.collapse import collapse_table, sentences
from xhat.analysis.experiments.collapse_text import ROWS, two_sentences
from xhat.analysis.files import check_file
from xhat.analysis.intervals import format_number
from xhat.analysis.result import RESULTS, Result
from xhat.figures.kit.data import SHIPPED, load_data
from xhat.figures.kit.registry import FigureEntry, draw, figures
from xhat.figures.kit.style import RC, label
from xhat.figures.report.render import render_template
from xhat.figures.report.wall import wall

TITLE = "Where diversity is lost between noise and picture"
LEAD = ("samples",)
WHERE = ("diversity", "commitment", "regime", "swap_matrix", "patching", "similarity_map")
DO = ("schematic", "pareto")
FIRST = (*LEAD, *WHERE, *DO)
"""The figures that come first, in this order."""
PICTURES = ("samples", "filmstrip", "slider_grid")
"""Figures that show pictures: drawn twice for dark pages, where others are inverted."""
PIXELS = 115
"""CSS pixels of an inch of a figure: the text width of a venue fills the page."""
LINKS = 6
ADVICE = {
    "yes": "Let the base begin: the hybrid gives diversity back.",
    "opposite": "Keep the student: the hybrid has less diversity here.",
    "equivalent": "Keep the student: the hybrid changes nothing worth having here.",
    "undecided": "Measure more before choosing: hybrid and student are not told apart here.",
}
"""By the verdict on the hybrid less the student."""


@dataclass(frozen=True)
class Shown:
    """A figure of the report: WebP in base64, ``width`` in CSS pixels, ``dark`` for dark pages
    where it shows pictures; ``levels`` of noise at which the wall can be seen.
    """

    name: str
    title: str
    caption: str
    finding: str
    image: str
    dark: str
    width: int
    levels: Sequence[float]


def write_report(run: Path | None = None, out: Path | None = None) -> Path:
    """Write ``RUN/report.html`` (or ``out``) from what is in ``RUN/data``; without ``run``, of the
    embedded family.

    Nothing is sampled. Raises ValueError where there is no figure data.
    """
    data = SHIPPED if run is None else run / "data"
    there = {entry.name: entry for entry in figures(run) if entry.there}
    if not there:
        raise ValueError(f"no figure data in {data}: `xhat demo` writes some")
    out = out or (Path("report.html") if run is None else run / "report.html")
    check_file(out)
    measured = load_data("measured", run) if (data / "measured.nc").exists() else None
    result = Result.load(run) if run is not None and (run / RESULTS).exists() else None
    findings = list(_findings(result, measured))
    page = render_template(
        "report.html.j2",
        title=TITLE,
        headline=headline(measured) or (findings[0] if findings else ""),
        setting=setting(measured) if measured is not None else "",
        findings=findings,
        table=Markup(_table(result, measured)),
        advice=advice(measured) if measured is not None else "",
        **sections(there, run),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def sections(there: dict[str, FigureEntry], run: Path | None) -> dict[str, Any]:
    """The wall and the figures by section: ``lead``, ``where``, ``do``, ``more``."""
    data = SHIPPED if run is None else run / "data"
    has_wall = (data / "wall.nc").exists()
    left = [name for name in there if not (has_wall and name == "filmstrip")]  # the wall shows it
    named = {"lead": LEAD, "where": WHERE, "do": DO}
    parts = {part: [n for n in names if n in left] for part, names in named.items()}
    parts["more"] = [name for name in left if name not in FIRST]
    shown = {
        part: [show(there[name], run, has_wall) for name in names] for part, names in parts.items()
    }
    if "samples" in left and (few := _few_rows(load_data("samples", run))) is not None:
        every = replace(shown["lead"][0], name="every-sample", title="Samples of every arm")
        shown["more"] = [every, *shown["more"]]
        shown["lead"] = [plate(there["samples"], few)]
    return {"wall": wall(load_data("wall", run)).html if has_wall else "", **shown}


def headline(measured: xr.Dataset | None) -> str:
    """The finding in two sentences; nothing where one of the three was not measured."""
    if measured is None or not set(ROWS) <= set(measured["arm"].values.tolist()):
        return ""
    return two_sentences(measured)


def setting(measured: xr.Dataset) -> str:
    """What was run, in words."""
    arms = [label(arm) for arm in measured["arm"].values]
    prompts, seeds = measured.sizes["prompt"], measured.attrs["n_seeds"]
    return (
        f"The {', the '.join(arms[:-1])} and the {arms[-1]} drew the same {prompts} prompts under "
        f"the same {seeds} "
        "seeds, from the same noise. Diversity is measured across the seeds of a prompt and "
        "averaged over prompts. The "
        f"prompts: {', '.join(f'“{p}”' for p in measured['prompt'].values)}."
    )


def advice(measured: xr.Dataset) -> str:
    """Whether to let the base begin, by the verdict on the hybrid, and what that costs; nothing
    where base, student and hybrid were not all measured.
    """
    names = ("hybrid", "student", "base")
    if not set(names) <= set(measured["arm"].values.tolist()) or "evaluations" not in measured:
        return ""
    judged = contrast(measured, "hybrid", "student", "vendi_q2")
    says = ADVICE["undecided" if judged is None else judged.kind]
    costs = (format_number(float(measured["evaluations"].sel(arm=n)), decimals=0) for n in names)
    hybrid, student, base = costs
    return (
        f"{says} The hybrid spends {hybrid} evaluations of a network on a picture, the student "
        f"{student} and the base {base}."
    )


def _findings(result: Result | None, measured: xr.Dataset | None) -> Sequence[str]:
    """The run's own sentences, or those that its measurements give."""
    if result is not None:
        return result.sentences
    return [] if measured is None else sentences(measured)


def _table(result: Result | None, measured: xr.Dataset | None) -> str:
    if result is not None:
        return result.table.to_html()
    return "" if measured is None else collapse_table(measured).to_html()


def show(entry: FigureEntry, run: Path | None, linked: bool = False) -> Shown:
    """A figure as the page holds it; ``linked``: with the noise levels of its data."""
    return plate(entry, load_data(entry.name, run), linked)


def plate(entry: FigureEntry, data: xr.Dataset, linked: bool = False) -> Shown:
    """A figure drawn from ``data``."""
    figure, pictures = draw(entry.name, data), entry.name in PICTURES
    dark = _webp(draw(entry.name, data, dark=True), pictures) if pictures else ""
    return Shown(
        entry.name,
        entry.title,
        entry.caption,
        str(data.attrs.get("finding", "")),
        _webp(figure, pictures),
        dark,
        round(PIXELS * figure.get_figwidth()),
        _levels(data) if linked else (),
    )


def _few_rows(samples: xr.Dataset) -> xr.Dataset | None:
    """Base, student and hybrid under the last two prompts, to be seen first; None where that is
    all there is, or not there.
    """
    models = samples["model"].values.tolist()
    if not set(ROWS) < set(models):
        return None
    return samples.sel(model=list(ROWS)).isel(prompt=slice(-2, None))


def _levels(data: xr.Dataset) -> list[float]:
    """Some noise levels of a figure's data, falling: those that most of its models share."""
    if "sigma" not in data.variables:
        return []
    values, counts = np.unique(np.round(data["sigma"].values.ravel(), 3), return_counts=True)
    shared = np.sort(values[np.argsort(-counts, kind="stable")[:LINKS]])[::-1]
    return [float(f"{sigma:.2g}") for sigma in shared]


def _webp(figure: Any, pictures: bool) -> str:
    import matplotlib as mpl

    buffer = io.BytesIO()
    how = {"quality": 88} if pictures else {"lossless": True}
    with mpl.rc_context(RC):
        figure.savefig(buffer, format="webp", pil_kwargs=how)
    return base64.b64encode(buffer.getvalue()).decode()
