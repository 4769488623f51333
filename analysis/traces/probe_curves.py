"""When an attribute of the final picture can first be read: linear probes at every layer and noise
level of a trace.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr
from tqdm.auto import tqdm

from xhat.analysis import stats
from xhat.analysis.traces.layers import X_T
from xhat.analysis.traces.probe_task import PRED_X0, Task

Labels = Mapping[str, xr.DataArray]


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
    ``selectivity``, task − control; each with ``bound``, a jackknife over the groups;
    ``p``, share of orders of whole groups' labels that are read as well, and ``p_map``, corrected
    over layers and steps; ``untrained``: the task on the trace ``untrained``
    (:func:`xhat.analysis.sampling.untrained.untrained_trace`). (attribute): ``chance``,
    ``classes``, ``samples``, ``groups``.
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
            task = Task.of(trace, name, given, by, crossed, permutations, seed)
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


def _layers(trace: Any, branch: str) -> dict[str, xr.DataArray]:
    """Every representation as (prompt, seed, step, …)."""
    nodes = trace.children["activations"].children if "activations" in trace.children else {}
    found = {name: node["value"] for name, node in nodes.items()}
    found |= {X_T: trace["latents"], PRED_X0: trace["pred_x0"]}
    chosen = {}
    for name, value in found.items():
        if "sample_other" in value.dims:
            raise ValueError(
                f"{name} was kept as a Gram matrix: probes need activations (mean, pool, project, "
                "full)"
            )
        if "branch" in value.dims:
            have = [str(b) for b in value["branch"].values]
            value = value.isel(branch=have.index(branch) if branch in have else len(have) - 1)
        chosen[name] = value.transpose("prompt", "seed", "step", ...)
    return chosen
