"""Maps of two traces: equal to the measures on arrays, Grams equal to activations, and honest about
chance.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xhat.analysis import cka, similarity_map
from xhat.analysis.crossed import crossed_jackknife
from xhat.analysis.intervals import excludes
from xhat.analysis.measures.similarity import mutual_knn, procrustes, rsa, svcca

P, S = 6, 4
PROMPTS, SEEDS = [f"prompt {p}" for p in range(P)], np.arange(10, 10 + S)
SIGMA_A, SIGMA_B = np.array([10.0, 3, 1, 0.3]), np.array([10.0, 1.0])
MEASURES = {
    "cka": (cka, {}),
    "mutual_knn": (mutual_knn, {"k": 4}),
    "rsa": (rsa, {"metric": "sqeuclidean"}),
    "svcca": (svcca, {"dims": 2}),
    "procrustes": (procrustes, {}),
}


def traced(layers, latents, sigma, prompts=PROMPTS, seeds=SEEDS):
    """A trace of layers {name: (prompt, seed, step, …)} or {name: Gram (step, sample,
    sample_other)}.
    """
    root = xr.Dataset(
        {"latents": (("prompt", "seed", "step", "channel", "y", "x"), latents)},
        {"prompt": prompts, "seed": seeds, "sigma": ("step", sigma)},
    )
    nodes = {"/": root}
    for name, value in layers.items():
        dims = {
            3: ("step", "sample", "sample_other"),
            4: ("prompt", "seed", "step", "feature"),
        }.get(value.ndim, ("prompt", "seed", "step", "branch", "feature"))
        coords = {"branch": ["uncond", "cond"]} if "branch" in dims else {}
        nodes[f"/activations/{name}"] = xr.Dataset({"value": (dims, value)}, coords)
    return xr.DataTree.from_dict(nodes)


@pytest.fixture
def world():
    """Latents, and activations of a network (two layers) and a wider one (three) on half of its
    steps.
    """
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(P, S, 4, 2, 2, 2))
    meaning = rng.normal(size=(P, 1, 4, 5)) + 0.7 * rng.normal(size=(P, S, 4, 5))
    a = {
        "first": meaning @ rng.normal(size=(5, 6)),
        "second": np.tanh(meaning @ rng.normal(size=(5, 7))),
    }
    half, turn = meaning[:, :, ::2], np.linalg.qr(rng.normal(size=(9, 9)))[0]
    b = {
        "near": a["first"][:, :, ::2] @ turn[:6] + rng.normal(size=(P, S, 2, 9)),
        "noise": rng.normal(size=(P, S, 2, 8)),
        "far": half**2 @ rng.normal(size=(5, 4)),
    }
    return (a, latents), (b, latents[:, :, ::2])


@pytest.fixture
def pair(world):
    return traced(*world[0], SIGMA_A), traced(*world[1], SIGMA_B)


def rows(value, step):
    return value[:, :, step].reshape(P * S, -1)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_map_is_the_measure_of_every_pair_at_equal_noise(world, pair, measure):
    call, options = MEASURES[measure]
    found = similarity_map(*pair, measure=measure, by=None, **options)
    assert found["similarity"].dims == ("pair", "layer_a", "layer_b")
    assert found["step_a"].values.tolist() == [0, 2]
    assert found["step_b"].values.tolist() == [0, 1]
    np.testing.assert_array_equal(found["sigma_a"], found["sigma_b"])
    (a, latents_a), (b, latents_b) = world
    for i, (s, t) in enumerate([(0, 0), (2, 1)]):
        for name_a, x in (a | {"x_t": latents_a}).items():
            for name_b, y in (b | {"x_t": latents_b}).items():
                cell = found["similarity"].isel(pair=i).sel(layer_a=name_a, layer_b=name_b)
                assert float(cell) == pytest.approx(
                    call(rows(x, s), rows(y, t), **options), abs=1e-7
                )


def test_without_alignment_every_step_meets_every_other(world, pair):
    found = similarity_map(*pair, align=None, by=None)
    assert found["similarity"].dims == ("layer_a", "step_a", "layer_b", "step_b")
    assert dict(found.sizes) == {"layer_a": 3, "step_a": 4, "layer_b": 4, "step_b": 2}
    x, y = rows(world[0][0]["second"], 3), rows(world[1][0]["far"], 1)
    cell = found["similarity"].sel(layer_a="second", layer_b="far").isel(step_a=3, step_b=1)
    assert float(cell) == pytest.approx(cka(x, y))
    aligned = similarity_map(*pair, by=None)
    for name in ("similarity", "seed_to_seed_a", "seed_to_seed_b"):
        whole = found[name]
        steps = {d: [aligned[d].values[1]] for d in ("step_a", "step_b") if d in whole.dims}
        np.testing.assert_allclose(
            whole.isel(steps).values.ravel(), aligned[name][1].values.ravel()
        )


@pytest.mark.slow
@pytest.mark.parametrize("measure", MEASURES)
def test_a_map_from_grams_equals_the_map_from_activations(world, pair, measure):
    def grams(value):
        return np.stack([rows(value, s) @ rows(value, s).T for s in range(value.shape[2])])

    kept = [
        traced({k: grams(v) for k, v in layers.items()}, latents, sigma)
        for (layers, latents), sigma in zip(world, (SIGMA_A, SIGMA_B), strict=True)
    ]
    options = {"measure": measure, "permutations": 10, **MEASURES[measure][1]}
    xr.testing.assert_allclose(
        similarity_map(*kept, **options), similarity_map(*pair, **options), atol=1e-6
    )


def test_rsa_by_correlation_cannot_come_from_grams(world, pair):
    gram = traced({"first": np.stack([np.eye(P * S)] * 4)}, world[0][1], SIGMA_A)
    with pytest.raises(ValueError, match="Gram matrix"):
        similarity_map(gram, pair[1], measure="rsa")


def test_intervals_and_nulls_tell_likeness_from_noise(pair):
    found = similarity_map(*pair)
    near = found.sel(layer_a="first", layer_b="near")
    noise = found.sel(layer_a="first", layer_b="noise")
    assert (near["p_map"] <= 0.05).all()
    assert (near["similarity"] > near["critical"]).all()
    assert (near["interval"].sel(bound="low") > 0).all()
    assert (noise["p_map"] > 0.05).all()
    assert not excludes(noise["interval"]).any()
    method = "two-way jackknife, Student's t"
    assert found["interval"].attrs == {"level": 0.95, "method": method}
    inside = found["interval"].sel(bound="low") <= found["interval"].sel(bound="estimate")
    assert inside.all()
    assert found["p_map"].sel(layer_b="x_t").isnull().all()
    assert found["p"].notnull().all()
    assert {
        "null",
        "permutations",
        "measure",
        "n",
        "units",
        "unit",
        "level",
        "seed",
        "prompts",
        "seeds",
    } <= set(found.attrs)
    assert found.attrs["permutations"] == 199
    assert found.attrs["n"] == P * S
    assert found.attrs["units"] == P


@pytest.mark.slow
def test_distances_are_significant_where_small(pair):
    near = similarity_map(*pair, measure="procrustes").sel(layer_a="first", layer_b="near")
    assert (near["similarity"] < near["critical"]).all()
    assert (near["p_map"] <= 0.05).all()


def left_out(x, y, prompts, seeds):
    of = np.repeat(np.arange(prompts), seeds), np.tile(np.arange(seeds), prompts)
    return [
        [cka(x[unit != u], y[unit != u]) for u in range(count)]
        for unit, count in zip(of, (prompts, seeds), strict=True)
    ]


def test_the_interval_is_the_jackknife_over_prompts_and_seeds(world, pair):
    x, y = rows(world[0][0]["first"], 0), rows(world[1][0]["far"], 0)
    interval = crossed_jackknife(cka(x, y), *left_out(x, y, P, S), correct=False)
    cell = similarity_map(*pair).isel(pair=0).sel(layer_a="first", layer_b="far")
    expected = np.minimum([interval.estimate, interval.low, interval.high], 1)
    np.testing.assert_allclose(cell["interval"], expected)


@pytest.mark.parametrize(("seeds", "correct"), [(7, False), (8, True)])
def test_the_bias_is_taken_off_from_eight_prompts_and_seeds_on(seeds, correct):
    rng = np.random.default_rng(1)
    meaning = rng.normal(size=(8, seeds, 1, 5))
    a, b = ({"layer": meaning + rng.normal(size=meaning.shape)} for _ in range(2))
    latents = rng.normal(size=(8, seeds, 1, 2, 2, 2))
    trees = [
        traced(x, latents, SIGMA_A[:1], [f"prompt {p}" for p in range(8)], np.arange(seeds))
        for x in (a, b)
    ]
    x, y = (z["layer"].reshape(8 * seeds, 5) for z in (a, b))
    interval = crossed_jackknife(cka(x, y), *left_out(x, y, 8, seeds), correct=correct)
    cells = similarity_map(*trees, permutations=5).isel(pair=0)
    cell = cells.sel(layer_a="layer", layer_b="layer")
    np.testing.assert_allclose(
        cell["interval"], [interval.estimate, interval.low, interval.high], rtol=1e-6
    )


def test_neighbours_are_not_corrected_and_one_seed_leaves_prompts_alone(pair):
    found = similarity_map(*pair, measure="mutual_knn", k=4)
    np.testing.assert_allclose(found["interval"].sel(bound="estimate"), found["similarity"])
    lone = [tree.isel(seed=[0]) for tree in pair]
    cell = similarity_map(*lone, permutations=20)
    assert cell["interval"].attrs["method"] == "jackknife, Student's t"


def test_by_seed_the_null_exchanges_seeds(pair):
    seeds = similarity_map(*pair, by="seed", permutations=20)
    assert seeds.attrs["unit"] == "seed"
    assert seeds.attrs["units"] == S
    assert seeds.attrs["permutations"] == 20


def test_a_network_against_itself_is_one_and_shared_noise_is_the_last_layer(pair):
    found = similarity_map(pair[0], pair[0], by=None)
    for name in ("first", "second", "x_t"):
        np.testing.assert_allclose(found["similarity"].sel(layer_a=name, layer_b=name), 1)
    assert found["layer_a"].values[-1] == "x_t"
    assert found.sizes["pair"] == 4


def test_seed_to_seed_is_what_the_prompt_alone_explains(world, pair):
    found = similarity_map(*pair, by=None)
    x = world[0][0]["first"][:, :, 2]
    expected = cka(x[:, :2].reshape(12, -1), x[:, 2:].reshape(12, -1))
    cell = found["seed_to_seed_a"].sel(layer_a="first").isel(pair=1)
    assert float(cell) == pytest.approx(expected)
    assert found["seed_to_seed_b"].dims == ("pair", "layer_b")
    assert float(abs(found["seed_to_seed_b"].sel(layer_b="noise")).max()) < 0.3 < float(cell)


def test_the_untrained_network_stands_beside(world, pair):
    rng = np.random.default_rng(9)
    layers = {name: rng.normal(size=value.shape) for name, value in world[1][0].items()}
    blank = traced(layers, world[1][1], SIGMA_B)
    found = similarity_map(*pair, by=None, untrained=blank)
    assert float(
        found["untrained"].sel(layer_a="first", layer_b="near").isel(pair=0)
    ) == pytest.approx(cka(rows(world[0][0]["first"], 0), rows(layers["near"], 0)))
    with pytest.raises(ValueError, match="noise levels"):
        similarity_map(*pair, by=None, untrained=traced(layers, world[1][1], SIGMA_B * 2))
    del layers["far"]
    with pytest.raises(ValueError, match="points of trace_b"):
        similarity_map(*pair, by=None, untrained=traced(layers, world[1][1], SIGMA_B))


def test_the_ceiling_pairs_samples_by_place(world, pair):
    rng = np.random.default_rng(4)
    layers = {name: value + rng.normal(size=value.shape) for name, value in world[0][0].items()}
    other = traced(layers, world[0][1], SIGMA_A, seeds=SEEDS + 100)
    found = similarity_map(*pair, by=None, ceiling=other)
    assert found["ceiling_a"].dims == ("pair", "layer_a")
    expected = cka(rows(world[0][0]["second"], 2), rows(layers["second"], 2))
    assert float(found["ceiling_a"].sel(layer_a="second").isel(pair=1)) == pytest.approx(expected)
    np.testing.assert_allclose(similarity_map(*pair, by=None, ceiling=pair[0])["ceiling_a"], 1)
    with pytest.raises(ValueError, match="as many prompts and seeds"):
        similarity_map(*pair, by=None, ceiling=other.isel(seed=[0, 1]))
    with pytest.raises(ValueError, match="ceiling must be read where"):
        similarity_map(
            *pair, by=None, ceiling=traced({"first": layers["first"]}, world[0][1], SIGMA_A)
        )


def test_a_map_is_kept_in_a_file(pair, tmp_path):
    found = similarity_map(*pair, permutations=5, debiased=False)
    found.to_netcdf(tmp_path / "map.nc", engine="scipy")
    with xr.open_dataset(tmp_path / "map.nc", engine="scipy") as kept:
        xr.testing.assert_allclose(kept, found)
        assert kept.attrs["debiased"] == 0
        assert kept.attrs["null"] == found.attrs["null"]


def test_steps_are_paired_with_their_nearest_and_never_twice(world, pair):
    fine = np.array([11.0, 9.9, 1.02, 0.97])
    found = similarity_map(traced(*world[0], fine), pair[1], by=None, tolerance=0.1)
    assert list(zip(found["step_a"].values, found["step_b"].values, strict=True)) == [
        (1, 0),
        (2, 1),
    ]
    assert found["sigma_a"].values.tolist() == [9.9, 1.02]
    assert found["sigma_b"].values.tolist() == [
        10,
        1,
    ]
    alone = similarity_map(
        traced(*world[0], np.array([np.inf, 3, 1, 0.3])), traced(*world[1], np.array([np.inf, 0.9]))
    )
    assert alone["step_b"].values.tolist() == [0]
    assert alone.attrs["unpaired_b"] == [1]


@pytest.mark.parametrize("measure", MEASURES)
def test_a_null_is_the_measure_of_exchanged_samples(world, pair, measure):
    """Samples are exchanged inside what was prepared once: that must equal preparing the exchanged
    samples.
    """
    from xhat.analysis.traces.layers import measure_of

    how, order = (
        measure_of(measure, **MEASURES[measure][1]),
        np.random.default_rng(3).permutation(P * S),
    )
    kept = how.represent(rows(world[1][0]["far"], 0), "far")
    again = how.prepared(how.subset(kept, order), "far")
    np.testing.assert_allclose(how.prepared(kept, "far")[how.reordered(order)], again, atol=1e-12)


def test_steps_that_are_not_compared_are_not_read(world, pair):
    layers = {k: v.copy() for k, v in world[0][0].items()}
    layers["first"][0, 0, 1] = np.inf  # step 1 has no partner
    spoiled = traced(layers, world[0][1], SIGMA_A)
    xr.testing.assert_allclose(
        similarity_map(spoiled, pair[1], by=None), similarity_map(*pair, by=None)
    )


def test_samples_are_matched_by_name_not_by_place(pair):
    turned = pair[1].isel(prompt=[2, 0, 5, 3, 1, 4], seed=[3, 0, 1, 2])
    xr.testing.assert_allclose(similarity_map(pair[0], turned), similarity_map(*pair))


def test_gram_samples_are_matched_too(world, pair):
    (layers, latents), p, s = world[1], [2, 0, 5, 3, 1, 4], [3, 0, 1, 2]
    turned = {k: v[p][:, s] for k, v in layers.items()}
    grams = {k: np.stack([rows(v, t) @ rows(v, t).T for t in range(2)]) for k, v in turned.items()}
    tree = traced(grams, latents[p][:, s], SIGMA_B, [PROMPTS[i] for i in p], SEEDS[s])
    xr.testing.assert_allclose(
        similarity_map(pair[0], tree, by=None), similarity_map(*pair, by=None), atol=1e-9
    )


def test_the_conditional_branch_is_compared_unless_told(world, pair):
    layers, latents = world[1]
    both = {k: np.stack([-(v**3), v], axis=3) for k, v in layers.items()}
    guided = traced(both, latents, SIGMA_B)
    xr.testing.assert_allclose(
        similarity_map(pair[0], guided, by=None), similarity_map(*pair, by=None)
    )
    other = similarity_map(pair[0], guided, by=None, branch="uncond")
    assert not np.allclose(other["similarity"], similarity_map(*pair, by=None)["similarity"])
    with pytest.raises(ValueError, match="none is 'left'"):
        similarity_map(pair[0], guided, branch="left")


def test_layers_without_a_say_are_nan_and_spoil_nothing(world, pair):
    layers, latents = world[1]
    step_of_other = np.where(np.arange(2)[:, None] == 1, layers["near"], np.nan)
    more = layers | {"constant": np.ones((P, S, 2, 3)), "elsewhere": step_of_other}
    found = similarity_map(pair[0], traced(more, latents, SIGMA_B), permutations=10)
    plain = similarity_map(*pair, permutations=10)
    assert found["similarity"].sel(layer_b="constant").isnull().all()
    assert found["p"].sel(layer_b="constant").isnull().all()
    elsewhere = found["similarity"].sel(layer_b="elsewhere")
    assert elsewhere.isel(pair=0).isnull().all()
    assert elsewhere.isel(pair=1).notnull().all()
    names = [*layers, "x_t"]
    for name in ("similarity", "interval", "p", "null_mean"):
        xr.testing.assert_allclose(found[name].sel(layer_b=names), plain[name])


def test_refusals(world, pair):
    a, b = pair
    spoiled = {k: v.copy() for k, v in world[1][0].items()}
    spoiled["far"][0, 0, 1, 0] = np.nan
    bare = xr.DataTree(b.to_dataset())
    off, four = traced(*world[1], SIGMA_B * 1.01), {"seed": [0], "prompt": [0, 1, 2, 3]}
    for call, says in [
        (lambda: similarity_map(a, b, align="timestep"), "align"),
        (lambda: similarity_map(a, b, by="layer"), "by must be"),
        (lambda: similarity_map(a, b, measure="ckaa"), "measure must be one of"),
        (lambda: similarity_map(a, bare), "no activations"),
        (lambda: similarity_map(a, b.isel(seed=[0, 1])), "same prompts and seeds"),
        (lambda: similarity_map(a, off), "no noise level"),
        (lambda: similarity_map(a, traced(spoiled, world[1][1], SIGMA_B)), "far, step 1 holds NaN"),
        (lambda: similarity_map(a.isel(prompt=[0]), b.isel(prompt=[0])), "at least 2 prompts"),
        (lambda: similarity_map(a.isel(four), b.isel(four)), "3 samples are left"),
        (lambda: similarity_map(a, b, measure="mutual_knn", k=24), "24 samples are left"),
    ]:
        with pytest.raises(ValueError, match=says):
            call()
    assert similarity_map(a, off, tolerance=0.02, by=None).sizes["pair"] == 2


@pytest.mark.slow
def test_real_traces_end_to_end(tiny):
    """A small pipeline at four and at two steps, from activations and from Grams that were kept
    while tracing.
    """
    from xhat import trace

    pipe = tiny.sd()
    call = {"seeds": range(3), "progress": False, "guidance_scale": 2.0}
    prompts = ["a red robot", "a green planet", "a blue face"]
    points = ["down_blocks.0", "mid_block"]
    fine = trace(pipe, prompts, hooks=dict.fromkeys(points, "full"), num_inference_steps=4, **call)
    coarse = trace(
        pipe, prompts, hooks=dict.fromkeys(points, "full"), num_inference_steps=2, **call
    )
    gram = trace(
        pipe, prompts, hooks=dict.fromkeys(points, "gram(full)"), num_inference_steps=2, **call
    )
    found = similarity_map(fine, coarse, permutations=5)
    assert found.sizes["pair"] >= 1
    assert np.isfinite(found["similarity"]).all()
    assert found["layer_a"].values.tolist() == [*fine["activations"].children, "x_t"]
    for name, value in similarity_map(fine, gram, permutations=5).data_vars.items():
        np.testing.assert_allclose(value, found[name], atol=1e-5)
