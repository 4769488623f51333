"""Which noise entered where: of several samplers on the same prompts and seeds, proved from what
their steps drew.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

BITS, SCALE = "equal to the bit", "equal up to the scale of the scheduler's space"


def noise_ledger(samples: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """A line for each step of each arm: who made it, from which noise level, and which draw of
    noise it added.

    ``samples``: what :func:`~xhat.analysis.sampling.final_latents.sample_arms` gives. Variables
    (line): ``arm``, ``step``, ``model``, ``timestep``, ``sigma``, and ``draw``: draws are numbered
    from 1 as they first appear, the first arm first, and two lines have one number where every
    sample had the same noise there to the bit; 0 where the step drew none; −1 where samples differ
    in it. Variable (arm): ``x_T``, how the first latents compare with the first arm's."""
    numbers: dict[bytes, int] = {}
    lines = [line for name, arm in samples.items() for line in _lines(name, arm, numbers)]
    columns = zip(*lines, strict=True)
    names = ("arm_of", "step", "model", "timestep", "sigma", "draw")
    found = {name: ("line", np.array(column)) for name, column in zip(names, columns, strict=True)}
    first = next(iter(samples.values()))
    x_T = [
        noise_relation(first["x_T"].values, arm["x_T"].values) or "other noise"
        for arm in samples.values()
    ]
    return xr.Dataset({**found, "x_T": ("arm", np.array(x_T))}, coords={"arm": list(samples)})


def check_paired(samples: Mapping[str, xr.Dataset]) -> str:
    """How alike the first latents of all arms are. Raises ValueError for an arm that starts from
    other noise.
    """
    if not samples:
        return BITS
    (reference, first), *others = samples.items()
    found = BITS
    for name, arm in others:
        alike = noise_relation(first["x_T"].values, arm["x_T"].values)
        if alike is None:
            raise ValueError(
                f"{name!r} does not start from the noise that {reference!r} starts from, sample "
                "by sample: their "
                f"difference would be that of seeds too. Latents are {first['x_T'].shape[2:]} and "
                f"{arm['x_T'].shape[2:]}; arms must share their latents' shape and draw x_T from "
                "the generator first"
            )
        found = alike if found == BITS else found
    return found


def noise_relation(a: np.ndarray, b: np.ndarray) -> str | None:
    """Whether two arrays (prompt, seed, …) hold the same noise: to the bit, up to a factor for each
    sample, or not.

    >>> x = np.arange(1.0, 9.0, dtype=np.float32).reshape(1, 2, 4)
    >>> noise_relation(x, x.copy()), noise_relation(x, 3 * x), noise_relation(x, x[:, ::-1])
    ('equal to the bit', "equal up to the scale of the scheduler's space", None)
    """
    if a.shape != b.shape:
        return None
    if np.array_equal(a, b):
        return BITS
    a, b = (x.reshape(*x.shape[:2], -1).astype(np.float64) for x in (a, b))
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    return SCALE if np.abs(a - b).max() < 1e-5 else None


def _lines(
    name: str, arm: xr.Dataset, numbers: dict[bytes, int]
) -> list[tuple[str, int, str, float, float, int]]:
    drawn = arm["drawn"].transpose("step", "prompt", "seed").values
    lines = []
    for step, keys in enumerate(drawn):
        number = 0
        if keys.any():
            number = numbers.setdefault(keys.tobytes(), len(numbers) + 1) if keys.all() else -1
        level = arm.isel(step=step)
        model = str(level["segment"].values) or name
        lines.append((name, step, model, float(level["timestep"]), float(level["sigma"]), number))
    return lines
