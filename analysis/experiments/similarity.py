"""Where, along depth and noise, distillation changed the representation: base against students,
with baselines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from xhat.analysis.sampling.untrained import untrained
from xhat.analysis.traces.layers import X_T
from xhat.analysis.traces.similarity_map import similarity_map
from xhat.hooks.model import model_of
from xhat.hooks.points.names import points
from xhat.hooks.trace import trace

LAYERS = re.compile(r"in|out|h|(down|up)\.\d+(\.attn\.\d+)?|(block|single)\.\d+")
FEW, UNTRAINED = "base_few", "untrained"
BESIDE = ("procrustes", "mutual_knn")


def student_similarity(
    pair: Any,
    out: Path,
    *,
    students: Iterable[str] = (),
    prompts: Iterable[str],
    seeds: Iterable[int],
    hooks: Iterable[str] = (),
    batch_size: int = 16,
    permutations: int = 199,
) -> xr.Dataset:
    """Each layer of the base against the same layer of every student, at equal noise, samples
    matched.

    Variables (network, level, layer), level being the noise levels of the students' steps: ``cka``
    (debiased) with ``low``, ``high`` (jackknife over prompts) and ``p_map`` (prompts exchanged,
    corrected over the map); ``procrustes``, ``mutual_knn``. Networks: the students; ``base_few``,
    the base's own weights at the students' number of steps, which moves the trajectory and nothing
    else; ``untrained``, a student's network with weights drawn anew. ``seed_to_seed`` (level,
    layer): the base under one half of the seeds against the other, what prompts alone give. The
    last layer is x_t, the input. Grams are kept in ``out/traces``; a run that was stopped goes on
    there."""
    prompts, seeds = list(prompts), list(seeds)
    names = list(students) or list(pair.students)
    arms = _arms(pair, names)
    kept = dict.fromkeys(list(hooks) or layers(pair.base), "gram")
    traces = {}
    for name, (pipe, call) in arms.items():
        print(
            f"{name}: {len(prompts)} prompts × {len(seeds)} seeds at {len(kept)} points", flush=True
        )
        store = out / "traces" / f"similarity_{name}.zarr"
        traces[name] = trace(
            pipe, prompts, seeds=seeds, hooks=kept, store=store, batch_size=batch_size, **call
        )
    base = traces.pop("base")
    maps = [same_layers(base, other, permutations) for other in traces.values()]
    joined = xr.concat(
        maps,
        xr.DataArray(list(traces), dims="network", name="network"),
        join="outer",
        coords="minimal",
    )
    if "seed_to_seed" in joined:  # of the base, the same beside every network
        joined["seed_to_seed"] = joined["seed_to_seed"].isel(network=0)
    joined = joined.sortby("level", ascending=False).sel(
        layer=[*kept, X_T]
    )  # in the order of the network
    return joined.assign_attrs(
        finding=said(joined), prompts=len(prompts), seeds=len(seeds), pair=pair.name
    )


def layers(pipe: Any, most: int = 16) -> list[str]:
    """Points along the depth of a denoiser, in its own order: blocks and attentions, evenly thinned
    to ``most``.
    """
    found = [point.alias for point in points(pipe) if LAYERS.fullmatch(point.alias)]
    chosen = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return [found[i] for i in chosen]


def _arms(pair: Any, names: list[str]) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    first = pair.students[names[0]]
    few = {"num_inference_steps": model_of(first).steps}
    arms: dict[str, tuple[Any, Mapping[str, Any]]] = {"base": (pair.base, {})}
    arms |= {name: (pair.students[name], {}) for name in names}
    return arms | {FEW: (pair.base, few), UNTRAINED: (untrained(first), {})}


def same_layers(base: Any, other: Any, permutations: int = 199) -> xr.Dataset:
    """(level, layer) similarity of two traces of one architecture, layer by layer, at the noise
    levels they share.
    """
    found = similarity_map(base, other, permutations=permutations)
    names = found["layer_a"].values
    if not np.array_equal(names, found["layer_b"].values):
        raise ValueError(
            f"both networks must be read at the same points: {names.tolist()}, "
            f"{found['layer_b'].values}"
        )
    beside = {m: similarity_map(base, other, measure=m, by=None)["similarity"] for m in BESIDE}
    arrays = {
        "cka": found["similarity"],
        **{n: found[n] for n in ("low", "high", "p_map")},
        **beside,
    }
    cells = {name: (("level", "layer"), _diagonal(array)) for name, array in arrays.items()}
    if "seed_to_seed_a" in found:
        cells["seed_to_seed"] = (
            ("level", "layer"),
            found["seed_to_seed_a"].transpose("pair", "layer_a").values,
        )
    level = np.array([float(f"{s:.4g}") for s in found["sigma_a"].values])
    attrs = {
        name: found.attrs[name]
        for name in ("interval", "null", "units", "n", "level", "permutations")
    }
    return xr.Dataset(cells, {"level": level, "layer": names}, attrs)


def _diagonal(array: xr.DataArray) -> np.ndarray:
    return np.diagonal(array.transpose("pair", "layer_a", "layer_b").values, axis1=1, axis2=2)


def said(found: xr.Dataset) -> str:
    """Where the students' representations leave the base's, in sentences with their numbers: a
    paragraph a student.
    """
    students = [n for n in found["network"].values.tolist() if n not in (FEW, UNTRAINED)]
    inside = found.sel(layer=[name for name in found["layer"].values if name != X_T])
    return "\n\n".join(
        [*(_said_of(inside, name) for name in students), _said_of_baselines(found, inside)]
    )


def _said_of(inside: xr.Dataset, name: str) -> str:
    cka = inside["cka"].sel(network=name)
    depth, noise = cka.mean("level"), cka.mean("layer")
    excess = inside["cka"].sel(network=FEW) - cka
    cell = {dim: excess[dim].values[i] for dim, i in excess.argmax(("level", "layer")).items()}
    one = inside.sel({"network": [name, FEW], **cell})
    mine, few = (
        f"{c:.2f} [{l:.2f}, {h:.2f}]"
        for c, l, h in zip(*(one[v].values for v in ("cka", "low", "high")), strict=True)
    )
    apart = "do not overlap" if one["high"].values[0] < one["low"].values[1] else "overlap"
    null = int((inside["p_map"].sel(network=name) > 0.05).sum())
    ranks = [
        spearmanr(
            cka.values.ravel(), inside[m].sel(network=name).values.ravel(), nan_policy="omit"
        )[0]
        for m in BESIDE
    ]
    return (
        f"{name}: over depth, CKA with the base runs from {float(depth.min()):.2f} at "
        f"{depth.idxmin().item()} to {float(depth.max()):.2f} at {depth.idxmax().item()}; over "
        f"noise, from {float(noise.min()):.2f} at σ = {noise.idxmin().item():.2g} to "
        f"{float(noise.max()):.2f} at σ = {noise.idxmax().item():.2g}. It falls furthest short of "
        f"the base's own weights at as few steps at {cell['layer']}, σ = {cell['level']:.2g}: "
        f"{mine} against {few}, intervals that {apart}. {null} of {cka.size} cells cannot be told "
        "from unrelated prompts. Procrustes distance and mutual neighbours rank the cells with "
        f"Spearman {ranks[0]:.2f} and {ranks[1]:.2f}."
    )


def _said_of_baselines(found: xr.Dataset, inside: xr.Dataset) -> str:
    blank, few = (float(inside["cka"].sel(network=n).mean()) for n in (UNTRAINED, FEW))
    x_t = found["cka"].sel(layer=X_T).drop_sel(network=[FEW, UNTRAINED]).mean("network")
    text = (
        f"Mean CKA with the base, beside that: its own weights at as few steps {few:.2f}, an "
        "untrained network "
    )
    text += f"{blank:.2f}"
    if "seed_to_seed" in inside:
        text += f", the base under other seeds {float(inside['seed_to_seed'].mean()):.2f}"
    return f"{text}; x_t itself, at the lowest noise, {float(x_t[-1]):.2f}."
