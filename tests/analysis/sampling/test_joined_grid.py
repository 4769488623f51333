"""A schedule that also passes the noise levels of another model's."""

import numpy as np
import pytest

import xhat
from xhat.analysis.sampling.effects import free_runs
from xhat.analysis.sampling.joined_grid import at_levels, passing, sigmas_of


@pytest.fixture(scope="module")
def pair():
    return xhat.load_pair("demo")


def test_the_levels_of_a_pipeline_are_those_of_its_own_grid(pair):
    tree = xhat.trace(pair.student, "a planet", seeds=[0], progress=False)
    np.testing.assert_allclose(sigmas_of(pair.student), tree["sigma"].values, rtol=1e-6)


def test_a_pipeline_that_has_the_levels_is_itself(pair):
    assert passing(pair.base, sigmas_of(pair.base)[:3]) is pair.base
    assert passing(pair.student, sigmas_of(pair.student)[1:]) is pair.student


def test_levels_that_are_one_to_rounding_are_passed_once(pair):
    own, wanted = sigmas_of(pair.base), sigmas_of(pair.student)
    twice = [*wanted, *(1.0001 * s for s in wanted)]
    assert len(sigmas_of(passing(pair.base, twice))) == len(own) + 3


def test_a_pipeline_is_put_on_the_levels_alone(pair):
    wanted = sigmas_of(pair.student)
    np.testing.assert_allclose(sigmas_of(at_levels(pair.base, wanted)), wanted, rtol=1e-4)
    assert at_levels(pair.student, wanted) is pair.student


def test_the_students_levels_are_put_into_the_bases_schedule(pair):
    wanted, own = sigmas_of(pair.student), sigmas_of(pair.base)
    runs = free_runs(passing(pair.base, wanted), ["a planet"], [0, 1])
    sigma = runs["sigma"].values
    assert len(sigma) == len(own) + 3  # all but the first are new
    for level in (*own, *wanted):
        assert np.abs(np.log(sigma / level)).min() < 1e-4
    plain = free_runs(pair.base, ["a planet"], [0, 1])
    before = int((sigma > wanted[1] * 1.01).sum())
    np.testing.assert_allclose(runs["x0"][:, :, :before], plain["x0"][:, :, :before], atol=1e-4)
    assert not np.array_equal(runs["final"], plain["final"])
