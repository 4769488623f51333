"""Small random pipelines beside those of ``models.py``: one of every other family of loops, with
the arguments of its call. Prompts are embeddings: no text encoder is built.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import diffusers
import torch

NEGATIVE = 1  # seed of the negative prompt's embeddings


@contextmanager
def seeded(seed: int):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def embeds(length: int = 5, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, length, width, generator=torch.Generator().manual_seed(seed))


def seeing(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def prompt_embeds(
    negative: str = "negative_prompt_attention_mask", dtype=torch.long, **extra
) -> dict:
    mask = torch.ones(2, 5, dtype=dtype)
    return {
        "prompt_embeds": embeds(),
        "negative_prompt_embeds": embeds(seed=NEGATIVE),
        negative.removeprefix("negative_"): mask,
        negative: mask,
        **extra,
    }


def kandinsky3(tiny, seed):
    with seeded(seed):
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
    with seeded(seed):
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
    with seeded(seed):
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
    with seeded(seed):
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
    with seeded(9):
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


def flow(**extra: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **extra})


def flux(tiny, seed):
    """Without guidance as an input, as schnell and models made of it are."""
    pipe = tiny.build("flux", seed)
    with seeded(seed):
        config = {**pipe.transformer.config, "guidance_embeds": False}
        network = diffusers.FluxTransformer2DModel.from_config(config).eval()
    pipe.register_modules(transformer=network)
    pooled = embeds(1)[:, 0]
    return pipe, {
        "prompt_embeds": embeds(),
        "pooled_prompt_embeds": pooled,
        "negative_prompt_embeds": embeds(seed=NEGATIVE),
        "negative_pooled_prompt_embeds": pooled.flip(0),
        "height": 16,
        "width": 16,
    }


def chroma(tiny, seed):
    with seeded(seed):
        transformer = diffusers.ChromaTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(2, 2, 4),
            approximator_num_channels=8,
            approximator_hidden_dim=8,
            approximator_layers=1,
        ).eval()
    pipe = diffusers.ChromaPipeline(
        transformer=transformer,
        scheduler=flow(),
        vae=tiny.flux(0).vae,
        text_encoder=None,
        tokenizer=tiny.tokenizer(),
    )
    return pipe, prompt_embeds(dtype=torch.bool, height=16, width=16)


def _qwen_vae():
    return diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()


def qwen(tiny, seed):
    with seeded(seed):
        transformer = diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ).eval()
        vae = _qwen_vae()
    pipe = diffusers.QwenImagePipeline(
        transformer=transformer, scheduler=flow(), vae=vae, text_encoder=None, tokenizer=None
    )
    return pipe, prompt_embeds("negative_prompt_embeds_mask", height=32, width=32)


def krea2(tiny, seed):
    with seeded(seed):
        transformer = diffusers.Krea2Transformer2DModel(
            in_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=32,
            timestep_embed_dim=16,
            text_hidden_dim=16,
            num_text_layers=2,
            text_num_attention_heads=2,
            text_num_key_value_heads=1,
            text_intermediate_size=32,
            num_layerwise_text_blocks=1,
            num_refiner_text_blocks=1,
            axes_dims_rope=(4, 6, 6),
        ).eval()
        vae = _qwen_vae()
    pipe = diffusers.Krea2Pipeline(
        transformer=transformer, scheduler=flow(), vae=vae, text_encoder=None, tokenizer=None
    )
    layered = (torch.stack([x, x.flip(0)], 2) for x in (embeds(), embeds(seed=NEGATIVE)))
    mask = torch.ones(2, 5, dtype=torch.bool)
    call = dict(zip(("prompt_embeds", "negative_prompt_embeds"), layered, strict=True))
    call |= {"prompt_embeds_mask": mask, "negative_prompt_embeds_mask": mask}
    return pipe, {**call, "height": 32, "width": 32}


def zimage(tiny, seed):
    prompts = ([*embeds(seed=number)] for number in (0, NEGATIVE))
    call = dict(zip(("prompt_embeds", "negative_prompt_embeds"), prompts, strict=True))
    return tiny.build("zimage", seed), {**call, "height": 16, "width": 16}


def lumina(tiny, seed):
    return tiny.build("lumina", seed), prompt_embeds(height=64, width=64)


def _wan_network():
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=24,
        num_layers=2,
        rope_max_seq_len=32,
    ).eval()


def wan(tiny, seed, boundary_ratio=None):
    with seeded(seed):
        networks = {"transformer": _wan_network(), "transformer_2": None}
        if boundary_ratio is not None:
            networks["transformer_2"] = _wan_network()
        vae = diffusers.AutoencoderKLWan(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
            scale_factor_spatial=2,
            scale_factor_temporal=2,
        ).eval()
    pipe = diffusers.WanPipeline(
        **networks,
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        boundary_ratio=boundary_ratio,
    )
    call = {"height": 16, "width": 16, "num_frames": 5, "max_sequence_length": 5}
    call |= {"prompt_embeds": embeds(), "negative_prompt_embeds": embeds(seed=NEGATIVE)}
    return pipe, call


BUILDERS = {
    "kandinsky3": kandinsky3,
    "hunyuan_dit": hunyuan_dit,
    "sana": sana,
    "cogvideox": cogvideox,
    "pixart_sigma": pixart_sigma,
    "controlnet": controlnet,
    "flux": flux,
    "chroma": chroma,
    "qwen": qwen,
    "krea2": krea2,
    "wan": wan,
    "zimage": zimage,
    "lumina": lumina,
}
"""name → builder of a pipeline and the arguments of its call, by (``models.py``, seed)."""
