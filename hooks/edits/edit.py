"""Edits: what to do to a reading of a denoiser, where, at which noise levels, and to which branch.

An edit is data; :mod:`xhat.hooks.edits.patch` carries it out while a pipeline runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from xhat.hooks.noise.levels import NoiseLevel

READINGS = ("output", "input", "delta")
EQUAL = 1e-3  # relative difference up to which two σ are one noise level


@dataclass(frozen=True)
class Source:
    """A reading of another run, to be given to this one at equal noise levels and, by name, to the
    same samples.

    ``value`` has a σ of its own for each entry of ``step``. Made by :func:`from_trace`.
    """

    name: str
    value: xr.DataArray
    sigma: tuple[float, ...]
    checksum: str = ""

    def step_at(self, sigma: float) -> int | None:
        """The step whose noise level is σ, None where there is none."""
        for i, other in enumerate(self.sigma):
            if other == sigma or abs(other - sigma) <= EQUAL * min(other, sigma):
                return i
        return None

    def at(
        self, step: int, branch: str | None, samples: Sequence[tuple[str, int]] | None
    ) -> np.ndarray:
        """The values at a step, for a branch, one row a sample: the ones named, or all in order."""
        value = self.value.isel(step=step)
        if "branch" in value.dims:
            labels = [str(b) for b in value["branch"].values]
            value = value.isel(branch=labels.index(branch) if branch in labels else len(labels) - 1)
        if "sample" in value.dims or samples is None:
            rest = value.shape[1:] if "sample" in value.dims else value.shape[2:]
            return value.values.reshape(-1, *rest)
        missing = [
            s
            for s in samples
            if s[0] not in value["prompt"].values or s[1] not in value["seed"].values
        ]
        if missing:
            raise ValueError(
                f"{self.name!r} of the other trace has no sample of prompt and seed {missing[0]}"
            )
        return np.stack([value.sel(prompt=prompt, seed=seed).values for prompt, seed in samples])


def from_trace(trace: xr.DataTree, name: str) -> Source:
    """A reading of a trace as the value of an edit: at each step, that of the trace's step of equal
    σ.

    Parameters
    ----------
    trace
        Of :func:`xhat.trace`.
    name
        The reading, kept with the reduction ``full``.

    Returns
    -------
    Source
        For :func:`replace` and the other edits.

    Raises
    ------
    ValueError
        Where the trace has no such reading, or has it reduced: a patch needs it in full.
    """
    nodes: Mapping[str, Any] = (
        trace.children["activations"].children if "activations" in trace.children else {}
    )
    if name not in nodes:
        raise ValueError(f"the trace has no reading {name!r}, but {', '.join(nodes) or 'none'}")
    node = nodes[name]
    if not str(node.attrs.get("reduction", "")).startswith("full"):
        raise ValueError(
            f"{name!r} is kept as {node.attrs.get('reduction')} there: a patch needs it traced "
            "with 'full'"
        )
    sigma = tuple(float(s) for s in trace.coords["sigma"].values)
    return Source(name, node["value"], sigma, str(trace.attrs.get("checksum", "")))


Value = torch.Tensor | np.ndarray | float | Source
Sigmas = tuple[float, float]


@dataclass(frozen=True)
class Edit:
    """``how`` (replace, add or scale) is done with ``value`` to the reading named ``point``, alias,
    glob or path with ``@input`` or ``@delta`` for other readings than the output; at ``steps``, or
    where σ lies within ``sigma``; to one ``branch`` or both. Made by :func:`replace`, :func:`add`,
    :func:`scale` and :func:`ablate`."""

    how: str
    point: str
    value: Value
    steps: tuple[int, ...] | None = None
    sigma: Sigmas | None = None
    branch: str | None = None

    def __post_init__(self) -> None:
        if self.branch not in (None, "cond", "uncond"):
            raise ValueError(f"branch={self.branch!r}: expected 'cond', 'uncond' or None for both")
        reading = self.point.partition("@")[2] or "output"
        if reading not in READINGS:
            raise ValueError(
                f"{self.point!r} edits the reading {reading!r}: expected one of "
                f"{', '.join(READINGS)}"
            )

    def applies(self, step: int, level: NoiseLevel) -> bool:
        """Whether it is meant for this step; a value of another run is for the noise levels which
        that run has.
        """
        if self.steps is not None and step not in self.steps:
            return False
        if self.sigma is not None and not self.sigma[0] <= level.sigma <= self.sigma[1]:
            return False
        if not isinstance(self.value, Source) or self.value.step_at(level.sigma) is not None:
            return True
        if self.steps is not None:
            have = ", ".join(f"{s:.3g}" for s in self.value.sigma)
            raise ValueError(
                f"step {step} is at σ = {level.sigma:.4g}, and the other trace at σ = {have}: "
                "none is equal"
            )
        return False

    def change(
        self,
        x: torch.Tensor,
        level: NoiseLevel,
        branch: str | None,
        samples: Sequence[tuple[str, int]] | None,
    ) -> torch.Tensor:
        """The reading ``x`` of one branch (rows are samples) after the edit."""
        value = self._value(x, level, branch, samples)
        match self.how:
            case "replace":
                return value.expand_as(x).clone()
            case "add":
                return x + value
            case _:
                return x * value

    def _value(self, x: torch.Tensor, level: NoiseLevel, branch: Any, samples: Any) -> torch.Tensor:
        if isinstance(self.value, Source):
            step = self.value.step_at(level.sigma)
            assert step is not None, "applies() was asked before"
            value = torch.as_tensor(self.value.at(step, branch, samples))
        else:
            value = torch.as_tensor(self.value)
        value = value.to(device=x.device, dtype=x.dtype)
        try:
            torch.broadcast_shapes(value.shape, x.shape)
            fits = torch.broadcast_shapes(value.shape, x.shape) == x.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"{self.point!r} is {tuple(x.shape)} there, and the value of its edit "
                f"{tuple(value.shape)}"
            )
        return value

    def describe(self) -> dict[str, Any]:
        """What makes two edits the same, for a trace's record."""
        source = (
            {"trace": self.value.checksum, "reading": self.value.name}
            if isinstance(self.value, Source)
            else None
        )
        kept: Mapping[str, Any] = {
            "how": self.how,
            "point": self.point,
            "value": source or self.value,
        }
        return {**kept, "steps": self.steps, "sigma": self.sigma, "branch": self.branch}


