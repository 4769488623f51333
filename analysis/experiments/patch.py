"""The base's activations of step one in the student, layer by layer: how much diversity comes with
them?

The base makes the first step of the hybrid, and its activations are kept. Then the student makes
its own run, but at its first step, at the same σ and from the same noise, one layer's output is the
base's of the same sample. What the student's seeds gain by that is what the layer carries. Beside
it, the same with the base's activation averaged over the seeds of a prompt: a change as large, that
tells no seed from another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from einops import rearrange

from xhat.analysis.experiments.arm_table import comparable, contrast_sentence, means_note
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.intervals import BOUND, BOUNDS, bounded_names
from xhat.analysis.measures.registry import measure_label
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import (
    against,
    measure_finals,
    paired_values,
    strata_of,
    summarised,
)
from xhat.analysis.sampling.final_latents import Arm, sample_arms
from xhat.analysis.table import Column, Table
from xhat.analysis.verdicts import Verdict, verdicts
from xhat.hooks.edits.edit import Source, from_trace, replace
from xhat.hooks.points.names import denoiser_of, named_points
from xhat.hooks.points.select import select
from xhat.hooks.trace import trace
from xhat.samplers.composite.pipeline import compose, hybrid
from xhat.samplers.plans.plan import Plan
from xhat.samplers.plans.recipe import hybrid_plan
from xhat.zoo.family.attributes import OPEN_PROMPTS

VARIANTS = ("own", "mean")
REFERENCES = ("student", "hybrid")
PRIMARY = "vendi_q2"
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


@dataclass(frozen=True, kw_only=True)
class Patching(Setting):
    """What :func:`measure_patching` is asked.

    Parameters
    ----------
    layers
        Points of both networks, globs allowed (default :func:`units`). A layer is patched where
        it runs; the student's own skip connections stay.
    """

    prompts: Sequence[str] = OPEN_PROMPTS[:8]
    seeds: Sequence[int] = range(16)
    batch_size: int = 48
    layers: Sequence[str] | None = None


def measure_patching(config: Patching, *, cache: Path | None = None) -> Result:
    """Diversity and fidelity of the student with one layer of its first step taken from the base.

    Parameters
    ----------
    cache
        Folder where samples are kept, so that a run that was stopped goes on.

    Returns
    -------
    Result
        ``data["patching"]`` has, of every measure of
        :mod:`~xhat.analysis.measures.registry`, ``<name>`` and ``<name>_gain`` (variant, layer,
        bound), the gain being what is above the plain student, paired over prompts; and the same
        (reference, bound) of ``student`` and ``hybrid``, ``<name>_ref`` and ``<name>_ref_gain``.
        Variants: ``own``, the base's activation of the same sample; ``mean``, its mean over the
        prompt's seeds. ``data["measured"]`` has the values of every arm and prompt.

    Raises
    ------
    ValueError
        For layers that the networks do not share, and where base and student do not fit together.
    """
    pair = config.models()
    denoiser = denoiser_of(pair.student)
    asked = config.layers
    layers = units(denoiser) if asked is None else [s.name for s in select(denoiser, asked)]
    arms = patched_arms(pair.base, pair.student, layers, config)
    samples = sample_arms(
        arms, config.prompts, config.seeds, cache=cache, batch_size=config.batch_size
    )
    finals = {name: arm["final"] for name, arm in samples.items()}
    measured = measure_finals(finals, config.features(pair))
    patching = by_layer(measured, layers).assign_attrs(student=pair.chosen)
    return Result(
        "patch",
        {"patching": patching, "measured": measured},
        layer_table(patching, measured),
        sentences(measured, layers),
        config.settings() | {"layers": layers},
    )


def patched_arms(
    base: Any, student: Any, layers: Sequence[str], config: Patching
) -> dict[str, Arm]:
    """Student, hybrid, and ``own LAYER`` and ``mean LAYER`` of every layer.

    The base's activations are traced at the first step, which it makes in one evaluation."""
    first = hybrid_plan(base, student, base_evaluations=1).segments[0]
    activations = trace(
        compose({"base": base}, Plan([changed(first, stop=1)])),
        config.prompts,
        seeds=config.seeds,
        hooks=dict.fromkeys(layers, "full"),
        batch_size=config.batch_size,
        progress=False,
        output_type="latent",
    )
    arms = {"student": Arm(student), "hybrid": Arm(hybrid(base, student, base_evaluations=1))}
    for layer in layers:
        source = from_trace(activations, layer)
        arms[f"own {layer}"] = Arm(student, edits=(replace(layer, source, steps=0),))
        arms[f"mean {layer}"] = Arm(student, edits=(replace(layer, over_seeds(source), steps=0),))
    return arms


