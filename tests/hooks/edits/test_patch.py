"""Interventions do what they say, where they say it, and nothing else; two engines agree to the
bit.
"""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch

import xhat
from xhat.hooks.edits.edit import ablate, add, from_trace, replace, scale
from xhat.hooks.edits.patch import Patch
from xhat.hooks.edits.run import patched
from xhat.hooks.points.names import denoiser_of

pytestmark = pytest.mark.filterwarnings("ignore")
PROMPTS = ["a red planet", "a face"]
ARGUMENTS = {"num_inference_steps": 3, "progress": False}


def trace(pipe, edits=(), hooks=("h",), **kwargs):
    hooks = dict.fromkeys(hooks, "full")
    return xhat.trace(
        pipe, PROMPTS, seeds=range(2), hooks=hooks, edits=edits, **(ARGUMENTS | kwargs)
    )


def reading(found, name="h"):
    return found[f"activations/{name}/value"].values


def call(**kwargs):
    made = [torch.Generator().manual_seed(i) for i in range(2)]
    return {
        "prompt": PROMPTS,
        "num_inference_steps": 3,
        "generator": made,
        "output_type": "np",
    } | kwargs


@pytest.mark.slow
def test_edits_that_change_nothing_change_no_bit(tiny):
    pipe = tiny.sd()
    plain = pipe(**call()).images
    for edit in (
        scale("h", 1.0),
        add("h", 0.0),
        replace("h", 3.0, steps=[]),
        scale("h@delta", 1.0, sigma=(900, 1e9)),
    ):
        assert np.array_equal(patched(pipe, [edit], **call()).images, plain), edit


@pytest.mark.slow
def test_its_own_trace_put_back_changes_no_bit(tiny):
    pipe = tiny.sd()
    whole = trace(pipe)
    again = trace(pipe, [replace("h", from_trace(whole, "h"))], batch_size=1)
    assert np.array_equal(reading(again), reading(whole))
    np.testing.assert_allclose(again["final"], whole["final"], rtol=1e-3, atol=1e-3)
    same = trace(pipe, [replace("h", from_trace(whole, "h"))])
    assert np.array_equal(same["final"], whole["final"])


@pytest.mark.slow
def test_how(tiny):
    pipe = tiny.sd()
    plain = reading(trace(pipe))[:, :, 0]  # before the first edit reaches later steps
    direction = torch.randn(16, 4, 4, generator=torch.Generator().manual_seed(0))
    assert np.array_equal(reading(trace(pipe, [scale("h", 2.0)]))[:, :, 0], plain * 2)
    assert np.array_equal(
        reading(trace(pipe, [add("h", direction)]))[:, :, 0], plain + direction.numpy()
    )
    assert (reading(trace(pipe, [replace("h", direction)])) == direction.numpy()).all()
    assert (reading(trace(pipe, [ablate("h")])) == 0).all()


def test_where_steps(tiny):
    pipe = tiny.sd()
    plain, edited = trace(pipe), trace(pipe, [ablate("h", steps=1)])
    assert np.array_equal(reading(edited)[:, :, 0], reading(plain)[:, :, 0])
    assert (reading(edited)[:, :, 1] == 0).all()
    assert (reading(edited)[:, :, 2] != 0).any()
    assert np.array_equal(edited["pred_x0"][:, :, 0], plain["pred_x0"][:, :, 0])
    assert not np.allclose(edited["pred_x0"][:, :, 1], plain["pred_x0"][:, :, 1])


def test_where_noise_levels(tiny):
    pipe = tiny.sd()
    sigma = trace(pipe)["sigma"].values
    by_sigma = trace(pipe, [ablate("h", sigma=(0, sigma[1]))])
    by_step = trace(pipe, [ablate("h", steps=[1, 2])])
    assert np.array_equal(by_sigma["final"], by_step["final"])


@pytest.mark.parametrize(("branch", "index"), [("uncond", 0), ("cond", 1)])
def test_where_branches(tiny, branch, index):
    pipe = tiny.sd()
    edited, plain = reading(trace(pipe, [ablate("h", branch=branch)])), reading(trace(pipe))
    assert (edited[:, :, :, index] == 0).all()
    assert np.array_equal(edited[:, :, 0, 1 - index], plain[:, :, 0, 1 - index])


def test_without_guidance_the_one_branch_is_the_conditional(tiny):
    pipe = tiny.sd()
    assert (reading(trace(pipe, [ablate("h", branch="cond")], guidance_scale=1.0)) == 0).all()
    with pytest.warns(UserWarning, match="never edited: h"):
        trace(pipe, [ablate("h", steps=99)], guidance_scale=1.0)


