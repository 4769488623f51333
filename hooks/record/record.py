"""What the taps hear in one pipeline call, and its arrays.

A record is a list of steps, each with the scheduler's tensors and every reading of the denoiser
since the step before. Readings are labelled by step, never by timestep, so solvers that come back
to a timestep overwrite nothing."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from xhat.hooks.noise import levels as noise
from xhat.hooks.points.select import Selection

LATENT_DIMS = {4: ("channel", "y", "x"), 3: ("token", "channel"), 5: ("channel", "frame", "y", "x")}


class Array(NamedTuple):
    """Numbers with the names of their dimensions; the first is always ``sample``."""

    dims: tuple[str, ...]
    data: np.ndarray


class Unreadable(ValueError):
    """A reading that has no place in one array: its samples, or its steps, cannot be told apart."""


class Reading(NamedTuple):
    """A reading over all steps: its array (sample, step[, branch], …), the labels of its branches
    if there are any, and where (step[, branch]) there is nothing because that branch did not
    run."""

    array: Array
    branches: tuple[str, ...]
    absent: np.ndarray


class Firing(NamedTuple):
    """One reading as it was made: rows are samples, times branches where guidance is batched."""

    value: torch.Tensor
    branch: str | None


@dataclass
class Step:
    """One call of ``scheduler.step``, with the readings that led to it, by the position of their
    selection.
    """

    level: noise.NoiseLevel
    space: str
    segment: str | None
    firings: dict[int, list[Firing]]
    latents: torch.Tensor
    model_output: torch.Tensor
    pred_x0: torch.Tensor
    noise: torch.Tensor | None = None


@dataclass
class Record:
    """One pipeline call: its steps, and the latents that the last one gave."""

    steps: list[Step] = field(default_factory=list)
    final: torch.Tensor | None = None
    shelves: dict[int, torch.Tensor] = field(
        default_factory=dict
    )  # (step, …) of the first firings, by selection
    random: bool = False  # whether any step drew noise
    # names of the branches that are stacked in one batch, by their number
    stacked: Mapping[int, tuple[str, ...] | None] = field(default_factory=dict)
    # names of the branches that the network is called for one by one, in that order
    apart: tuple[str, ...] | None = None
    latent_dims: tuple[str, ...] | None = None  # where they are not LATENT_DIMS
    lost: bool = False  # whether some noise could not be told
    decoded: list[torch.Tensor] = field(default_factory=list)  # what the VAE was given after it
    changed: bool = False  # whether the pipeline changed latents between two steps

    @property
    def rows(self) -> int:
        return self.steps[0].latents.shape[0]

    @property
    def schedule(self) -> dict[str, np.ndarray]:
        """Coordinates along ``step``: timestep, σ, ᾱ, the evaluation's number at its timestep; the
        segment, where several models share the run; the space of the latents, where that changes on
        the way."""
        levels = [s.level for s in self.steps]
        timesteps = [x.timestep for x in levels]
        found = {
            "timestep": np.array(timesteps),
            "sigma": np.array([x.sigma for x in levels]),
            "alpha_bar": np.array([x.alpha_bar for x in levels]),
            "call": np.array([timesteps[:i].count(t) for i, t in enumerate(timesteps)]),
        }
        if any(s.segment is not None for s in self.steps):
            found["segment"] = np.array([s.segment or "" for s in self.steps])
        if len({s.space for s in self.steps}) > 1:
            found["space"] = np.array([s.space for s in self.steps])
        return found

    @property
    def space(self) -> str:
        """In which space the scheduler keeps its latents: that of the first step."""
        return self.steps[0].space

    def root(self) -> dict[str, Array]:
        """The scheduler's side: pred_x0, latents, model_output and noise with dims (sample, step,
        …), and final.
        """
        names = ["pred_x0", "latents", "model_output"] + (
            ["noise"] if self.random and not self.lost else []
        )
        found = {name: self._stacked(name) for name in names}
        if self.final is not None:
            found["final"] = Array(("sample", *self._dims(self.final)), as_numpy(self.final))
        return found

    def _stacked(self, name: str) -> Array:
        like = self.steps[0].latents
        tensors = [getattr(s, name) for s in self.steps]
        data = np.stack(
            [as_numpy(torch.zeros_like(like) if t is None else t) for t in tensors], axis=1
        )
        return Array(("sample", "step", *self._dims(like)), data)

    def _dims(self, latents: torch.Tensor) -> tuple[str, ...]:
        if self.latent_dims is not None and len(self.latent_dims) == latents.ndim - 1:
            return self.latent_dims
        return LATENT_DIMS[latents.ndim]

    def readings(self, selections: Sequence[Selection]) -> dict[str, Reading]:
        """The denoiser's side: what each selection gave, under its name; nothing for one that never
        fired.
        """
        found = {}
        for i, selection in enumerate(selections):
            fired = [s.firings.get(i, []) for s in self.steps]
            if any(fired):
                shelf = self.shelves.get(i)
                try:
                    reading = _assemble(selection, fired, shelf, self)
                except Unreadable as error:
                    warnings.warn(f"{error}. It is left out; the rest is kept", stacklevel=3)
                    continue
                found[selection.name] = reading
        return found

    def unfired(self, selections: Sequence[Selection]) -> list[str]:
        return [
            s.name
            for i, s in enumerate(selections)
            if not any(i in step.firings for step in self.steps)
        ]


def _assemble(
    selection: Selection,
    fired: list[list[Firing]],
    shelf: torch.Tensor | None,
    record: Record,
) -> Reading:
    rows = record.rows
    branches = _branches(selection.name, fired, record)
    sample = next(f for f in fired if f)[0].value
    shape = (len(fired), len(branches), rows, *sample.shape[1:])
    if shelf is not None and _filled(shelf, fired) and len(sample) == len(branches) * rows:
        data, absent = as_numpy(shelf).reshape(shape), np.zeros(shape[:2], bool)
    else:
        data, absent = _put_together(fired, branches, shape)
        _warn_absent(selection.name, absent)
    data = np.moveaxis(data, 2, 0)  # a view: nothing is copied until it is written
    dims = ("sample", "step", "branch", *reading_dims(selection, sample.ndim))
    if branches == ("cond",):
        return Reading(Array((*dims[:2], *dims[3:]), data[:, :, 0]), (), absent[:, 0])
    return Reading(Array(dims, data), branches, absent)


def _warn_absent(name: str, absent: np.ndarray) -> None:
    steps = np.flatnonzero(absent.all(1)).tolist()
    if steps:
        warnings.warn(
            f"{name!r} did not run at steps {steps}: its values there are NaN. A part of the "
            "denoiser that takes turns with another is not evaluated at every step",
            stacklevel=5,
        )


def _filled(shelf: torch.Tensor, fired: list[list[Firing]]) -> bool:
    """Whether every step has the one firing that is on the shelf."""
    return len(shelf) == len(fired) and all(
        len(f) == 1 and f[0].value.shape == shelf.shape[1:] for f in fired
    )


def _put_together(
    fired: list[list[Firing]], branches: tuple[str, ...], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Firings as (step, branch, sample, …), NaN where a branch did not run, and (step, branch)
    where that is.
    """
    rows, absent = shape[2], np.ones(shape[:2], bool)
    data = np.empty(shape, numpy_dtype(next(f for f in fired if f)[0].value))
    for step, firings in enumerate(fired):
        count = _count(firings, rows)  # what runs alone is the conditional one
        at = branches.index("cond") if count == 1 and "cond" in branches else len(branches) - count
        for firing in firings:
            parts = as_numpy(firing.value).reshape(-1, *shape[2:])
            at = branches.index(firing.branch) if firing.branch in branches else at
            data[step, at : at + len(parts)] = parts
            absent[step, at : at + len(parts)] = False
            at += len(parts)
    if absent.any():
        data[absent] = np.nan
    return data, absent


