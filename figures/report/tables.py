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
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.experiments.paper import CITATION, TABLES
from xhat.analysis.files import check_folder
from xhat.analysis.intervals import BOUND, check_bounded
from xhat.analysis.measures.registry import measure_label
from xhat.analysis.sampling.arms import summarised
from xhat.analysis.table import CSV_HEAD, Column, Table, latex_float, tex
from xhat.figures.kit.data import SHIPPED, load_data
from xhat.figures.kit.style import label

HERE = "embedded family, measured here"
COMPARED = ("base", "student", "hybrid")


@dataclass(frozen=True)
class Part:
    """Numbers of one source; the table's caption is their unit."""

    source: str
    table: Table


@dataclass(frozen=True)
class PaperTable:
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
        lines.writerow(["table", "source", "unit", *CSV_HEAD])
        for part in self.parts:
            lines.writerows(
                [self.name, part.source, part.table.caption, *row] for row in part.table.csv_rows()
            )
        return out.getvalue()

    def to_latex(self) -> str:
        """A ``table`` environment with a ``tabular`` for each source (needs booktabs)."""
        beside = ", and its counterpart on the embedded family" if len(self.parts) > 1 else ""
        blocks = [
            f"\\textit{{{tex(part.source)}}}: {tex(part.table.caption)}\\\\[2pt]\n"
            f"{part.table.to_tabular()}"
            for part in self.parts
        ]
        caption = f"{self.caption} (Table {self.name} of {CITATION}){beside}."
        return latex_float(blocks, caption, [self.missing] if self.missing else [])


def tables(runs: Iterable[Path] = ()) -> dict[str, PaperTable]:
    """Every table, with this project's part from the data of ``runs`` (default: the embedded
    family's, shipped).
    """
    folders = [run / "data" for run in runs] or [SHIPPED]
    return {name: _table(name, folders) for name in TABLES}


def write_tables(out: Path, runs: Iterable[Path] = (), names: Iterable[str] = ()) -> list[Path]:
    """Write ``table_<name>.tex`` and ``.csv`` into ``out``. Raises ValueError for a table that the
    paper has not, and for a run without data.
    """
    chosen, runs = list(names) or list(TABLES), list(runs)
    if unknown := [name for name in chosen if name not in TABLES]:
        raise ValueError(
            f"the paper has no table {unknown[0]!r} here; there are {', '.join(TABLES)}"
        )
    if without := [run for run in runs if not (run / "data").is_dir()]:
        raise ValueError(f"no figure data in {without[0] / 'data'}: is {without[0]} a run?")
    check_folder(out)
    every = tables(runs)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name in chosen:
        stem = out / f"table_{name.replace('.', '')}"
        for suffix, text in ((".tex", every[name].to_latex()), (".csv", every[name].to_csv())):
            stem.with_suffix(suffix).write_text(text, encoding="utf-8")
            written.append(stem.with_suffix(suffix))
    return written


def _table(name: str, folders: list[Path]) -> PaperTable:
    printed = TABLES[name]
    rows = [[row, *values] for row, values in printed.rows.items()]
    # published numbers are printed as they were
    columns = [Column(""), *(Column(c, decimals=_places(col)) for c, col in _by_column(printed))]
    published = Part(f"published, {CITATION}", Table(columns, rows, printed.unit))
    maker, needs = _MAKERS[name]
    try:
        return PaperTable(name, printed.caption, [*maker(folders), published])
    except FileNotFoundError:
        missing = f"No numbers of the embedded family: {needs} writes them."
        return PaperTable(name, printed.caption, [published], missing)


def _by_column(printed: Any) -> list[tuple[str, tuple[float, ...]]]:
    return list(zip(printed.columns, zip(*printed.rows.values(), strict=True), strict=True))


def _places(values: Iterable[float], most: int = 3) -> int:
    """Decimals that numbers were given with, no more than ``most``."""
    return max(min(most, len(f"{value:g}".partition(".")[2])) for value in values)


def _find(folders: list[Path], name: str) -> list[xr.Dataset]:
    """The data ``name`` of every folder that has it, and ``name_…`` beside it."""
    found = [load_data(p.stem, f.parent) for f in folders for p in sorted(f.glob(f"{name}*.nc"))]
    if not found:
        raise FileNotFoundError(name)
    return found


def _part(unit: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], of: str = "") -> Part:
    return Part(f"{HERE}: {of}" if of else HERE, Table(["", *columns], rows, unit))