def test_input_and_delta(tiny):
    pipe = tiny.sd()
    hooks = ("mid.res.0@input", "mid.res.0")
    found = trace(pipe, [replace("mid.res.0@input", 1.5)], hooks)
    assert (reading(found, "mid.res.0@input") == 1.5).all()
    passed = trace(pipe, [ablate("mid.res.0@delta")], hooks)
    assert np.array_equal(reading(passed, "mid.res.0"), reading(passed, "mid.res.0@input"))
    with pytest.raises(ValueError, match="Conv2d has no residual delta"):
        patched(pipe, [ablate("in@delta")], **call())


def test_edits_add_up_in_their_order(tiny):
    found = trace(tiny.sd(), [replace("h", 2.0), add("h", 1.0), scale("h", 10.0)])
    assert (reading(found) == 30).all()


@pytest.mark.parametrize(
    ("name", "point"),
    [
        ("sdxl", "h"),
        ("sd3", "block.0"),
        ("pixart", "block.0"),
        ("sd", "down.0"),
        ("flux", "single.0"),
    ],
)
def test_other_models_and_blocks_of_many_outputs(tiny, name, point):
    pipe = tiny.build(name)
    arguments = call() | tiny.call_arguments(name)
    plain = patched(pipe, [scale(point, 1.0)], **arguments).images
    assert np.array_equal(plain, pipe(**call() | tiny.call_arguments(name)).images)
    arguments = call() | tiny.call_arguments(name)
    assert not np.array_equal(patched(pipe, [ablate(point)], **arguments).images, plain)


# From one model into another


def pair(tiny):
    student = tiny.sd(
        seed=1, scheduler=diffusers.LCMScheduler(original_inference_steps=4, **TRAINED)
    )
    return tiny.sd(seed=0), student


TRAINED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@pytest.mark.slow
def test_base_into_student_at_equal_noise_levels(tiny):
    """DDIM at 999, 749, 499, 249 and LCM at 999, 749, 499, 249; of eight DDIM steps, every second
    is one of LCM's.
    """
    base, student = pair(tiny)
    whole = trace(base, num_inference_steps=8, guidance_scale=3.0)
    edits = [replace("h", from_trace(whole, "h"))]
    found = trace(student, edits, num_inference_steps=4, guidance_scale=1.0, batch_size=1)
    shared = [
        int(np.flatnonzero(np.isclose(whole["sigma"], s, rtol=1e-6))[0])
        for s in found["sigma"].values
    ]
    assert shared == [0, 2, 4, 6]
    assert np.array_equal(reading(found), reading(whole)[:, :, shared, 1])  # the conditional half


@pytest.mark.slow
def test_only_where_the_other_run_has_the_noise_level(tiny):
    base, student = pair(tiny)
    whole = trace(base, num_inference_steps=2, guidance_scale=1.0)  # 999 and 499
    found = trace(
        student, [replace("h", from_trace(whole, "h"))], num_inference_steps=4, guidance_scale=1.0
    )
    same = [
        np.array_equal(reading(found)[:, :, i], reading(whole)[:, :, j])
        for i, j in ((0, 0), (2, 1))
    ]
    assert same == [True, True]
    plain = trace(student, num_inference_steps=4, guidance_scale=1.0)
    assert not np.array_equal(found["final"], plain["final"])
    with pytest.raises(
        ValueError, match=r"step 1 is at σ = .* and the other trace at σ = .*: none is equal"
    ):
        trace(
            student,
            [replace("h", from_trace(whole, "h"), steps=1)],
            num_inference_steps=4,
            guidance_scale=1.0,
        )


def test_samples_are_matched_by_prompt_and_seed(tiny):
    base, student = pair(tiny)
    whole = trace(base, num_inference_steps=4, guidance_scale=1.0)
    edits = [replace("h", from_trace(whole, "h"))]
    found = xhat.trace(
        student,
        ["a face"],
        seeds=[1],
        hooks={"h": "full"},
        edits=edits,
        num_inference_steps=4,
        guidance_scale=1.0,
        progress=False,
    )
    assert np.array_equal(reading(found)[0, 0], reading(whole)[1, 1])
    with pytest.raises(ValueError, match="no sample of prompt and seed"):
        xhat.trace(
            student,
            ["a face"],
            seeds=[7],
            edits=edits,
            num_inference_steps=4,
            guidance_scale=1.0,
            progress=False,
        )


def test_a_tracer_serves_as_a_source(tiny):
    pipe = tiny.sd()
    with xhat.Tracer(pipe, hooks={"h": "full"}) as tracer:
        plain = pipe(**call()).images
    images = patched(pipe, [replace("h", from_trace(tracer.trace, "h"))], **call()).images
    assert np.array_equal(images, plain)


