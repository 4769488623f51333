"""The report of a run: one HTML file that needs nothing else, with what was found, the figures and
the seed wall.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
from markupsafe import Markup

from xhat.analysis.experiments.collapse import collapse_table, sentences
from xhat.analysis.result import RESULTS, Result
from xhat.figures.kit.data import SHIPPED, load_data
from xhat.figures.kit.registry import draw, figures
from xhat.figures.kit.style import RC, label
from xhat.figures.report.render import render
from xhat.figures.report.wall import wall

TITLE = "Diversity from noise to picture"
FIRST = ("samples", "diversity", "commitment", "filmstrip", "schematic")
"""The figures that come first, in this order."""
PIXELS = 115
"""CSS pixels of an inch of a figure: the text width of a venue fills the page."""


@dataclass(frozen=True)
class Shown:
    """A figure of the report; ``width`` in CSS pixels."""

    name: str
    title: str
    caption: str
    finding: str
    png: str
    width: int


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
    order = [name for name in FIRST if name in there] + [
        name for name in there if name not in FIRST
    ]
    measured = load_data("measured", run) if (data / "measured.nc").exists() else None
    result = Result.load(run) if run is not None and (run / RESULTS).exists() else None
    page = render(
        "report.html.j2",
        title=TITLE,
        setting=setting(measured) if measured is not None else "",
        findings=_findings(result, measured),
        table=Markup(_table(result, measured)),
        wall=wall(load_data("wall", run)).html if (data / "wall.nc").exists() else "",
        figures=[_shown(there[name], run) for name in order],
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


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


def _findings(result: Result | None, measured: xr.Dataset | None) -> Sequence[str]:
    """The run's own sentences, or those that its measurements give."""
    if result is not None:
        return result.sentences
    return [] if measured is None else sentences(measured)


def _table(result: Result | None, measured: xr.Dataset | None) -> str:
    if result is not None:
        return result.table.to_html()
    return "" if measured is None else collapse_table(measured).to_html()


def _shown(entry: Any, run: Path | None) -> Shown:
    data = load_data(entry.name, run)
    finding = str(data.attrs.get("finding", ""))
    figure = draw(entry.name, data)
    return Shown(
        entry.name,
        entry.title,
        entry.caption,
        finding,
        _png(figure),
        round(PIXELS * figure.get_figwidth()),
    )


def _png(figure: Any) -> str:
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context(RC):
        figure.savefig(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode()
