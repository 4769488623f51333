"""A plan's script, run without this package, draws the hybrid's pictures to the bit."""

import runpy
import subprocess
import sys

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import xhat
from xhat.samplers.plans.build import swap_plan, whole
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.plans.sources import ModelSource

PROMPT, SEED = "a red planet", 3
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
BLOCKED = """
import runpy, sys
sys.modules["xhat"] = None
runpy.run_path(sys.argv[1], run_name="__main__")
"""


def lcm():
    return diffusers.LCMScheduler(**STABLE, original_inference_steps=4)


def saved_pair(tiny, name, folder, base=None, student=None):
    """A base and a student of a family, in folders of diffusers and loaded from there."""
    if name in ("sd", "sdxl", "pixart"):
        student = student or lcm()
    pipes = []
    for model, seed, scheduler in (("base", 0, base), ("student", 1, student)):
        tiny.build(name, seed, scheduler).save_pretrained(folder / model)
        pipes.append(diffusers.DiffusionPipeline.from_pretrained(folder / model))
        pipes[-1].set_progress_bar_config(disable=True)
    encoders = {n: p for n, p in pipes[0].components.items() if "encoder" in n or n == "vae"}
    pipes[1].register_modules(**{n: p for n, p in encoders.items() if p is not None})
    return pipes


@pytest.fixture(scope="module")
def sd_pair(tiny, tmp_path_factory):
    return saved_pair(tiny, "sd", tmp_path_factory.mktemp("sd"))


def latents_of(pipe, **call):
    generator = torch.Generator("cpu").manual_seed(SEED)
    return pipe(PROMPT, generator=generator, output_type="latent", **call).images


