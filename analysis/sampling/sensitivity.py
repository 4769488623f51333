"""How much of a seed is left: in x̂₀ at each noise level, in what x̂₀ answers to x_T, and in a
student's pictures.

Noise decides a diffusion model's picture. A sampler in which seeds collapse forgets its noise: x̂₀
of one seed can then not be told from another's, moves little when x_T moves, and is not the picture
that the base makes of the same noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from tqdm.auto import tqdm

from xhat.analysis.crossed import crossed_mean
from xhat.analysis.measures.by_seed import BY_SEED, measure_names, values_of
from xhat.analysis.sampling.final_latents import Arm, sample_arms
from xhat.hooks.model import with_defaults
from xhat.hooks.points.rehearsal import rehearse
from xhat.hooks.points.taps import quiet
from xhat.hooks.record.record import Record
from xhat.hooks.record.recorder import Recorder

Features = Callable[[np.ndarray], np.ndarray]


def identifiability(samples: xr.Dataset) -> xr.Dataset:
    """Whether a seed's x̂₀ points to its own final picture: the share of seeds whose final is the
    nearest to it.

    ``samples``: ``pred_x0`` (prompt, seed, step, …) and ``final``, as a trace has them. Nearest by
    cosine of latents, less the mean over seeds of each. Variables (prompt, step): ``identified``,
    and ``rank``, that of the own final among all, 0 for the nearest to 1 for the farthest; of each
    ``<name>_mean`` (step, bound), and its values by seed. Chance: ``attrs["chance"]`` = 1/n for
    ``identified``, ½ for ``rank``. Raises ValueError for fewer than two seeds."""
    x0 = samples["pred_x0"].transpose("prompt", "seed", "step", ...)
    final = samples["final"].transpose("prompt", "seed", ...)
    prompts, steps = range(x0.sizes["prompt"]), range(x0.sizes["step"])
    ranks = np.array(
        [[paired_ranks(x0.values[p, :, s], final.values[p]) for s in steps] for p in prompts]
    )
    found = {"rank": ranks[:, :, 0], "identified": ranks[:, :, 1]}
    levels = {n: c for n, c in x0.coords.items() if c.dims == ("step",) and c.dtype.kind in "fi"}
    result = _by_seed({n: (("prompt", "step", "seed"), v) for n, v in found.items()}, levels)
    result = result.assign_coords(prompt=x0["prompt"].values)
    return _with_means(result).assign_attrs(chance=1 / x0.sizes["seed"], n_seeds=x0.sizes["seed"])


def pairing(finals: Mapping[str, xr.DataArray], reference: str, features: Features) -> xr.Dataset:
    """Does the same seed give the same picture in two samplers? The rank of the paired picture
    among all seeds'.

    ``finals``: latents (prompt, seed, …) by arm, ``features`` of them: pictures are compared by
    cosine, less the mean over seeds of each arm. Variables (arm, prompt): ``paired_rank``, of the
    reference's picture of the same seed among all its pictures, 0 for the nearest to 1 for the
    farthest (chance ½), and ``paired_first``, the share of seeds for which it is the nearest
    (chance 1/n); of each ``<name>_mean`` (arm, bound), and its values by seed. Raises ValueError
    for a reference that is no arm."""
    if reference not in finals:
        raise ValueError(f"no arm is named {reference!r}; there are {', '.join(finals)}")
    seen = {
        name: [features(prompt.values) for prompt in final.transpose("prompt", "seed", ...)]
        for name, final in tqdm(finals.items(), desc="pairing", unit="arm")
    }
    others = [name for name in finals if name != reference]
    ranks = np.array(
        [[paired_ranks(*two) for two in zip(seen[n], seen[reference], strict=True)] for n in others]
    )
    first = finals[reference]
    result = _by_seed(
        {
            name: (("arm", "prompt", "seed"), ranks[:, :, i])
            for i, name in enumerate(("paired_rank", "paired_first"))
        },
        {"arm": others, "prompt": first["prompt"].values},
    )
    n = first.sizes["seed"]
    return _with_means(result).assign_attrs(reference=reference, chance=1 / n, n_seeds=n)


def paired_ranks(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row of x: the share of other rows of y that are nearer to it than the row of the same
    place, and whether none is: (n,), ½ and 1/n by chance. By cosine, after the mean row of each is
    taken away; ties are drawn by lot, of which the expectation is given.

    >>> paired_ranks(np.eye(3), np.eye(3)), paired_ranks(np.eye(2), np.eye(2)[::-1])
    ((array([0., 0., 0.]), array([1., 1., 1.])), (array([1., 1.]), array([0., 0.])))
    """
    if len(x) != len(y) or len(x) < 2:
        raise ValueError(
            f"two or more seeds, the same in both, are needed to tell one from others: {len(x)}, "
            f"{len(y)}"
        )
    x, y = (_directions(part) for part in (x, y))
    near = x @ y.T
    own, tolerance = np.diag(near)[:, None], 1e-9
    ahead, level = (near > own + tolerance).sum(1), (np.abs(near - own) <= tolerance).sum(1)
    return (ahead + (level - 1) / 2) / (len(x) - 1), (ahead == 0) / level