def _diversity(folders: list[Path]) -> list[Part]:
    """Table 2: each prompt's diversity under base, student and hybrid, by two measures."""
    parts = []
    for measured in _measured(folders):
        arms = list(COMPARED)
        levels = summarised(measured).sel(arm=arms)
        for name in ("mean_pairwise_distance", "vendi_q2"):
            by = measured[name].transpose("prompt", "arm").sel(arm=arms)
            rows: list[Sequence[Any]] = [[str(row["prompt"].values), *row.values] for row in by]
            rows.append(["mean", *(levels[name].sel(arm=arm) for arm in arms)])
            unit = (
                f"{measure_label(name)} in the judge's embedding, {measured.attrs['n_seeds']} seeds"
            )
            parts.append(_part(unit, [label(arm) for arm in arms], rows, _student(measured)))
    return parts


def _measured(folders: list[Path]) -> list[xr.Dataset]:
    """Base, student and hybrid as measured, once a student."""
    by_student: dict[str, xr.Dataset] = {}
    for measured in _find(folders, "measured"):
        if set(COMPARED) <= set(measured["arm"].values.tolist()):
            by_student.setdefault(_student(measured), measured)
    return list(by_student.values())


def _quality(folders: list[Path]) -> list[Part]:
    """Table 3: diversity, fidelity and cost of base, student, hybrid and the skipped first step."""
    parts = []
    for controls in _find(folders, "controls"):
        arms = [arm for arm in (*COMPARED, "skip") if arm in controls["arm"].values]
        parts.append(_rows_of(controls, {label(arm): arm for arm in arms}))
    return parts


def _swap(folders: list[Path]) -> list[Part]:
    """Table E.1: the student's first step, or all later ones, made by the base."""
    parts = []
    for matrix in _find(folders, "swap_matrix"):
        n = len(str(matrix["arm"].values[0]))
        wanted = {
            "base, every step": "b" * n,
            "student": "s" * n,
            "only the first step replaced": "b" + "s" * (n - 1),
            "only later steps replaced": "s" + "b" * (n - 1),
        }
        there = {text: arm for text, arm in wanted.items() if arm in matrix["arm"].values}
        parts.append(_rows_of(matrix, there))
    return parts


def _rows_of(data: xr.Dataset, arms: dict[str, str]) -> Part:
    names = [
        n
        for n in ("vendi_q2", "mean_pairwise_distance", "attribute_entropy", "fidelity")
        if n in data
    ]
    check_bounded(data, *names)
    costs = [name for name in ("evaluations", "seconds") if name in data]
    rows = [
        [text, *(data[name].sel(arm=arm) for name in (*names, *costs))]
        for text, arm in arms.items()
    ]
    columns = [*(measure_label(name) for name in names), *costs]
    unit = "mean over prompts, 95 % interval; cost of an image"
    return _part(unit, columns, rows, _student(data))


def _others(folders: list[Path]) -> list[Part]:
    """Table D.1: every student of the family that was measured, as the other backbones of this
    project.
    """
    rows = []
    for measured in _measured(folders):
        levels = summarised(measured)
        distances = [levels["mean_pairwise_distance"].sel(arm=arm) for arm in COMPARED]
        costs = [float(levels["seconds"].sel(arm=arm)) for arm in ("base", "student")]
        rows.append(
            [f"base → {label(measured.attrs.get('student', 'student'))}", *distances, *costs]
        )
    columns = ["base", "student", "hybrid", "base seconds", "student seconds"]
    name = measure_label("mean_pairwise_distance")
    return [_part(f"{name} in the judge's embedding; seconds an image", columns, rows)]


def _transfer(folders: list[Path]) -> list[Part]:
    """Table 1: what controls that were trained on the base do there, and on every student."""
    parts = []
    for retention in _find(folders, "retention"):
        retention = retention.isel(control=retention["trained_on"].values == "base")
        students = [str(m) for m in retention["model"].values if m != "base"]
        rows = []
        for control in retention["control"].values:
            one = retention.sel(control=control, model=students)
            at_home = one.isel(model=int(np.isfinite(_bounded(one, "home")[..., 0]).argmax()))
            away = [tuple(_bounded(one.sel(model=model), "away")) for model in students]
            rows.append([str(control), tuple(_bounded(at_home, "home")), *away])
        unit = "travel of the judge's score of the attribute from scale −1 to 1, 95 % interval"
        parts.append(_part(unit, ["base", *(label(m) for m in students)], rows))
    return parts


def _bounded(data: xr.Dataset, name: str) -> np.ndarray:
    """(…, bound) of a variable with its interval."""
    return data[name].transpose(..., BOUND).values


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