def replace(point: str, value: Value, **where: Any) -> Edit:
    """The reading becomes ``value``.

    Parameters
    ----------
    point
        Name of a hook point, as in ``hooks`` of :func:`xhat.trace`.
    value
        A tensor, an array, a number, or :func:`from_trace`.
    **where
        ``steps`` (one or several), ``sigma`` = (lowest, highest), ``branch``.

    Returns
    -------
    Edit
        For ``edits`` of :func:`xhat.trace` and of :func:`patched`.
    """
    return _edit("replace", point, value, **where)


def add(point: str, value: Value, **where: Any) -> Edit:
    """``value`` is added to the reading. ``where`` as in :func:`replace`."""
    return _edit("add", point, value, **where)


def scale(point: str, factor: Value, **where: Any) -> Edit:
    """The reading is multiplied by ``factor``. ``where`` as in :func:`replace`."""
    return _edit("scale", point, factor, **where)


def ablate(point: str, **where: Any) -> Edit:
    """The reading becomes 0; of ``@delta``, the module passes on what it was given. ``where`` as in
    :func:`replace`.
    """
    return _edit("replace", point, 0.0, **where)


def _edit(
    how: str,
    point: str,
    value: Value,
    steps: Any = None,
    sigma: Sigmas | None = None,
    branch: str | None = None,
) -> Edit:
    listed = (
        None
        if steps is None
        else (steps,)
        if isinstance(steps, int)
        else tuple(int(s) for s in steps)
    )
    return Edit(how, point, value, listed, sigma, branch)