def _directions(x: np.ndarray) -> np.ndarray:
    x = x.reshape(len(x), -1).astype(np.float64)
    x = x - x.mean(0)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def x0_gain(
    arm: Arm,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    width: float = 0.02,
    batch_size: int = 24,
    seed: int = 0,
) -> xr.Dataset:
    """How far x̂₀ at each step moves when x_T moves, all fresh noise held: ``gain`` ≈
    ‖∂x̂₀/∂x_T‖_F/√d.

    √(mean over seeds of ‖J·u‖²/d) with u standard normal, from central differences of ``width``·u:
    E‖J·u‖² = ‖J‖²_F (Hutchinson 1989, doi:10.1080/03610918908812806). 1 where x̂₀ spreads as x_T
    does; below, nearby noises end in one picture. Variables (prompt, step): ``gain``, and
    ``gain_mean`` (step, bound), over prompts: for these seeds. x_T is at unit size in every
    scheduler's space. Raises ValueError for pipelines that take no ``latents`` of four
    dimensions."""
    rng = torch.Generator().manual_seed(seed)
    start = _start(arm, prompts[0], seeds)
    at_once = max(1, batch_size // (2 * len(seeds)))
    gains, levels = [], {}
    for some in (prompts[i : i + at_once] for i in range(0, len(prompts), at_once)):
        u = torch.randn((len(some), *start.shape), generator=rng)
        sides = torch.stack([start + width * u, start - width * u])
        inputs = rearrange(sides, "side prompt seed ... -> (prompt side seed) ...")
        record = _record(arm, some, seeds, inputs)
        levels = {name: ("step", record.schedule[name]) for name in ("timestep", "sigma")}
        ends = [
            rearrange(
                step.pred_x0.double(),
                "(prompt side seed) ... -> side prompt seed ...",
                prompt=len(some),
                side=2,
            )
            for step in record.steps
        ]
        moved = torch.stack(
            [(above - below) / (2 * width) for above, below in ends], 1
        )  # prompt, step, seed, …
        gains.append(moved.square().flatten(2).mean(2).sqrt().numpy())
    result = xr.Dataset(
        {"gain": (("prompt", "step"), np.concatenate(gains))},
        coords={**levels, "prompt": list(prompts)},
    )
    return _with_means(result).assign_attrs(n_seeds=len(seeds), width=width)


def _start(arm: Arm, prompt: str, seeds: Sequence[int]) -> torch.Tensor:
    """The unit noise x_T of each seed, as the pipeline itself would draw it."""
    seen = rehearse(
        arm.pipe,
        [],
        **{**with_defaults(arm.pipe, arm.call), "prompt": prompt, "output_type": "latent"},
    )
    shape = seen.latents[0] if seen.latents is not None else ()
    if len(shape) != 4:
        raise ValueError(
            f"{type(arm.pipe).__name__} has latents of shape {shape}: expected (n, channel, y, x)"
        )
    return torch.stack(
        [torch.randn(shape[1:], generator=torch.Generator().manual_seed(s)) for s in seeds]
    )


def _record(
    arm: Arm, prompts: Sequence[str], seeds: Sequence[int], latents: torch.Tensor
) -> Record:
    """One call of the pipeline from given x_T, two of each prompt and seed that draw the same noise
    on the way.
    """
    arguments = {**with_defaults(arm.pipe, arm.call), "output_type": "latent"}
    generators = [
        torch.Generator().manual_seed(s) for _ in prompts for _ in range(2) for s in seeds
    ]
    images = 2 * len(seeds)
    with quiet(arm.pipe), Recorder(arm.pipe) as recorder:
        arm.pipe(
            list(prompts),
            num_images_per_prompt=images,
            latents=latents,
            generator=generators,
            **arguments,
        )
        return recorder.take()[0]


def _by_seed(values: Mapping[str, Any], coords: Mapping[Any, Any]) -> xr.Dataset:
    """Variables (…, seed) under ``<name>_by_seed``, and their means over seeds."""
    each = xr.Dataset({f"{name}{BY_SEED}": v for name, v in values.items()}, coords)
    return each.assign({name: each[f"{name}{BY_SEED}"].mean("seed") for name in values})


def _with_means(found: xr.Dataset) -> xr.Dataset:
    """With ``<name>_mean`` (…, bound) of every measure, for new prompts and, by seed, new seeds."""
    for name in measure_names(found):
        rest = tuple(d for d in found[name].dims if d != "prompt")
        found[f"{name}_mean"] = crossed_mean(values_of(found, name)).array(rest)
    return found


def measure_sensitivity(
    arms: Mapping[str, Arm],
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    curves: Sequence[str],
    reference: str,
    features: Features,
    cache: Path | None = None,
    batch_size: int = 24,
    nearby: int = 2,
) -> tuple[dict[str, xr.Dataset], xr.Dataset]:
    """What this module measures, of several arms: by arm of ``curves`` along its steps, and
    :func:`pairing` of all.

    Samples come from ``cache`` where :func:`~xhat.analysis.sampling.arms.measure_arms` left them.
    ``nearby``: how many of the seeds the spread of nearby x_T is taken at."""
    samples = sample_arms(arms, prompts, seeds, cache=cache, batch_size=batch_size, keep_x0=curves)
    found = {}
    for name in tqdm(curves, desc="nearby noise", unit="arm"):
        gain = x0_gain(arms[name], prompts, seeds[:nearby], batch_size=batch_size)
        found[name] = identifiability(samples[name]).assign(gain_mean=gain["gain_mean"])
    return found, pairing(
        {name: arm["final"] for name, arm in samples.items()}, reference, features
    )
