"""A plan of one model is that model in the loops of every family that runs plans; every other loop
is refused when the hybrid is made.
"""

from __future__ import annotations

import inspect
import re

import diffusers
import pytest
import torch

import xhat
from xhat.hooks.families import FAMILIES, STACKED, family_of_class
from xhat.samplers.composite.guidance import call_for, rule_of
from xhat.samplers.composite.supported import why_no_plan
from xhat.samplers.plans.plan import Plan, Segment

pytestmark = pytest.mark.filterwarnings("ignore")
SEEDS = 0, 1


def drawn(pipe, call, **extra):
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    return pipe(generator=generators, output_type="latent", **call, **extra)[0]


LOOPS = [
    "kandinsky3",
    "hunyuan_dit",
    "sana",
    "cogvideox",
    "pixart_sigma",
    "controlnet",
    "flux",
    "chroma",
    "qwen",
    "krea2",
    "wan",
    "zimage",
    "lumina",
]


def test_every_loop_is_tried(loops):
    assert set(LOOPS) == set(loops.BUILDERS)


def pair_of(loops, tiny, name):
    """(base, student, call) of one family, with the encoders and VAE of the base."""
    (base, call), (student, _) = (loops.BUILDERS[name](tiny, seed) for seed in (0, 1))
    shared = {n: p for n, p in base.components.items() if n not in ("unet", "transformer")}
    student.register_modules(**shared)
    return base, student, call


def guided(pipe, scale):
    """The keywords by which a pipeline guides at u + g·(c − u), or does not."""
    call = call_for(pipe, rule_of(pipe), scale)
    return {name: value for name, value in call.items() if name != "negative_prompt"}


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_a_plan_of_one_model_is_that_model_or_is_refused(tiny, loops, name):
    base, student, call = pair_of(loops, tiny, name)
    for who, pipe in (("base", base), ("student", student)):
        for scale in (1.0, 3.0):
            plan = Plan([Segment(who, 0, 3, 3, scale)])
            if scale > 1 and family_of_class(type(pipe)).guidance is None:
                with pytest.raises(ValueError, match="guides is not known, or not by u"):
                    xhat.hybrid(base, student, plan=plan)
                continue
            alone = drawn(pipe, call, num_inference_steps=3, **guided(pipe, scale))
            hybrid = xhat.hybrid(base, student, plan=plan)
            assert torch.equal(drawn(hybrid, call, **guided(pipe, scale)), alone)
            assert hybrid.scheduler.run.evaluations == plan.evaluations
    assert not torch.equal(alone, drawn(base, call, num_inference_steps=3))


# What is refused


def of_class(kind, pipe):
    """The parts of a pipeline in a pipeline of another class, as far as they go."""
    other = kind.__new__(kind)
    other.__dict__.update(vars(pipe))
    return other


REFUSED = {
    "LatentConsistencyModelPipeline": "original_inference_steps",
    "LatentConsistencyModelImg2ImgPipeline": "starts from a picture",
    "CogView4Pipeline": "timesteps and σ of its own",
    "LattePipeline": "makes videos",
    "AllegroPipeline": "makes videos",
    "AnimateDiffPipeline": "makes videos",
    "HunyuanVideoPipeline": "makes videos",
    "DiTPipeline": "encodes no prompt",
    "KandinskyV22Pipeline": "encodes no prompt",
    "LuminaPipeline": "guides three of its channels",
    "Flux2Pipeline": "by the number of steps",
    "Flux2KleinPipeline": "by the number of steps",
    "StableDiffusionXLInstructPix2PixPipeline": "guides by a picture",
    "Kandinsky3Img2ImgPipeline": "starts from a picture",
    "FluxControlImg2ImgPipeline": "starts from a picture",
    "StableDiffusionPAGPipeline": "no plan was tried",
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_a_loop_in_which_no_plan_runs_is_refused_by_name(tiny, name, reason):
    pipe = of_class(getattr(diffusers, name), tiny.sd(0))
    with pytest.raises(ValueError, match=f"no hybrid can be made of a {name}, which.*{reason}"):
        xhat.hybrid(pipe, pipe)


def test_a_subclass_is_like_its_parent(tiny):
    mine = type("Mine", (diffusers.StableDiffusionPipeline,), {})
    assert not why_no_plan(mine)
    assert why_no_plan(type("Mine", (diffusers.LattePipeline,), {})) == "makes videos"


def pipelines():
    """Every class of pipelines of the installed diffusers in whose loop a plan is let run."""
    names = [name for name in dir(diffusers) if name.endswith("Pipeline")]
    classes = [
        getattr(diffusers, name) for name in names if not name.startswith(("Auto", "Modular"))
    ]
    kinds = [
        c for c in classes if inspect.isclass(c) and issubclass(c, diffusers.DiffusionPipeline)
    ]
    return [kind for kind in kinds if inspect.isfunction(kind.__call__) and not why_no_plan(kind)]


@pytest.mark.parametrize("kind", pipelines(), ids=lambda kind: kind.__name__)
def test_what_the_table_of_families_says_of_a_loop_is_in_its_source(kind):
    source, family = inspect.getsource(kind.__call__), family_of_class(kind)
    code = re.sub(r'""".*?"""', "", source, flags=re.S)
    code = "\n".join(line.split("#")[0] for line in code.splitlines())
    formula = re.search(
        r"noise_pred = noise_pred_uncond \+ (self\.)?_?guidance_scale \* "
        r"\(noise_pred_text - noise_pred_uncond\)",
        code,
    )
    stacked = re.search(r"torch\.cat\(\[latents\] \* 2\)|torch\.cat\(\[latents, latents\]\)", code)
    assert bool(formula and stacked and ".chunk(2)" in code) == (family.guidance == STACKED)
    two_calls = (
        len(re.findall(r"= (?:self\.transformer|current_model)\(", code)) == 2
        and "skip_layers" not in code
    )
    assert two_calls == (family.guidance is not None and family.guidance.apart)
    evenly = "np.linspace(1.0, 1 / num_inference_steps" in code
    assert not evenly or family.even_sigmas
    assert family in FAMILIES
    assert family.runs_plans
