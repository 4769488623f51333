"""Copies of what is tapped are clean, and a tap follows what the pipeline has."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
import warnings

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

from xhat.hooks.edits.edit import scale
from xhat.hooks.edits.patch import Patch
from xhat.hooks.noise.levels import noise_levels
from xhat.hooks.record.recorder import Recorder
from xhat.hooks.tracer import Tracer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
TAPS = {"step", "set_timesteps", "__getstate__"}
COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
}


class Loop:
    """A denoising loop of 4 steps, and what a test wants done in it."""

    def __init__(self, scheduler=None, inside=None):
        torch.manual_seed(0)
        self.unet = nn.Conv2d(4, 4, 1)
        self.scheduler = scheduler or diffusers.DDIMScheduler(clip_sample=False)
        self.inside = inside or (lambda: self.scheduler)

    def __call__(self, steps=4):
        self.scheduler.set_timesteps(steps)
        scheduler = self.inside()
        x = torch.ones(2, 4, 3, 3)
        with torch.no_grad():
            for t in scheduler.timesteps:
                output = self.unet(x).tanh()
                x = scheduler.step(output, t, x).prev_sample
        return x


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("tap", [Tracer, lambda pipe: Patch(pipe, [scale("in", 1.0)])])
def test_a_copy_made_in_the_block_is_clean_and_its_own(tiny, how, tap):
    pipe = tiny.sd()
    pipe.scheduler.set_timesteps(4)
    with tap(pipe):
        other = COPIES[how](pipe.scheduler)
        other.set_timesteps(9)
        assert len(pipe.scheduler.timesteps) == 4
        x = torch.ones(1, 4, 8, 8)
        other.step(x, other.timesteps[0], x)
    assert not TAPS & set(vars(other))
    assert not TAPS & set(vars(pipe.scheduler))
    assert other.config == pipe.scheduler.config


def test_nested_taps_leave_a_copy_clean_too(tiny):
    pipe = tiny.sd()
    with Recorder(pipe), Recorder(pipe), Patch(pipe, [scale("h", 1.0)]):
        assert not TAPS & set(vars(copy.deepcopy(pipe.scheduler)))
    assert not TAPS & set(vars(pipe.scheduler))


def test_a_copied_scheduler_keeps_a_method_of_the_users(tiny):
    pipe = tiny.sd()
    step = pipe.scheduler.step
    pipe.scheduler.step = mine = lambda *a, **k: step(*a, **k)
    with Recorder(pipe):
        assert copy.deepcopy(pipe.scheduler).step is mine


def test_a_copied_pipeline_is_clean(tiny):
    pipe = tiny.sd()
    with Recorder(pipe, {"**": "mean", "mid.attn.0.self@probs": "mean"}):
        other = copy.deepcopy(pipe)
    assert not TAPS & set(vars(other.scheduler))
    for module in other.unet.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "__getstate__" not in vars(module)


def test_hooks_of_the_user_go_with_a_copy(tiny):
    pipe = tiny.sd()
    pipe.unet.mid_block.register_forward_hook(print)
    with Recorder(pipe, ["h"]):
        assert list(copy.deepcopy(pipe.unet).mid_block._forward_hooks.values()) == [print]


def test_a_module_can_be_pickled_in_the_block(tiny):
    pipe = tiny.sd()
    with Recorder(pipe, ["h"]):
        other = pickle.loads(pickle.dumps(pipe.unet.mid_block))
    assert not other._forward_hooks


def test_noise_levels_of_the_scheduler_in_a_callback_change_nothing(tiny):
    pipe = tiny.sd()

    def look(pipe, step, t, kwargs):
        assert len(noise_levels(pipe.scheduler, 9)) == 9
        return kwargs

    def draw():
        generator = torch.Generator().manual_seed(0)
        call = {"num_inference_steps": 4, "output_type": "np", "height": 16, "width": 16}
        return pipe("a", generator=generator, callback_on_step_end=look, **call).images

    plain = draw()
    with Tracer(pipe) as tracer:
        assert np.array_equal(draw(), plain)
    assert tracer.trace.sizes["step"] == 4


def test_a_pipeline_that_steps_a_copy_alone_is_not_silent():
    pipe = Loop()

    def other():
        inner = copy.deepcopy(pipe.scheduler)
        inner.set_timesteps(10)
        return inner

    pipe.inside = other
    plain = pipe()
    with pytest.warns(UserWarning, match="copied its scheduler 1 times"), Tracer(pipe):
        assert torch.equal(pipe(), plain)


def test_a_copy_stepped_beside_the_original_is_not_mixed_in():
    """As pipelines do that denoise a sound beside the picture."""
    pipe = Loop()

    def beside():
        sound = copy.deepcopy(pipe.scheduler)
        y = torch.zeros(2, 4, 3, 3)
        for t in sound.timesteps:
            y = sound.step(y, t, y).prev_sample
        return pipe.scheduler

    with Tracer(Loop()) as plain:
        plain.pipe()
    pipe.inside = beside
    with Tracer(pipe) as tracer:
        pipe()
    assert np.array_equal(tracer.trace["pred_x0"], plain.trace["pred_x0"])


@pytest.mark.parametrize("kind", ["tracer", "patch"])
def test_what_is_dropped_in_its_block_leaves_nothing(tiny, kind):
    pipe = tiny.sd()
    before = set(vars(pipe.scheduler))
    gc.disable()  # no cycle keeps it until the collector comes
    try:
        if kind == "tracer":
            Tracer(pipe, ["h", "mid.attn.0.self@probs"]).__enter__()
        else:
            Patch(pipe, [scale("h", 2.0)]).__enter__()
    finally:
        gc.enable()
    assert set(vars(pipe.scheduler)) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.unet.modules())


def test_a_scheduler_exchanged_between_calls_is_heard():
    first, second = Loop(), Loop(diffusers.EulerDiscreteScheduler())
    second.unet = first.unet
    with Recorder(second) as recorder:
        second()
        (plain,) = recorder.take()
    with Recorder(first) as recorder:
        first()
        old, first.scheduler = first.scheduler, diffusers.EulerDiscreteScheduler()
        first()
        before, after = recorder.take()
    assert [len(r.steps) for r in (before, after)] == [4, 4]
    assert np.array_equal(after.root()["pred_x0"].data, plain.root()["pred_x0"].data)
    assert not TAPS & (set(vars(old)) | set(vars(first.scheduler)))


def test_an_edit_follows_an_exchanged_scheduler(tiny):
    pipe = tiny.sd()
    call = {"height": 16, "width": 16, "num_inference_steps": 3, "output_type": "latent"}

    def draw():
        return pipe("a", generator=torch.Generator().manual_seed(0), **call).images

    pipe.scheduler = diffusers.EulerDiscreteScheduler()
    with Patch(pipe, [scale("h", 3.0, steps=1)]):
        wanted = draw()
    assert not torch.equal(wanted, draw())
    pipe.scheduler = tiny.ddim()
    with Patch(pipe, [scale("h", 3.0, steps=1)]):
        draw()
        pipe.scheduler = diffusers.EulerDiscreteScheduler()
        assert torch.equal(draw(), wanted)


def test_a_scheduler_exchanged_under_a_compiled_denoiser_is_warned_of():
    pipe = Loop()
    pipe.unet.compile(backend="eager")
    with pytest.warns(UserWarning, match="another scheduler inside the block"), Recorder(pipe):
        pipe.scheduler = diffusers.EulerDiscreteScheduler()


def test_a_denoiser_exchanged_between_calls_is_warned_of(tiny):
    pipe = tiny.sd()
    call = {"height": 16, "width": 16, "num_inference_steps": 1, "output_type": "latent"}
    with Recorder(pipe, ["h"]):
        pipe("a", **call)
        pipe.unet = tiny.sd(1).unet
        with pytest.warns(UserWarning, match="another denoiser inside the block"):
            pipe("a", **call)


def test_two_threads_on_one_pipeline_are_refused():
    """The second thread begins while the first is between two of its steps."""
    errors, begun, go_on = [], threading.Event(), threading.Event()
    pipe = Loop()
    forward = pipe.unet.forward
    count = 0

    def slow(x):
        nonlocal count
        count += 1
        if count == 2:
            begun.set()
            go_on.wait(60)
        return forward(x)

    pipe.unet.forward = slow

    def first():
        try:
            pipe()
        except ValueError as error:
            errors.append(str(error))

    with Recorder(pipe) as recorder:
        thread = threading.Thread(target=first)
        thread.start()
        assert begun.wait(60)
        pipe.scheduler.set_timesteps(4)
        x = torch.ones(2, 4, 3, 3)
        pipe.scheduler.step(x, pipe.scheduler.timesteps[0], x)
        go_on.set()
        thread.join()
        with pytest.raises(ValueError, match="two threads"):
            recorder.take()
    assert len(errors) == 1
    assert "two threads" in errors[0]


def test_threads_one_after_the_other_are_welcome():
    pipe = Loop()
    with Recorder(pipe) as recorder, warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            thread = threading.Thread(target=pipe)
            thread.start()
            thread.join()
        assert [len(r.steps) for r in recorder.take()] == [4, 4]