def over_seeds(source: Source) -> Source:
    """The same reading, each sample's replaced by the mean over the seeds of its prompt."""
    mean = (
        source.value.mean("seed")
        .expand_dims(seed=source.value["seed"])
        .transpose(*source.value.dims)
    )
    return changed(source, value=mean, checksum=f"{source.checksum} mean over seeds")


def by_layer(measured: xr.Dataset, layers: Sequence[str]) -> xr.Dataset:
    """Levels and gains with arms unfolded to (variant, layer) and (reference)."""
    levels, gains = summarised(measured), against(measured, "student").reindex(arm=measured["arm"])
    arrays = {name: levels[name] for name in bounded_names(levels)}
    arrays |= {f"{name}_gain": gains[name] for name in bounded_names(gains)}
    layered = [f"{variant} {layer}" for variant in VARIANTS for layer in layers]
    unfolded: dict[str, xr.DataArray] = {}
    for name, array in arrays.items():
        array = array.transpose("arm", BOUND)
        grid = rearrange(array.sel(arm=layered).values, "(v l) b -> v l b", v=len(VARIANTS))
        unfolded[name] = xr.DataArray(grid, dims=("variant", "layer", BOUND), attrs=array.attrs)
        stem, gain, _ = name.partition("_gain")
        reference = array.sel(arm=list(REFERENCES)).values
        unfolded[f"{stem}_ref{gain}"] = xr.DataArray(
            reference, dims=("reference", BOUND), attrs=array.attrs
        )
    coords = {"variant": list(VARIANTS), "layer": list(layers), "reference": list(REFERENCES)}
    return xr.Dataset(unfolded, coords | {BOUND: list(BOUNDS)})


def layer_table(patching: xr.Dataset, measured: xr.Dataset, measure: str = PRIMARY) -> Table:
    """A row a layer: the gain by its own activation, and by its mean over seeds."""
    gain = patching[f"{measure}_gain"]
    rows: list[list[Any]] = [
        [str(layer), *(gain.sel(layer=layer, variant=variant) for variant in VARIANTS)]
        for layer in patching["layer"].values
    ]
    whole = patching[f"{measure}_ref_gain"].sel(reference="hybrid")
    rows.append(["all: the hybrid", whole, None])
    return Table(
        [
            "layer of step one",
            Column("base's activation", signed=True),
            Column("its mean over seeds", signed=True),
        ],
        rows,
        f"{measure_label(measure)} over the plain student",
        [means_note(measured, summarised(measured))],
    )


def sentences(
    measured: xr.Dataset, layers: Sequence[str], measure: str = PRIMARY
) -> tuple[str, ...]:
    """What the hybrid gains (the primary contrast), which layer adds most, and whether it tells the
    seeds apart. The layer is picked, so its intervals hold for all layers together.
    """
    words = {"hybrid": "the hybrid of one evaluation", "student": "the student"}
    first = contrast_sentence(measured, "hybrid", "student", measure, words)
    strata = strata_of(measured)

    layers = [
        layer
        for layer in layers
        if comparable(measured, [f"own {layer}"], "student", measure)
        and comparable(measured, [f"own {layer}"], f"mean {layer}", measure)
    ]
    if not layers:
        return first, "No layer can be compared: some prompt's pictures have nothing in common."

    def over(less: str) -> list[Verdict]:
        pairs = [(f"own {layer}", less.format(layer)) for layer in layers]
        differences = [paired_values(measured, *pair, measure) for pair in pairs]
        return verdicts(np.stack(differences), strata=strata)

    gains, apart = over("student"), over("mean {}")
    best = int(np.argmax([float(v.interval.estimate) for v in gains]))
    name, label = layers[best], measure_label(measure)
    patched = f"the student with the base's {name} of step one"
    adding, taking = (
        [layer for layer, v in zip(layers, gains, strict=True) if v.kind == kind]
        for kind in ("yes", "opposite")
    )
    return (
        first,
        gains[best].sentence(f"{patched}, the best of {len(layers)} layers,", "without", label),
        apart[best].sentence(patched, "with that activation's mean over seeds", label),
        f"Layers that are shown to add, corrected for their number: {', '.join(adding) or 'none'}; "
        f"to take away: {', '.join(taking) or 'none'}.",
    )
