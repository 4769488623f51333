"""What is particular to a family of pipelines: one entry each, looked up by class.

Everything here is a fact about diffusers' own classes that cannot be read off a pipeline while it
runs. A pipeline without an entry is taken to be like most: latents (channel, y, x), guidance
stacked as (unconditional, conditional), the image first among what a block gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Guidance:
    """How a family's pipelines make classifier-free guidance, u + g·(c − u), of a conditional and
    an unconditional prediction.

    Parameters
    ----------
    apart
        Whether the network is called once for each, c first; else both are in one batch.
    beyond
        Whether it is written as c + g·(c − u): that g is one less.
    normalized
        Whether the sum has the norm of c over its last dimension.
    truncates
        Whether the pipeline may leave out u at its last steps.
    argument
        Name of g in the pipeline's call.
    """

    apart: bool = False
    beyond: bool = False
    normalized: bool = False
    truncates: bool = False
    argument: str = "guidance_scale"

    def in_call(self, scale: float) -> float:
        """A scale of u + g·(c − u), as the pipeline's call counts it."""
        return scale - 1 if self.beyond else scale

    def of_call(self, scale: float) -> float:
        """A scale of the pipeline's call, as that of u + g·(c − u)."""
        return scale + 1 if self.beyond else scale


STACKED = Guidance()


@dataclass(frozen=True)
class Family:
    """A family of pipelines.

    Parameters
    ----------
    name
        What the family is called in messages.
    classes
        Names of its pipelines and networks; subclasses belong to it too.
    latent_dims
        Dimensions of the latents that its scheduler steps, the sample left out, where they are not
        those that their number suggests.
    cond_first
        Whether guidance is stacked as (conditional, unconditional).
    even_sigmas
        Whether its pipeline gives the scheduler σ = 1, …, 1/n.
    single
        Whether these σ are made in single precision.
    backward_time
        Whether its network counts time from noise to picture.
    conditions
        Names of the network's arguments that hold the prompt.
    tokenizers
        Names of the tokenizers whose tokens the network is given, one after the other.
    image_last
        Names of the blocks that give (prompt stream, image stream), in that order.
    runs_plans
        Whether plans of several models are known to run in its pipelines' loops: they begin at pure
        noise, and tell the scheduler nothing but a number of steps, and what is said above.
    guidance
        How its pipelines guide; None where segments of a plan cannot.
    loop
        What a loop in which no plan can be run does otherwise.
    """

    name: str
    classes: tuple[str, ...]
    latent_dims: tuple[str, ...] | None = None
    cond_first: bool = False
    even_sigmas: bool = False
    single: bool = False
    backward_time: bool = False
    conditions: tuple[str, ...] = ("encoder_hidden_states", "pooled_projections", "text_embeds")
    tokenizers: tuple[str, ...] = ("tokenizer",)
    image_last: tuple[str, ...] = ()
    runs_plans: bool = False
    guidance: Guidance | None = None
    loop: str = ""


FRAMES_FIRST = ("frame", "channel", "y", "x")
CHANNEL_LAST = ("frame", "y", "x", "channel")


def _flux_like(name: str) -> tuple[str, ...]:
    return (f"{name}TransformerBlock", f"{name}SingleTransformerBlock")


