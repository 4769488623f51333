"""Adapters in a plan's segments: one copy of the weights is base and student in turn, and is left
as its user had it.
"""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, EulerDiscreteScheduler
from peft import LoraConfig, inject_adapter_in_model

import xhat
from xhat.hooks.adapters import adapted, lora_layers, put_back
from xhat.samplers.plans.plan import Plan, Segment

LAYERS = ["to_q", "to_out.0"]


def add(network, *names):
    """Random LoRAs, the last one on, each with an alpha unlike its rank."""
    for number, name in enumerate(names):
        torch.manual_seed(number + 1)
        config = LoraConfig(r=2, lora_alpha=3, target_modules=LAYERS, init_lora_weights=False)
        inject_adapter_in_model(config, network, adapter_name=name)
    network._hf_peft_config_loaded = True


def slot(name):
    return "transformer" if name in ("sd3", "pixart", "flux") else "unet"


def make(tiny, name, scheduler=None, adapters=("lightning", "style")):
    pipe = tiny.build(name, 0, scheduler)
    add(getattr(pipe, slot(name)), *adapters)
    return pipe


def state_of(network):
    """All that says which LoRAs are on, at what scale and whether they are trained."""
    grads = [(name, p.requires_grad) for name, p in network.named_parameters() if "lora" in name]
    layers = lora_layers(network)
    return grads, [(layer.active_adapters, dict(layer.scaling)) for layer in layers]


def by_hand(pipe, network, before, after):
    """Keywords of a call in which the pipeline's own set_adapters turns the LoRAs at step 2."""
    network.set_adapters(list(before), list(before.values()))

    def turn(pipe, step, timestep, tensors):
        if step == 1:
            network.set_adapters(list(after), list(after.values()))
        return tensors

    return {"callback_on_step_end": turn}


def halves(steps, before, after, **settings):
    return Plan(
        [
            Segment("base", 0, 2, steps, adapters=before, **settings),
            Segment("base", 2, steps, steps, adapters=after, **settings),
        ]
    )


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("sd", None),
        ("sd", EulerDiscreteScheduler),
        ("sd", DPMSolverMultistepScheduler),
        ("sdxl", None),
        ("sd3", None),
        ("flux", None),
    ],
)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"lightning": 0.5}, {"lightning": 1.0}),
        ({"style": 0.75, "lightning": -1.5}, {"lightning": 1.0, "style": 0.25}),
    ],
    ids=["one", "two"],
)
def test_a_plan_is_the_pipeline_with_set_adapters_at_those_steps(
    tiny, sample, name, scheduler, before, after
):
    settings = {"guidance_scale": 3.0}
    made = None
    if scheduler is not None:
        made = scheduler.from_config(tiny.ddim().config, timestep_spacing="leading")
    pipe = make(tiny, name, made)
    network = getattr(pipe, slot(name))
    call = by_hand(pipe, network, before, after)
    expected = sample(pipe, name, num_inference_steps=4, **settings, **call)
    network.set_adapters(["style"], [2.0])
    untouched = state_of(network)
    hybrid = xhat.hybrid(pipe, pipe, plan=halves(4, before, after, **settings))
    ours = sample(hybrid, name)
    assert torch.equal(ours, expected)
    assert state_of(network) == untouched
    assert not torch.equal(ours, sample(pipe, name, num_inference_steps=4, **settings))


def test_none_and_no_adapters(tiny, sample):
    """None: as the pipeline has them. ``{}``: the network that was there before, to the bit."""
    pipe, bare = make(tiny, "sd"), tiny.sd(0)
    pipe.unet.set_adapters(["lightning"], [0.5])
    for plain, adapters in ((pipe, None), (bare, {})):
        plan = Plan([Segment("base", 0, 3, 3, adapters=adapters)])
        expected = sample(plain, "sd", num_inference_steps=3, guidance_scale=1.0)
        assert torch.equal(sample(xhat.hybrid(pipe, pipe, plan=plan), "sd"), expected)


@pytest.mark.parametrize("where", ["base", "student"])
def test_one_copy_of_the_weights_is_what_two_are(fresh_pair, tiny, sample, where):
    """A base, and a student that is a LoRA of it with a scheduler of its own."""
    pair = fresh_pair("sd")
    base, student = pair.base, pair.student
    student.register_modules(unet=make(tiny, "sd", adapters=("lightning",)).unet)
    student.unet.set_adapters(["lightning"], [1.0])
    expected = sample(xhat.hybrid(base, student), "sd", range(2))
    shared = student.unet
    base.register_modules(unet=shared)
    shared.set_adapters(["lightning"], [0.0 if where == "base" else 1.0])
    adapters = {"base_adapters": {}, "student_adapters": {"lightning": 1.0}}
    one = xhat.hybrid(base, student, **adapters)
    assert one.unet.xhat_parts == (shared,)
    assert torch.equal(sample(one, "sd", range(2)), expected)
    assert not torch.equal(sample(xhat.hybrid(base, student), "sd", range(2)), expected)


@pytest.mark.parametrize("call", [1, 2, 3])
def test_the_users_adapters_are_back_after_an_error(tiny, sample, call):
    pipe = make(tiny, "sd")
    pipe.unet.set_adapters(["style", "lightning"], [0.5, 2.0])
    untouched, calls = state_of(pipe.unet), []

    def fail(module, args, output):
        calls.append(None)
        if len(calls) == call:
            raise RuntimeError("out of memory")

    hybrid = xhat.hybrid(pipe, pipe, plan=halves(4, {"lightning": 1.0}, {}))
    handle = pipe.unet.mid_block.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        sample(hybrid, "sd")
    handle.remove()
    assert state_of(pipe.unet) == untouched


