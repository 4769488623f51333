"""The floor of every comparison of representations: a network of the same shape whose weights were
drawn anew, and its readings on the states of a traced run."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import torch
import xarray as xr

from xhat.analysis.traces.layers import X_T
from xhat.hooks.edits.edit import Source, replace
from xhat.hooks.points.names import denoiser_of, slot_of
from xhat.hooks.trace import trace as make_trace


def untrained(pipe: Any, seed: int = 0) -> Any:
    """The same pipeline with its denoiser's weights drawn anew; the other parts are shared, the
    pipeline untouched.
    """
    denoiser: Any = denoiser_of(pipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = type(denoiser).from_config(denoiser.config).to(denoiser.device).eval()
    if fresh.dtype != denoiser.dtype:
        fresh = fresh.to(denoiser.dtype)
    other = copy.copy(pipe)
    other.register_modules(**{slot_of(pipe): fresh})
    return other


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
