"""The main job: trace a base, its student and their hybrid, see where the seeds collapse, and undo it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.commitment import commitment
from xhat.analysis.diversity import diversity_by_noise, final_diversity, paired_difference
from xhat.hooks.points import denoiser_of, parts_of
from xhat.hooks.rehearse import with_defaults
from xhat.hooks.trace import trace
from xhat.probes.features import JudgeSpace, decode
from xhat.samplers.hybrid import hybrid
from xhat.zoo.attributes import OPEN_PROMPTS

MEASURES = {"vendi_q2": "Vendi (q = 2)", "attribute_entropy": "attribute entropy"}


@dataclass(frozen=True)
class Row:
    """One line of the table: diversity across seeds and fidelity of the final pictures, and what a picture costs.

    Each measure is (mean over prompts, low, high), the interval a 95 % bootstrap over prompts.
    ``evaluations``: of the network for one picture; ``seconds``: for one picture, on this machine, decoding included.
    """

    model: str
    vendi_q2: tuple[float, float, float]
    attribute_entropy: tuple[float, float, float]
    fidelity: float
    evaluations: float
    seconds: float


@dataclass(frozen=True)
class DemoResult:
    """What ``demo`` measured. ``differences[pair][measure]``: paired over prompts, (mean, low, high)."""

    prompts: list[str]
    seeds: int
    rows: list[Row]
    differences: dict[str, dict[str, tuple[float, float, float]]]
    diversity: dict[str, xr.Dataset] = field(repr=False)
    commitment: dict[str, xr.Dataset] = field(repr=False)
    traces: dict[str, xr.DataTree] = field(repr=False)

    def table(self) -> str:
        """The rows as text, with the differences that matter below them."""
        head = f"{'':22}{'Vendi (q=2)':>22}{'attribute entropy':>22}{'fidelity':>10}{'evals':>7}{'s/image':>9}"
        lines = [head]
        for row in self.rows:
            cells = "".join(f"{interval_text(getattr(row, name)):>22}" for name in MEASURES)
            lines.append(f"{row.model:22}{cells}{row.fidelity:10.2f}{row.evaluations:7.0f}{row.seconds:9.3f}")
        for pair, measures in self.differences.items():
            lines += [f"{pair}: {MEASURES[name]} {_signed(value)}" for name, value in measures.items()]
        lines.append(f"Means over {len(self.prompts)} prompts × {self.seeds} seeds; 95 % bootstrap over prompts.")
        return "\n".join(lines)

    def to_json(self) -> str:
        kept = {k: v for k, v in self.__dict__.items() if k in ("prompts", "seeds", "differences")}
        return json.dumps({**kept, "rows": [asdict(row) for row in self.rows]}, indent=2) + "\n"


def interval_text(value: tuple[float, float, float]) -> str:
    """mean [low, high]"""
    return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"


def _signed(value: tuple[float, float, float]) -> str:
    verdict = "" if value[1] > 0 or value[2] < 0 else "  (the interval holds zero)"
    return f"{value[0]:+.3f} [{value[1]:+.3f}, {value[2]:+.3f}]{verdict}"


def demo(
    pair: Any, out: Path, *, prompts: Iterable[str] = OPEN_PROMPTS[:8], seeds: Iterable[int] = range(24),
    batch_size: int = 24,
) -> DemoResult:  # fmt: skip
    """Trace base, student, hybrid (and the base at the student's steps) on the same prompts and seeds, and compare.

    Traces go to ``out/traces/*.zarr``; a run that was stopped goes on there. ``results.json`` is written last.
    """
    prompts, seeds = list(prompts), list(seeds)
    few = {"num_inference_steps": pair.student.xhat_defaults["num_inference_steps"]}
    arms: dict[str, tuple[Any, dict[str, Any]]] = {
        "base": (pair.base, {}),
        "base_few": (pair.base, few),
        "student": (pair.student, {}),
        "hybrid": (hybrid(pair.base, pair.student), {}),
    }
    space = JudgeSpace(pair.base.vae)
    traces, rows, curves, committed, finals = {}, [], {}, {}, {}
    for name, (pipe, call) in arms.items():
        print(f"{name}: {len(prompts)} prompts × {len(seeds)} seeds", flush=True)
        store = out / "traces" / f"{name}.zarr"
        traces[name] = trace(pipe, prompts, seeds=seeds, store=store, batch_size=batch_size, **call)
        curves[name] = diversity_by_noise(traces[name], features=space.features, labels=space.labels)
        committed[name] = commitment(traces[name])
        finals[name] = final_diversity(traces[name], features=space.features, labels=space.labels)
        rows.append(_row(name, finals[name], traces[name], space, pipe, call, prompts[0]))
    differences = {
        f"{b} − {a}": {m: _triple(paired_difference(finals[a][m], finals[b][m])) for m in MEASURES}
        for a, b in (("base", "student"), ("student", "hybrid"), ("base", "hybrid"))
    }
    result = DemoResult(prompts, len(seeds), rows, differences, curves, committed, traces)
    (out / "results.json").write_text(result.to_json())
    return result


def _row(
    name: str, final: xr.Dataset, traced: xr.DataTree, space: JudgeSpace, pipe: Any, call: dict[str, Any], prompt: str
) -> Row:
    latents = traced.to_dataset()["final"]
    prompts = [str(p) for p in latents["prompt"].values]
    fidelity = np.mean([space.fidelity(latents.sel(prompt=p).values, p).mean() for p in prompts])
    evaluations, seconds = cost(pipe, prompt, **call)
    vendi, entropy = (
        (float(final[f"{m}_mean"]), float(final[f"{m}_low"]), float(final[f"{m}_high"])) for m in MEASURES
    )
    return Row(name, vendi, entropy, fidelity=float(fidelity), evaluations=evaluations, seconds=seconds)


def _triple(difference: xr.Dataset) -> tuple[float, float, float]:
    low, mean, high = (float(difference[name]) for name in ("low", "mean", "high"))
    return mean, low, high


def cost(pipe: Any, prompt: str, batch_size: int = 8, **call: Any) -> tuple[float, float]:
    """(network evaluations, seconds) for one picture of an ordinary, untraced call; guidance counts twice.

    Seconds are the best of two calls of ``batch_size`` pictures, on this machine, decoding included.
    """
    evaluated = 0

    def count(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal evaluated
        evaluated += len(args[0] if args else kwargs["sample"])

    handles = [m.register_forward_pre_hook(count, with_kwargs=True) for m in parts_of(denoiser_of(pipe))]
    arguments = with_defaults(pipe, call)
    times = []
    try:
        for _ in range(2):
            started = time.perf_counter()
            pipe(prompt, num_images_per_prompt=batch_size, output_type="np", **arguments)
            times.append(time.perf_counter() - started)
    finally:
        for handle in handles:
            handle.remove()
    return evaluated / 2 / batch_size, min(times) / batch_size


def filmstrips(
    result: DemoResult, vae: Any, prompt: int = 0, seed: int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """x̂₀ of one prompt and seed as pictures, for each model: (step, 3, h, w) in [0, 1], and the timesteps."""
    chosen = {name: tree.to_dataset()["pred_x0"].isel(prompt=prompt, seed=seed) for name, tree in result.traces.items()}
    return {name: (decode(vae, x.values), x["timestep"].values) for name, x in chosen.items()}
