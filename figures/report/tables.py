"""The paper's Tables 1–3, D.1 and E.1 as LaTeX and CSV: the embedded family's numbers, and beside
them the published.

The two are parts of their own, each labelled with whose numbers they are: other models, other
pictures, other measures."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from xhat.analysis.experiments.paper import CITATION, TABLES
from xhat.analysis.sampling.arms import MEASURES, summarised
from xhat.figures.kit.data import SHIPPED, load_data
from xhat.figures.kit.style import label

HERE = "embedded family, measured here"


@dataclass(frozen=True)
class Part:
    """Numbers of one source: (row, column) ``values`` with interval bounds, NaN where there are
    none.
    """

    source: str
    unit: str
    columns: Sequence[str]
    rows: Sequence[str]
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Table:
    """A table of the paper: ``parts`` are this project's numbers, where there are any, then the
    published ones.
    """

    name: str
    caption: str
    parts: Sequence[Part]
    missing: str = ""

    def to_csv(self) -> str:
        """A line a number: table, source, unit, row, column, value, low, high."""
        out = io.StringIO()
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow(["table", "source", "unit", "row", "column", "value", "low", "high"])
        for part in self.parts:
            for r, c in np.ndindex(part.values.shape):
                numbers = (a[r, c] for a in (part.values, part.low, part.high))
                cells = ["" if np.isnan(n) else f"{n:.6g}" for n in numbers]
                lines.writerow(
                    [self.name, part.source, part.unit, part.rows[r], part.columns[c], *cells]
                )
        return out.getvalue()

    def to_latex(self) -> str:
        """A ``table`` environment with a ``tabular`` for each source (needs booktabs)."""
        blocks = [_tabular(part) for part in self.parts]
        note = f"\n\\par\\smallskip {_tex(self.missing)}" if self.missing else ""
        beside = ", and its counterpart on the embedded family" if len(self.parts) > 1 else ""
        caption = _tex(f"{self.caption} (Table {self.name} of {CITATION}){beside}.")
        body = "\n\\par\\medskip\n".join(blocks)
        return f"\\begin{{table}}\n\\centering\\small\n\\caption{{{caption}}}\n{body}{note}\n\\end{{table}}\n"


def tables(runs: Iterable[Path] = ()) -> dict[str, Table]:
    """Every table, with this project's part from the data of ``runs`` (default: the embedded
    family's, shipped).
    """
    folders = [run / "data" for run in runs] or [SHIPPED]
    return {name: _table(name, folders) for name in TABLES}


def write_tables(out: Path, runs: Iterable[Path] = (), names: Iterable[str] = ()) -> list[Path]:
    """Write ``table_<name>.tex`` and ``.csv`` into ``out``. Raises ValueError for a table that the
    paper has not.
    """
    every = tables(runs)
    chosen = list(names) or list(every)
    if unknown := [name for name in chosen if name not in every]:
        raise ValueError(
            f"the paper has no table {unknown[0]!r} here; there are {', '.join(every)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in chosen:
        stem = out / f"table_{name.replace('.', '')}"
        for suffix, text in ((".tex", every[name].to_latex()), (".csv", every[name].to_csv())):
            stem.with_suffix(suffix).write_text(text, encoding="utf-8")
            written.append(stem.with_suffix(suffix))
    return written


def _table(name: str, folders: list[Path]) -> Table:
    printed = TABLES[name]
    values = np.array(list(printed.rows.values()), dtype=float)
    none = np.full(values.shape, np.nan)
    published = Part(
        f"published, {CITATION}",
        printed.unit,
        printed.columns,
        list(printed.rows),
        values,
        none,
        none,
    )
    maker, needs = _MAKERS[name]
    try:
        return Table(name, printed.caption, [*maker(folders), published])
    except FileNotFoundError:
        missing = f"No numbers of the embedded family: {needs} writes them."
        return Table(name, printed.caption, [published], missing)


def _find(folders: list[Path], name: str) -> list[xr.Dataset]:
    """The data ``name`` of every folder that has it, and ``name_…`` beside it."""
    found = [load_data(p.stem, f.parent) for f in folders for p in sorted(f.glob(f"{name}*.nc"))]
    if not found:
        raise FileNotFoundError(name)
    return found


def _part(
    unit: str,
    columns: Sequence[str],
    rows: dict[str, list[tuple[float, float, float]]],
    of: str = "",
) -> Part:
    cells = np.array(list(rows.values()), dtype=float)
    source = f"{HERE}: {of}" if of else HERE
    return Part(source, unit, columns, list(rows), *(cells[..., i] for i in range(3)))


def _diversity(folders: list[Path]) -> list[Part]:
    """Table 2: each prompt's diversity under base, student and hybrid, by two measures."""
    parts = []
    for measured in _find(folders, "measured"):
        arms = [arm for arm in ("base", "student", "hybrid") if arm in measured["arm"].values]
        for name in ("mean_pairwise_distance", "vendi_q2"):
            by = measured[name].transpose("prompt", "arm").sel(arm=arms)
            rows = {
                str(row["prompt"].values): [_plain(value) for value in row.values] for row in by
            }
            means = summarised(measured).sel(arm=arms)
            rows["mean"] = [_interval(means.sel(arm=arm), name) for arm in arms]
            unit = f"{MEASURES[name]} in the judge's embedding, {measured.attrs['n_seeds']} seeds"
            parts.append(_part(unit, [label(arm) for arm in arms], rows, _student(measured)))
    return parts


