"""Values by seed: identities with the plain formulas, and no bias of few seeds."""

from __future__ import annotations

import numpy as np
import pytest

from xhat.analysis.measures.by_seed import entropy_by_seed, pairs_by_seed, vendi_q2_by_seed
from xhat.analysis.measures.diversity import attribute_entropy, similarities, vendi


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_the_mean_over_seeds_is_the_mean_over_pairs(rng):
    x = rng.normal(size=(7, 3))
    k = x @ x.T
    assert pairs_by_seed(k).mean() == pytest.approx(k[np.triu_indices(7, 1)].mean())
    np.testing.assert_allclose(pairs_by_seed(np.stack([k, 2 * k]))[1], 2 * pairs_by_seed(k))


def test_entropy_by_seed_is_the_jackknife_of_the_plain_one(rng):
    labels = rng.integers(0, 4, size=9)
    plain = attribute_entropy(labels, 4)
    without = [attribute_entropy(np.delete(labels, i), 4) for i in range(9)]
    np.testing.assert_allclose(entropy_by_seed(labels, 4), 9 * plain - 8 * np.array(without))


def modes(rng, share, shape):
    return rng.choice(len(share), size=shape, p=share)


@pytest.mark.parametrize("share", [(0.25,) * 4, (0.7, 0.1, 0.1, 0.1), (1.0, 0, 0, 0)])
@pytest.mark.parametrize("n", [8, 12, 24])
def test_few_seeds_do_not_make_less_diversity(rng, share, n):
    """Vendi of modes whose samples are alike within and orthogonal across is 1/Σp²."""
    labels = modes(rng, share, (4000, n))
    k = np.where(labels[:, :, None] == labels[:, None, :], 1.0, 0.1)
    truth = 1 / (0.01 + 0.99 * np.square(share).sum())
    found = vendi_q2_by_seed(k).mean()
    plain = np.mean(n**2 / np.square(k).sum((1, 2)))
    assert abs(found - truth) <= max(0.03 * truth, 0.32 * abs(plain - truth))
    share = np.array(share)
    entropy = -(share * np.log(np.where(share > 0, share, 1))).sum() / np.log(4)
    assert entropy_by_seed(labels, 4).mean() == pytest.approx(entropy, abs=0.04)


def test_many_seeds_are_the_plug_in(rng):
    x = rng.normal(size=(400, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    assert vendi_q2_by_seed(x @ x.T).mean() == pytest.approx(vendi(x, q=2), rel=0.01)


def test_alike_and_orthogonal_samples():
    np.testing.assert_allclose(vendi_q2_by_seed(np.ones((5, 5))), 1)
    assert np.isinf(vendi_q2_by_seed(np.eye(5))).all()


@pytest.mark.parametrize("k", [np.ones((2, 2)), np.ones(3), np.ones((3, 4))])
def test_refusals(k):
    with pytest.raises(ValueError):
        vendi_q2_by_seed(k)
    with pytest.raises(ValueError, match="3 seeds"):
        entropy_by_seed([0, 1], 2)


def means_at(values, kernel, entropy_of, size, runs=1500):
    """Mean over runs of ``size`` seeds each: (estimate, plug-in) of Vendi, and of entropy."""
    rng = np.random.default_rng(3)
    rows = np.stack([rng.choice(len(values), size, replace=False) for _ in range(runs)])
    k = kernel[rows[:, :, None], rows[:, None, :]]
    labels, n = values[rows], entropy_of
    vendis = vendi_q2_by_seed(k).mean(), (size**2 / np.square(k).sum((1, 2))).mean()
    plug_in = np.mean([attribute_entropy(x, n) for x in labels])
    return vendis, (entropy_by_seed(labels, n).mean(), plug_in)


@pytest.mark.parametrize("size", [8, 12, 24])
def test_estimates_at_few_seeds_are_the_value_at_four_thousand(size):
    """Six uneven modes, pictures of one mode alike and of two at cosine 0.3."""
    rng = np.random.default_rng(2)
    shares = np.array([0.35, 0.25, 0.15, 0.1, 0.1, 0.05])
    modes = rng.choice(6, p=shares, size=4000)
    kernel = np.where(modes[:, None] == modes, 1.0, 0.3)
    value = 4000**2 / np.square(kernel).sum()
    entropy = attribute_entropy(modes, 6)
    (vendi_few, vendi_plug_in), (few, plug_in) = means_at(modes, kernel, 6, size)
    assert vendi_few == pytest.approx(value, rel=0.05)
    assert few == pytest.approx(entropy, rel=0.04)
    assert vendi_plug_in < value * (1 - 1.2 / size)
    assert plug_in < entropy * (1 - 1 / size)


@pytest.mark.slow
def test_estimates_at_few_seeds_are_the_value_of_the_embedded_world():
    """1200 pictures of planets as the judge embeds them, their colours known from rendering."""
    import random

    from xhat.zoo.family.attributes import sample_scene
    from xhat.zoo.family.judge import load_judge
    from xhat.zoo.family.render import render

    rng = random.Random(0)
    scenes = [sample_scene("planet", rng) for _ in range(1200)]
    features = load_judge().embed(np.stack([render(s, i) for i, s in enumerate(scenes)]))
    kernel = similarities(features)
    colours = np.array([scene.labels["colour"] for scene in scenes])
    value = len(kernel) ** 2 / np.square(kernel).sum()
    for size in (8, 12, 24):
        (few, plug_in), (entropy, short) = means_at(colours, kernel, 7, size)
        assert few == pytest.approx(value, rel=0.05), size
        assert plug_in < value * (1 - 1 / size)
        assert entropy == pytest.approx(attribute_entropy(colours, 7), abs=0.03)
        assert short < 1 - 1.5 / size
