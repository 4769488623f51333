"""Final latents of several samplers on the same prompts and seeds, kept on disk as they are
made.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm.auto import tqdm

from xhat.hooks.describe import checksum, describe, describe_call, jsonable, versions
from xhat.hooks.edits.edit import Edit
from xhat.hooks.model import with_defaults
from xhat.hooks.store.tiles import Tiling
from xhat.hooks.trace import trace

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

    With ``cache``, a file for each arm and prompt, ``CACHE/ARM/<key>.safetensors``; the key is a
    hash of weights, schedulers, plan, call, prompt, seeds and versions, so that files of any other
    run are never read. ``weights``: the cost of a picture of each arm, for the progress bar."""
    where = (prompts, seeds, cache, batch_size)
    jobs = {name: _Job.of(name, arm, *where, name in keep_x0) for name, arm in arms.items()}
    cost = {name: (weights or {}).get(name, 1.0) * len(seeds) for name in arms}
    total = sum(cost[name] * len(job.missing()) for name, job in jobs.items())
    found = {}
    with tqdm(total=round(total), desc="sampling", unit="eval", disable=total == 0) as bar:
        for name, job in jobs.items():
            bar.set_postfix_str(name)
            for done in job.run(batch_size):
                bar.update(round(cost[name] * done))
            found[name] = xr.concat([job.load(p) for p in prompts], "prompt").assign_coords(
                prompt=list(prompts)
            )
    return found


def to_sample(
    arms: Mapping[str, Arm],
    prompts: Sequence[str],
    seeds: Sequence[int],
    cache: Path | None,
    batch_size: int,
    keep_x0: Collection[str] = (),
) -> dict[str, int]:
    """How many pictures of each arm are not in the cache."""
    where = (prompts, seeds, cache, batch_size)
    jobs = {name: _Job.of(name, arm, *where, name in keep_x0) for name, arm in arms.items()}
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
class _Job:
    """One arm's samples, each prompt under its key."""

    arm: Arm
    seeds: Sequence[int]
    keys: Mapping[str, str]
    folder: Path | None
    variables: tuple[str, ...]
    kept: dict[str, xr.Dataset]

    @classmethod
    def of(
        cls,
        name: str,
        arm: Arm,
        prompts: Sequence[str],
        seeds: Sequence[int],
        cache: Path | None,
        batch_size: int,
        x0: bool,
    ) -> _Job:
        width = Tiling.of(
            1, len(seeds), batch_size
        ).width  # some samplers let the samples of a batch see each other
        same = described(arm) | {"seeds": list(seeds), "batch": width}
        if cache is not None and "unidentified" in same:
            raise ValueError(
                f"the samples of {name!r} cannot be kept, since what made them cannot be told from "
                f"another of its kind: {'; '.join(same['unidentified'])}"
            )
        keys = {prompt: checksum(same | {"prompt": prompt})[:32] for prompt in prompts}
        variables = ("final", "x_T", "drawn", *(("pred_x0",) if x0 else ()))
        return cls(arm, list(seeds), keys, None if cache is None else cache / name, variables, {})

    def path(self, prompt: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.keys[prompt]}.safetensors"

    def missing(self) -> list[str]:
        if self.folder is None:
            return [prompt for prompt in self.keys if prompt not in self.kept]
        return [prompt for prompt in self.keys if not _holds(self.path(prompt), self.variables)]

    def run(self, batch_size: int) -> Iterator[int]:
        """Sample what is missing, and tell after each stretch how many prompts were done."""
        for some in _stretches(self.missing()):
            call = {**self.arm.call, "output_type": "latent", "edits": self.arm.edits}
            tree = trace(
                self.arm.pipe, some, seeds=self.seeds, batch_size=batch_size, progress=False, **call
            )
            traced = tree.to_dataset()
            for prompt in some:
                self.keep(
                    prompt, _samples(traced.sel(prompt=prompt, drop=True))[list(self.variables)]
                )
            yield len(some)

    def keep(self, prompt: str, samples: xr.Dataset) -> None:
        if self.folder is None:
            self.kept[prompt] = samples
        else:
            _write(samples, self.path(prompt))

    def load(self, prompt: str) -> xr.Dataset:
        return (
            self.kept[prompt] if self.folder is None else _read(self.path(prompt), self.variables)
        )


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
    found = traced[["final", "pred_x0"]].assign(x_T=traced["latents"].isel(step=0, drop=True))
    found = found.drop_vars([name for name in found.coords if name != "seed"])
    levels = {name: ("step", traced[name].values) for name in ("timestep", "sigma")}
    levels["segment"] = (
        "step",
        traced["segment"].values if "segment" in traced else np.full(traced.sizes["step"], ""),
    )
    found = found.assign_coords(levels)
    if "noise" in traced:
        noise = traced["noise"].transpose("seed", "step", ...).values
        found["drawn"] = (
            ("seed", "step"),
            np.array([[_sum(x) for x in row] for row in noise], dtype=np.uint32),
        )
    else:
        found["drawn"] = (
            ("seed", "step"),
            np.zeros((traced.sizes["seed"], traced.sizes["step"]), dtype=np.uint32),
        )
    return found.assign_attrs(space=str(traced.attrs.get("space", "")))


def _sum(noise: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(noise).tobytes()) if noise.any() else 0


def _write(samples: xr.Dataset, path: Path) -> None:
    arrays = {
        str(name): np.ascontiguousarray(v.values)
        for name, v in samples.variables.items()
        if v.dtype.kind in "fiu"
    }
    notes = {
        "dims": {name: samples[name].dims for name in arrays},
        "segment": samples["segment"].values.tolist(),
        "space": samples.attrs["space"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(arrays, partial, metadata={"xhat": json.dumps(notes)})
    partial.replace(path)


def _holds(path: Path, variables: Collection[str]) -> bool:
    if not path.exists():
        return False
    with safe_open(path, framework="np") as file:
        return set(variables) <= set(file.keys())


def _read(path: Path, variables: Collection[str]) -> xr.Dataset:
    with safe_open(path, framework="np") as file:
        notes = json.loads(file.metadata()["xhat"])
        names = (*variables, "seed", "timestep", "sigma")
        arrays = {name: (tuple(notes["dims"][name]), file.get_tensor(name)) for name in names}
    coords = {name: arrays.pop(name) for name in ("seed", "timestep", "sigma")}
    coords["segment"] = (("step",), np.array(notes["segment"]))
    return xr.Dataset(arrays, coords=coords, attrs={"space": notes["space"]})
