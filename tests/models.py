"""Small pipelines with random weights, built from diffusers' own classes, for tests of shape and
equality.

Latents are 4 × 8 × 8 (SD3: 16 channels), pictures 16 × 16. Weights depend on ``seed`` alone.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import diffusers
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

WORDS = [
    "a",
    "the",
    "of",
    "red",
    "green",
    "blue",
    "quiet",
    "loud",
    "small",
    "large",
    "planet",
    "plant",
    "face",
    "robot",
    "critter",
    "landscape",
]


@contextmanager
def _seeded(seed: int):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def tokenizer(length: int = 16) -> PreTrainedTokenizerFast:
    """Words are tokens: no download, no files."""
    vocab = {word: i for i, word in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=length,
    )


def _clip(width: int = 16, projection: bool = False, act: str = "quick_gelu") -> Any:
    config = CLIPTextConfig(
        vocab_size=4 + len(WORDS),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=16,
        projection_dim=width,
        hidden_act=act,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def _t5(width: int = 16) -> Any:
    config = T5Config(
        vocab_size=4 + len(WORDS), d_model=width, d_ff=2 * width, d_kv=8, num_layers=1, num_heads=2
    )
    return T5EncoderModel(config).eval()


def _vae(channels: int = 4, shift: float | None = None) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        shift_factor=shift,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=16,
    ).eval()


def _unet(cross: int, **extra: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross,
        attention_head_dim=4,
        norm_num_groups=4,
        **extra,
    ).eval()


def ddim(**extra: Any) -> Any:
    """The scheduler of Stable Diffusion, with x̂₀ left unclipped and steps that start at pure
    noise.
    """
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    settings |= {
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "timestep_spacing": "trailing",
    }
    return diffusers.DDIMScheduler(**(settings | extra))


def sd(seed: int = 0, scheduler: Any = None) -> Any:
    with _seeded(seed):
        pipe = diffusers.StableDiffusionPipeline(
            vae=_vae(),
            text_encoder=_clip(),
            tokenizer=tokenizer(),
            unet=_unet(16),
            scheduler=scheduler or ddim(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    return _quiet(pipe)


def sdxl(seed: int = 0, scheduler: Any = None) -> Any:
    with _seeded(seed):
        unet = _unet(
            32,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=4 * 6 + 16,
            transformer_layers_per_block=(1, 2),
            use_linear_projection=True,
        )
        pipe = diffusers.StableDiffusionXLPipeline(
            vae=_vae(),
            text_encoder=_clip(),
            text_encoder_2=_clip(projection=True, act="gelu"),
            tokenizer=tokenizer(),
            tokenizer_2=tokenizer(),
            unet=unet,
            scheduler=scheduler or ddim(),
            add_watermarker=False,
        )
    return _quiet(pipe)


def sd3(seed: int = 0, scheduler: Any = None) -> Any:
    with _seeded(seed):
        transformer = diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=16,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=32,
            out_channels=16,
            pos_embed_max_size=16,
        ).eval()
        pipe = diffusers.StableDiffusion3Pipeline(
            transformer=transformer,
            scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae(16, shift=0.06),
            text_encoder=_clip(projection=True),
            tokenizer=tokenizer(),
            text_encoder_2=_clip(projection=True, act="gelu"),
            tokenizer_2=tokenizer(),
            text_encoder_3=_t5(32),
            tokenizer_3=tokenizer(),
        )
    return _quiet(pipe)


def pixart(seed: int = 0, scheduler: Any = None) -> Any:
    with _seeded(seed):
        transformer = diffusers.PixArtTransformer2DModel(
            sample_size=8,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_channels=16,
            cross_attention_dim=16,
            in_channels=4,
            out_channels=8,
            use_additional_conditions=False,
        ).eval()
        pipe = diffusers.PixArtAlphaPipeline(
            tokenizer=tokenizer(),
            text_encoder=_t5(),
            vae=_vae(),
            transformer=transformer,
            scheduler=scheduler or diffusers.DPMSolverMultistepScheduler(),
        )
    return _quiet(pipe)


def flux(seed: int = 0, scheduler: Any = None) -> Any:
    with _seeded(seed):
        transformer = diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(2, 2, 4),
        ).eval()
        pipe = diffusers.FluxPipeline(
            transformer=transformer,
            scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=_vae(4, shift=0.1),
            text_encoder=_clip(),
            tokenizer=tokenizer(),
            text_encoder_2=_t5(),
            tokenizer_2=tokenizer(),
        )
    return _quiet(pipe)


def aura(seed: int = 0, scheduler: Any = None) -> Any:
    with _seeded(seed):
        transformer = diffusers.AuraFlowTransformer2DModel(
            sample_size=8,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=16,
            caption_projection_dim=16,
            pos_embed_max_size=64,
        ).eval()
        pipe = diffusers.AuraFlowPipeline(
            transformer=transformer,
            scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(),
            vae=_vae(),
            text_encoder=_t5(),
            tokenizer=tokenizer(),
        )
    return _quiet(pipe)


def lumina(seed: int = 0, scheduler: Any = None) -> Any:
    with _seeded(seed):
        transformer = diffusers.Lumina2Transformer2DModel(
            sample_size=8,
            in_channels=4,
            hidden_size=24,
            num_layers=2,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=8,
            cap_feat_dim=16,
            axes_dim_rope=(4, 4, 4),
            axes_lens=(64, 16, 16),
        ).eval()
        pipe = diffusers.Lumina2Pipeline(
            transformer=transformer,
            scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0),
            vae=_vae(4, shift=0.1),
            text_encoder=Gemma2Model(Gemma2Config(**_decoder(), query_pre_attn_scalar=8)).eval(),
            tokenizer=tokenizer(),
        )
    return _quiet(pipe)


def zimage(seed: int = 0, scheduler: Any = None) -> Any:
    with _seeded(seed):
        transformer = diffusers.ZImageTransformer2DModel(
            in_channels=4,
            dim=24,
            n_layers=2,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[4, 4, 4],
            axes_lens=[64, 16, 16],
        ).eval()
        for pad in (transformer.x_pad_token, transformer.cap_pad_token):
            torch.nn.init.normal_(pad)
        words = tokenizer()
        words.chat_template = "{{ messages[0]['content'] }}"
        pipe = diffusers.ZImagePipeline(
            transformer=transformer,
            scheduler=scheduler
            or diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
            vae=_vae(4, shift=0.1),
            text_encoder=Qwen3Model(Qwen3Config(**_decoder())).eval(),
            tokenizer=words,
        )
    return _quiet(pipe)


def _decoder() -> dict[str, Any]:
    """Sizes of a language model that reads prompts."""
    return {
        "vocab_size": 4 + len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


BUILDERS = {
    "sd": sd,
    "sdxl": sdxl,
    "sd3": sd3,
    "pixart": pixart,
    "flux": flux,
    "aura": aura,
    "lumina": lumina,
    "zimage": zimage,
}
NAMES = tuple(BUILDERS)
"""The pipelines that tests of every family run."""


def build(name: str, seed: int = 0, scheduler: Any = None) -> Any:
    """A pipeline by name: one of ``NAMES``."""
    return BUILDERS[name](seed, scheduler)


def call_arguments(name: str) -> dict[str, Any]:
    """What a small pipeline needs in a call, beyond prompt, steps and generator."""
    small: dict[str, Any] = {"height": 16, "width": 16}
    if name == "pixart":
        small |= {
            "use_resolution_binning": False,
            "clean_caption": False,
            "max_sequence_length": 16,
        }
    if name in ("sd3", "flux", "aura", "lumina", "zimage"):
        small |= {"max_sequence_length": 16}
    if name == "lumina":  # its pipeline is for a VAE that halves the picture three times
        small |= {"height": 64, "width": 64, "system_prompt": "a"}
    return small


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe
