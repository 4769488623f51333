"""The data a figure is drawn from: one small netCDF file a figure, written by the runs, committed
for the shipped ones.

A run keeps its files in ``RUN/data/``; those of the embedded family are in ``figures/data/``, so
that every figure can be redrawn without running a model."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from xhat.analysis.files import read_dataset, write_dataset
from xhat.hooks.naming import nearest

SHIPPED = Path(__file__).parents[1] / "data"


def save_data(data: xr.Dataset, run: Path, name: str) -> Path:
    """Write ``RUN/data/NAME.nc`` (netCDF 4, compressed), whole or not at all."""
    path = run / "data" / f"{name}.nc"
    write_dataset(data, path)
    return path


def load_data(name: str, run: Path | None = None) -> xr.Dataset:
    """The data of figure ``name`` of a run, or of the embedded family.

    Raises: ValueError when there is none, naming those that are.
    """
    folder = SHIPPED if run is None else run / "data"
    path = folder / f"{name}.nc"
    if not path.exists():
        there = sorted(p.stem for p in folder.glob("*.nc"))
        near = nearest(name, there)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(there) or 'none'}"
        raise ValueError(f"no figure data {name!r} in {folder}; {hint}")
    return read_dataset(path)
