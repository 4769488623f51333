"""Intervals as a dimension: ``bound`` with ``estimate``, ``low`` and ``high``, and how they read.

A variable with bounds says its confidence ``level`` and ``method`` in its attributes. A variable
of units (prompts, seeds) and the interval of its mean do not share a name: where both stand in one
dataset, the interval is ``<name>_mean``."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

BOUND = "bound"
BOUNDS = ("estimate", "low", "high")
OLD_SUFFIXES = ("_low", "_high")


def bounded(
    estimate: Any,
    low: Any,
    high: Any,
    *,
    level: float,
    method: str,
    dims: str | Sequence[Hashable] = (),
    coords: Mapping[str, Any] | None = None,
    **attrs: Any,
) -> xr.DataArray:
    """An estimate with its interval, along a last dimension ``bound``.

    Parameters
    ----------
    estimate, low, high
        Arrays of one shape, or three DataArrays, whose dimensions and coordinates are taken.
        NaN bounds say that no interval can be given; both are missing, or neither.
    level
        Confidence level, between 0 and 1.
    method
        How the interval was made, for instance ``"two-way jackknife, Student's t"``.
    dims, coords
        Of the arrays, ``bound`` left out.
    attrs
        Further attributes: number of units, resamples, seed.

    Raises
    ------
    ValueError
        For shapes that differ, a level outside (0, 1), one bound without the other, and bounds
        in the wrong order. An estimate outside its bounds is allowed: bootstraps of skewed
        statistics give some.

    Examples
    --------
    >>> gain = bounded(0.5, 0.2, 0.8, level=0.95, method="by hand")
    >>> float(gain.sel(bound="low")), gain.attrs["level"]
    (0.2, 0.95)
    """
    if isinstance(estimate, xr.DataArray):
        dims, coords = estimate.dims, {str(k): v for k, v in estimate.coords.items()}
        low, high = (x.transpose(*dims) if isinstance(x, xr.DataArray) else x for x in (low, high))
    parts = [np.asarray(x, dtype=np.float64) for x in (estimate, low, high)]
    if len({x.shape for x in parts}) > 1:
        raise ValueError(
            f"estimate, low and high must have one shape, got {[x.shape for x in parts]}"
        )
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    if (np.isnan(parts[1]) != np.isnan(parts[2])).any():
        raise ValueError("one bound is missing (NaN) where the other is not: give both or neither")
    if (parts[1] > parts[2]).any():
        raise ValueError("a lower bound lies above its upper bound: were they swapped?")
    dims = (dims,) if isinstance(dims, str) else tuple(dims)
    return xr.DataArray(
        np.stack(parts, axis=-1),
        dims=(*dims, BOUND),
        coords={**(coords or {}), BOUND: list(BOUNDS)},
        attrs={**attrs, "level": level, "method": method},
    )


def bounded_names(data: xr.Dataset) -> list[str]:
    """Names of the variables that have bounds, in the order of the dataset."""
    return [str(name) for name, variable in data.data_vars.items() if BOUND in variable.dims]


def excludes(interval: xr.DataArray, value: float = 0.0) -> xr.DataArray:
    """Where an interval does not hold ``value``: bool, without ``bound``. Missing bounds hold all.

    >>> bool(excludes(bounded(0.5, 0.2, 0.8, level=0.95, method="by hand")))
    True
    """
    check_bounded(interval)
    low, high = (interval.sel({BOUND: part}, drop=True) for part in BOUNDS[1:])
    return (low > value) | (high < value)


def check_bounded(data: xr.DataArray | xr.Dataset, *names: str) -> None:
    """Refuse data without bounds: an array, or the variables ``names`` of a dataset.

    Raises
    ------
    ValueError
        Says what is missing; of data in the form of version 0.1, whose bounds were variables
        ``<name>_low`` and ``<name>_high``, that it must be made again.
    """
    if isinstance(data, xr.DataArray):
        if BOUND not in data.dims or list(data[BOUND].values) != list(BOUNDS):
            raise ValueError(
                f"expected an interval with a dimension {BOUND!r} of {', '.join(BOUNDS)}; "
                f"got dimensions {data.dims}"
            )
        return
    for name in names:
        if name in data and BOUND in data[name].dims:
            check_bounded(data[name])
        elif any(f"{name}{suffix}" in data for suffix in OLD_SUFFIXES):
            raise ValueError(
                f"{name} has its bounds in {name}_low and {name}_high, as data of version 0.1 "
                "had them: run the command that made these data again"
            )
        else:
            raise ValueError(f"the data have no interval {name!r}; there are {bounded_names(data)}")


def format_interval(interval: xr.DataArray, *, signed: bool = False, unit: str = "") -> str:
    """An interval in words' place: ``0.52 [0.31, 0.74]``, ``+0.52 [+0.31, +0.74]`` where signed.

    Digits follow the width, of which two significant ones are shown; a bound that is not zero is
    never rounded to zero, and ``nan`` is never written. The level is not repeated: say it once
    beside a table.

    Parameters
    ----------
    interval
        Scalar but for ``bound``, of :func:`bounded`.
    signed
        For differences: a plus sign before what is above zero.
    unit
        Written behind, for instance ``" %"``.

    Examples
    --------
    >>> format_interval(bounded(0.5234, 0.3123, 0.7411, level=0.95, method="by hand"), signed=True)
    '+0.52 [+0.31, +0.74]'
    >>> format_interval(bounded(2.5, float("nan"), float("nan"), level=0.95, method="by hand"))
    '2.5 (no interval)'
    """
    check_bounded(interval)
    if interval.ndim != 1:
        raise ValueError(
            f"one interval can be written at a time: select along {interval.dims[:-1]} first"
        )
    value, low, high = (float(x) for x in interval.values)
    if np.isnan(value):
        return "not measured"
    if np.isnan(low):
        return f"{format_number(value, signed=signed)}{unit} (no interval)"
    digits = _decimals(low, high)
    text = [format_number(x, decimals=digits, signed=signed) for x in (value, low, high)]
    return f"{text[0]}{unit} [{text[1]}, {text[2]}]"


def format_number(value: float, *, decimals: int | None = None, signed: bool = False) -> str:
    """One number; left alone, with three significant digits. Zero has no sign, infinity is ∞.

    >>> format_number(0.000123), format_number(-0.0004, decimals=2), format_number(2, signed=True)
    ('0.000123', '0.00', '+2')
    """
    if np.isnan(value):
        return "not measured"
    if np.isinf(value):
        return "-∞" if value < 0 else ("+∞" if signed else "∞")
    if value != 0 and not 1e-6 <= abs(value) < 1e7:
        return f"{value:{'+' if signed else ''}.2e}"
    if decimals is None:
        text = np.format_float_positional(value, precision=3, fractional=False, trim="-")
    else:
        text = f"{value:.{max(decimals, 0)}f}"
    if float(text) == 0:
        return text.lstrip("-")
    return f"+{text}" if signed and value > 0 else text


def _decimals(low: float, high: float) -> int:
    """Decimals that show two significant digits of the width, and no bound beside zero as zero."""
    width, size = high - low, max(abs(low), abs(high))
    scale = width if np.isfinite(width) and width > 1e-9 * size else size
    if not (np.isfinite(scale) and scale > 0):
        return 2
    digits = 1 - int(np.floor(np.log10(scale)))
    for x in (low, high):
        if np.isfinite(x) and x != 0:
            while digits < 6 and round(x, digits) == 0:
                digits += 1
    return min(max(digits, 0), 6)
