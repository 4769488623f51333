"""The paper's numbers agree with each other where they must."""

import numpy as np
import pytest

from xhat.analysis.experiments.paper import CITATION, TABLES, published_retention


@pytest.mark.parametrize("name", TABLES)
def test_every_row_fills_every_column(name):
    array = TABLES[name].to_array()
    assert array.shape == (len(TABLES[name].rows), len(TABLES[name].columns))
    assert array.attrs["source"] == CITATION


def test_the_printed_mean_is_the_mean_of_the_rows():
    table = TABLES["2"].to_array()
    rows = table.drop_sel(row="mean").mean("row")
    np.testing.assert_allclose(rows, table.sel(row="mean"), atol=6e-4)


def test_retention_is_that_of_the_means():
    table = TABLES["1"].to_array()
    for student, share in published_retention().items():
        assert share == pytest.approx(
            float(table.sel(column=student).sum() / table.sel(column="base").sum())
        )
    assert min(published_retention(), key=published_retention().get) == "DMD2"
