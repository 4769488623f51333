"""A rival by base and student, and a set of pictures by a policy's choice."""

from __future__ import annotations

import pytest
import torch

import xhat
from xhat.samplers.plans.build import swap_plan, whole
from xhat.samplers.plans.look import Look
from xhat.samplers.plans.policy import Option, Policy
from xhat.samplers.rivals.registry import RIVALS

CALL = {"output_type": "latent", "height": 16, "width": 16}
PROMPT = "a red planet"


def policy_of(pair, look=None):
    student = whole("student", pair.student)
    plain = swap_plan(pair.base, pair.student, [0])
    options = [
        Option(name, plan, 4, 1.5, 1.4, 1.6, None, False, "made up")
        for name, plan in (("student", student), ("base first", plain))
    ]
    return Policy("base first", 1.2, "vendi_q2", 2.0, None, "nothing", tuple(options), look)


def test_a_rival_by_its_two_pipelines_is_that_of_the_pair(pairs, sample):
    pair = pairs("sd")
    by_pair = sample(xhat.rival("embedding_noise", pair, scale=0.3), "sd")
    by_both = sample(xhat.rival("embedding-noise", pair.base, pair.student, scale=0.3), "sd")
    assert torch.equal(by_pair, by_both)
    with pytest.raises(ValueError, match="needs base and student, got StableDiffusionPipeline"):
        xhat.rival("cads", pair.base)
    assert not [name for name in RIVALS if "-" in name]


def test_a_set_is_the_pipelines_own_call(pairs):
    pair = pairs("sd")
    pipe = xhat.rival("sparke", pair)
    found = xhat.diverse(pipe, PROMPT, 3, **CALL)
    generators = [torch.Generator().manual_seed(seed) for seed in range(3)]
    again = pipe(PROMPT, num_images_per_prompt=3, generator=generators, **CALL).images
    assert torch.equal(found, again)
    alone = xhat.diverse(pair.student, PROMPT, 2, seeds=[1, 0], **CALL)
    assert alone.shape == (2, 4, 8, 8)


def test_a_policy_decides(pairs):
    pair = pairs("sd")
    hybrid = xhat.hybrid(pair.base, pair.student, policy=policy_of(pair))
    by_plan = xhat.diverse(pair.student, PROMPT, 2, base=pair.base, policy=policy_of(pair), **CALL)
    assert torch.equal(by_plan, xhat.diverse(hybrid, PROMPT, 2, **CALL))
    for threshold, expected in ((10.0, by_plan), (0.0, None)):
        look = Look(threshold, (PROMPT,), (0.5,), (0.1,), 0.1)
        policy = policy_of(pair, look)
        found = xhat.diverse(pair.student, PROMPT, 2, base=pair.base, policy=policy, **CALL)
        own = xhat.diverse(pair.student, PROMPT, 2, **CALL) if expected is None else expected
        torch.testing.assert_close(found, own, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": ["a", "b"]}, "of one prompt"),
        ({"n": 0}, "1 or more"),
        ({"n": 2, "seeds": [1, 1]}, "2 different seeds"),
        ({"base": object()}, "policy= is missing"),
    ],
)
def test_what_is_no_set_is_refused(pairs, wrong, message):
    with pytest.raises(ValueError, match=message):
        xhat.diverse(pairs("sd").student, **{"prompt": PROMPT, **wrong})