def _quality(folders: list[Path]) -> list[Part]:
    """Table 3: diversity, fidelity and cost of base, student, hybrid and the skipped first step."""
    parts = []
    for found in _find(folders, "controls"):
        arms = [arm for arm in ("base", "student", "hybrid", "skip") if arm in found["arm"].values]
        parts.append(_rows_of(found, {label(arm): arm for arm in arms}))
    return parts


def _swap(folders: list[Path]) -> list[Part]:
    """Table E.1: the student's first step, or all later ones, made by the base."""
    parts = []
    for found in _find(folders, "swap_matrix"):
        n = len(str(found["arm"].values[0]))
        wanted = {
            "base, every step": "b" * n,
            "student": "s" * n,
            "only the first step replaced": "b" + "s" * (n - 1),
            "only later steps replaced": "s" + "b" * (n - 1),
        }
        parts.append(
            _rows_of(
                found, {text: arm for text, arm in wanted.items() if arm in found["arm"].values}
            )
        )
    return parts


def _rows_of(found: xr.Dataset, arms: dict[str, str]) -> Part:
    names = [
        n
        for n in ("vendi_q2", "mean_pairwise_distance", "attribute_entropy", "fidelity")
        if f"{n}_mean" in found
    ]
    costs = [name for name in ("evaluations", "seconds") if name in found]
    rows = {}
    for text, arm in arms.items():
        one = found.sel(arm=arm)
        rows[text] = [_interval(one, n) for n in names] + [_plain(float(one[n])) for n in costs]
    columns = [*(MEASURES[name] for name in names), *costs]
    return _part(
        "mean over prompts, 95 % interval; cost of an image", columns, rows, _student(found)
    )


def _others(folders: list[Path]) -> list[Part]:
    """Table D.1: every student of the family that was measured, as the other backbones of this
    project.
    """
    rows = {}
    for measured in _find(folders, "measured"):
        means = summarised(measured)
        cells = [
            _interval(means.sel(arm=arm), "mean_pairwise_distance")
            for arm in ("base", "student", "hybrid")
        ]
        cost = [_plain(float(means["seconds"].sel(arm=arm))) for arm in ("base", "student")]
        rows[f"base → {label(measured.attrs.get('student', 'student'))}"] = cells + cost
    columns = ["base", "student", "hybrid", "base seconds", "student seconds"]
    return [
        _part(
            f"{MEASURES['mean_pairwise_distance']} in the judge's embedding; seconds an image",
            columns,
            rows,
        )
    ]


def _transfer(folders: list[Path]) -> list[Part]:
    """Table 1: what controls that were trained on the base do there, and on every student."""
    parts = []
    for found in _find(folders, "retention"):
        found = found.isel(control=found["trained_on"].values == "base")
        students = [str(m) for m in found["model"].values if m != "base"]
        rows = {}
        for control in found["control"].values:
            one = found.sel(control=control, model=students)
            at_home = one.isel(model=int(np.isfinite(one["home"].values).argmax()))
            away = [_bounded(one.sel(model=model), "away") for model in students]
            rows[str(control)] = [_bounded(at_home, "home"), *away]
        unit = "travel of the judge's score of the attribute from scale −1 to 1, 95 % interval"
        parts.append(_part(unit, ["base", *(label(m) for m in students)], rows))
    return parts


def _bounded(found: xr.Dataset, name: str) -> tuple[float, float, float]:
    value, low, high = (float(found[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return value, low, high


_MAKERS: dict[str, tuple[Callable[[list[Path]], list[Part]], str]] = {
    "1": (_transfer, "`xhat transfer`"),
    "2": (_diversity, "`xhat demo`"),
    "3": (_quality, "`xhat swaps`"),
    "D.1": (_others, "`xhat demo --pair demo/STUDENT`"),
    "E.1": (_swap, "`xhat swaps`"),
}


def _student(found: xr.Dataset) -> str:
    student = found.attrs.get("student")
    return f"student {label(student)}" if student else ""


def _plain(value: float) -> tuple[float, float, float]:
    return float(value), np.nan, np.nan


def _interval(found: xr.Dataset, name: str) -> tuple[float, float, float]:
    mean, low, high = (float(found[f"{name}_{part}"]) for part in ("mean", "low", "high"))
    return mean, low, high


def _tabular(part: Part) -> str:
    rows = [" & ".join(["", *(_tex(c) for c in part.columns)])]
    places = [max(_places(value) for value in column) for column in part.values.T]
    for r, row in enumerate(part.rows):
        numbers = [
            _cell(part.values[r, c], part.low[r, c], part.high[r, c], places[c])
            for c in range(len(places))
        ]
        rows.append(" & ".join([_tex(row), *numbers]))
    head, *body = (f"{row} \\\\" for row in rows)
    lines = [
        f"\\textit{{{_tex(part.source)}}}: {_tex(part.unit)}\\\\[2pt]",
        f"\\begin{{tabular}}{{l{'r' * len(part.columns)}}}",
        *("\\toprule", head, "\\midrule", *body, "\\bottomrule", "\\end{tabular}"),
    ]
    return "\n".join(lines)


def _places(value: float, most: int = 3) -> int:
    """Decimals that a number was given with, no more than ``most``: published ones are printed as
    they were.
    """
    return min(most, len(f"{value:g}".partition(".")[2]))


def _cell(value: float, low: float, high: float, places: int) -> str:
    if np.isnan(value):
        return "--"
    bounds = "" if np.isnan(low) else f" {{\\scriptsize[{low:.{places}f}, {high:.{places}f}]}}"
    return f"{value:.{places}f}{bounds}"


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "α": r"$\alpha$",
    "δ": r"$\delta$",
    "σ": r"$\sigma$",
    "→": r"$\to$",
    "−": "$-$",
    "“": "``",
    "”": "''",
}


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)
