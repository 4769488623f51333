"""Tables of names, numbers and intervals, written as text, HTML, LaTeX and CSV by one hand."""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import isnan
from typing import Any, Self

import xarray as xr

from xhat.analysis.intervals import bounded, format_interval, format_number

Cell = str | int | float | tuple[float, float, float] | None
"""A name, a number, an interval (estimate, low, high), or nothing."""
MISSING = "–"
CSV_HEAD = ("row", "column", "value", "low", "high")


@dataclass(frozen=True)
class Column:
    """What heads a column and how its numbers are shown.

    ``signed``: with a plus, for differences. ``decimals`` of single numbers; where it is left out,
    three significant digits."""

    title: str
    signed: bool = False
    decimals: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows under columns; the first column names the rows.

    Parameters
    ----------
    columns
        Titles, or :class:`Column` where numbers are shown in a way of their own.
    rows
        One cell a column: text, a number, an interval (estimate, low, high), or None. An
        :class:`xarray.DataArray` of one value, or with a dimension ``bound``, is taken as such.
        NaN is None; an interval of NaN bounds is its estimate.
    caption, notes
        What the table shows, and what must be known to read it.

    Raises
    ------
    ValueError
        For a row that has not one cell a column.

    Examples
    --------
    >>> table = Table(["model", "Vendi"], [("base", (1.8, 1.4, 2.4)), ("student", 1.5)])
    >>> print(table.to_text())
    model             Vendi
    base     1.8 [1.4, 2.4]
    student             1.5
    """

    columns: Sequence[Column | str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    notes: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        columns = tuple(Column(c) if isinstance(c, str) else c for c in self.columns)
        rows = tuple(tuple(_cell(value) for value in row) for row in self.rows)
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(
                    f"a table of {len(columns)} columns has a row of {len(row)}: {row}"
                )
        object.__setattr__(self, "columns", columns)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "notes", tuple(self.notes))

    def to_text(self) -> str:
        """Columns lined up, as for a terminal; the caption and the notes below."""
        grid = [[c.title for c in self._columns()], *self._texts()]
        widths = [max(map(_width, column)) for column in zip(*grid, strict=True)]
        lines = [_line(row, widths) for row in grid]
        return "\n".join([*lines, *(note for note in (self.caption, *self.notes) if note)])

    def to_html(self) -> str:
        """A ``<table>`` that needs no style sheet; intervals are in ``<small>``."""
        head = "".join(f'<th scope="col">{html.escape(c.title)}</th>' for c in self._columns())
        body = "".join(f"<tr>{''.join(cells)}</tr>\n" for cells in map(self._html_cells, self.rows))
        caption = f"<caption>{html.escape(self.caption)}</caption>\n" if self.caption else ""
        notes = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in self.notes)
        head = f"{caption}<thead><tr>{head}</tr></thead>\n"
        return f"<table>\n{head}<tbody>{body}</tbody>\n</table>\n{notes}"

    def to_tabular(self) -> str:
        """A LaTeX ``tabular`` (needs booktabs)."""
        head = [tex(c.title) for c in self._columns()]
        rows = [" & ".join(cells) + r" \\" for cells in (head, *self._tex_rows())]
        sides = "l" + "r" * (len(head) - 1)
        lines = [f"\\begin{{tabular}}{{{sides}}}", r"\toprule", rows[0], r"\midrule", *rows[1:]]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])

    def to_latex(self) -> str:
        """A ``table`` environment with caption, :meth:`to_tabular` and notes (needs booktabs)."""
        return latex_float([self.to_tabular()], self.caption, self.notes)

    def to_csv(self) -> str:
        """A line a cell with its bounds: row, column, value, low, high."""
        out = io.StringIO()
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow(CSV_HEAD)
        lines.writerows(self.csv_rows())
        return out.getvalue()

    def csv_rows(self) -> Iterator[tuple[Any, ...]]:
        """The lines of :meth:`to_csv` without their head."""
        for row in self.rows:
            for column, cell in zip(self._columns()[1:], row[1:], strict=True):
                yield (row[0], column.title, *_raw(cell))

    def to_dict(self) -> dict[str, Any]:
        """In JSON's own types, for :meth:`from_dict`."""
        return {
            "columns": [asdict(column) for column in self._columns()],
            "rows": [[list(c) if isinstance(c, tuple) else c for c in row] for row in self.rows],
            "caption": self.caption,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The table that :meth:`to_dict` described."""
        columns = [Column(**column) for column in content["columns"]]
        return cls(columns, content["rows"], content["caption"], content["notes"])

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return self.to_html()

    def _columns(self) -> tuple[Column, ...]:
        return tuple(c for c in self.columns if isinstance(c, Column))

    def _texts(self) -> list[list[str]]:
        columns = self._columns()
        return [
            [cell_text(c, col) for c, col in zip(row, columns, strict=True)] for row in self.rows
        ]

    def _html_cells(self, row: Sequence[Cell]) -> list[str]:
        texts = [
            html.escape(cell_text(c, col)) for c, col in zip(row, self._columns(), strict=True)
        ]
        parts = [text.partition(" [") for text in texts[1:]]
        cells = [f"<td>{a}{f' <small>[{b}</small>' if b else ''}</td>" for a, _, b in parts]
        return [f'<th scope="row">{texts[0]}</th>', *cells]

    def _tex_rows(self) -> list[list[str]]:
        rows = []
        for texts in self._texts():
            parts = [text.partition(" [") for text in texts[1:]]
            cells = [tex(a) + (f" {{\\scriptsize[{tex(b)}}}" if b else "") for a, _, b in parts]
            rows.append([tex(texts[0]), *cells])
        return rows


def latex_float(tabulars: Sequence[str], caption: str, notes: Sequence[str] = ()) -> str:
    """A LaTeX ``table`` environment around one or several ``tabular``."""
    body = "\n\\par\\medskip\n".join(tabulars)
    below = "".join(f"\n\\par\\smallskip {tex(note)}" for note in notes)
    head = f"\\begin{{table}}\n\\centering\\small\n\\caption{{{tex(caption)}}}\n"
    return f"{head}{body}{below}\n\\end{{table}}\n"


TEX = {
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
    "Δ": r"$\Delta$",
    "→": r"$\to$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "x̂₀": r"$\hat{x}_0$",
    "“": "``",
    "”": "''",
}
"""Characters that LaTeX reads otherwise, or its usual fonts have not."""


def tex(text: str) -> str:
    """The text as LaTeX prints it.

    >>> tex("50 % of x̂₀")
    '50 \\\\% of $\\\\hat{x}_0$'
    """
    return re.sub("|".join(map(re.escape, TEX)), lambda match: TEX[match[0]], text)


def cell_text(cell: Cell, column: Column) -> str:
    """A cell as it is read: ``0.52 [0.31, 0.74]`` for an interval, ``–`` for nothing."""
    if cell is None:
        return MISSING
    if isinstance(cell, str):
        return cell
    if isinstance(cell, tuple):
        interval = bounded(*cell, level=0.95, method="")
        return format_interval(interval, signed=column.signed)
    decimals = 0 if isinstance(cell, int) and column.decimals is None else column.decimals
    return format_number(cell, decimals=decimals, signed=column.signed)


def _cell(value: Any) -> Cell:
    """A cell in plain types."""
    if isinstance(value, xr.DataArray):
        value = value.values.tolist()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        if len(value) != 3:
            raise ValueError(f"an interval is (estimate, low, high), got {value!r}")
        estimate, low, high = (float(v) for v in value)
        return None if isnan(estimate) else estimate if isnan(low) else (estimate, low, high)
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool | int):
        return int(number)
    return None if isnan(number) else float(number)


def _raw(cell: Cell) -> tuple[Any, ...]:
    """Value, low and high as CSV has them."""
    if isinstance(cell, tuple):
        return tuple(f"{value:.6g}" for value in cell)
    return f"{cell:.6g}" if isinstance(cell, float) else "" if cell is None else cell, "", ""


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    first, *rest = [" " * (w - _width(t)) for t, w in zip(texts, widths, strict=True)]
    cells = [texts[0] + first, *(gap + text for gap, text in zip(rest, texts[1:], strict=True))]
    return "  ".join(cells).rstrip()


def _width(text: str) -> int:
    """Columns of a terminal: marks that stand over a letter take none."""
    return sum(not unicodedata.combining(character) for character in text)
