"""When an attribute of the final picture can first be read: linear probes at every layer and noise
level of a trace.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from xhat.analysis import stats
from xhat.analysis.sampling.untrained import untrained
from xhat.analysis.traces.layers import X_T
from xhat.hooks.edits.edit import Source, replace
from xhat.hooks.trace import trace as make_trace
from xhat.probes.linear import balanced_accuracy, control_labels, read_out, scored
from xhat.zoo.family.attributes import ATTRIBUTES, KINDS, parse

PRED_X0 = "x̂₀"
Labels = Mapping[str, xr.DataArray]


def final_labels(trace: Any, space: Any) -> dict[str, xr.DataArray]:
    """What the judge reads from every final picture: attribute → texts (prompt, seed), "" where it
    does not apply.

    An attribute applies where the prompt leaves it open. Those that every kind of picture has go
    under their name, others under kind and name. ``space``: a
    :class:`~xhat.probes.features.JudgeSpace`."""
    final = trace["final"].transpose("prompt", "seed", ...)
    found: dict[str, np.ndarray] = {}
    for p, prompt in enumerate(str(v) for v in final["prompt"].values):
        scene = parse(prompt)
        read = space.labels(np.asarray(final.isel(prompt=p).values, dtype=np.float32), prompt)
        assert scene is not None, "the space has refused what it cannot parse"
        for name, (labels, _) in read.items():
            common = all(name in ATTRIBUTES[kind] for kind in KINDS)
            values = np.array(ATTRIBUTES[scene.kind][name], dtype="U24")
            key = name if common or name == scene.kind else f"{scene.kind} {name}"
            found.setdefault(key, np.full(final.shape[:2], "", dtype="U24"))[p] = values[labels]
    coords = {dim: final[dim].values for dim in ("prompt", "seed")}
    return {
        name: xr.DataArray(values, coords, ("prompt", "seed")) for name, values in found.items()
    }


def probe_curves(
    trace: Any,
    labels: Labels,
    *,
    by: str = "prompt",
    crossed: bool = True,
    untrained: Any = None,
    branch: str = "cond",
    folds: int = 5,
    permutations: int = 99,
    level: float = stats.LEVEL,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Balanced accuracy of linear probes for every attribute, at every layer and step, on held-out
    prompts and seeds.

    ``labels``: attribute → (prompt, seed) of texts or integers, "" (or −1) where it does not apply:
    a prompt is used for an attribute that applies to all its samples. Folds hold whole groups
    ``by`` prompt, or seed where there are few prompts; ``crossed``: each half of the seeds
    (prompts, by seed) is read by probes of the other half, so that a noise that comes back under
    every prompt gives nothing away. Layers are the trace's activations, the network's input
    ``x_t``, and ``x̂₀``.

    Variables (attribute, layer, step): ``task``; ``control``, a label drawn for each seed (each
    prompt, by seed), so that what the shared noise alone gives away is known: chance where crossed;
    ``selectivity``, task − control; each with ``_low`` and ``_high``, a jackknife over the groups;
    ``p``, share of orders of whole groups' labels that are read as well, and ``p_map``, corrected
    over layers and steps; ``untrained``: the task on the trace ``untrained``
    (:func:`untrained_trace`). (attribute): ``chance``, ``classes``, ``samples``, ``groups``.
    Classes with fewer than five samples, or in one group alone, are not scored; an attribute with
    fewer than two classes left is NaN: a model that always draws the same leaves nothing to read.
    Raises ValueError for labels of other prompts or seeds."""
    if by not in ("prompt", "seed"):
        raise ValueError(f"by must be 'prompt' or 'seed', got {by!r}")
    layers = _layers(trace, branch)
    baseline = {} if untrained is None else _layers(untrained, branch)
    steps = trace.sizes["step"]
    parts = []
    with tqdm(total=len(labels) * steps, desc="probes", unit="step", disable=not progress) as bar:
        for name, given in labels.items():
            task = _Task.of(trace, name, given, by, crossed, permutations, seed)
            cells = [
                [task.cell(x, s, folds, level, seed) for s in range(steps)] for x in layers.values()
            ]
            base = {
                k: [task.accuracy(x, s, folds, seed) for s in range(steps)]
                for k, x in baseline.items()
            }
            parts.append(task.dataset(cells, list(layers), base, level))
            bar.update(steps)
    found = xr.concat(
        parts,
        xr.DataArray(list(labels), dims="attribute", name="attribute"),
        combine_attrs="override",
    )
    coords = {n: c for n, c in trace.coords.items() if c.dims == ("step",)}
    return found.assign_coords(coords).assign_attrs(
        by=by, crossed=int(crossed), folds=folds, branch=branch, seed=seed
    )


