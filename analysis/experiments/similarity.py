"""Where, along depth and noise, distillation changed the representation: base against students,
with baselines.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from xhat.analysis.experiments.setting import Setting, students_alike
from xhat.analysis.intervals import BOUNDS, bounded, format_interval
from xhat.analysis.result import Result
from xhat.analysis.sampling.joined_grid import at_levels, passing, sigmas_of
from xhat.analysis.sampling.untrained import untrained
from xhat.analysis.table import Column, Table
from xhat.analysis.traces.layers import X_T
from xhat.analysis.traces.similarity_map import similarity_map
from xhat.hooks.points.table import points
from xhat.hooks.trace import trace
from xhat.zoo.family.attributes import OPEN_PROMPTS

LAYERS = re.compile(r"in|out|h|(down|up)\.\d+(\.attn\.\d+)?|(block|single)\.\d+")
FEW, UNTRAINED = "base_few", "untrained"
BESIDE = ("procrustes", "mutual_knn")


@dataclass(frozen=True, kw_only=True)
class Similarity(Setting):
    """What :func:`measure_similarity` is asked.

    Parameters
    ----------
    students
        Names of students of the pair (default: those with the base's layers and weights of
        their own).
    hooks
        Hook points to read (default: blocks and attentions along the depth, :func:`layers`).
    permutations
        Of prompts, behind ``p_map``.
    """

    prompts: Sequence[str] = OPEN_PROMPTS[:8]
    seeds: Sequence[int] = range(16)
    batch_size: int = 16
    students: Sequence[str] = ()
    hooks: Sequence[str] = ()
    permutations: int = 199


def measure_similarity(config: Similarity, *, cache: Path) -> Result:
    """Each layer of the base against the same layer of every student, at equal noise, samples
    matched.

    Parameters
    ----------
    cache
        Grams of every layer are traced into ``CACHE/traces``; a run that was stopped goes on there.

    Returns
    -------
    Result
        ``data["similarity_map"]`` (network, level, layer), level being the noise levels of the
        students' steps: ``cka`` (debiased) with ``bound`` (jackknife over prompts) and ``p_map``
        (prompts exchanged, corrected over the map); ``procrustes``, ``mutual_knn``. Networks: the
        students; ``base_few``, the base's own weights on the first student's grid, unguided, which
        moves the trajectory and nothing else; ``untrained``, a student's network with weights drawn
        anew. ``seed_to_seed`` (level, layer): the base under one half of the seeds against the
        other, what prompts alone give. The last layer is x_t, the input.

    Raises
    ------
    ValueError
        For fewer than two prompts, which intervals are over, and students that the pair has not.
    """
    if len(config.prompts) < 2:
        raise ValueError("intervals are over prompts: give two or more")
    pair = config.models()
    names = list(config.students) or students_alike(pair)
    if missing := [name for name in names if name not in pair.students]:
        raise ValueError(
            f"{pair.name} has no student {missing[0]!r}: it has {', '.join(pair.students)}"
        )
    points = list(config.hooks) or layers(pair.base)
    traces = _traces(pair, names, points, config, cache)
    base = traces.pop("base")
    maps = [same_layers(base, other, config.permutations) for other in traces.values()]
    networks = xr.DataArray(list(traces), dims="network", name="network")
    joined = xr.concat(maps, networks, join="outer", coords="minimal")
    if "seed_to_seed" in joined:  # of the base, the same beside every network
        joined["seed_to_seed"] = joined["seed_to_seed"].isel(network=0)
    joined = joined.sortby("level", ascending=False).sel(layer=[*points, X_T])
    text = sentences(joined)
    data = joined.assign_attrs(finding="\n\n".join(text), pair=pair.name)
    return Result(
        "similarity", {"similarity_map": data}, similarity_table(data), text, config.settings()
    )


def _traces(
    pair: Any, names: list[str], points: list[str], config: Similarity, cache: Path
) -> dict[str, Any]:
    """Of every network, with the Gram matrices of the points."""
    return {
        name: trace(
            pipe,
            config.prompts,
            seeds=config.seeds,
            hooks=dict.fromkeys(points, "gram"),
            store=cache / "traces" / f"similarity_{name}.zarr",
            batch_size=config.batch_size,
            **call,
        )
        for name, (pipe, call) in _networks(pair, names).items()
    }


def similarity_table(data: xr.Dataset) -> Table:
    """Mean CKA with the base over the layers, by network and noise level."""
    inside = data["cka"].sel(layer=[n for n in data["layer"].values if n != X_T], bound="estimate")
    means = inside.mean("layer").transpose("network", "level")
    columns = ["mean CKA with the base", *(f"σ = {s:.3g}" for s in data["level"].values)]
    rows = [[str(n), *means.sel(network=n).values.tolist()] for n in data["network"].values]
    caption = f"Debiased CKA at equal noise, mean over {inside.sizes['layer']} layers."
    return Table([Column(c, decimals=2) for c in columns], rows, caption)


def layers(pipe: Any, most: int = 16) -> list[str]:
    """Points along the depth of a denoiser, in its own order: blocks and attentions, evenly thinned
    to ``most``.
    """
    names = [point.alias for point in points(pipe) if LAYERS.fullmatch(point.alias)]
    spread = np.linspace(0, len(names) - 1, min(most, len(names)))
    return [names[i] for i in np.unique(spread.round().astype(int))]


def _networks(pair: Any, names: list[str]) -> dict[str, tuple[Any, Mapping[str, Any]]]:
    """Name → pipeline and what it is called with."""
    first = pair.students[names[0]]
    levels = {s for name in names for s in sigmas_of(pair.students[name])}
    few = at_levels(pair.base, sigmas_of(first))
    networks: dict[str, tuple[Any, Mapping[str, Any]]] = {
        "base": (passing(pair.base, sorted(levels)), {})
    }
    networks |= {name: (pair.students[name], {}) for name in names}
    return networks | {FEW: (few, {"guidance_scale": 1.0}), UNTRAINED: (untrained(first), {})}


def same_layers(base: Any, other: Any, permutations: int = 199) -> xr.Dataset:
    """(level, layer) similarity of two traces of one architecture, layer by layer, at the noise
    levels they share.
    """
    cells = similarity_map(base, other, permutations=permutations)
    names = cells["layer_a"].values
    if not np.array_equal(names, cells["layer_b"].values):
        raise ValueError(
            f"both networks must be read at the same points: {names.tolist()}, "
            f"{cells['layer_b'].values.tolist()}"
        )
    beside = {m: similarity_map(base, other, measure=m, by=None)["similarity"] for m in BESIDE}
    arrays = {"p_map": cells["p_map"], **beside}
    data = {name: (("level", "layer"), _diagonal(array)) for name, array in arrays.items()}
    interval = [_diagonal(cells["interval"].sel(bound=b)) for b in BOUNDS]
    level = np.array([float(f"{s:.4g}") for s in cells["sigma_a"].values])
    result = xr.Dataset(data, {"level": level, "layer": names})
    result["cka"] = bounded(*interval, dims=("level", "layer"), **cells["interval"].attrs)
    if "seed_to_seed_a" in cells:
        values = cells["seed_to_seed_a"].transpose("pair", "layer_a").values
        result["seed_to_seed"] = (("level", "layer"), values)
    attrs = {name: cells.attrs[name] for name in ("null", "units", "n", "permutations")}
    return result.assign_attrs(attrs)


def _diagonal(array: xr.DataArray) -> np.ndarray:
    return np.diagonal(array.transpose("pair", "layer_a", "layer_b").values, axis1=1, axis2=2)


def sentences(data: xr.Dataset) -> tuple[str, ...]:
    """Where the students' representations leave the base's: a paragraph a student, then the
    baselines.
    """
    students = [n for n in data["network"].values.tolist() if n not in (FEW, UNTRAINED)]
    inside = data.sel(layer=[name for name in data["layer"].values if name != X_T])
    return (*(_of_student(inside, name) for name in students), _of_baselines(data, inside))


def _of_student(inside: xr.Dataset, name: str) -> str:
    estimates = inside["cka"].sel(bound="estimate")
    cka = estimates.sel(network=name).dropna("level", how="all")
    depth, noise = cka.mean("level"), cka.mean("layer")
    excess = estimates.sel(network=FEW) - cka
    cell = {dim: excess[dim].values[i] for dim, i in excess.argmax(("level", "layer")).items()}
    mine, few = (inside["cka"].sel({"network": n, **cell}) for n in (name, FEW))
    null = int((inside["p_map"].sel(network=name) > 0.05).sum())
    ranks = [
        spearmanr(
            cka.values.ravel(),
            inside[m].sel(network=name, level=cka["level"]).values.ravel(),
            nan_policy="omit",
        )[0]
        for m in BESIDE
    ]
    return (
        f"{name}: CKA with the base runs {_range(depth, 'over depth', str)}"
        f"{_over_noise(noise)}. It falls furthest short of "
        f"the base's own weights at as few steps, guidance 1, at {cell['layer']}, "
        f"σ = {cell['level']:.2g}: {format_interval(mine)} against {format_interval(few)}, a cell "
        f"that was picked for it. {null} of {cka.size} cells cannot be told from unrelated "
        "prompts. Procrustes distance and "
        f"mutual neighbours rank the cells with Spearman {ranks[0]:.2f} and {ranks[1]:.2f}."
    )


def _over_noise(cka: xr.DataArray) -> str:
    """The clause on noise levels: the only one that the two share, or the range over several."""
    if cka.size == 1:
        return f", at σ = {cka['level'].item():.2g}, the only noise level that both pass"
    return f"; {_range(cka, 'over noise', lambda level: f'σ = {level:.2g}')}"


def _range(cka: xr.DataArray, over: str, text: Callable[[Any], str]) -> str:
    low, high = text(cka.idxmin().item()), text(cka.idxmax().item())
    return f"{over} from {float(cka.min()):.2f} at {low} to {float(cka.max()):.2f} at {high}"


def _of_baselines(data: xr.Dataset, inside: xr.Dataset) -> str:
    mean = inside["cka"].sel(bound="estimate").mean(("level", "layer"))
    blank, few = (float(mean.sel(network=n)) for n in (UNTRAINED, FEW))
    x_t = data["cka"].sel(layer=X_T, bound="estimate").drop_sel(network=[FEW, UNTRAINED])
    text = (
        f"Mean CKA with the base, beside that: its own weights at as few steps, guidance 1, "
        f"{few:.2f}, an "
        f"untrained network {blank:.2f}"
    )
    if "seed_to_seed" in inside:
        text += f", the base under other seeds {float(inside['seed_to_seed'].mean()):.2f}"
    return f"{text}; x_t itself, at the lowest noise, {float(x_t.mean('network')[-1]):.2f}."