OTHERS = Family("others", ())
FAMILIES = (
    Family(
        "Stable Diffusion",
        (
            "StableDiffusionPipeline",
            "StableDiffusionImg2ImgPipeline",
            "StableDiffusionInpaintPipeline",
            "StableDiffusionXLPipeline",
            "StableDiffusionXLImg2ImgPipeline",
            "StableDiffusionXLInpaintPipeline",
            "StableDiffusionControlNetPipeline",
            "StableDiffusionControlNetImg2ImgPipeline",
            "StableDiffusionControlNetInpaintPipeline",
            "StableDiffusionXLControlNetPipeline",
            "StableDiffusionXLControlNetImg2ImgPipeline",
            "StableDiffusionXLControlNetInpaintPipeline",
        ),
        runs_plans=True,
        guidance=STACKED,
    ),
    Family(
        "InstructPix2Pix",
        ("StableDiffusionInstructPix2PixPipeline", "StableDiffusionXLInstructPix2PixPipeline"),
        loop="guides by a picture beside the prompt, in three branches",
    ),
    Family(
        "LCM",
        ("LatentConsistencyModelPipeline",),
        loop="gives its scheduler original_inference_steps (put its parts into a "
        "StableDiffusionPipeline, which samples the same)",
    ),
    Family(
        "SD3",
        (
            "StableDiffusion3Pipeline",
            "StableDiffusion3Img2ImgPipeline",
            "StableDiffusion3InpaintPipeline",
        ),
        tokenizers=("tokenizer", "tokenizer_3"),
        image_last=("JointTransformerBlock",),
        runs_plans=True,
        guidance=STACKED,
    ),
    Family(
        "PixArt",
        ("PixArtAlphaPipeline", "PixArtSigmaPipeline"),
        runs_plans=True,
        guidance=STACKED,
    ),
    Family("Sana", ("SanaPipeline",), runs_plans=True, guidance=STACKED),
    Family("Hunyuan-DiT", ("HunyuanDiTPipeline",), runs_plans=True, guidance=STACKED),
    Family(
        "AuraFlow",
        ("AuraFlowPipeline",),
        image_last=("AuraFlowJointTransformerBlock",),
        runs_plans=True,
        guidance=STACKED,
    ),
    Family(
        "Chroma",
        ("ChromaPipeline", "ChromaImg2ImgPipeline"),
        even_sigmas=True,
        image_last=("ChromaTransformerBlock",),
        runs_plans=True,
        guidance=Guidance(apart=True),
    ),
    Family(
        "FLUX",
        (
            "FluxPipeline",
            "FluxImg2ImgPipeline",
            "FluxInpaintPipeline",
            "FluxKontextPipeline",
        ),
        even_sigmas=True,
        tokenizers=("tokenizer_2",),
        image_last=_flux_like("Flux"),
        runs_plans=True,
        guidance=Guidance(apart=True, argument="true_cfg_scale"),
    ),
    Family(
        "FLUX.2",
        ("Flux2Pipeline", "Flux2KleinPipeline"),
        image_last=_flux_like("Flux2"),
        loop="shifts its noise levels by the number of steps",
    ),
    Family("FLUX.3", ("Flux3Pipeline",), image_last=("Flux3SingleTransformerBlock",)),
    Family(
        "Bria",
        ("BriaPipeline", "BriaFiboPipeline"),
        image_last=(*_flux_like("Bria"), "BriaFiboTransformerBlock"),
    ),
    Family("LongCat-Image", ("LongCatImagePipeline",), image_last=_flux_like("LongCatImage")),
    Family(
        "Ovis-Image",
        ("OvisImagePipeline",),
        even_sigmas=True,
        image_last=_flux_like("OvisImage"),
        runs_plans=True,
        guidance=Guidance(apart=True),
    ),
    Family(
        "Qwen-Image",
        (
            "QwenImagePipeline",
            "QwenImageImg2ImgPipeline",
            "QwenImageInpaintPipeline",
            "QwenImageEditPipeline",
        ),
        even_sigmas=True,
        image_last=("QwenImageTransformerBlock",),
        runs_plans=True,
        guidance=Guidance(apart=True, normalized=True, argument="true_cfg_scale"),
    ),
    Family(
        "Krea 2",
        ("Krea2Pipeline",),
        even_sigmas=True,
        runs_plans=True,
        guidance=Guidance(apart=True, beyond=True),
    ),
    Family(
        "Lumina-Next",
        ("LuminaPipeline", "LuminaText2ImgPipeline"),
        loop="guides three of its channels and turns its output round",
    ),
    Family(
        "Lumina 2",
        ("Lumina2Pipeline", "Lumina2Transformer2DModel"),
        even_sigmas=True,
        backward_time=True,
        runs_plans=True,
        guidance=Guidance(apart=True, normalized=True, truncates=True),
    ),
    Family(
        "Z-Image",
        ("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageTransformer2DModel"),
        cond_first=True,
        even_sigmas=True,
        single=True,
        backward_time=True,
        conditions=("cap_feats",),
        runs_plans=True,
        guidance=Guidance(beyond=True),
    ),
    Family("Kandinsky 3", ("Kandinsky3Pipeline",), runs_plans=True),
    Family(
        "CogView 4",
        ("CogView4Pipeline", "CogView4ControlPipeline"),
        loop="gives its scheduler timesteps and σ of its own",
    ),
    Family(
        "CogVideoX",
        ("CogVideoXPipeline", "CogVideoXTransformer3DModel", "ConsisIDTransformer3DModel"),
        latent_dims=FRAMES_FIRST,
        runs_plans=True,
        guidance=STACKED,
    ),
    Family(
        "Wan",
        ("WanPipeline",),
        runs_plans=True,
        guidance=Guidance(apart=True),
    ),
    Family(
        "Stable Video Diffusion",
        ("StableVideoDiffusionPipeline", "UNetSpatioTemporalConditionModel"),
        latent_dims=FRAMES_FIRST,
    ),
    Family(
        "Kandinsky 5 and 6",
        ("Kandinsky5Transformer3DModel", "Kandinsky6Transformer3DModel"),
        latent_dims=CHANNEL_LAST,
    ),
)
CONDITIONS = frozenset(name for family in (OTHERS, *FAMILIES) for name in family.conditions)
IMAGE_LAST = frozenset(block for family in FAMILIES for block in family.image_last)
_BY_CLASS = {name: family for family in FAMILIES for name in family.classes}


