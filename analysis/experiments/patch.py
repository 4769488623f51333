"""The base's activations of step one in the student, layer by layer: how much diversity comes with
them?

The base makes the first step of the hybrid, and its activations are kept. Then the student makes
its own run, but at its first step, at the same σ and from the same noise, one layer's output is the
base's of the same sample. What the student's seeds gain by that is what the layer carries. Beside
it, the same with the base's activation averaged over the seeds of a prompt: a change as large, that
tells no seed from another."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xhat.analysis.sampling.arms import against, measure_finals, summarised
from xhat.analysis.sampling.final_latents import Arm, sample_arms
from xhat.hooks.edits.edit import Source, from_trace, replace
from xhat.hooks.points.names import denoiser_of, named_points
from xhat.hooks.points.select import select
from xhat.hooks.trace import trace
from xhat.probes.features import FeatureSpace
from xhat.samplers.composite.pipeline import compose, hybrid
from xhat.samplers.plans.plan import Plan
from xhat.samplers.plans.recipe import hybrid_plan

VARIANTS = ("own", "mean")
REFERENCES = ("student", "hybrid")
_UNITS = re.compile(r"in|h|out|(down|up)\.\d+\.(res|attn)\.\d+|(block|single)\.\d+")
_ORDER = {"in": 0, "down": 1, "block": 1, "h": 2, "mid": 2, "single": 3, "up": 3, "out": 4}


def units(denoiser: Any) -> list[str]:
    """The layers of a network in the order of the way through it: residual blocks, attentions,
    transformer blocks.
    """
    aliases = [p.alias for p in named_points(denoiser) if _UNITS.fullmatch(p.alias)]
    return sorted(aliases, key=_place)


def _place(alias: str) -> tuple[Any, ...]:
    head, *rest = alias.split(".")
    numbers = [int(w) for w in rest if w.isdigit()]
    return (
        _ORDER[head],
        numbers[:1],
        numbers[1:],
        "attn" in rest,
    )  # a residual block runs before its attention


def patching(
    base: Any,
    student: Any,
    prompts: Iterable[str],
    seeds: Iterable[int],
    *,
    space: FeatureSpace,
    layers: Sequence[str] | None = None,
    cache: Path | None = None,
    batch_size: int = 24,
) -> xr.Dataset:
    """Diversity across seeds and fidelity of the student with one layer of its first step taken
    from the base.

    Variables (variant, layer), of every measure of
    :func:`~xhat.analysis.sampling.arms.measure_arms`: ``<name>_mean``, ``_low``, ``_high``, and
    ``<name>_gain_…``, what it is above the plain student, paired over prompts. Variants: ``own``,
    the base's activation of the same sample; ``mean``, its mean over the prompt's seeds. The same
    (reference) for ``student`` and ``hybrid`` under ``<name>_ref_…`` and ``<name>_ref_gain_…``.
    ``layers``: points of both networks (default :func:`units`); a layer is patched where it runs,
    and the student's own skip connections stay.

    Raises ValueError for layers that the networks do not share, and where base and student do not
    fit together."""
    prompts, seeds = list(prompts), list(seeds)
    layers = (
        units(denoiser_of(student))
        if layers is None
        else [s.name for s in select(denoiser_of(student), layers)]
    )
    first = hybrid_plan(base, student, base_evaluations=1).segments[0]
    starter = compose({"base": base}, Plan([changed(first, stop=1)]))
    kept = trace(
        starter,
        prompts,
        seeds=seeds,
        hooks=dict.fromkeys(layers, "full"),
        batch_size=batch_size,
        progress=False,
        output_type="latent",
    )
    arms = {"student": Arm(student), "hybrid": Arm(hybrid(base, student, base_evaluations=1))}
    for layer in layers:
        source = from_trace(kept, layer)
        arms[f"own {layer}"] = Arm(student, edits=(replace(layer, source, steps=0),))
        arms[f"mean {layer}"] = Arm(student, edits=(replace(layer, over_seeds(source), steps=0),))
    samples = sample_arms(arms, prompts, seeds, cache=cache, batch_size=batch_size)
    return _arranged(
        measure_finals({name: arm["final"] for name, arm in samples.items()}, space), layers
    )


def over_seeds(source: Source) -> Source:
    """The same reading, each sample's replaced by the mean over the seeds of its prompt."""
    mean = (
        source.value.mean("seed")
        .expand_dims(seed=source.value["seed"])
        .transpose(*source.value.dims)
    )
    return changed(source, value=mean, checksum=f"{source.checksum} mean over seeds")


