"""A policy is data: it comes back from JSON as it was, runs its own plan to the bit, and says
why.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

import xhat
from xhat.samplers.plans.build import whole
from xhat.samplers.plans.look import Look, first_step, spread
from xhat.samplers.plans.policy import Option, Policy
from xhat.samplers.plans.recipe import hybrid_plan
from xhat.samplers.rivals.adaptive import Adaptive
from xhat.samplers.rivals.registry import rival

PROMPT = "a red planet"
CALL = {"height": 16, "width": 16, "output_type": "latent"}


@pytest.fixture(scope="module")
def pair(pairs):
    return pairs("sd")


@pytest.fixture(scope="module")
def policy(pair):
    own = Option(
        "student", whole("student", pair.student), 4, 1.75, 1.7, 1.8, 0.9, True, "as traced"
    )
    early = Option(
        "early",
        hybrid_plan(pair.base, pair.student),
        4,
        1.9,
        1.8,
        2.0,
        0.88,
        False,
        "because of 61 %",
    )
    guided = hybrid_plan(pair.base, pair.student, base_steps=2, base_guidance_scale=3.0)
    dear = Option("dear", guided, 6, 2.1, 2.0, 2.2, 0.88, False, "because")
    poor = Option(
        "poor",
        hybrid_plan(pair.base, pair.student, base_steps=3),
        4,
        2.2,
        2,
        2.4,
        0.5,
        False,
        "because",
    )
    look = Look(0.4321, ("a", "b"), (0.4, 0.5), (0.2, 0.0), 0.05)
    return Policy(
        "early", 1.2, "vendi_q2", 2.05, 0.85, "2 prompts × 3 seeds", (own, early, dear, poor), look
    )


def generators(n):
    return [torch.Generator().manual_seed(i) for i in range(n)]


def test_the_policys_pipeline_is_its_plans_to_the_bit(pair, policy):
    by_policy = xhat.hybrid(pair.base, pair.student, policy=policy)
    by_plan = xhat.hybrid(pair.base, pair.student, plan=policy.plan)
    one, two = (
        pipe([PROMPT] * 2, generator=generators(2), **CALL).images for pipe in (by_policy, by_plan)
    )
    assert torch.equal(one, two)


@pytest.mark.parametrize("adaptive", [True, False])
def test_it_comes_back_from_json_as_it_was(policy, tmp_path, adaptive):
    policy = policy if adaptive else replace(policy, look=None, least_fidelity=None)
    path = policy.save(tmp_path / "new" / "policy.json")
    again = Policy.load(path)
    assert again == policy
    assert again.explain() == policy.explain()
    assert json.loads(path.read_text())["chosen"] == "early"


@pytest.mark.parametrize(
    "text", ["", "[]", '{"segments": []}', '{"xhat_policy": 1, "chosen": "a"}']
)
def test_what_is_no_policy_is_refused(text):
    with pytest.raises(ValueError, match="not a policy"):
        Policy.from_json(text)


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match="xhat policy fit"):
        Policy.load(tmp_path / "nowhere.json")


def test_the_explanation_has_the_numbers(policy):
    text = replace(policy, lead=(0.3, 0.1, 0.5)).explain()
    for number in (
        "1.900",
        "1.750",
        "2.050",
        "61 %",
        "1.2 ×",
        "4.8",
        "0.4321",
        "0.850",
        "1.00 ×",
        "50%",
    ):
        assert number in text, number
    verdicts = {
        line.split()[0]: line
        for line in text.splitlines()
        if ("predicted" in line or "measured" in line)
    }
    assert verdicts["dear"].endswith("over the budget")
    assert verdicts["poor"].endswith("fidelity too low")
    assert verdicts["early"].endswith("chosen")
    assert verdicts["student"].endswith("less diverse")


def test_no_share_is_given_of_a_gap_that_is_not_told_from_zero(policy):
    for lead in (None, (0.3, -0.1, 0.7)):
        text = replace(policy, lead=lead).explain()
        assert "not told from zero: no share of it is given" in text
        assert "of what was lost" not in text


def test_without_a_loss_it_says_so(policy):
    assert "no loss to undo" in replace(policy, goal=1.7).explain()


def test_the_option_must_be_there(policy):
    with pytest.raises(ValueError, match="needs 'later' among its options"):
        replace(policy, chosen="later")


@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_the_spread_knows_no_scale_and_no_number_of_samples(scale):
    x = 1 + torch.randn(4000, 50, generator=torch.Generator().manual_seed(0))
    assert spread(scale * x) == pytest.approx(0.5, abs=0.01)  # as much variance as squared mean
    few = [spread(scale * part) for part in x.split(4)]
    assert sum(few) / len(few) == pytest.approx(0.5, abs=0.01)


def test_one_sample_has_no_spread():
    with pytest.raises(ValueError, match="two or more samples"):
        spread(torch.ones(1, 4))


def test_the_look_is_the_students_first_estimate(pair, policy):
    """x̂₀ of step 0, as a trace records it."""
    traced = xhat.trace(
        rival("student", pair), [PROMPT], seeds=range(3), progress=False, height=16, width=16
    )
    looking = Adaptive(pair.base, pair.student, policy)
    seen = looking.look(PROMPT, num_images_per_prompt=3, generator=generators(3), **CALL)
    torch.testing.assert_close(
        seen, torch.from_numpy(traced["pred_x0"].values[0, :, 0]), rtol=1e-4, atol=1e-4
    )
    assert first_step(policy.option("student").plan).evaluations == 1


@pytest.mark.parametrize(("threshold", "name"), [(1e9, "early"), (0.0, "student")])
def test_a_prompt_gets_what_its_look_says(pair, policy, threshold, name):
    policy = replace(policy, look=replace(policy.look, threshold=threshold))
    adaptive = Adaptive(pair.base, pair.student, policy)
    found = adaptive(PROMPT, num_images_per_prompt=3, generator=generators(3), **CALL).images
    alone = xhat.hybrid(pair.base, pair.student, plan=policy.option(name).plan)
    assert torch.equal(
        found, alone(PROMPT, num_images_per_prompt=3, generator=generators(3), **CALL).images
    )


def test_an_adaptive_hybrid_needs_a_look(pair, policy):
    with pytest.raises(ValueError, match=r"xhat\.hybrid"):
        Adaptive(pair.base, pair.student, replace(policy, look=None))
    with pytest.raises(ValueError, match="one plan for all prompts"):
        replace(policy, look=None).needs_base(torch.ones(2, 3))
