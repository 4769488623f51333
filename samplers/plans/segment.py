"""A segment of a plan: some steps of one model's own schedule, and how they are made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

NOISES = ("fresh", "own", "shared")
ESTIMATES = ("zero", "mean", "shuffle")
SPACINGS = ("leading", "linspace", "trailing")
GRIDS = ("timesteps", "sigmas")
EXPERTS = ("transformer", "transformer_2")


@dataclass(frozen=True)
class Segment:
    """Steps ``start`` to ``stop`` (excluded) of a model's own schedule of ``num_inference_steps``
    steps.

    Parameters
    ----------
    model
        Name of the model.
    start, stop, num_inference_steps
        Which steps, of how many.
    guidance_scale
        g of the guidance u + g·(c − u) of these steps; at 1 or below the plain conditional
        prediction is used, in one evaluation. Pipelines that write c + g·(c − u) (Z-Image, Krea 2)
        count one less. A model that takes its guidance as an input (FLUX) is given this scale.
    true_cfg_scale
        the same guidance for a model that takes ``guidance_scale`` as an input; for others it
        stays 1.
    spacing
        ``timestep_spacing`` put in place of the scheduler's own. ``"trailing"`` starts at the
        highest noise level whatever the number of steps (Lin et al., arXiv 2305.08891, Table 2).
    noise
        how each of these steps, the one that hands over included, goes from x̂₀ to the next noise
        level: x' = √ᾱ'·x̂₀ + √(1−ᾱ')·ε with ε ``"fresh"``, the sample's ``"own"`` implied noise
        (DDIM, arXiv 2010.02502, Eq. 12 with σ = 0), or one noise ``"shared"`` by every sample, step
        and run. None: as the scheduler does.
    x0
        what stands in for x̂₀ when the last of these steps hands over: ``"zero"``, the ``"mean"``
        over the batch's samples of the same prompt, or that of another of these samples
        (``"shuffle"``). None: x̂₀ itself.
    strength
        s of the weights θ = base + s·(model − base).
    expert
        of a model of two networks (Wan 2.2), the one that makes these steps whatever their noise:
        ``"transformer"`` or ``"transformer_2"``. None: by the model's own boundary.
    adapters
        LoRAs of the model's network, name → scale, that alone are on in these steps; ``{}`` for
        none. None: those that its pipeline has on. A base and a student that is a LoRA of it are
        then one copy of the weights. Kept as pairs; the text encoders' LoRAs stay as they are.
    timesteps, sigmas
        the schedule itself, one number a step and falling, in place of the one the scheduler would
        make: timesteps as it counts them, or noise levels as its ``set_timesteps(sigmas=…)`` takes
        them, before any shift and without the end at 0. A pipeline called with them runs at the
        same levels.

    Raises
    ------
    ValueError
        For a segment that runs no step, and for any field that is out of its range.

    Examples
    --------
    >>> Segment("student", 1, 4, 4).steps
    range(1, 4)
    """

    model: str
    start: int
    stop: int
    num_inference_steps: int
    guidance_scale: float = 1.0
    spacing: str | None = None
    noise: str | None = None
    x0: str | None = None
    strength: float = 1.0
    timesteps: tuple[float, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    true_cfg_scale: float = 1.0
    expert: str | None = None
    adapters: Mapping[str, float] | tuple[tuple[str, float], ...] | None = None

    def __post_init__(self) -> None:
        if not self.model or not isinstance(self.model, str):
            raise ValueError(f"a segment needs the name of its model, got {self.model!r}")
        for name in ("start", "stop", "num_inference_steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"{name} of a segment is a whole number, got {value!r}")
        if not 0 <= self.start < self.stop <= self.num_inference_steps:
            raise ValueError(
                f"segment of {self.model!r} runs {max(0, self.stop - self.start)} steps: start "
                f"{self.start}, stop {self.stop} of {self.num_inference_steps}; expected "
                "0 <= start < stop <= num_inference_steps"
            )
        for name in ("guidance_scale", "strength", "true_cfg_scale"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{name} of a segment is a finite number, got {value!r}")
        of_few = {"noise": NOISES, "x0": ESTIMATES, "spacing": SPACINGS, "expert": EXPERTS}
        for name, known in of_few.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise ValueError(
                    f"{name} of a segment is None or one of {', '.join(known)}, got {value!r}"
                )
        self._check_grid()
        if self.adapters is not None:
            object.__setattr__(self, "adapters", _pairs(self.adapters))
            if self.strength != 1:
                raise ValueError(
                    f"strength {self.strength:g} and adapters of a segment exclude each other: "
                    "give the adapter that scale"
                )

    def _check_grid(self) -> None:
        for name in GRIDS:
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, falling(name, values, self.num_inference_steps))
        if len(self.grid) + (self.spacing is not None) > 1:
            raise ValueError(
                "a segment has its schedule by one of spacing, timesteps and sigmas, got "
                + " and ".join((*self.grid, *([] if self.spacing is None else ["spacing"])))
            )

    @property
    def grid(self) -> dict[str, tuple[float, ...]]:
        """The schedule's own ``timesteps`` or ``sigmas`` by name; empty where the scheduler makes
        it.
        """
        values = {name: getattr(self, name) for name in GRIDS}
        return {name: grid for name, grid in values.items() if grid is not None}

    @property
    def schedule(self) -> tuple[Any, ...]:
        """All that says which timesteps the model's scheduler has."""
        return (self.num_inference_steps, self.spacing, self.timesteps, self.sigmas)

    @property
    def steps(self) -> range:
        """Indices into the scheduler's own schedule."""
        return range(self.start, self.stop)

    @property
    def guided(self) -> bool:
        return max(self.guidance_scale, self.true_cfg_scale) > 1

    @property
    def evaluations(self) -> int:
        """Network evaluations for one sample: two a step under guidance."""
        return len(self.steps) * (2 if self.guided else 1)

    def continues(self, other: Segment) -> bool:
        """Whether these are the very next steps of ``other``'s schedule, so that nothing is handed
        over.
        """
        mine = (self.model, self.schedule, self.strength, self.start)
        theirs = (other.model, other.schedule, other.strength, other.stop)
        return mine == theirs and other.noise is None and other.x0 is None


def falling(name: str, values: Any, steps: int) -> tuple[float, ...]:
    """A grid as a tuple of numbers. Raises ValueError unless it falls, has one number a step, and
    ends above 0 (timesteps: at 0 or above).
    """
    try:
        grid = tuple(_number(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"{name} of a segment are numbers, got {values!r}") from None
    listed = ", ".join(f"{value:g}" for value in grid)
    if len(grid) != steps:
        raise ValueError(
            f"{name} of a segment: expected one for each of its {steps} steps, got "
            f"{len(grid)}: {listed}"
        )
    if not all(math.isfinite(value) for value in grid):
        raise ValueError(f"{name} of a segment are finite numbers, got {listed}")
    if any(later >= earlier for earlier, later in pairwise(grid)):
        raise ValueError(f"{name} of a segment fall from step to step, got {listed}")
    if grid[-1] < 0 or (name == "sigmas" and grid[-1] == 0):
        least = "0 or more" if name == "timesteps" else "above 0, without the end at 0"
        raise ValueError(f"{name} of a segment are {least}, got {listed}")
    return grid


def _pairs(adapters: Any) -> tuple[tuple[str, float], ...]:
    """Adapters as pairs of name and scale, in their order, which is that of the sum over them.

    >>> _pairs({"lightning": 1, "style": 0.5})
    (('lightning', 1.0), ('style', 0.5))
    """
    refusal = f"adapters of a segment are names with finite scales, got {adapters!r}"
    try:
        pairs = [(name, float(scale)) for name, scale in dict(adapters).items()]
    except (TypeError, ValueError) as error:
        raise ValueError(refusal) from error
    if not all(isinstance(name, str) and name and math.isfinite(scale) for name, scale in pairs):
        raise ValueError(refusal)
    return tuple(pairs)


def _number(value: Any) -> float:
    if isinstance(value, str | bool):
        raise TypeError("not a number")
    number = float(value)
    return int(number) if number.is_integer() else number
