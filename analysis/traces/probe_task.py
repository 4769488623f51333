"""One attribute as a task for linear probes: samples, labels, groups, controls, permutations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis import stats
from xhat.analysis.intervals import BOUNDS, bounded
from xhat.analysis.traces.layers import X_T
from xhat.probes.linear import balanced_accuracy, control_labels, read_out, scored

PRED_X0 = "x̂₀"


class Task:
    """One attribute's samples, labels, groups, controls and permutations."""

    def __init__(
        self,
        rows: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray,
        units: Any,
        sets: np.ndarray,
        by: str,
    ) -> None:
        self.rows, self.labels, self.groups, self.units, self.sets, self.by = (
            rows,
            labels,
            groups,
            units,
            sets,
            by,
        )
        self.classes = scored(labels, groups)
        self.usable = len(self.classes) > 1 and len(np.unique(groups)) > 1

    @classmethod
    def of(
        cls,
        trace: Any,
        name: str,
        given: xr.DataArray,
        by: str,
        crossed: bool,
        permutations: int,
        seed: int,
    ) -> Task:
        given = given.transpose("prompt", "seed")
        for dim in ("prompt", "seed"):
            if not np.array_equal(given[dim].values, trace[dim].values):
                raise ValueError(f"the labels of {name!r} are of other {dim}s than the trace")
        values = given.values
        applies = (values != "") if values.dtype.kind == "U" else (values >= 0)
        rows = np.flatnonzero(applies.all(1))
        seeds = values.shape[1]
        labels = np.unique(values[rows].reshape(-1), return_inverse=True)[1]
        prompt, unit = np.repeat(rows, seeds), np.tile(np.arange(seeds), len(rows))
        groups, others = (prompt, unit) if by == "prompt" else (unit, prompt)
        sets = [labels]
        if len(np.unique(groups)) > 1:
            orders = stats.group_permutations(groups, permutations, seed)
            sets += [control_labels(labels, others, seed), *(labels[order] for order in orders)]
        units = others if crossed and len(np.unique(others)) > 1 else None
        return cls(rows, labels, groups, units, np.stack(sets), by)

    def cell(
        self, values: xr.DataArray, step: int, folds: int, level: float, seed: int
    ) -> dict[str, Any]:
        """All numbers of one layer and step, empty where there is nothing to read."""
        x = self._features(values, step)
        if x is None:
            return {}
        read = self._read(x, self.sets, folds, seed)
        task, control = (self._interval(i, read, level) for i in (0, 1))
        selectivity = self._interval(0, read, level, less=1)
        null = [
            balanced_accuracy(y, r, self.classes)
            for y, r in zip(self.sets[2:], read[2:], strict=True)
        ]
        return {
            "task": task,
            "control": control,
            "selectivity": selectivity,
            "null": np.array(null),
        }

    def accuracy(self, values: xr.DataArray, step: int, folds: int, seed: int) -> float:
        x = self._features(values, step)
        if x is None:
            return np.nan
        return balanced_accuracy(
            self.labels, self._read(x, self.sets[:1], folds, seed)[0], self.classes
        )

    def _read(self, x: np.ndarray, sets: np.ndarray, folds: int, seed: int) -> np.ndarray:
        return read_out(x, sets, self.groups, units=self.units, folds=folds, seed=seed)

    def _features(self, values: xr.DataArray, step: int) -> np.ndarray | None:
        if not self.usable:
            return None
        x = np.asarray(values.isel(step=step, prompt=self.rows).values, dtype=np.float64)
        x = x.reshape(len(self.labels), -1)
        return None if np.isnan(x).all() or not np.ptp(x, axis=0).max() > 0 else x

    def _interval(
        self, row: int, read: np.ndarray, level: float, less: int | None = None
    ) -> stats.Interval:
        """Accuracy of one label set, or what it is above another's, with a jackknife over
        groups.
        """

        def value(keep: np.ndarray) -> float:
            both = [row] if less is None else [row, less]
            found = [
                balanced_accuracy(self.sets[i][keep], read[i][keep], self.classes) for i in both
            ]
            return found[0] - (found[1] if less is not None else 0.0)

        everything = np.ones(len(self.labels), dtype=bool)
        left_out = np.array([value(self.groups != g) for g in np.unique(self.groups)])
        estimate = value(everything)
        if not np.isfinite(
            left_out
        ).all():  # a class that goes with one group: no interval can be given
            nan = np.asarray(np.nan)
            return stats.Interval(np.asarray(estimate), nan, nan, {})
        return stats.jackknife(estimate, left_out, level=level, unit=self.by)

    def dataset(
        self, cells: Any, names: list[str], untrained: Mapping[str, list[float]], level: float
    ) -> xr.Dataset:
        shape = len(cells), len(cells[0])
        flat = [cell for row in cells for cell in row]
        found: dict[str, Any] = {}
        method = f"jackknife over {self.by}s, Student's t"
        for key in ("task", "control", "selectivity"):
            bounds = [
                np.reshape([float(getattr(c[key], b)) if c else np.nan for c in flat], shape)
                for b in BOUNDS
            ]
            found[key] = bounded(*bounds, level=level, method=method, dims=("layer", "step"))
        found["p"], found["p_map"] = (
            (("layer", "step"), v) for v in self._tested(cells, names, level)
        )
        if untrained:
            rows = [untrained.get(n, [np.nan] * shape[1]) for n in names]
            found["untrained"] = (("layer", "step"), np.array(rows, dtype=np.float64))
        found["chance"] = ((), 1 / len(self.classes) if self.usable else np.nan)
        sizes = {"classes": self.classes, "samples": self.labels, "groups": np.unique(self.groups)}
        found |= {key: ((), len(value)) for key, value in sizes.items()}
        attrs = {"unit": self.by, "score": "balanced accuracy"}
        return xr.Dataset(found, {"layer": names}, attrs)

    def _tested(self, cells: Any, names: list[str], level: float) -> tuple[np.ndarray, np.ndarray]:
        shape = len(cells), len(cells[0])
        p, p_map = np.full(shape, np.nan), np.full(shape, np.nan)
        known = np.array([[bool(c) and len(c["null"]) > 0 for c in row] for row in cells])
        if known.any():
            flat = [
                c
                for row, k in zip(cells, known, strict=True)
                for c, ok in zip(row, k, strict=True)
                if ok
            ]
            observed = np.array([float(c["task"].estimate) for c in flat])
            null = np.nan_to_num(np.stack([c["null"] for c in flat], axis=1))
            own = np.repeat([name not in (X_T, PRED_X0) for name in names], shape[1]).reshape(
                shape
            )[known]
            test = stats.max_statistic(
                observed, null, family=own if own.any() else None, level=level
            )
            p[known], p_map[known] = test.p, test.p_map
        return p, p_map
