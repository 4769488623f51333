"""Final latents of several samplers on the same prompts and seeds, kept on disk as they are
made.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from xhat.analysis.files import DamagedFile
from xhat.analysis.sampling.cache import Cache
from xhat.hooks.describe import checksum, describe, describe_call, jsonable, versions
from xhat.hooks.edits.edit import Edit
from xhat.hooks.model import with_defaults
from xhat.hooks.store.tiles import Tiling
from xhat.hooks.trace import trace

SAMPLES, X0 = "samples", "x0"
PATIENCE = 5.0  # seconds of sampling that a run which is stopped may lose


@dataclass(frozen=True)
class Arm:
    """A pipeline, what it is called with beside prompts and seeds, and edits made to its denoiser
    on the way.
    """

    pipe: Any
    call: Mapping[str, Any] = field(default_factory=dict)
    edits: tuple[Edit, ...] = ()


def sample_arms(
    arms: Mapping[str, Arm],
    prompts: Sequence[str],
    seeds: Sequence[int],
    *,
    cache: Path | None = None,
    batch_size: int = 24,
    weights: Mapping[str, float] | None = None,
    keep_x0: Collection[str] = (),
) -> dict[str, xr.Dataset]:
    """The samples of each arm: ``final`` and ``x_T`` latents (prompt, seed, …), and the ledger of
    its noise.

    ``x_T`` is as the first step found it, in the scheduler's own space. ``drawn`` (prompt, seed,
    step), uint32: a checksum of the noise that the step drew, 0 where it drew none, or none that
    can be told from its generator. Of the arms ``keep_x0``, ``pred_x0`` (prompt, seed, step, …)
    too. Coordinates along ``step``: timestep, sigma, segment (which model).

    With ``cache``, a file for each arm and prompt below ``CACHE/ARM``, its key made of weights,
    schedulers, plan, call, prompt, seeds and versions (:class:`~.cache.Cache`). ``weights``: the
    cost of a picture of each arm, for the progress bar."""
    run = DrawnRun(tuple(prompts), tuple(seeds), Cache(cache), batch_size)
    jobs = {name: _Job.of(name, arm, run, name in keep_x0) for name, arm in arms.items()}
    cost = {name: (weights or {}).get(name, 1.0) * len(seeds) for name in arms}
    total = sum(cost[name] * len(job.missing()) for name, job in jobs.items())
    samples = {}
    with tqdm(total=round(total), desc="sampling", unit="eval", disable=total == 0) as bar:
        for name, job in jobs.items():
            bar.set_postfix_str(name)
            for done in job.run(job.missing(), batch_size):
                bar.update(round(cost[name] * done))
            parts = [job.load(prompt, batch_size) for prompt in prompts]
            samples[name] = xr.concat(parts, "prompt").assign_coords(prompt=list(prompts))
    return samples


def to_sample(
    arms: Mapping[str, Arm],
    prompts: Sequence[str],
    seeds: Sequence[int],
    cache: Path | None,
    batch_size: int,
    keep_x0: Collection[str] = (),
) -> dict[str, int]:
    """How many pictures of each arm are not in the cache."""
    run = DrawnRun(tuple(prompts), tuple(seeds), Cache(cache), batch_size)
    jobs = {name: _Job.of(name, arm, run, name in keep_x0) for name, arm in arms.items()}
    return {name: len(job.missing()) * len(seeds) for name, job in jobs.items()}


def described(arm: Arm) -> dict[str, Any]:
    """What makes an arm's samples what they are, prompt and seed aside: weights, schedulers, plan,
    call, versions.
    """
    call, unknown = describe_call(with_defaults(arm.pipe, arm.call))
    same = describe(arm.pipe) | {"call": call, "versions": versions()}
    if unknown:
        same["unidentified"] = [*same.get("unidentified", []), *unknown]
    return same | (
        {"edits": [jsonable(edit.describe()) for edit in arm.edits]} if arm.edits else {}
    )


@dataclass(frozen=True)
class DrawnRun:
    """What all arms have in common."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    cache: Cache
    batch_size: int


