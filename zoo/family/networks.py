"""The networks of the embedded family, all in diffusers' and transformers' own classes.

A 64 × 64 picture is a 4 × 16 × 16 latent. The base predicts v on Stable Diffusion's scaled-linear
schedule."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from xhat.zoo.family.attributes import vocabulary

MAX_TOKENS = 20
WIDTH = 128  # of the text encoder

NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "clip_sample": False,
    "steps_offset": 1,  # a pipeline of Stable Diffusion warns of another
}


def make_vae() -> Any:
    """``AutoencoderTiny`` with one width for all levels, 0.3 M parameters."""
    from diffusers import AutoencoderTiny

    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(32, 32, 32),
        num_encoder_blocks=(1, 1, 2),
        num_decoder_blocks=(3, 2, 1),
        latent_channels=4,
    )


def make_tokenizer() -> Any:
    """One word, one token: every word a caption can hold."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", "<unk>", *vocabulary()]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def make_text_encoder() -> Any:
    """``CLIPTextModel`` of two layers, trained together with the UNet."""
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=4 + len(vocabulary()),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            hidden_act="gelu",
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
    )


def make_unet(**changes: Any) -> Any:
    """``UNet2DConditionModel``, 5.7 M parameters, cross-attention at 8 × 8 and 4 × 4.

    ``addition_embed_type="text"`` puts the pooled caption into the time embedding: without it
    captions are hardly used by a network this small. ``changes``: settings unlike the base's."""
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": 16,
        "in_channels": 4,
        "out_channels": 4,
        "block_out_channels": (64, 96, 128),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
        "cross_attention_dim": WIDTH,
        "norm_num_groups": 16,
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 4,
    }
    return UNet2DConditionModel(**settings | changes)


def load_unet(folder: Path) -> Any:
    """The frozen UNet of a pipeline's folder, in float32."""
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float32)
    return unet.requires_grad_(False).eval()


def base_scheduler() -> Any:
    """Trailing DDIM: its 20-step grid holds 749 and 499 exactly, where the students hand over."""
    from diffusers import DDIMScheduler

    return DDIMScheduler(**NOISE, timestep_spacing="trailing")


def student_scheduler() -> Any:
    """LCM's, which takes any ``timesteps`` of the thousand: a student's own stand in its
    ``xhat.json``.
    """
    from diffusers import LCMScheduler

    return LCMScheduler(**NOISE, original_inference_steps=1000)


def follower_scheduler() -> Any:
    """Euler's, of a student that follows a trajectory: DDIM's steps, and any ``timesteps``."""
    from diffusers import EulerDiscreteScheduler

    noise = {k: v for k, v in NOISE.items() if k not in ("set_alpha_to_one", "clip_sample")}
    return EulerDiscreteScheduler(**noise, timestep_spacing="trailing")


def save_pipeline(
    folder: Path,
    *,
    vae: Any,
    tokenizer: Any,
    text_encoder: Any,
    unet: Any,
    scheduler: Any,
    defaults: dict[str, Any],
) -> None:
    """Write a ``StableDiffusionPipeline`` folder in fp16 safetensors, and its sampling ``defaults``
    beside it.
    """
    from diffusers import StableDiffusionPipeline

    pipe: Any = StableDiffusionPipeline(
        vae=vae,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16).save_pretrained(folder)
    pipe.to(torch.float32)
    # a key that AutoencoderTiny writes and then warns of when it reads it
    _rewrite(folder / "vae" / "config.json", drop=("block_out_channels", "_name_or_path"))
    _rewrite(folder / "unet" / "config.json", drop=("_name_or_path",))  # a path of this machine
    # transformers loads in the precision of this entry, diffusers' own networks in float32
    _rewrite(folder / "text_encoder" / "config.json", dtype="float32")
    (folder / "xhat.json").write_text(json.dumps(defaults) + "\n")


def _rewrite(path: Path, drop: Collection[str] = (), **entries: Any) -> None:
    """Change some entries of a JSON file and leave the others."""
    entries = json.loads(path.read_text()) | entries
    rest = {name: value for name, value in entries.items() if name not in drop}
    path.write_text(json.dumps(rest, indent=2) + "\n")


def tokenize(tokenizer: Any, captions: list[str]) -> torch.Tensor:
    """Token ids (n, MAX_TOKENS), padded as the pipeline pads."""
    return tokenizer(
        captions, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
