"""A plan as a workflow of ComfyUI, in the format that its server takes.

Each stretch of steps is one SamplerCustom whose sigmas are written out, so that hand-overs lie at
the plan's own noise levels; the first adds the noise, the others go on with what they are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from xhat.hooks.families import family_of
from xhat.hooks.noise.levels import space
from xhat.hooks.noise.schedulers import kind
from xhat.samplers.plans.script import check_plain

Node = dict[str, Any]
Link = list[Any]  # [node, which of its outputs]

SAMPLERS = {
    "DDIMScheduler": "euler",  # without noise of its own, the same steps in σ (2206.00364, Sec. 4)
    "EulerDiscreteScheduler": "euler",
    "FlowMatchEulerDiscreteScheduler": "euler",
    "LCMScheduler": "lcm",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
}
BY_NOISE = {"own": "euler", "fresh": "lcm"}
LATENTS = {"Stable Diffusion": "EmptyLatentImage", "SD3": "EmptySD3LatentImage"}
LOADERS = {"checkpoint": "ckpt_name", "unet": "unet_name", "lora": "lora_name"}


@dataclass(frozen=True)
class ComfyFile:
    """A file of weights in ComfyUI's folders.

    Parameters
    ----------
    name
        As ComfyUI lists it: ``"sd_xl_base_1.0.safetensors"``.
    kind
        ``"checkpoint"``: in ``models/checkpoints``, with text encoders and VAE; ``"unet"``: a
        network alone, in ``models/diffusion_models``; ``"lora"``: of the first model's network, in
        ``models/loras``.
    strength
        Of a LoRA.

    Raises
    ------
    ValueError
        For another kind.
    """

    name: str
    kind: str = "checkpoint"
    strength: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in LOADERS:
            raise ValueError(f"kind={self.kind!r}: expected one of {', '.join(LOADERS)}")

    @classmethod
    def parse(cls, text: str) -> ComfyFile:
        """
        >>> ComfyFile.parse("lora:dmd2.safetensors"), ComfyFile.parse("sdxl.safetensors").kind
        (ComfyFile(name='dmd2.safetensors', kind='lora', strength=1.0), 'checkpoint')
        """
        before, _, after = text.partition(":")
        return cls(after, before) if after and before in LOADERS else cls(text)


def comfyui_of(
    pipe: Any,
    prompt: str,
    *,
    files: Mapping[str, ComfyFile | str],
    seed: int = 0,
    negative_prompt: str = "",
    width: int | None = None,
    height: int | None = None,
    batch_size: int = 1,
) -> dict[str, Node]:
    """A hybrid's plan as nodes of ComfyUI, by their number; ``json.dumps`` of it is what ``POST
    /prompt`` takes under ``"prompt"``, and what ComfyUI's “Export (API)” writes.

    Parameters
    ----------
    pipe
        A hybrid (:func:`xhat.hybrid`) of Stable Diffusion, SDXL or SD 3.
    prompt, negative_prompt, seed, batch_size
        What is drawn. ComfyUI draws its noise otherwise than diffusers: the pictures of a seed are
        others, of the same distribution.
    files
        Model → its file, a :class:`ComfyFile` or as text: ``"sdxl.safetensors"``,
        ``"unet:dmd2.safetensors"``, ``"lora:lcm.safetensors"``. The first model's is a checkpoint.
    width, height
        Of the picture; the pipeline's own size where they are left out.

    Returns
    -------
    dict
        Number → ``{"class_type": …, "inputs": …}``.

    Raises
    ------
    ValueError
        For a pipeline that is no hybrid or of another family, a scheduler that ComfyUI has no
        exact sampler for, rivals, and what only this package does; and for missing files.
    """
    latent, size = _picture(pipe)
    check_plain(pipe, "a workflow")
    if any(segment.x0 is not None for segment in pipe.scheduler.plan.segments):
        raise ValueError("x0= replaces x̂₀ at a hand-over, and is not written into workflows")
    scheduler = pipe.scheduler
    scheduler.set_timesteps()
    entries = scheduler.run.entries
    sources = _files(files, list(dict.fromkeys(entry.segment.model for entry in entries)), pipe)
    graph = _Graph()
    outputs = _loaded(graph, sources, next(iter(sources)))
    encode = {"clip": outputs["clip"]}
    positive = graph.add("CLIPTextEncode", text=prompt, **encode)
    negative = graph.add("CLIPTextEncode", text=negative_prompt, **encode)
    sizes = {"width": width or size, "height": height or size, "batch_size": batch_size}
    x = graph.add(latent, **sizes)
    flow = space(next(iter(scheduler.schedulers.values()))) == "flow"
    for i, (_, stretch) in enumerate(groupby(entries, key=_stretch)):
        steps = list(stretch)
        ends = _end(steps[-1]) if steps[-1] is entries[-1] else steps[-1].target.sigma
        levels = [*(entry.level.sigma for entry in steps), ends]
        x = graph.add(
            "SamplerCustom",
            model=outputs[steps[0].segment.model],
            add_noise=i == 0,
            noise_seed=seed + i,
            cfg=float(max(1.0, steps[0].segment.guidance_scale)),
            positive=positive,
            negative=negative,
            sampler=graph.add("KSamplerSelect", sampler_name=_sampler(steps[0])),
            sigmas=graph.add("ManualSigmas", sigmas=_text(levels, flow)),
            latent_image=x,
        )
    pictures = graph.add("VAEDecode", samples=x, vae=outputs["vae"])
    graph.add("SaveImage", images=pictures, filename_prefix="xhat")
    return graph.nodes


class _Graph:
    """Nodes in the order in which they were added; :meth:`add` gives the first output of one."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def add(self, class_type: str, **inputs: Any) -> Link:
        number = str(len(self.nodes) + 1)
        self.nodes[number] = {"class_type": class_type, "inputs": inputs}
        return [number, 0]