def family_of(thing: Any) -> Family:
    """The family of a pipeline or of a network, by the name of its class or of a parent of it.

    >>> from diffusers import ZImagePipeline
    >>> family_of(ZImagePipeline.__new__(ZImagePipeline)).cond_first
    True
    """
    candidates = [thing, getattr(thing, "transformer", None), getattr(thing, "unet", None)]
    for candidate in candidates[: 1 if isinstance(thing, nn.Module) else None]:
        family = family_of_class(type(candidate))
        if family is not OTHERS:
            return family
    return OTHERS


def family_of_class(kind: type) -> Family:
    """The family of a class of pipelines or of networks, by its name or that of a parent."""
    names = [parent.__name__ for parent in kind.__mro__ if parent.__name__ in _BY_CLASS]
    return _BY_CLASS[names[0]] if names else OTHERS


def branch_names(pipe: Any, count: int) -> tuple[str, ...] | None:
    """Names of ``count`` branches that a pipeline stacks in one batch; None for a number of them
    that nothing is known of.

    Perturbed-attention guidance (Ahn et al. 2024, arXiv 2403.17377) stacks the perturbed branch
    last.
    """
    if count == 1:
        return ("cond",)
    if getattr(pipe, "do_perturbed_attention_guidance", False):
        return {2: ("cond", "perturbed"), 3: ("uncond", "cond", "perturbed")}.get(count)
    if count == 2:
        return ("cond", "uncond") if family_of(pipe).cond_first else ("uncond", "cond")
    return None


def calls_apart(pipe: Any) -> tuple[str, ...] | None:
    """Names of the branches that a pipeline calls its network for one after the other at a step,
    in that order; None where it stacks them, or where nothing is known.
    """
    guidance = family_of(pipe).guidance
    return ("cond", "uncond") if guidance is not None and guidance.apart else None


def branch_count(pipe: Any) -> int | None:
    """How many branches a pipeline runs for each sample, None where it does not say."""
    guided = getattr(pipe, "do_classifier_free_guidance", None)
    if guided is None:
        return None
    perturbed = getattr(pipe, "do_perturbed_attention_guidance", False)
    return 1 + bool(guided) + bool(perturbed)


def refuse_mean_velocity(denoiser: nn.Module) -> None:
    """Raises ValueError for a network that predicts a mean velocity or a flow map.

    x_r = x_t − (t − r)·u(x_t, t, r) leads to the next noise level r; from it there is no x̂₀ until
    r = 0 (Geng et al. 2025, arXiv 2505.13447)."""
    config = getattr(denoiser, "config", {})
    flags = [name for name in ("use_meanflow", "flow_map") if dict(config).get(name)]
    kind = type(denoiser).__name__
    if flags or kind.startswith("AnyFlow"):
        raise ValueError(
            f"{kind}{f' with {flags[0]}=True' if flags else ''} predicts the mean velocity from "
            "one noise level to the next, from which there is no x̂₀ on the way: it is not traced"
        )
