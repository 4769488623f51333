"""Planning a study: sizes that have the power they promise, and a pilot from end to end."""

from __future__ import annotations

import numpy as np
import pytest

from xhat.analysis.crossed import Components, components
from xhat.analysis.experiments.plan_study import PlanStudy, cautious, plan_study, planned
from xhat.analysis.result import Result
from xhat.analysis.verdicts import Size, detectable_effect, needed_size, verdict
from xhat.cli import main

TRUTH = Components(*(np.float64(x) for x in (0.09, 0.04, 0.25)), prompts=8, seeds=8)
EFFECT = 0.25


def study(rng, size, effect):
    parts = (TRUTH.prompt, (size.prompts, 1)), (TRUTH.seed, (1, size.seeds))
    parts = (*parts, (TRUTH.rest, (size.prompts, size.seeds)))
    return effect + sum(np.sqrt(variance) * rng.normal(size=shape) for variance, shape in parts)


@pytest.mark.slow
def test_planned_studies_have_the_power_they_promise():
    """From a pilot of 8 × 8 to the study: with its own variances, which are right on average,
    somewhat under 80 %; with the cautious ones 80 % or more after at least four pilots of five.
    """
    rng = np.random.default_rng(4)
    plain, safe, enough = [], [], []
    for _ in range(80):
        pilot = components(study(rng, Size(8, 8), 0))
        for each, told in ((pilot, plain), (cautious(pilot), safe)):
            size = needed_size(each, EFFECT)
            told.append(verdict(study(rng, size, EFFECT)).kind == "yes")
        enough.append(detectable_effect(TRUTH, size) <= EFFECT)
    assert 0.6 < np.mean(plain) < 0.9
    assert np.mean(safe) > 0.85
    assert np.mean(enough) >= 0.8


def test_every_size_says_what_it_tells():
    plan = planned(TRUTH, EFFECT, {"seconds": 2.0, "disk": 100.0})
    by_reason = {str(w): plan.isel(size=i) for i, w in enumerate(plan["why"].values)}
    assert float(by_reason["enough"]["least_effect"]) <= EFFECT
    assert float(by_reason["to be safe"]["cautious_effect"]) <= EFFECT
    assert int(by_reason["the pilot's"]["prompts"]) == 8
    assert (plan["cautious_effect"] > plan["least_effect"]).all()
    np.testing.assert_array_equal(plan["pictures"], 3 * plan["prompts"] * plan["seeds"])
    np.testing.assert_array_equal(plan["seconds"], 2 * plan["prompts"] * plan["seeds"])
    assert (np.diff(plan["pictures"]) >= 0).all()


def test_an_effect_out_of_reach_has_no_size():
    plan = planned(TRUTH, 1e-4, {"seconds": 2.0, "disk": 100.0})
    assert not {"enough", "to be safe"} & set(plan["why"].values.tolist())


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"prompts": ["a planet"]}, "four prompts or more to plan from: 1"),
        ({"seeds": range(3)}, "four seeds or more to plan from: 3"),
        ({"more": "policy"}, "a contrast is of base, student, hybrid; got 'policy'"),
        ({"more": "student"}, "of two models, got 'student' twice"),
        ({"effect": -1.0}, "above zero, got -1"),
        ({"effect": float("nan")}, "above zero, got nan"),
        ({"measure": "vendi"}, "no measure is named 'vendi'"),
    ],
)
def test_refusals(asked, says):
    with pytest.raises(ValueError, match=says):
        PlanStudy(**asked)


@pytest.fixture(scope="module")
def pilot(small_pair, tmp_path_factory):
    config = PlanStudy(
        pair=small_pair,
        prompts=["a planet", "a critter", "a plant", "a landscape"],
        seeds=range(4),
        space="latent",
        effect=0.5,
    )
    return plan_study(config, cache=tmp_path_factory.mktemp("pilot"))


def test_a_pilot_plans_and_says_what_it_saw(pilot, tmp_path):
    takes, seen = pilot.sentences
    assert takes.startswith("To tell an effect of 0.5 (as asked for)")
    assert seen.startswith("The pilot itself: Vendi")
    assert "nan" not in repr(pilot)
    assert pilot.data["plan"].attrs["effect"] == 0.5
    assert set(pilot.data["measured"]["arm"].values.tolist()) == {"base", "student", "hybrid"}
    assert Result.load(pilot.save(tmp_path / "out")).identical(pilot)


@pytest.mark.slow
def test_the_command_plans_for_the_embedded_pair(tmp_path, capsys, caplog):
    argv = ["plan-study", "demo/dmd", "--prompts", "4", "--seeds", "0:4", "--batch-size", "4"]
    assert main([*argv, "--effect", "0.3", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "To tell an effect of 0.3 (as asked for)" in printed.out
    assert "nan" not in printed.out
    assert "3 arms × 16 pictures" in printed.err + caplog.text
    assert Result.load(tmp_path).name == "plan-study"
