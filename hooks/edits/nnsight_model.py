"""A pipeline as a model of nnsight, with this project's point names, and what was saved there
beside
a trace.

    model = xhat.nnsight_model(pipe)
    h = model.point("h")
    saved = []
    with model.generate("a planet", num_inference_steps=4, generator=generator) as tracer:
        for step in tracer.iter[0:4]:
            saved.append(h.output.clone())
    tree = model.join(trace, {"h": saved})
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import rearrange

from xhat.hooks.edits.nnsight_engine import envoy_at, wrapped
from xhat.hooks.points.names import denoiser_of
from xhat.hooks.points.select import select
from xhat.hooks.protocols import Pipeline

ROWS = {("prompt", "seed"): "(branch prompt seed)", ("sample",): "(branch sample)"}


class NNsightModel:
    """What :func:`nnsight_model` makes. ``model`` is nnsight's own; attributes lead to it."""

    def __init__(self, pipe: Pipeline) -> None:
        self.pipe = pipe
        self.model = wrapped(pipe)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def point(self, name: str) -> Any:
        """nnsight's envoy of a hook point, by alias or path: ``.output`` is its reading in a block.

        Raises ValueError for a name that matches no point, or several."""
        denoiser = denoiser_of(self.pipe)
        selections = select(denoiser, [name])
        if len(selections) != 1:
            names = ", ".join(s.name for s in selections[:4])
            raise ValueError(f"{name!r} matches {len(selections)} points ({names}, …): name one")
        return envoy_at(self.model, self.pipe, selections[0].point.path)

    def join(self, trace: xr.DataTree, saved: Mapping[str, Sequence[torch.Tensor]]) -> xr.DataTree:
        """The trace with what nnsight saved in a call of the same schedule, under ``/nnsight``.

        Parameters
        ----------
        trace
            Of :func:`xhat.trace` or :class:`xhat.Tracer`, on this pipeline, of the same samples.
        saved
            Name → one tensor a step, as the denoiser gave them: rows are the samples, prompts
            outside and seeds inside, under guidance twice, without the prompt first.

        Returns
        -------
        DataTree
            Nodes ``/nnsight/<name>`` with variable ``value``, dims as the trace's samples have,
            then
            ``step``, ``branch`` where there are two, and the axes of the reading. Step, timestep
            and
            σ are the trace's.

        Raises
        ------
        ValueError
            Where steps, timesteps or samples are not those of the trace.
        """
        self._check_schedule(trace)
        nodes = {name: _beside(trace, name, values) for name, values in saved.items()}
        joined = trace.copy()
        for name, value in nodes.items():
            joined[f"nnsight/{name}"] = xr.DataTree(value.to_dataset(name="value"))
        return joined

    def _check_schedule(self, trace: xr.DataTree) -> None:
        ran = np.asarray(self.pipe.scheduler.timesteps.cpu(), dtype=np.float64)
        there = np.asarray(trace["timestep"], dtype=np.float64)
        if ran.shape != there.shape or not np.allclose(ran, there):
            raise ValueError(
                f"the trace is of timesteps {there.tolist()}, the pipeline's last call of "
                f"{ran.tolist()}: join values of the same schedule"
            )


def nnsight_model(pipe: Pipeline) -> NNsightModel:
    """An nnsight model of a pipeline, whose modules go by this project's point names.

    Make it again after adapters were loaded: nnsight knows the modules that were there.

    Parameters
    ----------
    pipe
        A diffusers pipeline of one network.

    Returns
    -------
    NNsightModel
        The model; what is saved in its blocks can be joined to a trace.

    Raises
    ------
    ValueError
        For a version of nnsight that this was not tested with, and for a hybrid: nnsight follows
        the calls of one network.
    """
    return NNsightModel(pipe)


def _beside(trace: xr.DataTree, name: str, values: Iterable[torch.Tensor]) -> xr.DataArray:
    """Saved tensors with the dims and coordinates of the trace."""
    steps = [v.detach().float().cpu() for v in values]
    root = trace.to_dataset()
    samples = tuple(d for d in ("prompt", "seed", "sample") if d in root["pred_x0"].dims)
    sizes = {d: root.sizes[d] for d in samples}
    count, rows = int(np.prod(list(sizes.values()))), len(steps[0]) if steps else 0
    if len(steps) != root.sizes["step"] or rows not in (count, 2 * count):
        raise ValueError(
            f"{name!r}: {len(steps)} tensors of {rows} rows were saved; the trace has "
            f"{root.sizes['step']} steps of {count} samples"
        )
    branches = rows // count
    pattern = f"step {ROWS[samples]} ... -> {' '.join(samples)} step branch ..."
    data = rearrange(torch.stack(steps), pattern, branch=branches, **sizes).numpy()
    axes = [f"axis_{i}" for i in range(data.ndim - len(samples) - 2)]
    array = xr.DataArray(data, dims=[*samples, "step", "branch", *axes])
    coords = {k: v for k, v in root.coords.items() if set(v.dims) <= {*samples, "step"}}
    array = array.assign_coords(coords)
    return array.isel(branch=0) if branches == 1 else array.assign_coords(branch=["uncond", "cond"])
