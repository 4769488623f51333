"""The report of a run: one HTML file that needs nothing else, with what was found, the figures and
an x̂₀ player.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from xhat.analysis.sampling.arms import MEASURES, against, summarised
from xhat.figures.kit.data import SHIPPED, load_data
from xhat.figures.kit.registry import draw, figures
from xhat.figures.kit.style import RC, label
from xhat.figures.report import player

TITLE = "Diversity from noise to picture"
SHOWN = ("vendi_q2", "attribute_entropy", "fidelity")
"""The measures of the table, and of the sentences."""
COMPARED = (("base", "student"), ("student", "hybrid"), ("base", "hybrid"))
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
    frames = load_data("filmstrip", run) if "filmstrip" in there else None
    page = _render(
        title=TITLE,
        setting=setting(measured) if measured is not None else "",
        findings=findings(measured) if measured is not None else [],
        table=table(measured) if measured is not None else None,
        player=player.player(frames).html if frames is not None else "",
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
        f"The {', the '.join(arms[:-1])} and the {arms[-1]} drew the same {prompts} prompts under the same {seeds} "
        "seeds, from the same noise. Diversity is measured across the seeds of a prompt and averaged over prompts. The "
        f"prompts: {', '.join(f'“{p}”' for p in measured['prompt'].values)}."
    )


def findings(measured: xr.Dataset) -> list[str]:
    """A sentence a comparison: each measure's difference with its interval, and what that lets one
    say.
    """
    lines = []
    for a, b in COMPARED:
        if {a, b} <= set(measured["arm"].values.tolist()):
            difference = against(measured, a).sel(arm=b)
            parts = [
                _difference(difference, name) for name in SHOWN if f"{name}_mean" in difference
            ]
            lines.append(f"The {label(b)} beside the {label(a)}: {'; '.join(parts)}.")
    return lines


def _difference(found: xr.Dataset, name: str) -> str:
    mean, low, high = (float(found[f"{name}_{part}"]) for part in ("mean", "low", "high"))
    way = "higher" if low > 0 else "lower" if high < 0 else "not distinguishable"
    return f"{MEASURES[name]} {way} ({mean:+.3f}, 95 % interval {low:+.3f} to {high:+.3f})".replace(
        "-0.", "−0."
    )


def table(measured: xr.Dataset) -> dict[str, Any]:
    """``head``, ``rows`` of (text, interval) cells, a row an arm with what a picture costs last,
    and ``caption``.
    """
    means = summarised(measured)
    shown = [name for name in SHOWN if f"{name}_mean" in means]
    costs = {"evaluations": "evaluations", "seconds": "seconds an image"}
    there = {name: text for name, text in costs.items() if name in means}
    rows = []
    for arm in measured["arm"].values:
        one = means.sel(arm=arm)
        cells = [_interval(one, name) for name in shown]
        rows.append(
            [(label(str(arm)), ""), *cells, *((f"{float(one[name]):.3g}", "") for name in there)]
        )
    caption = f"Means over prompts, with 95 % intervals ({means.attrs['interval']}). Seconds on this machine."
    return {
        "head": ["model", *(MEASURES[n] for n in shown), *there.values()],
        "rows": rows,
        "caption": caption,
    }


def _interval(found: xr.Dataset, name: str) -> tuple[str, str]:
    mean, low, high = (float(found[f"{name}_{part}"]) for part in ("mean", "low", "high"))
    return f"{mean:.3f}", f"{low:.3f} to {high:.3f}"


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


def _render(**fields: Any) -> str:
    from jinja2 import Environment, PackageLoader, select_autoescape
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("xhat.figures.report"), autoescape=select_autoescape(["html", "j2"])
    )
    fields["player"] = Markup(fields["player"])  # made by the player's own template, which escapes
    return environment.get_template("report.html.j2").render(**fields)
