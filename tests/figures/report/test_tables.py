"""The paper's tables: published numbers as printed, this project's apart from them, both
labelled.
"""

import csv
import io

import numpy as np
import pytest

from xhat.analysis.experiments.paper import CITATION, TABLES
from xhat.figures.report.tables import HERE, tables, write_tables


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.slow
def test_csv_holds_every_published_number():
    for name, table in tables([]).items():
        of_paper = [row for row in rows(table.to_csv()) if row["source"].startswith("published")]
        values = [float(row["value"]) for row in of_paper if row["value"]]
        printed = np.array(list(TABLES[name].rows.values())).ravel()
        np.testing.assert_allclose(values, printed[np.isfinite(printed)])


def test_parts_are_labelled_and_never_mixed(run, measured):
    table = tables([run])["2"]
    found = rows(table.to_csv())
    here = [row for row in found if row["source"].startswith(HERE)]
    assert {row["source"] for row in found} == {f"{HERE}: student DMD", f"published, {CITATION}"}
    assert {row["row"] for row in here} == {*measured["prompt"].values, "mean"}
    mean = next(
        r
        for r in here
        if r["row"] == "mean" and r["column"] == "base" and r["unit"].startswith("Vendi")
    )
    assert float(mean["value"]) == pytest.approx(
        float(measured["vendi_q2"].sel(arm="base").mean()), rel=1e-5
    )
    assert float(mean["low"]) < float(mean["value"]) < float(mean["high"])
    latex = table.to_latex()
    assert latex.count(r"\begin{tabular}") == 3
    assert latex.index(HERE) < latex.index("published")


def test_latex_prints_published_numbers_as_they_were_and_escapes_the_rest(run, tmp_path):
    write_tables(tmp_path, [run])
    assert {p.name for p in tmp_path.iterdir()} >= {
        "table_1.tex",
        "table_1.csv",
        "table_D1.tex",
        "table_E1.csv",
    }
    assert (
        "base (50 steps) & 12.74 & 24.74 & 31.83 & 9.22 \\\\"
        in (tmp_path / "table_3.tex").read_text()
    )
    assert (
        r"PixArt-$\alpha$ $\to$ PixArt-$\delta$ & 0.342" in (tmp_path / "table_D1.tex").read_text()
    )
    assert (
        r"<script>alert('x')</script> \& a \$planet\$ &" in (tmp_path / "table_2.tex").read_text()
    )


def test_a_table_without_numbers_says_what_writes_them(run):
    table = tables([run])["E.1"]
    assert len(table.parts) == 1
    assert "xhat swaps" in table.missing
    assert table.missing.split(":")[0] in table.to_latex()