def check(tiny, name, hybrid, folder, **options):
    """Whether the pipeline that the script loads gives the hybrid's latents."""
    call = tiny.call_arguments(name)
    wanted = latents_of(hybrid, **call)
    path = folder / "plan.py"
    path.write_text(hybrid.scheduler.plan.to_script(hybrid, PROMPT, **call, **options))
    script = runpy.run_path(str(path))
    pipe = script["load"]()
    pipe.set_progress_bar_config(disable=True)
    for _ in range(2):  # a call leaves nothing behind
        assert torch.equal(latents_of(pipe, **script["CALL"]), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_a_script_draws_the_hybrids_picture_without_this_package(tiny, tmp_path, name):
    hybrid = xhat.hybrid(*saved_pair(tiny, name, tmp_path), student_num_inference_steps=4)
    call = tiny.call_arguments(name)
    generator = torch.Generator("cpu").manual_seed(SEED)
    wanted = np.asarray(hybrid(PROMPT, generator=generator, **call).images[0])
    path = tmp_path / "plan.py"
    path.write_text(hybrid.scheduler.plan.to_script(hybrid, PROMPT, seeds=[SEED], **call))
    command = [sys.executable, "-c", BLOCKED, str(path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    drawn = np.asarray(Image.open(tmp_path / "pictures" / f"000-{SEED:06d}.png"))
    assert np.array_equal(drawn, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdxl", "sd3", "pixart", "flux"])
def test_latents_of_other_families(tiny, tmp_path, name):
    guidance = None if name == "flux" else 3.0
    pair = saved_pair(tiny, name, tmp_path)
    hybrid = xhat.hybrid(*pair, student_num_inference_steps=4, base_guidance_scale=guidance)
    check(tiny, name, hybrid, tmp_path)


PLANS = {
    "paper": lambda b, s: xhat.hybrid(b, s, recipe="paper", student_num_inference_steps=4),
    "guided": lambda b, s: xhat.hybrid(
        b, s, base_guidance_scale=3.0, student_num_inference_steps=4, student_guidance_scale=2.0
    ),
    "back and forth": lambda b, s: xhat.hybrid(
        b, s, plan=swap_plan(b, s, [0, 2], num_inference_steps=4)
    ),
    "shared noise": lambda b, s: xhat.hybrid(
        b, s, plan=whole("student", s, num_inference_steps=4, noise="shared")
    ),
    "no x̂₀": lambda b, s: xhat.hybrid(b, s, x0="zero", student_num_inference_steps=4),
    "grid": lambda b, s: xhat.hybrid(b, s, student_timesteps=(999, 390, 155, 60)),
}


@pytest.mark.parametrize("name", PLANS)
def test_latents_of_other_plans(tiny, sd_pair, tmp_path, name):
    check(tiny, "sd", PLANS[name](*sd_pair), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "base",
    ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "DPMSolverMultistepScheduler"],
)
def test_latents_handed_over_by_schedulers_of_other_spaces(tiny, tmp_path, base):
    """σ-space to VP, the base of v-prediction: as sd21 is to its students."""
    scheduler = getattr(diffusers, base)(
        **STABLE, timestep_spacing="trailing", prediction_type="v_prediction"
    )
    pair = saved_pair(tiny, "sd", tmp_path, base=scheduler)
    plan = [Segment("base", 0, 3, 9, 2.0), Segment("student", 2, 4, 4)]
    check(tiny, "sd", xhat.hybrid(*pair, plan=Plan(plan)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weights", "lora", "guided weights"])
def test_students_in_published_layouts(tiny, tmp_path, kind):
    base = tiny.sdxl(0)
    base.save_pretrained(tmp_path / "base")
    base = xhat.load_model(tmp_path / "base")
    file = tmp_path / f"{kind}.safetensors"
    if kind == "lora":
        state = lora_of(base)
    else:
        extra = {"time_cond_proj_dim": 8} if kind == "guided weights" else {}
        other = diffusers.UNet2DConditionModel.from_config({**base.unet.config, **extra})
        state = {k: v.contiguous() for k, v in other.state_dict().items()}
    save_file(state, file)
    student = xhat.load_checkpoint(file, base, scheduler="LCMScheduler", lora_scale=0.5)
    student.scheduler.register_to_config(original_inference_steps=4)
    scale = 8.0 if kind == "guided weights" else 1.0
    hybrid = xhat.hybrid(base, student, student_num_inference_steps=4, student_guidance_scale=scale)
    with pytest.raises(ValueError, match="where the weights of 'student' lie is not known"):
        hybrid.scheduler.plan.to_script(hybrid, PROMPT)
    source = ModelSource(tmp_path, "lora" if kind == "lora" else "weights", file.name, 0.5)
    check(tiny, "sdxl", hybrid, tmp_path, sources={"student": source})


def lora_of(pipe):
    """A LoRA of rank 2 on the attention of a small SDXL, in diffusers' layout."""
    state, generator = {}, torch.Generator().manual_seed(5)
    for name, module in pipe.unet.named_modules():
        if name.endswith(("to_q", "to_v")):
            rows, columns = module.weight.shape
            state[f"unet.{name}.lora_A.weight"] = torch.randn(2, columns, generator=generator)
            state[f"unet.{name}.lora_B.weight"] = torch.randn(rows, 2, generator=generator)
    return state


def test_what_a_script_cannot_do_is_refused(tiny, sd_pair):
    base, student = sd_pair
    with pytest.raises(ValueError, match=r"written of a hybrid, got a StableDiffusionPipeline"):
        Plan([Segment("base", 0, 1, 4)]).to_script(base, PROMPT)
    mean = xhat.hybrid(base, student, x0="mean", student_num_inference_steps=4)
    with pytest.raises(ValueError, match="x̂₀ of other samples"):
        mean.scheduler.plan.to_script(mean, PROMPT)
    with pytest.raises(ValueError, match="another plan"):
        Plan([Segment("base", 0, 1, 4)]).to_script(mean, PROMPT)
    dialled = whole("student", student, num_inference_steps=4, strength=0.5)
    weak = xhat.hybrid(base, student, plan=dialled)
    with pytest.raises(ValueError, match=r"strength=0.5 .* is not written into scripts"):
        weak.scheduler.plan.to_script(weak, PROMPT)
    hybrid = xhat.hybrid(base, student, student_num_inference_steps=4)
    with pytest.raises(ValueError, match="sources name teacher"):
        hybrid.scheduler.plan.to_script(hybrid, PROMPT, sources={"teacher": "somewhere"})


def test_a_source_says_its_file():
    with pytest.raises(ValueError, match="names its file"):
        ModelSource("owner/name", "lora")
    with pytest.raises(ValueError, match="expected one of pipeline, denoiser, weights, lora"):
        ModelSource("owner/name", "checkpoint")
