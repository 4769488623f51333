"""Traces of one run, more prompts or more seeds, joined into one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from xhat.hooks.naming import nearest

DIMS = ("seed", "prompt")
SAME = ("pipeline", "weights", "state", "scheduler", "scheduler_config", "call", "pred_x0", "space")
"""Attributes that say what made a trace: those of one run agree in them."""


def concat(traces: Sequence[xr.DataTree], dim: str = "seed") -> xr.DataTree:
    """Join traces of one model and call along seeds, or along prompts.

    Parameters
    ----------
    traces
        Of :func:`xhat.trace` or :func:`xhat.open_trace`, with the same readings; those that are
        read lazily stay so.
    dim
        ``"seed"`` or ``"prompt"``; the other one is the same in all.

    Returns
    -------
    xarray.DataTree
        Attributes in which they differ, such as the checksum, are left out.

    Raises
    ------
    ValueError
        For traces of other models, calls, noise levels, prompts, seeds or readings, samples that
        are in two of them, and Grams, which hold no products between samples of two traces.

    Examples
    --------
    >>> import xhat
    >>> pipe = xhat.load_pair("demo").student
    >>> parts = [xhat.trace(pipe, "a planet", seeds=[s], progress=False) for s in (0, 1)]
    >>> xhat.concat(parts)["seed"].values.tolist()
    [0, 1]
    """
    traces = list(traces)
    if not traces:
        raise ValueError("no traces to join: expected two or more")
    if dim not in DIMS:
        near = nearest(str(dim), DIMS)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"traces are joined along 'seed' or 'prompt', got {dim!r}{hint}")
    for i, other in enumerate(traces[1:], start=1):
        _check_alike(traces[0], other, dim, i)
    joined = np.concatenate([tree[dim].values for tree in traces])
    values, counts = np.unique(joined, return_counts=True)
    if (counts > 1).any():
        raise ValueError(f"{dim} {values[counts > 1][0]!r} is in more than one trace")
    return xr.concat(traces, dim=dim, combine_attrs="drop_conflicts")


def _check_alike(first: xr.DataTree, other: xr.DataTree, dim: str, position: int) -> None:
    """Refuse what is not of the same run, naming the first thing that differs."""
    who = f"trace {position} and trace 0 are not of one run"
    for name in SAME:
        a, b = first.attrs.get(name), other.attrs.get(name)
        if a != b:
            raise ValueError(f"{who}: {name} is {_short(b)}, not {_short(a)}")
    kept = next(name for name in DIMS if name != dim)
    mine, theirs = first.to_dataset().coords, other.to_dataset().coords
    for name in (kept, "sigma", "timestep"):
        if not np.array_equal(mine[name].values, theirs[name].values):
            raise ValueError(f"{who}: they differ in {name}")
    variables = [_variables(tree) for tree in (first, other)]
    if variables[0] != variables[1]:
        differ = sorted(variables[0] ^ variables[1])
        raise ValueError(f"{who}: only one of them has {differ[0]}")
    grams = [n for n in variables[0] if "sample_other" in first[n].dims]
    if grams:
        raise ValueError(
            f"{min(grams)} holds Gram matrices, which cannot be joined: products between samples "
            "of two traces are in neither. Trace all samples in one call"
        )


def _variables(tree: xr.DataTree) -> set[str]:
    return {
        f"{node.path}/{name}".lstrip("/")
        for node in tree.subtree
        for name in node.to_dataset(inherit=False).data_vars
    }


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
