"""Samples in which one source of noise varies and the other is held: x_T, or all noise after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import rearrange
from tqdm.auto import tqdm

from xhat.hooks.model import with_defaults
from xhat.hooks.points.rehearsal import rehearse
from xhat.hooks.points.taps import quiet

SOURCES = ("both", "x_T", "later")
_LATER = 1 << 31  # the streams of later noise: no seed of x_T is as large


def sample_noise_sources(
    pipe: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    call: Mapping[str, Any] | None = None,
    batch_size: int = 24,
    progress: bool = True,
) -> xr.Dataset:
    """Final latents with both sources of noise varying, only x_T, or only what is drawn later.

    Seed s has the x_T of generator s and, in the same call, later noise of another generator that
    belongs to s alone. A source that is held is that of one seed, another for each prompt, so that
    no result hangs on one noise.

    Parameters
    ----------
    pipe : a pipeline that takes ``latents`` of shape (n, channel, y, x).
    prompts, seeds : two or more seeds, below 2³¹.
    call : keywords of every call, beside those that belong to the pipeline.

    Returns
    -------
    Dataset with ``final`` (source, prompt, seed, channel, y, x), source in ``SOURCES``.

    Raises
    ------
    ValueError : for fewer than two seeds, seeds out of range, and latents of another shape.
    """
    seeds = list(seeds)
    if len(seeds) < 2:
        raise ValueError(f"diversity is across seeds: give two or more, got {len(seeds)}")
    if min(seeds) < 0 or max(seeds) >= _LATER:
        raise ValueError(f"seeds must be from 0 to 2³¹ − 1, got {min(seeds)} to {max(seeds)}")
    arguments = {**with_defaults(pipe, call or {}), "output_type": "latent"}
    shape = _latent_shape(pipe, prompts[0], arguments)
    jobs = [(source, p) for source in SOURCES for p in range(len(prompts))]
    finals = []
    with quiet(pipe):
        for source, p in tqdm(jobs, desc="noise sources", unit="prompt", disable=not progress):
            held = seeds[p % len(seeds)]
            starts = [held if source == "later" else s for s in seeds]
            laters = [_LATER + (held if source == "x_T" else s) for s in seeds]
            rows = [
                pipe(
                    [prompts[p]] * len(part),
                    latents=torch.stack([_normal(shape, starts[i]) for i in part]).to(pipe.device),
                    generator=[torch.Generator().manual_seed(laters[i]) for i in part],
                    **arguments,
                ).images
                for part in _batches(len(seeds), batch_size)
            ]
            finals.append(torch.cat(rows).float().cpu().numpy())
    final = rearrange(
        np.stack(finals), "(source prompt) seed c y x -> source prompt seed c y x", source=3
    )
    return xr.Dataset(
        {"final": (("source", "prompt", "seed", "channel", "y", "x"), final)},
        coords={"source": list(SOURCES), "prompt": list(prompts), "seed": seeds},
    )


def _latent_shape(pipe: Any, prompt: str, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    seen = rehearse(pipe, [], **{**arguments, "prompt": prompt})
    shape = seen.latents[0] if seen.latents is not None else ()
    if len(shape) != 4:
        raise ValueError(
            f"{type(pipe).__name__} has latents of shape {shape}: expected (n, channel, y, x)"
        )
    return tuple(shape[1:])


def _normal(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _batches(n: int, size: int) -> Iterator[range]:
    return (range(i, min(i + size, n)) for i in range(0, n, size))