def test_a_trace_hears_each_segment_under_its_adapters(tiny):
    """Traced or not, the picture is the same; the plan in the trace says which adapters were on."""
    pipe = make(tiny, "sd")
    hybrid = xhat.hybrid(pipe, pipe, plan=halves(4, {"lightning": 1.0}, {"style": 1.0}))
    size = {"height": 16, "width": 16, "progress": False}
    trace = xhat.trace(hybrid, ["a red planet"], seeds=range(2), hooks={"h": "mean"}, **size)
    assert Plan.from_json(json.loads(trace.attrs["description"])["plan"]) == hybrid.scheduler.plan
    latents = hybrid(
        ["a red planet"] * 2,
        generator=[torch.Generator().manual_seed(seed) for seed in range(2)],
        height=16,
        width=16,
        output_type="latent",
    ).images
    assert torch.equal(torch.tensor(trace["final"].values[0]), latents)


def test_guidance_rivals_ask_the_model_under_its_adapters(tiny, sample):
    """x̂₀ of a model that a plan gives adapters is taken under them."""
    pipe = make(tiny, "sd")
    plan = Plan([Segment("base", 0, 1, 3, adapters={}), Segment("student", 1, 3, 3)])
    hybrid = xhat.hybrid(pipe, pipe, plan=plan)
    assert hybrid.unet._network_of("base") != "base"
    assert hybrid.unet._network_of("student") == "student"


REFUSED = {
    "unknown": ({"lightnin": 1.0}, "no LoRA 'lightnin' is loaded; did you mean 'lightning'"),
    "far": ({"x": 1.0}, "no LoRA 'x' is loaded; loaded: lightning, style"),
}


@pytest.mark.parametrize(("adapters", "says"), REFUSED.values(), ids=REFUSED)
def test_an_adapter_that_is_not_loaded(tiny, adapters, says):
    pipe = make(tiny, "sd")
    with pytest.raises(ValueError, match=says):
        xhat.hybrid(pipe, pipe, plan=halves(4, {}, adapters))


def test_an_adapter_of_a_network_without_any(tiny):
    pipe = tiny.sd(0)
    with pytest.raises(ValueError, match="no LoRA 'x' is loaded; loaded: none"):
        xhat.hybrid(pipe, pipe, plan=halves(4, {}, {"x": 1.0}))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda pipe: pipe.fuse_lora(), r"fused into the weights.*unfuse_lora\(\)"),
        (lambda pipe: pipe.disable_lora(), r"switched off.*enable_lora\(\)"),
        (lambda pipe: pipe.delete_adapters("lightning"), "no LoRA 'lightning' is loaded"),
    ],
    ids=["fused", "off", "deleted"],
)
def test_what_is_done_to_the_loras_later_is_seen(tiny, sample, change, says):
    pipe = make(tiny, "sd")
    hybrid = xhat.hybrid(pipe, pipe, plan=halves(4, {"lightning": 1.0}, {"lightning": 0.5}))
    change(pipe)
    with pytest.raises(ValueError, match=says):
        sample(hybrid, "sd")


@pytest.mark.parametrize(
    "adapters", [{"a": float("nan")}, {"a": "much"}, {"": 1.0}, {1: 1.0}, "ab", 3, [1]]
)
def test_what_is_no_scale(adapters):
    with pytest.raises(ValueError, match="names with finite scales, got"):
        Segment("base", 0, 1, 4, adapters=adapters)


def test_a_plan_says_and_keeps_its_adapters():
    with pytest.raises(ValueError, match="strength 0.5 and adapters .* exclude each other"):
        Segment("base", 0, 1, 4, strength=0.5, adapters={"a": 1.0})
    plan = halves(4, {"lightning": 1, "style": 0.5}, {})
    assert "adapters lightning 1 + style 0.5" in str(plan)
    assert "no adapters" in str(plan)
    assert '"adapters": {' in plan.to_json()
    assert Plan.from_json(plan.to_json()) == plan
    assert len({hash(segment) for segment in plan.segments}) == 2


def test_a_script_is_refused(tiny):
    pipe = make(tiny, "sd")
    hybrid = xhat.hybrid(pipe, pipe, plan=halves(4, {}, {"lightning": 1.0}))
    with pytest.raises(ValueError, match="adapters=.* is not written into scripts"):
        hybrid.scheduler.plan.to_script(hybrid, "a planet")


def test_what_is_removed_within_a_block_stays_removed(tiny):
    """And what is trained is trained after it."""
    pipe = make(tiny, "sd")
    pipe.unet.set_adapters(["lightning", "style"], [1.0, 0.5])
    for parameter in pipe.unet.parameters():
        parameter.requires_grad_(True)
    untouched = state_of(pipe.unet)
    with adapted(pipe.unet, {"lightning": 3.0}):
        assert {tuple(layer.active_adapters) for layer in lora_layers(pipe.unet)} == {
            ("lightning",)
        }
    assert state_of(pipe.unet) == untouched
    with put_back(lora_layers(pipe.unet)):
        pipe.unet.delete_adapters("style")
    layers = lora_layers(pipe.unet)
    assert {(tuple(layer.active_adapters), tuple(layer.scaling)) for layer in layers} == {
        (("lightning",), ("lightning",))
    }
