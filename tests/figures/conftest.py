"""Small data of every figure, made without a model."""

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.intervals import bounded
from xhat.analysis.traces.curves import join_curves
from xhat.figures.kit.data import save_data

PROMPT = "<script>alert('x')</script> & a $planet$"
LEVELS = {
    "base": [14.0, 8, 4, 2, 1.6, 1, 0.7, 0.2],
    "student": [14.0, 4, 1.6, 0.7],
    "hybrid": [14.0, 4, 1.6, 0.7],
}


def curve(sigma, names):
    steps = len(sigma)
    mean = np.linspace(1, 2, steps)
    interval = bounded(mean, mean - 0.1, mean + 0.1, level=0.95, method="x", dims="step")
    return xr.Dataset(
        {f"{name}_mean": interval for name in names},
        {"sigma": ("step", np.array(sigma)), "timestep": ("step", np.arange(steps)[::-1])},
    )


@pytest.fixture(scope="session")
def frames():
    rng = np.random.default_rng(0)
    models = [
        (name, step, sigma) for name, levels in LEVELS.items() for step, sigma in enumerate(levels)
    ]
    names, steps, sigmas = zip(*models, strict=True)
    pictures = rng.integers(0, 256, (len(models), 2, 2, 8, 8, 3), dtype="uint8")
    coords = {
        "model": ("frame", list(names)),
        "step": ("frame", list(steps)),
        "sigma": ("frame", list(sigmas)),
    }
    dims = ("frame", "prompt", "seed", "y", "x", "rgb")
    return xr.Dataset(
        {"frames": (dims, pictures)}, {**coords, "prompt": [PROMPT, "a critter"], "seed": [0, 7]}
    )


@pytest.fixture(scope="session")
def wall_frames():
    """A wall whose seeds have a colour each, brighter at every step."""
    from xhat.analysis.traces.wall import encoded

    rng = np.random.default_rng(3)
    seeds, prompts, most = 6, 2, max(map(len, LEVELS.values()))
    hues = rng.integers(80, 256, (seeds, 3))
    sheets = []
    for levels in LEVELS.values():
        fade = np.linspace(0.2, 1, len(levels))[:, None, None]
        colours = np.round(hues * fade).astype("uint8")  # (step, seed, rgb)
        sheets.append([colours.repeat(8, 0).repeat(8, 1)] * prompts)
    sigma, vendi = np.full((3, most), np.nan), np.full((3, prompts, most), np.nan)
    place = np.full((3, prompts, most, seeds, 2), np.nan, "float32")
    for i, levels in enumerate(LEVELS.values()):
        n = len(levels)
        sigma[i, :n], vendi[i, :, :n] = levels, np.linspace(1.2, 2 - i / 3, n)
        place[i, :, :n] = rng.normal(size=(prompts, n, seeds, 2))
    variables = {
        "sheet": (("model", "prompt", "byte"), encoded(sheets)),
        "sigma": (("model", "step"), sigma),
        "vendi_q2": (("model", "prompt", "step"), vendi),
        "place": (("model", "prompt", "step", "seed", "axis"), place),
    }
    coords = {"model": list(LEVELS), "prompt": [PROMPT, "a critter"], "seed": [0, 1, 2, 5, 7, 9]}
    return xr.Dataset(variables, coords)


@pytest.fixture(scope="session")
def measured():
    rng = np.random.default_rng(1)
    level = {"base": 2.0, "base_few": 1.9, "student": 1.5, "hybrid": 1.8}
    names = ("vendi_q2", "attribute_entropy", "mean_pairwise_distance", "fidelity")
    arms, prompts = list(level), [PROMPT, "a critter", "a plant", "a planet"]
    values = np.array(list(level.values()))[:, None] + rng.normal(0, 0.01, (4, 4))
    found = dict.fromkeys(names, (("arm", "prompt"), values))
    found |= {"evaluations": ("arm", [40.0, 8, 4, 4]), "seconds": ("arm", [0.4, 0.08, 0.04, 0.04])}
    return xr.Dataset(found, {"arm": arms, "prompt": prompts}, {"n_seeds": 24, "student": "dmd"})


@pytest.fixture(scope="session")
def similarity():
    rng = np.random.default_rng(2)
    shape, dims = (4, 3, 5), ("network", "level", "layer")
    cka = rng.uniform(0.2, 0.9, shape)
    found = {"p_map": rng.choice([0.01, 0.5], shape), "procrustes": 1 - cka, "mutual_knn": cka**2}
    coords = {"network": ["dmd", "lcm", "base_few", "untrained"], "level": [14.0, 4, 0.7]}
    data = xr.Dataset(
        {k: (dims, v) for k, v in found.items()},
        {**coords, "layer": ["in", "down.0", "h", "out", "x_t"]},
    )
    how = {"level": 0.95, "method": "by hand"}
    data["cka"] = bounded(cka, cka - 0.1, cka + 0.1, dims=dims, **how)
    data["seed_to_seed"] = (dims[1:], rng.uniform(0.2, 0.9, shape[1:]))
    return data


@pytest.fixture(scope="session")
def schematic():
    rows = [("base", "base", s) for s in LEVELS["base"]] + [
        ("student", "student", s) for s in LEVELS["student"]
    ]
    rows += [("hybrid", "base" if i == 0 else "student", s) for i, s in enumerate(LEVELS["hybrid"])]
    columns = zip(("plan", "model", "sigma"), zip(*rows, strict=True), strict=True)
    return xr.Dataset({name: ("step", np.array(column)) for name, column in columns})


@pytest.fixture(scope="session")
def run(tmp_path_factory, frames, wall_frames, measured, similarity, schematic):
    """A run's folder with data of all figures of this kind, whose first prompt is hostile."""
    folder = tmp_path_factory.mktemp("run")
    pictures = np.zeros((3, 2, 4, 8, 8, 3), dtype="uint8")
    dims = ("model", "prompt", "seed", "y", "x", "rgb")
    coords = {"model": list(LEVELS), "prompt": [PROMPT, "a critter"], "seed": range(4)}
    every = {
        "samples": xr.Dataset({"images": (dims, pictures)}, coords),
        "filmstrip": frames,
        "wall": wall_frames,
        "diversity": join_curves(
            {n: curve(s, ("vendi_q2", "attribute_entropy")) for n, s in LEVELS.items()}
        ),
        "commitment": join_curves(
            {n: curve(s, ("cosine", "committed")) for n, s in LEVELS.items()}
        ),
        "schematic": schematic,
        "similarity_map": similarity.assign_attrs(finding="the lowest CKA is at <h>"),
        "measured": measured,
    }
    for name, data in every.items():
        save_data(data, folder, name)
    return folder