@dataclass(frozen=True)
class _Job:
    """One arm's samples, each prompt under its key, x̂₀ in an entry of its own."""

    name: str
    arm: Arm
    seeds: Sequence[int]
    keys: Mapping[str, Mapping[str, Any]]
    cache: Cache
    entries: tuple[str, ...]

    @classmethod
    def of(cls, name: str, arm: Arm, run: DrawnRun, keep_x0: bool) -> _Job:
        # some samplers let the samples of a batch see each other
        width = Tiling.of(1, len(run.seeds), run.batch_size).width
        described_arm = described(arm)
        if run.cache.folder is not None and "unidentified" in described_arm:
            raise ValueError(
                f"the samples of {name!r} cannot be kept, since what made them cannot be told from "
                f"another of its kind: {'; '.join(described_arm['unidentified'])}"
            )
        same = checksum(described_arm | {"seeds": list(run.seeds), "batch": width})
        keys = {prompt: {"arm": same, "prompt": prompt} for prompt in run.prompts}
        entries = (SAMPLES, X0) if keep_x0 else (SAMPLES,)
        return cls(name, arm, list(run.seeds), keys, run.cache, entries)

    def missing(self) -> list[str]:
        return [
            prompt
            for prompt, key in self.keys.items()
            if not all(self.cache.holds(f"{self.name}/{entry}", key) for entry in self.entries)
        ]

    def run(self, prompts: list[str], batch_size: int) -> Iterator[int]:
        """Sample ``prompts``, and tell after each stretch how many were done."""
        for some in _stretches(prompts):
            call = {**self.arm.call, "output_type": "latent", "edits": self.arm.edits}
            tree = trace(
                self.arm.pipe, some, seeds=self.seeds, batch_size=batch_size, progress=False, **call
            )
            traced = tree.to_dataset()
            for prompt in some:
                samples = _samples(traced.sel(prompt=prompt, drop=True))
                parts = {SAMPLES: samples.drop_vars("pred_x0"), X0: samples[["pred_x0"]]}
                for entry in self.entries:
                    self.cache.write(f"{self.name}/{entry}", self.keys[prompt], parts[entry])
            yield len(some)

    def load(self, prompt: str, batch_size: int) -> xr.Dataset:
        """What was kept; a damaged entry is sampled again."""
        for _ in range(2):
            names = [f"{self.name}/{entry}" for entry in self.entries]
            parts = [self.cache.read(name, self.keys[prompt]) for name in names]
            there = [part for part in parts if part is not None]
            if len(there) == len(parts):
                return there[0].assign(dict(there[-1].data_vars))
            list(self.run([prompt], batch_size))
        raise DamagedFile(f"the cache {self.cache.folder} does not give back what is written there")


def _stretches(prompts: list[str]) -> Iterator[list[str]]:
    """One prompt first, then as many at once as take a few seconds: to set up a trace takes time
    too.
    """
    size = 1
    while prompts:
        started = time.perf_counter()
        yield prompts[:size]
        prompts = prompts[size:]
        size = max(1, int(size * PATIENCE / (time.perf_counter() - started)))


def _samples(traced: xr.Dataset) -> xr.Dataset:
    """What is kept of one prompt's trace."""
    samples = traced[["final", "pred_x0"]].assign(x_T=traced["latents"].isel(step=0, drop=True))
    samples = samples.drop_vars([name for name in samples.coords if name != "seed"])
    shape = traced.sizes["seed"], traced.sizes["step"]
    segment = traced["segment"].values if "segment" in traced else np.full(shape[1], "")
    samples = samples.assign_coords(
        timestep=("step", traced["timestep"].values),
        sigma=("step", traced["sigma"].values),
        segment=("step", segment.astype(str)),
    )
    drawn = np.zeros(shape, dtype=np.uint32)
    if "noise" in traced:
        noise = traced["noise"].transpose("seed", "step", ...).values
        drawn[:] = [[_sum(x) for x in row] for row in noise]
    attrs = {"space": str(traced.attrs.get("space", ""))}
    return samples.assign(drawn=(("seed", "step"), drawn)).assign_attrs(attrs)


def _sum(noise: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(noise).tobytes()) if noise.any() else 0