def reading_dims(selection: Selection, ndim: int) -> tuple[str, ...]:
    """Names of a reduced reading's dimensions. They are not those of latents, whose sizes are
    others.
    """
    if selection.reading == "tokens":
        places = {"feature": "text_token", "token": "query"}
        return tuple(places.get(d, d) for d in selection.reduction.dims(ndim))
    if selection.reading != "probs":
        return selection.reduction.dims(ndim)
    names = {"feature": "key", "token": "query"}
    return ("head", *(names.get(d, d) for d in selection.reduction.dims(3)))


def _count(firings: list[Firing], rows: int) -> int:
    return sum(len(f.value) for f in firings) // rows


def _branches(name: str, fired: list[list[Firing]], record: Record) -> tuple[str, ...]:
    """Labels of the branch axis: diffusers stacks both, most often the unconditional first, or
    calls once for each, by name or in a known order."""
    rows = record.rows
    widest = max(fired, key=lambda f: _count(f, rows))
    shapes = {tuple(f.value.shape[1:]) for firings in fired for f in firings}
    if len(shapes) > 1:
        raise Unreadable(
            f"{name!r} runs with several shapes, {sorted(shapes)}: it has no place in one array"
        )
    for firing in widest:
        if len(firing.value) % rows or len(firing.value) // rows > 4:
            raise Unreadable(
                f"{name!r} fires with {len(firing.value)} rows for {rows} samples: they cannot be "
                "told apart"
            )
    count = _count(widest, rows)
    labels = [f.branch for f in widest]
    if count == 1:
        return ("cond",)
    if len(widest) == count and len(set(labels)) == count and None not in labels:
        return tuple(str(x) for x in labels)
    if len(widest) == 1:
        names = record.stacked.get(count)
    else:
        names = record.apart if len(widest) == count == len(record.apart or ()) else None
    return names or tuple(f"call{i}" for i in range(count))