def untrained_trace(pipe: Any, trace: Any, *, seed: int = 0, batch_size: int = 24) -> xr.DataTree:
    """The readings of a network of random weights and the same shape, given the very x_t that a
    traced run saw.

    ``trace``: made by ``pipe`` over prompts × seeds; its points, reductions and number of steps are
    taken over."""
    other = untrained(pipe, seed)
    hooks = {
        n: str(node.attrs["reduction"])
        for n, node in trace.children["activations"].children.items()
    }
    call = {k: v for k, v in json.loads(trace.attrs["call"]).items() if k != "guidance_scale"}
    sigma = trace["sigma"].values
    x_t = trace["latents"].transpose("prompt", "seed", "step", ...)
    if trace.attrs["space"] == "sigma":  # the network sees x/√(σ²+1)
        x_t = x_t / xr.DataArray(np.sqrt(sigma**2 + 1), dims="step")
    source = Source(X_T, x_t, tuple(float(s) for s in sigma), str(trace.attrs.get("checksum", "")))
    prompts = [str(p) for p in trace["prompt"].values]
    return make_trace(
        other,
        prompts,
        seeds=trace["seed"].values,
        hooks=hooks,
        edits=[replace("in@input", source)],
        batch_size=batch_size,
        progress=False,
        guidance_scale=1.0,
        **call,
    )


def decided(curves: Mapping[str, xr.Dataset], layer: str) -> xr.Dataset:
    """The curves of several models at one layer, for a figure: (model, attribute, step), shorter
    schedules padded.

    ``layer``'s ``task`` with bounds and ``control``, the task on ``x_t``, on ``x̂₀``, and
    untrained; ``sigma`` (model, step); ``decided_sigma`` (model, attribute): noise level of the
    first step at which x̂₀ gives away at least half of what there is to know, (chance + 1)/2. NaN
    where it never does."""
    parts = []
    for data in curves.values():
        if layer not in data["layer"].values:
            raise ValueError(
                f"no layer {layer!r} was probed; there are {', '.join(map(str, data['layer'].values))}"
            )
        own = data.sel(layer=layer, drop=True)
        names = ["task", "task_low", "task_high", "control"] + (
            ["untrained"] if "untrained" in data else []
        )
        found = own[[*names, "chance"]]
        found = found.drop_vars([c for c in found.coords if c != "attribute"])
        found["sigma"] = ("step", data["sigma"].values)
        for key, other in (("x_t", X_T), ("x0", PRED_X0)):
            found[key] = data["task"].sel(layer=other, drop=True).variable
        read = found["x0"] >= (found["chance"] + 1) / 2
        first = data["sigma"].values[read.argmax("step").values]
        found["decided_sigma"] = ("attribute", np.where(read.any("step").values, first, np.nan))
        parts.append(found)
    padded = [p.pad(step=(0, max(q.sizes["step"] for q in parts) - p.sizes["step"])) for p in parts]
    joined = xr.concat(padded, xr.DataArray(list(curves), dims="model", name="model"), join="outer")
    return joined.assign_attrs(layer=layer, interval="jackknife over held-out groups")


def _layers(trace: Any, branch: str) -> dict[str, xr.DataArray]:
    """Every representation as (prompt, seed, step, …)."""
    nodes = trace.children["activations"].children if "activations" in trace.children else {}
    found = {name: node["value"] for name, node in nodes.items()}
    found |= {X_T: trace["latents"], PRED_X0: trace["pred_x0"]}
    chosen = {}
    for name, value in found.items():
        if "sample_other" in value.dims:
            raise ValueError(
                f"{name} was kept as a Gram matrix: probes need activations (mean, pool, project, full)"
            )
        if "branch" in value.dims:
            have = [str(b) for b in value["branch"].values]
            value = value.isel(branch=have.index(branch) if branch in have else len(have) - 1)
        chosen[name] = value.transpose("prompt", "seed", "step", ...)
    return chosen


class _Task:
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
    ) -> _Task:
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
        found: dict[str, Any] = {}
        for key in ("task", "control", "selectivity"):
            for suffix, part in (("", "estimate"), ("_low", "low"), ("_high", "high")):
                flat = [float(getattr(c[key], part)) if c else np.nan for row in cells for c in row]
                found[key + suffix] = (("layer", "step"), np.reshape(flat, shape))
        found["p"], found["p_map"] = (
            (("layer", "step"), v) for v in self._tested(cells, names, level)
        )
        if untrained:
            rows = [untrained.get(n, [np.nan] * shape[1]) for n in names]
            found["untrained"] = (("layer", "step"), np.array(rows, dtype=np.float64))
        found["chance"] = ((), 1 / len(self.classes) if self.usable else np.nan)
        sizes = {"classes": self.classes, "samples": self.labels, "groups": np.unique(self.groups)}
        found |= {key: ((), len(value)) for key, value in sizes.items()}
        attrs = {"interval": "jackknife, Student's t", "level": level, "unit": self.by}
        return xr.Dataset(found, {"layer": names}, attrs | {"score": "balanced accuracy"})

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
