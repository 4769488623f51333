"""Pictures to start from: a plan of one model enters where that model does, to the bit; a hybrid at
the same noise level.
"""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import xhat
from xhat.analysis.traces.diversity import diversity_by_noise
from xhat.hooks.families import family_of_class
from xhat.samplers.plans.plan import Plan, Segment

pytestmark = pytest.mark.filterwarnings("ignore")
EDITS = {
    "StableDiffusionImg2ImgPipeline": "sd",
    "StableDiffusionInpaintPipeline": "sd",
    "StableDiffusionXLImg2ImgPipeline": "sdxl",
    "StableDiffusionXLInpaintPipeline": "sdxl",
    "StableDiffusion3Img2ImgPipeline": "sd3",
    "StableDiffusion3InpaintPipeline": "sd3",
    "FluxImg2ImgPipeline": "flux",
    "FluxInpaintPipeline": "flux",
    "FluxKontextPipeline": "flux",
    "ChromaImg2ImgPipeline": "chroma",
    "QwenImageImg2ImgPipeline": "qwen",
    "QwenImageInpaintPipeline": "qwen",
    "ZImageImg2ImgPipeline": "zimage",
}


def picture(side, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(values)


def mask(side):
    white = np.zeros((side, side), dtype=np.uint8)
    white[: side // 2] = 255
    return Image.fromarray(white)


def of_kind(kind, pipe):
    """The parts of a pipeline in one of another class."""
    takes = kind.__init__.__code__.co_varnames
    other = kind(**{n: p for n, p in pipe.components.items() if n in takes})
    other.set_progress_bar_config(disable=True)
    return other


@pytest.fixture(scope="module")
def made(tiny, loops):
    """class name → (base, student, call)."""

    def pair(name):
        kind, family = getattr(diffusers, name), EDITS[name]
        if family in loops.BUILDERS:
            (base, call), (student, _) = (loops.BUILDERS[family](tiny, s) for s in (0, 1))
        else:
            base, student = (tiny.build(family, s) for s in (0, 1))
            call = {"prompt": ["a red planet", "a robot"], "height": 16, "width": 16}
            call |= {"max_sequence_length": 16} if family == "sd3" else {}
        base, student = (of_kind(kind, pipe) for pipe in (base, student))
        slot = "unet" if hasattr(base, "unet") else "transformer"
        student.register_modules(**{n: p for n, p in base.components.items() if n != slot})
        side = call["height"]
        call = {**call, "image": picture(side)}
        if name == "StableDiffusion3Img2ImgPipeline":  # it repeats no picture
            call["image"] = [call["image"]] * 2
        if "Inpaint" in name:
            call["mask_image"] = mask(side)
        if name == "FluxKontextPipeline":
            call |= {"max_area": side * side, "_auto_resize": False}
        return base, student, call

    return pair


def drawn(pipe, call, **extra):
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    return pipe(generator=generators, output_type="latent", **call | extra)[0]


def guided(pipe, g):
    rule = family_of_class(type(pipe)).guidance
    return {rule.argument: rule.in_call(g)}


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITS)
def test_a_plan_of_one_model_enters_where_that_model_does(made, name):
    base, student, call = made(name)
    for who, pipe, g, strength in (("base", base, 3.0, 0.6), ("student", student, 1.0, 1.0)):
        how = {} if name == "FluxKontextPipeline" else {"strength": strength}
        hybrid = xhat.hybrid(base, student, plan=Plan([Segment(who, 0, 5, 5, g)]))
        alone = drawn(pipe, call, num_inference_steps=5, **how, **guided(pipe, g))
        for steps in (5, 50):
            again = drawn(hybrid, call, num_inference_steps=steps, **how, **guided(pipe, g))
            assert torch.equal(again, alone)
    if how:
        other = drawn(base, call, num_inference_steps=5, strength=0.4, **guided(base, 3.0))
        assert not torch.equal(other, drawn(base, call, num_inference_steps=5, strength=0.6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (diffusers.DDIMScheduler, diffusers.EulerDiscreteScheduler),
        (diffusers.EulerDiscreteScheduler, diffusers.DPMSolverMultistepScheduler),
    ],
)
@pytest.mark.parametrize(
    "name", ["StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"]
)
def test_whatever_the_schedulers(made, name, one, other):
    base, student, call = made(name)
    for pipe, kind in ((base, one), (student, other)):
        pipe.scheduler = kind.from_config(pipe.scheduler.config)
    for who, pipe in (("base", base), ("student", student)):
        hybrid = xhat.hybrid(base, student, plan=Plan([Segment(who, 0, 6, 6, 2.0)]))
        alone = drawn(pipe, call, num_inference_steps=6, strength=0.7, guidance_scale=2.0)
        assert torch.equal(drawn(hybrid, call, strength=0.7), alone)


def noised(hybrid, call, strength):
    """Noise level at which a hybrid enters, and the models of its steps."""
    heard = []
    inner = hybrid.scheduler.step

    def step(output, t, x, **kwargs):
        heard.append(hybrid.scheduler.run.entry)
        return inner(output, t, x, **kwargs)

    hybrid.scheduler.step = step
    drawn(hybrid, call, strength=strength)
    del hybrid.scheduler.step
    return heard[0].level.sigma, [entry.segment.model for entry in heard]


def test_a_hybrid_enters_at_the_bases_noise_level_with_its_own_steps(made):
    base, student, call = made("StableDiffusionImg2ImgPipeline")
    plan = Plan([Segment("base", 0, 6, 12, 3.0), Segment("student", 2, 4, 4)])
    hybrid = xhat.hybrid(base, student, plan=plan)
    sigma, models = noised(hybrid, call, 0.75)
    assert models == ["base"] * 3 + ["student"] * 2
    whole = xhat.hybrid(base, student, plan=Plan([Segment("base", 0, 12, 12, 3.0)]))
    assert sigma == noised(whole, call, 0.75)[0]
    assert noised(hybrid, call, 1.0)[1] == ["base"] * 6 + ["student"] * 2
    with pytest.raises(ValueError, match="strength 0.3 starts at step 9 .* it would run none"):
        drawn(hybrid, call, strength=0.3)


def test_a_base_and_its_refiner_share_a_plan_each(tiny, made):
    """denoising_end of one call and denoising_start of the next."""
    base, student, call = made("StableDiffusionXLImg2ImgPipeline")
    text = of_kind(diffusers.StableDiffusionXLPipeline, base)
    words = {k: v for k, v in call.items() if k != "image"}
    steps, g = {"num_inference_steps": 5}, {"guidance_scale": 3.0}
    plan = Plan([Segment("base", 0, 5, 5, 3.0)])
    first = drawn(text, words, denoising_end=0.6, **steps, **g)
    hybrid = xhat.hybrid(text, of_kind(type(text), student), plan=plan)
    assert torch.equal(drawn(hybrid, words, denoising_end=0.6, **steps), first)
    last = drawn(base, call, image=first, denoising_start=0.6, **steps, **g)
    refining = xhat.hybrid(base, student, plan=plan)
    assert torch.equal(drawn(refining, call, image=first, denoising_start=0.6), last)


def test_edits_of_a_hybrid_are_traced(made):
    base, student, call = made("StableDiffusionImg2ImgPipeline")
    plan = Plan([Segment("base", 0, 3, 5, 3.0), Segment("student", 3, 4, 4)])
    hybrid = xhat.hybrid(base, student, plan=plan)
    trace = xhat.trace(
        hybrid,
        ["a red planet", "a robot"],
        seeds=range(3),
        progress=False,
        output_type="latent",
        image=call["image"],
        strength=0.8,
    )
    assert trace["segment"].values.tolist() == ["base", "base", "student"]
    assert trace["pred_x0"].sizes["step"] == 3
    assert np.isfinite(trace["pred_x0"].values).all()
    curve = diversity_by_noise(trace)
    assert set(curve["sigma"].values) == set(trace["sigma"].values)


def test_noise_at_another_step_than_the_next_is_refused(made):
    base, student, _ = made("StableDiffusionImg2ImgPipeline")
    hybrid = xhat.hybrid(base, student, plan=Plan([Segment("base", 0, 5, 5)]))
    hybrid.scheduler.set_timesteps()
    x = torch.zeros(1, 4, 8, 8)
    t = hybrid.scheduler.timesteps
    assert torch.equal(
        hybrid.scheduler.add_noise(x, x + 1, t[:1]), base.scheduler.add_noise(x, x + 1, t[:1])
    )
    with pytest.raises(ValueError, match="the plan's next step is at"):
        hybrid.scheduler.add_noise(x, x, t[1:2])
