"""One table, four ways to write it."""

import csv
import io

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from xhat.analysis.intervals import bounded
from xhat.analysis.table import Column, Table, tex

numbers = st.floats(-1e6, 1e6) | st.integers(-1000, 1000)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)
intervals = st.tuples(numbers, numbers, numbers).map(lambda v: tuple(map(float, sorted(v))))
cells = st.none() | texts | numbers | intervals


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(texts, *[cells] * n), max_size=4)))
def test_a_table_survives_json_types(rows):
    width = len(rows[0]) if rows else 2
    table = Table([f"c{i}" for i in range(width)], rows, "caption", ["a note"])
    assert Table.from_dict(table.to_dict()) == table
    assert table.to_text().startswith("c0")
    assert table.to_html().count("<tr>") == len(rows) + 1


def test_cells_are_taken_from_arrays():
    interval = bounded(0.5, 0.2, 0.8, level=0.95, method="by hand")
    unsure = bounded(0.5, np.nan, np.nan, level=0.95, method="by hand")
    row = ["a", interval, unsure, xr.DataArray(3), np.float32(0.5), np.nan, True]
    assert Table("abcdefg", [row]).rows == (("a", (0.5, 0.2, 0.8), 0.5, 3, 0.5, None, 1),)


def test_text_columns_line_up_whatever_marks_stand_over_letters():
    table = Table(
        ["", Column("gain", signed=True)], [("x̂₀ alone", 0.5), ("noise", (0.5, 0.2, 0.8))]
    )
    lines = table.to_text().splitlines()
    assert lines[1] == "x̂₀ alone" + f"{'+0.5':>22}"
    assert lines[2] == "noise     +0.50 [+0.20, +0.80]"


def test_every_writer_escapes():
    table = Table(["<b>", "50 %"], [("a_b & <i>", (1.0, 0.5, 1.5))], "α < 1", ["$\\frac{1$"])
    assert "&lt;b&gt;" in table.to_html()
    assert "<i>" not in table.to_html()
    latex = table.to_latex()
    assert r"a\_b \& <i> & 1.0 {\scriptsize[0.5, 1.5]}" in latex
    assert r"50 \%" in latex
    assert r"\$\textbackslash{}frac\{1\$" in latex


def test_csv_keeps_bounds_apart():
    table = Table(["", "v"], [("a, b", (1.0, 0.5, 1.5)), ("c", None)])
    lines = list(csv.reader(io.StringIO(table.to_csv())))
    assert lines[1:] == [["a, b", "v", "1", "0.5", "1.5"], ["c", "v", "", "", ""]]


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 columns has a row of 1"):
        Table(["", "v"], [("a",)])


def test_tex_leaves_plain_text():
    assert tex("plain text, 1.5") == "plain text, 1.5"