def numpy_dtype(tensor: torch.Tensor) -> np.dtype:
    if tensor.dtype == torch.bfloat16:  # numpy has none
        return np.dtype(np.float32)
    return torch.empty(0, dtype=tensor.dtype).numpy().dtype


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def warn_unfired(names: Sequence[str]) -> None:
    if names:
        warnings.warn(
            f"never fired: {', '.join(names)}. The pipeline did not run these modules: the trace "
            "has nothing of them",
            stacklevel=3,
        )


def check_finite(
    record: Record, selections: Sequence[Selection], readings: dict[str, Reading]
) -> None:
    """Raises ValueError for NaN or infinity, naming the step and the first place in it that has
    one.
    """
    whole = [torch.from_numpy(r.array.data) for r in readings.values() if not r.absent.any()]
    parts = [f.value for step in record.steps for i, fs in step.firings.items() for f in fs]
    parts = [] if len(whole) == len(readings) else parts
    roots = [t for s in record.steps for t in (s.latents, s.pred_x0)] + (
        [] if record.final is None else [record.final]
    )
    if not all(_finite(t) for t in (*whole, *parts, *roots)):
        _name_the_first(record, selections)


def _finite(x: torch.Tensor) -> bool:
    """A sum is finite only where all its terms are; one that overflows is taken again in float64,
    which cannot.
    """
    return bool(torch.isfinite(x.sum())) or bool(torch.isfinite(x.sum(dtype=torch.float64)))


def _name_the_first(record: Record, selections: Sequence[Selection]) -> None:
    for number, step in enumerate(record.steps):
        heard = [("latents", step.latents)]
        heard += [
            (selections[i].name, f.value) for i, firings in step.firings.items() for f in firings
        ]
        for name, tensor in (
            *heard,
            ("model_output", step.model_output),
            ("pred_x0", step.pred_x0),
        ):
            if not _finite(tensor):
                bad = int(
                    (~torch.isfinite(tensor.reshape(-1, record.rows, tensor[0].numel())))
                    .any(2)
                    .any(0)
                    .sum()
                )
                where = (
                    ""
                    if step.firings
                    else '. With hooks=["**"] the first module that is not is named'
                )
                raise ValueError(
                    f"{name!r} is not finite at step {number} (timestep {step.level.timestep:g}) "
                    f"in {bad} of {record.rows} samples: a denoiser in bfloat16 or float32, or "
                    "less guidance, may help; for a reading alone, keep it with "
                    f"dtype=float32{where}"
                )
    raise ValueError(
        "the last step gave latents that are not finite: try a denoiser in bfloat16 or float32, "
        "or less guidance"
    )
