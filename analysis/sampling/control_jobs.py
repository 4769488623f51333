"""How much of controls is measured, one measurement of them, and what all of these gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import xarray as xr

from xhat.analysis.sampling.control import Control
from xhat.analysis.sampling.dose_response import SCALES
from xhat.analysis.sampling.effects import POINTS


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured.

    Parameters
    ----------
    seeds
        Of dose and response, for each prompt and scale; two or more.
    scales
        Of the controls, -1 and 1 among them.
    free
        Seeds of free sampling.
    states
        The first so many of these, whose states effects are compared on.
    randoms
        Random LoRAs, the null.
    points
        Where networks are read.
    batch_size
        Samples at a time.

    Raises
    ------
    ValueError
        For too few seeds, and scales without -1 and 1.
    """

    seeds: int = 8
    scales: tuple[float, ...] = SCALES
    free: int = 16
    states: int = 3
    randoms: int = 6
    points: tuple[str, ...] = POINTS
    batch_size: int = 32

    def __post_init__(self) -> None:
        if self.seeds < 2:
            raise ValueError(f"intervals are over seeds too: give two or more, got {self.seeds}")
        if not {-1.0, 1.0} <= set(self.scales):
            scales = " ".join(f"{s:g}" for s in self.scales)
            raise ValueError(f"scales {scales}: -1 and 1 must be among them")
        if self.seeds > self.free or self.states > self.free:
            raise ValueError(
                f"seeds={self.seeds} and states={self.states} are some of the free={self.free} "
                "seeds of free sampling: there must be as many of these at least"
            )


@dataclass(frozen=True)
class Measured:
    """What a bench measured. ``doses``: (control, model) →
    :func:`~xhat.analysis.sampling.dose_response.doses`; ``alignment``, ``energy``: by student."""

    controls: list[Control]
    models: list[str]
    doses: dict[tuple[str, str], xr.Dataset] = field(repr=False)
    alignment: dict[str, xr.Dataset] = field(repr=False)
    energy: dict[str, xr.Dataset] = field(repr=False)


@dataclass(frozen=True)
class Job:
    """One measurement: its file's folder and name, what it depends on, how many evaluations it
    takes, and how it is made of the results so far."""

    folder: str
    name: str
    key: Mapping[str, Any]
    evaluations: float
    make: Callable[[], xr.Dataset]

    @property
    def at(self) -> tuple[str, str]:
        return self.folder, self.name