def _arranged(measured: xr.Dataset, layers: Sequence[str]) -> xr.Dataset:
    """Arms as (variant, layer) and (reference), levels and gains."""
    levels, gains = summarised(measured), against(measured, "student")
    gains = gains.rename(
        {n: re.sub(r"_(mean|low|high)$", r"_gain_\1", str(n)) for n in gains.data_vars}
    )
    kept = [n for n in levels.data_vars if str(n).endswith(("_mean", "_low", "_high"))]
    both = levels[kept].merge(
        gains[[n for n in gains.data_vars if gains[n].dims == ("arm",)]], join="left"
    )
    rows = [[f"{variant} {layer}" for layer in layers] for variant in VARIANTS]
    found: dict[str, Any] = {}
    for name, array in both.data_vars.items():
        values = np.array([[float(array.sel(arm=arm)) for arm in row] for row in rows])
        found[str(name)] = (("variant", "layer"), values, array.attrs)
        stem, _, part = str(name).rpartition("_")
        reference = [float(array.sel(arm=arm)) for arm in REFERENCES]
        key = f"{stem.removesuffix('_gain')}_ref{'_gain' if stem.endswith('_gain') else ''}_{part}"
        found[key] = ("reference", np.array(reference), array.attrs)
    coords = {"variant": list(VARIANTS), "layer": list(layers), "reference": list(REFERENCES)}
    said = {k: v for k, v in measured.attrs.items() if isinstance(v, str | int | float)}
    return xr.Dataset(found, coords, said | levels.attrs | {"prompts": measured.sizes["prompt"]})


def statement(found: xr.Dataset, measure: str = "vendi_q2") -> list[str]:
    """Which layers carry diversity into the student, in sentences that hold whichever way it
    falls.
    """
    gain = found[f"{measure}_gain_mean"].sel(variant="own")
    hybrid_gain = float(found[f"{measure}_ref_gain_mean"].sel(reference="hybrid"))
    low = float(found[f"{measure}_ref_gain_low"].sel(reference="hybrid"))
    best = str(gain["layer"].values[int(np.argmax(gain.values))])
    cell = found.sel(layer=best)
    own, mean = (
        {p: float(cell[f"{measure}_gain_{p}"].sel(variant=v)) for p in ("mean", "low", "high")}
        for v in VARIANTS
    )
    lines = [
        f"The hybrid has {hybrid_gain:+.3g} Vendi over the student"
        + (
            "."
            if low > 0
            else ": the interval holds zero, so there is no gain to be traced to a layer."
        ),
        f"Of single layers, the base's {best} of step one adds most: {_text(own)}"
        + (f", {own['mean'] / hybrid_gain:.0%} of the hybrid's gain." if low > 0 else "."),
        f"Averaged over seeds, the same layer adds {_text(mean)}: "
        + (
            "beside a gain whose interval holds zero, that says nothing."
            if own["low"] <= 0
            else "what it adds is not what tells the seeds apart."
            if mean["high"] >= own["mean"]
            else "less, so that the difference between seeds is what it carries."
        ),
    ]
    carrying = [
        str(n)
        for n in found["layer"].values
        if float(found[f"{measure}_gain_low"].sel(variant="own", layer=n)) > 0
    ]
    lines.append(f"Layers whose gain is above zero: {', '.join(carrying) or 'none'}.")
    return lines


def _text(value: dict[str, float]) -> str:
    return f"{value['mean']:+.3g} [{value['low']:+.3g}, {value['high']:+.3g}]"