def _picture(pipe: Any) -> tuple[str, int]:
    """The node of empty latents, and a picture's side. Raises ValueError for other families."""
    family = family_of(pipe).name
    if not hasattr(getattr(pipe, "scheduler", None), "plan"):
        raise ValueError(
            f"a workflow is written of a hybrid, got a {type(pipe).__name__}: xhat.hybrid(base, "
            "student)"
        )
    if family not in LATENTS:
        raise ValueError(
            f"workflows of {type(pipe).__name__} are not written: there are those of "
            f"{', '.join(LATENTS)}. plan.to_script(pipe, prompt) writes a diffusers script"
        )
    side = getattr(pipe, "default_sample_size", None) or pipe.unet.config.sample_size
    return LATENTS[family], int(side) * int(pipe.vae_scale_factor)


def _files(
    given: Mapping[str, ComfyFile | str], models: Sequence[str], pipe: Any
) -> dict[str, ComfyFile]:
    """Model → its file, the pipeline's first model first."""
    first = next(iter(pipe.scheduler.schedulers))
    models = list(dict.fromkeys([first, *models]))
    if unknown := sorted(set(given) - set(models)):
        raise ValueError(f"files name {', '.join(unknown)}: the plan runs {', '.join(models)}")
    if missing := [name for name in models if name not in given]:
        raise ValueError(
            f"no file for {', '.join(missing)}: files={{{missing[0]!r}: 'name.safetensors'}}, as "
            "ComfyUI lists it"
        )
    found = {n: f if isinstance(f, ComfyFile) else ComfyFile.parse(f) for n, f in given.items()}
    if found[first].kind != "checkpoint":
        raise ValueError(f"the file of {first!r} is a checkpoint, got {found[first]}")
    return {name: found[name] for name in models}


def _loaded(graph: _Graph, sources: Mapping[str, ComfyFile], first: str) -> dict[str, Link]:
    """Model → its network, and ``clip`` and ``vae`` of the first."""
    number, _ = graph.add("CheckpointLoaderSimple", ckpt_name=sources[first].name)
    outputs: dict[str, Link] = {first: [number, 0], "clip": [number, 1], "vae": [number, 2]}
    for name, file in sources.items():
        if name == first:
            continue
        if file.kind == "checkpoint":
            outputs[name] = graph.add("CheckpointLoaderSimple", ckpt_name=file.name)
        elif file.kind == "unet":
            outputs[name] = graph.add("UNETLoader", unet_name=file.name, weight_dtype="default")
        else:
            outputs[name] = graph.add(
                "LoraLoaderModelOnly",
                model=outputs[first],
                lora_name=file.name,
                strength_model=file.strength,
            )
    return outputs


def _stretch(entry: Any) -> tuple[str, float, str]:
    """What one sampler node can make: a model's steps under one guidance, made in one way."""
    return entry.segment.model, entry.segment.guidance_scale, _sampler(entry)


def _sampler(entry: Any) -> str:
    """The name of ComfyUI's sampler that makes a step so."""
    if entry.noise is not None:
        if entry.noise not in BY_NOISE:
            raise ValueError(f"noise={entry.noise!r} is not written into workflows")
        return BY_NOISE[entry.noise]
    name = kind(entry.scheduler)
    if name not in SAMPLERS:
        raise ValueError(
            f"ComfyUI has no sampler that makes the very steps of {name}: put one of "
            f"{', '.join(SAMPLERS)} into the pipeline, or give the segment a noise"
        )
    return SAMPLERS[name]


def _end(entry: Any) -> float:
    """σ after the last step: 0, or where DDIM keeps the noise of its lowest timestep."""
    if entry.noise or kind(entry.scheduler) != "DDIMScheduler":
        return 0.0
    alpha_bar = float(entry.scheduler.final_alpha_cumprod)
    return ((1 - alpha_bar) / alpha_bar) ** 0.5


def _text(levels: Sequence[float], flow: bool) -> str:
    """Noise levels as ComfyUI counts them: σ of x₀ + σ·ε, or of a flow σ' of (1−σ')·x₀ + σ'·ε."""
    own = [1 / (1 + 1 / s) if flow and s else s for s in levels]
    return ", ".join(f"{s:.8f}" for s in own)
