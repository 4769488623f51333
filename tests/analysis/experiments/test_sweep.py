"""A sweep of base steps: its end is the student, and its arms are the hybrids."""

import numpy as np
import pytest

import xhat
from xhat.analysis.sampling.arms import Arm, measure_arms
from xhat.figures import draw
from xhat.probes.features import feature_space

PROMPTS, SEEDS = ["a planet", "a critter"], range(3)


@pytest.fixture(scope="module")
def pair():
    return xhat.load_pair("demo")


@pytest.mark.slow
def test_no_step_of_the_base_is_the_student_and_costs_grow(pair):
    found = xhat.sweep(pair.base, pair.student, (0, 2), prompts=PROMPTS, seeds=SEEDS)
    assert found["base_steps"].values.tolist() == [0, 2]
    assert found["evaluations"].values[0] == 4 < found["evaluations"].values[1]
    alone = measure_arms(
        {"student": Arm(pair.student)}, PROMPTS, SEEDS, space=feature_space("judge", pair.base)
    )
    mean = found["vendi_q2"].sel(base_steps=0, bound="estimate")
    np.testing.assert_allclose(mean, alone["vendi_q2"].mean())
    assert draw("sweep", found).axes


def test_steps_that_the_student_has_not_are_refused(pair):
    for wrong in ((5,), (-1,), (True,), (1.0,)):
        with pytest.raises(ValueError, match="from 0 to the student's 4 steps"):
            xhat.sweep(pair.base, pair.student, wrong, prompts=PROMPTS, seeds=SEEDS)
    with pytest.raises(ValueError, match="must differ"):
        xhat.sweep(pair.base, pair.student, (1, 1), prompts=PROMPTS, seeds=SEEDS)
