"""Does control survive distillation: transfer, alignment and energy of every control, in a base and
its students.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from xhat.analysis.experiments.transfer_bench import Bench, Settings
from xhat.analysis.sampling.control import Control
from xhat.analysis.sampling.dose_response import dose_response, retention


@dataclass(frozen=True)
class Study:
    """What was measured. ``doses``: (control, model) →
    :func:`~xhat.analysis.sampling.dose_response.doses`, and ``curves`` its dose response;
    ``retention``: (control, model it was not trained on); ``alignment`` and ``energy``: by
    student."""

    controls: list[Control]
    models: list[str]
    settings: Settings
    doses: dict[tuple[str, str], xr.Dataset] = field(repr=False)
    curves: dict[tuple[str, str], xr.Dataset] = field(repr=False)
    retention: dict[tuple[str, str], xr.Dataset] = field(repr=False)
    alignment: dict[str, xr.Dataset] = field(repr=False)
    energy: dict[str, xr.Dataset] = field(repr=False)


def study(
    models: Mapping[str, Any],
    controls: Sequence[Control],
    space: Any,
    out: Path,
    settings: Settings | None = None,
) -> Study:
    """Measure every control in ``models`` (name → pipeline, among them ``base``), with caches in
    ``OUT/cache``.

    A control of the base goes to every student; one of a student, to the base. A run that was
    stopped goes on, and a finished one is read in seconds. Raises ValueError without a base, a
    student or controls, and where the base has no step at a student's noise levels."""
    settings = settings or Settings()
    bench = Bench(models, controls, space, out / "cache", settings)
    found = bench.run()
    read = {
        (c.name, m): found["doses", f"{c.name}.{m}"]
        for c in bench.controls
        for m in bench.goes_to(c)
    }
    retained = {
        (c.name, m): retention(read[c.name, c.trained_on], read[c.name, m])
        for c in bench.controls
        for m in bench.goes_to(c)
        if m != c.trained_on
    }
    curves = {key: dose_response(data) for key, data in read.items()}
    aligned, used = (
        {m: found[what, m] for m in bench.students} for what in ("alignment", "energy")
    )
    return Study(bench.controls, list(models), settings, read, curves, retained, aligned, used)
