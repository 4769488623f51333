"""Intervals as a dimension: what is kept, what is refused, and how they read."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xhat.analysis.intervals import (
    bounded,
    bounded_names,
    check_bounded,
    excludes,
    format_interval,
    format_number,
)

HOW = {"level": 0.95, "method": "by hand"}


def test_arrays_become_a_last_dimension_with_level_and_method():
    found = bounded([1, 2], [0, 1], [2, 3], dims="arm", coords={"arm": ["a", "b"]}, n=8, **HOW)
    assert found.dims == ("arm", "bound")
    assert found["bound"].values.tolist() == ["estimate", "low", "high"]
    assert found.sel(arm="b", bound="low") == 1
    assert found.attrs == {"n": 8, **HOW}


def test_data_arrays_bring_their_dimensions_and_may_come_in_another_order():
    value = xr.DataArray(np.arange(6.0).reshape(2, 3), dims=("arm", "step"))
    found = bounded(value, (value - 1).transpose("step", "arm"), value + 1, **HOW)
    assert found.dims == ("arm", "step", "bound")
    np.testing.assert_array_equal(found.sel(bound="low"), value - 1)


def test_an_interval_survives_a_file(tmp_path):
    found = bounded([1, 2], [0, np.nan], [2, np.nan], dims="arm", **HOW)
    xr.Dataset({"x": found}).to_netcdf(tmp_path / "x.nc")
    xr.testing.assert_identical(
        xr.load_dataset(tmp_path / "x.nc"), xr.Dataset({"x": found}).astype("float64")
    )


@pytest.mark.parametrize(
    ("parts", "level", "says"),
    [
        ((1, 0, [2, 3]), 0.95, "one shape"),
        ((1, 0, 2), 95, "between 0 and 1"),
        ((1, np.nan, 2), 0.95, "both or neither"),
        ((1, 2, 0), 0.95, "swapped"),
    ],
)
def test_what_is_no_interval_is_refused(parts, level, says):
    with pytest.raises(ValueError, match=says):
        bounded(*parts, level=level, method="by hand")


def test_an_interval_excludes_what_lies_outside_and_a_missing_one_nothing():
    found = bounded([1, 0, -1, 5], [0.5, -1, -2, np.nan], [2, 1, -0.5, np.nan], dims="arm", **HOW)
    assert excludes(found).values.tolist() == [True, False, True, False]
    assert excludes(found, 1.0).values.tolist() == [False, False, True, False]


def test_old_data_and_missing_intervals_are_refused_with_the_way_out():
    new = xr.Dataset({"a": bounded(1, 0, 2, **HOW), "n": 3})
    assert bounded_names(new) == ["a"]
    check_bounded(new, "a")
    with pytest.raises(ValueError, match="no interval 'n'; there are"):
        check_bounded(new, "n")
    with pytest.raises(ValueError, match="again"):
        check_bounded(xr.Dataset({"a_mean": 1, "a_low": 0, "a_high": 2}), "a")
    with pytest.raises(ValueError, match="bound"):
        check_bounded(xr.DataArray([1, 2, 3], dims="arm"))


@pytest.mark.parametrize(
    ("parts", "signed", "text"),
    [
        ((0.5234, 0.3123, 0.7411), True, "+0.52 [+0.31, +0.74]"),
        ((0.5234, 0.3123, 0.7411), False, "0.52 [0.31, 0.74]"),
        ((0.0002, 0.0001, 0.0003), True, "+0.00020 [+0.00010, +0.00030]"),
        ((0.45, 0.0012, 0.9), True, "+0.450 [+0.001, +0.900]"),
        ((0.001, -0.4, 0.4), True, "0.00 [-0.40, +0.40]"),
        ((1234.4, 1111, 1399), False, "1234 [1111, 1399]"),
        ((0, 0, 0), True, "0.00 [0.00, 0.00]"),
        ((3, 3, 3), False, "3.0 [3.0, 3.0]"),
        ((2.5, np.nan, np.nan), True, "+2.5 (no interval)"),
        ((np.nan, np.nan, np.nan), True, "not measured"),
        ((np.inf, np.nan, np.nan), False, "∞ (no interval)"),
        ((1, -np.inf, np.inf), False, "1.00 [-∞, ∞]"),
    ],
)
def test_how_an_interval_reads(parts, signed, text):
    assert format_interval(bounded(*parts, **HOW), signed=signed) == text


def test_one_interval_is_written_at_a_time():
    with pytest.raises(ValueError, match="'arm'"):
        format_interval(bounded([1], [0], [2], dims="arm", **HOW))


numbers = st.floats(-1e9, 1e9, allow_nan=False)


@pytest.mark.slow
@given(numbers, numbers, numbers, st.booleans())
def test_no_text_says_nan_or_turns_a_bound_into_zero(value, a, b, signed):
    low, high = min(a, b), max(a, b)
    text = format_interval(bounded(value, low, high, **HOW), signed=signed)
    assert "nan" not in text
    shown = [float(x) for x in text.split("[")[1].rstrip("]").split(", ")]
    for true, written in zip((low, high), shown, strict=True):
        assert (written == 0) == (true == 0)
        assert written * true >= 0


@given(numbers)
def test_a_number_reads_back_to_three_digits(value):
    assert float(format_number(value)) == pytest.approx(value, rel=5.1e-3)