@pytest.mark.slow
def test_edits_belong_to_the_run(tiny, tmp_path):
    pipe, store = tiny.sd(), tmp_path / "a.zarr"
    trace(pipe, [scale("h", 2.0)], store=store)
    with pytest.raises(ValueError, match="belongs to another run .edits"):
        trace(pipe, [scale("h", 3.0)], store=store)
    assert "scale" in xhat.open_trace(store).attrs["edits"]


# Two engines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "point"), [("sd", "h"), ("sd", "down.0"), ("sdxl", "mid.attn.0"), ("sd3", "block.0")]
)
def test_nnsight_makes_the_same_tensors(tiny, name, point):
    pipe = tiny.build(name)
    edits = [scale(point, 0.5, steps=[1]), add(point, 0.25, branch="cond")]
    arguments = [call() | tiny.call_arguments(name) for _ in range(3)]
    native = patched(pipe, edits, **arguments[0]).images
    other = patched(pipe, edits, backend="nnsight", **arguments[1]).images
    assert np.array_equal(native, other)
    assert not np.array_equal(native, pipe(**arguments[2]).images)


@pytest.mark.slow
def test_nnsight_reads_what_the_hooks_read(tiny):
    pipe = tiny.sd()
    whole = trace(pipe, hooks=("h", "mid.res.0"))
    source = [replace(p, from_trace(whole, p)) for p in ("h", "mid.res.0")]
    made = [torch.Generator().manual_seed(s) for _ in PROMPTS for s in range(2)]
    arguments = call(generator=made, num_images_per_prompt=2)
    found = patched(pipe, source, backend="nnsight", **arguments).images
    assert np.array_equal(
        (found * 255).round().astype(np.uint8).reshape(whole["images"].shape), whole["images"]
    )


@pytest.mark.slow
def test_nnsight_leaves_the_pipeline_as_it_was(tiny):
    pipe = tiny.sd()
    plain = pipe(**call()).images
    patched(pipe, [ablate("h")], backend="nnsight", **call())
    assert np.array_equal(pipe(**call()).images, plain)
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in denoiser_of(pipe).modules()]
    with xhat.Tracer(pipe, ["h"]) as tracer:
        assert np.array_equal(pipe(**call()).images, plain)
    assert tracer.trace.sizes["sample"] == 2
    assert [
        len(m._forward_hooks) + len(m._forward_pre_hooks) for m in denoiser_of(pipe).modules()
    ] == hooks


# Bad input


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ablate("h", branch="left"), "expected 'cond', 'uncond' or None"),
        (lambda: ablate("h@probs"), "expected one of output, input, delta"),
    ],
)
def test_edits_that_mean_nothing(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_does_not_fit_is_said(tiny):
    pipe = tiny.sd()
    with pytest.raises(ValueError, match="no hook point is named 'hh'"):
        patched(pipe, [ablate("hh")], **call())
    with pytest.raises(
        ValueError, match=r"'h' is \(2, 16, 4, 4\) there, and the value of its edit \(5, 5\)"
    ):
        patched(pipe, [replace("h", torch.zeros(5, 5))], **call())
    with pytest.raises(ValueError, match="expected 'native' or 'nnsight'"):
        patched(pipe, [], backend="baukit", **call())
    with pytest.raises(ValueError, match="outputs alone are edited, not 'h@input'"):
        patched(pipe, [ablate("h@input")], backend="nnsight", **call())
    found = trace(pipe)
    with pytest.raises(ValueError, match="the trace has no reading 'in', but h"):
        from_trace(found, "in")
    small = xhat.trace(pipe, "a", seeds=[0], hooks=["h"], **ARGUMENTS)
    with pytest.raises(ValueError, match="'h' is kept as mean there"):
        from_trace(small, "h")


def test_a_pipeline_that_hides_its_guidance_is_asked(tiny):
    pipe = tiny.pixart()
    arguments = call() | tiny.call_arguments("pixart")
    with pytest.raises(
        ValueError, match="PixArtAlphaPipeline does not say whether it is guided: pass samples="
    ):
        patched(pipe, [ablate("block.0", branch="cond")], **arguments)
    arguments = call() | tiny.call_arguments("pixart")
    patched(pipe, [ablate("block.0", branch="cond")], samples=2, **arguments)


def test_nothing_is_left_after_an_exception(tiny):
    pipe = tiny.sd()
    before = set(vars(pipe.scheduler)), [len(m._forward_hooks) for m in pipe.unet.modules()]
    with (
        pytest.raises(ValueError),
        Patch(pipe, [replace("h", torch.zeros(5, 5)), ablate("in@input")]),
    ):
        pipe(**call())
    assert (
        set(vars(pipe.scheduler)),
        [len(m._forward_hooks) for m in pipe.unet.modules()],
    ) == before
    assert not any(m._forward_pre_hooks for m in pipe.unet.modules())
