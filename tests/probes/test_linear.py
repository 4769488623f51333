"""Linear probes: what is there is read, what is not is not, and the controls know the
difference.
"""

import numpy as np
import pytest
import xarray as xr

import xhat
from xhat.analysis.sampling.untrained import untrained_trace
from xhat.analysis.traces.attribute_labels import final_labels
from xhat.analysis.traces.decision_levels import decision_levels
from xhat.analysis.traces.probe_curves import PRED_X0, probe_curves
from xhat.figures.probe_curves import draw
from xhat.probes.features import JudgeSpace
from xhat.probes.linear import balanced_accuracy, control_labels, read_out, scored

N_GROUPS, N_SEEDS = 6, 20


def world(seed=0, classes=3, d=12, signal=2.0, noise_shared=0.0):
    """Features of groups × seeds that hold a label linearly, and maybe what is common to a seed."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, (N_GROUPS, N_SEEDS))
    directions, of_seed = rng.normal(size=(classes, d)), rng.normal(size=(N_SEEDS, d))
    x = (
        signal * directions[labels]
        + noise_shared * of_seed[None]
        + rng.normal(size=(N_GROUPS, N_SEEDS, d))
    )
    groups, seeds = np.divmod(np.arange(N_GROUPS * N_SEEDS), N_SEEDS)
    return x.reshape(-1, d), labels.reshape(-1), groups, seeds


def accuracy(x, y, groups, **options):
    return balanced_accuracy(y, read_out(x, [y], groups, **options)[0], scored(y, groups))


def test_what_is_there_is_read_and_what_is_not_is_not():
    x, y, groups, _ = world()
    assert accuracy(x, y, groups) > 0.95
    assert abs(accuracy(np.random.default_rng(1).normal(size=x.shape), y, groups) - 1 / 3) < 0.15


def test_a_label_of_the_group_alone_cannot_be_read_from_other_groups():
    """Every group has its own offset and its own label: random folds would read it, grouped folds
    cannot.
    """
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(8), 10)
    y = groups % 2
    x = rng.normal(size=(8, 16))[groups] * 5 + 0.1 * rng.normal(size=(80, 16))
    assert accuracy(x, y, groups) < 0.85
    assert accuracy(x, y, np.tile(np.arange(10), 8)) == 1.0


def test_units_and_scale_do_not_matter():
    x, y, groups, _ = world()
    scaled = x * np.logspace(-3, 3, x.shape[1]) + 7
    np.testing.assert_array_equal(read_out(x, [y], groups), read_out(scaled, [y], groups))


def test_more_label_sets_change_nothing_for_the_first():
    x, y, groups, seeds = world()
    control = control_labels(y, seeds)
    np.testing.assert_array_equal(
        read_out(x, [y], groups)[0], read_out(x, [y, control, y[::-1]], groups)[0]
    )


def test_rare_classes_are_not_drowned():
    """Nine of one class to one of the other: the probe is not to answer the frequent one to
    both.
    """
    rng = np.random.default_rng(0)
    y = (np.arange(400) % 10 == 0).astype(int)
    x = rng.normal(size=(400, 5)) + 1.2 * y[:, None]
    groups = np.arange(400) // 40
    read = read_out(x, [y], groups)[0]
    assert min((read[y == k] == k).mean() for k in (0, 1)) > 0.8


def test_the_control_is_a_label_of_each_unit():
    x, y, groups, seeds = world(noise_shared=3.0, signal=0.0)
    control = control_labels(y, seeds)
    assert all(len(set(control[seeds == s])) == 1 for s in range(N_SEEDS))
    assert (
        accuracy(x, control, groups) > 0.8
    )  # the noise that comes back under every prompt gives it away
    assert accuracy(x, y, groups) < 0.5


@pytest.mark.slow
def test_no_sample_is_read_by_a_probe_that_saw_its_group_or_its_unit():
    """A label of group and unit together: every other sample of either would give it away, and none
    may.
    """
    groups, seeds = np.divmod(np.arange(48), 8)
    for test in range(48):
        y = np.zeros(48, dtype=int)
        y[(groups == groups[test]) | (seeds == seeds[test])] = (
            1  # one class is all that shares something with it
        )
        assert read_out(np.eye(48)[:, ::-1] + y[:, None], [y], groups, units=seeds)[0, test] == 0


def test_balanced_accuracy_is_that_of_scikit_learn():
    from sklearn.metrics import balanced_accuracy_score

    rng = np.random.default_rng(0)
    y, read = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    assert balanced_accuracy(y, read, np.arange(4)) == pytest.approx(
        balanced_accuracy_score(y, read)
    )


def test_classes_of_one_group_or_a_few_samples_are_not_scored():
    y = np.array([0] * 10 + [1] * 10 + [2] * 3 + [3] * 7)
    groups = np.array([0, 1] * 10 + [0, 1, 0] + [1] * 7)
    assert scored(y, groups).tolist() == [0, 1]


def test_mistakes():
    x, y, groups, _ = world()
    with pytest.raises(ValueError, match="expected two or more, got one"):
        read_out(x, [y], np.zeros(len(y)))
    with pytest.raises(ValueError, match=r"labels \(sets, n\)"):
        read_out(x, y, groups)
    with pytest.raises(ValueError, match="NaN"):
        read_out(np.full_like(x, np.nan), [y], groups)


# on traces


def made_trace(signal_from=1, classes=3, noise_shared=0.0):
    """A trace of six prompts × twenty seeds × three steps whose layer holds the label from step
    ``signal_from`` on.
    """
    steps = []
    for s in range(3):
        x, y, *_ = world(
            0, classes, signal=2.0 if s >= signal_from else 0.0, noise_shared=noise_shared
        )
        steps.append(x.reshape(N_GROUPS, N_SEEDS, -1))
    rng = np.random.default_rng(5)
    coords = {"prompt": [f"p{i}" for i in range(N_GROUPS)], "seed": np.arange(N_SEEDS)}
    sigma = ("step", np.array([100.0, 1.0, 0.1]))
    small = ("prompt", "seed", "step", "channel", "y", "x")
    root = {
        k: (small, rng.normal(size=(N_GROUPS, N_SEEDS, 3, 1, 2, 2))) for k in ("latents", "pred_x0")
    }
    layer = xr.Dataset({"value": (("prompt", "seed", "step", "feature"), np.stack(steps, axis=2))})
    tree = xr.DataTree.from_dict(
        {
            "/": xr.Dataset(root, coords | {"sigma": sigma}),
            "/activations/a": layer,
            "/activations/b": layer * 0,
        }
    )
    labels = xr.DataArray(y.reshape(N_GROUPS, N_SEEDS), coords, ("prompt", "seed"))
    return tree, labels


@pytest.mark.slow
def test_curves_say_from_when_a_label_is_there():
    tree, labels = made_trace()
    found = probe_curves(tree, {"colour": labels}, permutations=19)
    bounds = found.sel(layer="a", attribute="colour")
    a = bounds.sel(bound="estimate")
    assert found["layer"].values.tolist() == ["a", "b", "x_t", PRED_X0]
    assert float(a["chance"]) == pytest.approx(1 / 3)
    assert int(a["samples"]) == N_GROUPS * N_SEEDS
    assert abs(a["task"][0] - 1 / 3) < 0.15
    assert (a["task"][1:] > 0.95).all()
    low, high = (bounds["task"].sel(bound=b) for b in ("low", "high"))
    assert ((low <= a["task"]) & (a["task"] <= high)).all()
    np.testing.assert_allclose(a["selectivity"], a["task"] - a["control"])
    assert a["p_map"][1] == pytest.approx(1 / 20)
    assert a["p_map"][0] > 0.05
    assert np.isnan(
        found.sel(layer="b")["task"]
    ).all()  # the same for every sample: there is nothing to read
    assert found.attrs["unit"] == "prompt"


@pytest.mark.slow
def test_shared_noise_is_seen_by_the_control_unless_folds_cross_the_seeds():
    tree, labels = made_trace(noise_shared=4.0)
    grouped = probe_curves(tree, {"colour": labels}, permutations=1, crossed=False).sel(
        layer="a", attribute="colour", bound="estimate"
    )
    crossed = probe_curves(tree, {"colour": labels}, permutations=1).sel(
        layer="a", attribute="colour", bound="estimate"
    )
    assert (grouped["control"] > 0.8).all()
    assert (crossed["control"] < 0.55).all()
    assert (crossed["task"][1:] > 0.65).all()


def test_by_seed_needs_no_second_prompt():
    tree, labels = made_trace()
    one = tree.isel(prompt=[0])
    found = probe_curves(one, {"colour": labels.isel(prompt=[0])}, by="seed", permutations=5)
    assert found.attrs["unit"] == "seed"
    assert np.isfinite(found["task"].sel(layer="a")).all()
    alone = probe_curves(one, {"colour": labels.isel(prompt=[0])}, permutations=5)
    assert np.isnan(alone["task"]).all()


def test_a_model_that_always_draws_the_same_leaves_nothing_to_read():
    tree, labels = made_trace()
    found = probe_curves(tree, {"colour": labels * 0}, permutations=3)
    assert np.isnan(found["task"]).all()
    assert np.isnan(found["chance"]).all()


@pytest.mark.slow
def test_attributes_apply_to_some_prompts():
    tree, labels = made_trace()
    some = labels.astype("U2").copy()
    some[0] = ""
    found = probe_curves(tree, {"colour": some}, permutations=3)
    assert int(found["groups"][0]) == N_GROUPS - 1
    with pytest.raises(ValueError, match="other seeds"):
        probe_curves(tree, {"colour": labels.assign_coords(seed=labels["seed"] + 1)})


@pytest.fixture(scope="module")
def traced():
    pair = xhat.load_pair("demo")
    prompts = ["a planet", "a big planet", "a critter"]
    call = {"num_inference_steps": 2, "guidance_scale": 1.0}
    tree = xhat.trace(
        pair.student,
        prompts,
        seeds=range(8),
        hooks=["h", "in@input"],
        progress=False,
        batch_size=24,
        **call,
    )
    return pair, tree


@pytest.mark.slow
def test_labels_are_of_the_final_pictures(traced):
    pair, tree = traced
    labels = final_labels(tree, JudgeSpace(pair.base.vae))
    assert {"colour", "background", "planet size", "critter eyes"} <= set(labels)
    assert (labels["planet size"][0] != "").all()
    assert (labels["planet size"][1:] == "").all()
    assert (labels["critter eyes"][2] != "").all()
    assert (labels["critter eyes"][:2] == "").all()
    assert (labels["colour"] != "").all()


@pytest.mark.slow
def test_an_untrained_network_reads_the_same_inputs(traced):
    pair, tree = traced
    other = untrained_trace(pair.student, tree)
    given, seen = (t["activations/in@input/value"].values for t in (tree, other))
    np.testing.assert_allclose(seen, given, atol=1e-5)
    assert not np.allclose(*(t["activations/h/value"].values for t in (tree, other)))


@pytest.mark.slow
def test_curves_of_models_side_by_side(traced):
    tree, labels = made_trace()
    later = {path: node.to_dataset(inherit=False) for path, node in tree.subtree_with_keys}
    later = {
        path: ds.isel(step=slice(1, None)) if "step" in ds.dims else ds
        for path, ds in later.items()
    }
    short = probe_curves(xr.DataTree.from_dict(later), {"colour": labels}, permutations=1)
    both = decision_levels(
        {"base": probe_curves(tree, {"colour": labels}, permutations=1), "student": short}, "a"
    )
    assert both["task"].dims == ("model", "attribute", "step", "bound")
    accuracy = both["task"].sel(bound="estimate")
    assert both.sizes["step"] == 3
    assert np.isnan(accuracy.sel(model="student")[0, 2])
    assert both["sigma"].sel(model="student")[0] == 1.0
    figure = draw(both)
    axis = figure.axes[0]
    assert axis.get_title() == "colour"
    assert axis.xaxis_inverted()
    assert len(axis.lines) == 2 * 3 + 1  # layer, x̂₀ and x_t of each model, and chance
    fresh = draw(both.assign(untrained=accuracy * 0.5)).axes[0]
    assert len(fresh.lines) == 2 * 4 + 1  # and the untrained network
    base = both.sel(model="base", attribute="colour")
    drawn = dict(zip(*axis.lines[0].get_data(), strict=True))  # from the least noise upward
    assert drawn == dict(zip(base["sigma"].values, base["task"].sel(bound="estimate"), strict=True))
    with pytest.raises(ValueError, match="no attribute could be probed"):
        draw(both.where(both["task"] > 2))
    with pytest.raises(ValueError, match="no layer 'c'"):
        decision_levels({"base": short}, "c")
