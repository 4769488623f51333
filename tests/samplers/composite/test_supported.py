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
from xhat.hooks.families import FAMILIES, family_of_class
from xhat.samplers.composite.supported import why_no_plan
from xhat.samplers.plans.plan import Plan, Segment

pytestmark = pytest.mark.filterwarnings("ignore")
SEEDS = 0, 1


def embeds(length: int = 5, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, length, width, generator=torch.Generator().manual_seed(seed))


def seeing(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def prompt_embeds(negative: str = "negative_prompt_attention_mask", **extra) -> dict:
    mask = torch.ones(2, 5, dtype=torch.long)
    return {
        "prompt_embeds": embeds(),
        "negative_prompt_embeds": embeds(seed=1),
        negative.removeprefix("negative_"): mask,
        negative: mask,
        **extra,
    }


def kandinsky3(tiny, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = diffusers.Kandinsky3UNet(
            time_embedding_dim=4,
            groups=2,
            attention_head_dim=4,
            block_out_channels=(8, 16, 16, 16),
            cross_attention_dim=16,
            encoder_hid_dim=16,
        ).eval()
        movq = diffusers.VQModel(
            block_out_channels=[8, 8],
            down_block_types=["DownEncoderBlock2D"] * 2,
            up_block_types=["UpDecoderBlock2D"] * 2,
            latent_channels=4,
            norm_num_groups=8,
            num_vq_embeddings=12,
        )
    pipe = diffusers.Kandinsky3Pipeline(
        tokenizer=tiny.tokenizer(),
        text_encoder=None,
        unet=unet,
        scheduler=diffusers.DDPMScheduler(),
        movq=movq,
    )
    return pipe, prompt_embeds("negative_attention_mask", height=64, width=64)


def hunyuan_dit(tiny, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = diffusers.HunyuanDiT2DModel(
            sample_size=8,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            in_channels=4,
            cross_attention_dim=16,
            cross_attention_dim_t5=16,
            pooled_projection_dim=4,
            hidden_size=16,
            activation_fn="gelu-approximate",
            learn_sigma=True,
            text_len=5,
            text_len_t5=5,
        ).eval()
    pipe = diffusers.HunyuanDiTPipeline(
        vae=tiny.sd(0).vae,
        text_encoder=None,
        tokenizer=tiny.tokenizer(),
        transformer=transformer,
        scheduler=diffusers.DDPMScheduler(prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        tokenizer_2=tiny.tokenizer(),
    )
    second = {f"{name}_2": value for name, value in prompt_embeds().items()}
    return pipe, prompt_embeds(**second, use_resolution_binning=False, height=16, width=16)


def sana(tiny, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = diffusers.SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=8,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=16,
            sample_size=8,
            patch_size=1,
        ).eval()
        sides = ("encoder", "decoder")
        vae = diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            **{f"{side}_block_types": ("ResBlock", "EfficientViTBlock") for side in sides},
            **{f"{side}_block_out_channels": (8, 8) for side in sides},
            **{f"{side}_qkv_multiscales": ((), (5,)) for side in sides},
            **{f"{side}_layers_per_block": (1, 1) for side in sides},
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            decoder_norm_types="rms_norm",
            decoder_act_fns="silu",
        )
    pipe = diffusers.SanaPipeline(
        tokenizer=tiny.tokenizer(),
        text_encoder=None,
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    return pipe, prompt_embeds(
        negative_prompt=None, use_resolution_binning=False, height=32, width=32
    )


def cogvideox(tiny, seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            time_embed_dim=4,
            text_embed_dim=16,
            num_layers=1,
            sample_width=2,
            sample_height=2,
            sample_frames=9,
            max_text_seq_length=5,
        ).eval()
        vae = diffusers.AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8,) * 4,
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        )
    pipe = diffusers.CogVideoXPipeline(
        tokenizer=tiny.tokenizer(),
        text_encoder=None,
        vae=vae,
        transformer=transformer,
        scheduler=diffusers.DDIMScheduler(),
    )
    call = {"height": 16, "width": 16, "num_frames": 8, "max_sequence_length": 5}
    return pipe, {
        "prompt_embeds": embeds(),
        "negative_prompt_embeds": embeds(seed=1),
        **call,
    }


def pixart_sigma(tiny, seed):
    call = {"use_resolution_binning": False, "height": 16, "width": 16}
    pipe = diffusers.PixArtSigmaPipeline(**tiny.pixart(seed).components)
    return pipe, prompt_embeds(negative_prompt=None, **call)


def controlnet(tiny, seed):
    parts = tiny.sd(seed).components
    parts.pop("image_encoder")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        control = diffusers.ControlNetModel.from_unet(
            parts["unet"], conditioning_embedding_out_channels=(8, 8)
        ).eval()
        for block in control.controlnet_down_blocks:
            torch.nn.init.normal_(block.weight, std=0.3)
    pipe = diffusers.StableDiffusionControlNetPipeline(
        **parts, controlnet=control, requires_safety_checker=False
    )
    return pipe, {
        "prompt": ["a red planet", "a robot"],
        "image": seeing(3),
        "height": 16,
        "width": 16,
    }


BUILDERS = {
    "kandinsky3": kandinsky3,
    "hunyuan_dit": hunyuan_dit,
    "sana": sana,
    "cogvideox": cogvideox,
    "pixart_sigma": pixart_sigma,
    "controlnet": controlnet,
}


def drawn(pipe, call, **extra):
    pipe.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    return pipe(generator=generators, output_type="latent", **call, **extra)[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_a_plan_of_one_model_is_that_model_or_is_refused(tiny, name):
    (base, call), (student, _) = (BUILDERS[name](tiny, seed) for seed in (0, 1))
    shared = {n: p for n, p in base.components.items() if n not in ("unet", "transformer")}
    student.register_modules(**shared)
    for who, pipe in (("base", base), ("student", student)):
        for guidance in (1.0, 3.0):
            plan = Plan([Segment(who, 0, 3, 3, guidance)])
            if guidance > 1 and not family_of_class(type(pipe)).stacks_branches:
                with pytest.raises(ValueError, match="does not guide by u"):
                    xhat.hybrid(base, student, plan=plan)
                continue
            alone = drawn(pipe, call, num_inference_steps=3, guidance_scale=guidance)
            hybrid = xhat.hybrid(base, student, plan=plan)
            assert torch.equal(drawn(hybrid, call, guidance_scale=guidance), alone)
    assert not torch.equal(alone, drawn(base, call, num_inference_steps=3))


# What is refused


def of_class(kind, pipe):
    """The parts of a pipeline in a pipeline of another class, as far as they go."""
    other = kind.__new__(kind)
    other.__dict__.update(vars(pipe))
    return other


REFUSED = {
    "StableDiffusionImg2ImgPipeline": "starts from a picture",
    "StableDiffusionInpaintPipeline": "starts from a picture",
    "StableDiffusionXLImg2ImgPipeline": "starts from a picture",
    "FluxInpaintPipeline": "starts from a picture",
    "LatentConsistencyModelPipeline": "original_inference_steps",
    "LatentConsistencyModelImg2ImgPipeline": "starts from a picture",
    "CogView4Pipeline": "timesteps and σ of its own",
    "WanPipeline": "makes videos",
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
    "FluxKontextPipeline": "no plan was tried",
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
    assert why_no_plan(type("Mine", (diffusers.WanPipeline,), {})) == "makes videos"


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
    assert bool(formula and stacked and ".chunk(2)" in code) == family.stacks_branches
    evenly = "np.linspace(1.0, 1 / num_inference_steps" in code
    assert not evenly or family.even_sigmas
    assert family in FAMILIES
    assert family.runs_plans
