"""A plan's workflow for ComfyUI: every node has the inputs that its documentation asks for, and the
latents that its samplers make are the hybrid's."""

from __future__ import annotations

import json
import re

import diffusers
import numpy as np
import pytest
import torch

import xhat
from xhat.samplers.plans.comfyui import ComfyFile
from xhat.samplers.plans.plan import Plan, Segment
from xhat.samplers.rivals.registry import rival

PROMPT = "a red planet"
FILES = {"base": "base.safetensors", "student": "unet:student.safetensors"}
# required inputs and outputs of ComfyUI's nodes, by their types
# (github.com/comfyanonymous/ComfyUI: nodes.py and comfy_extras/nodes_custom_sampler.py)
NODES = {
    "CheckpointLoaderSimple": ({"ckpt_name": str}, ("MODEL", "CLIP", "VAE")),
    "UNETLoader": ({"unet_name": str, "weight_dtype": str}, ("MODEL",)),
    "LoraLoaderModelOnly": (
        {"model": "MODEL", "lora_name": str, "strength_model": float},
        ("MODEL",),
    ),
    "CLIPTextEncode": ({"text": str, "clip": "CLIP"}, ("CONDITIONING",)),
    "EmptyLatentImage": ({"width": int, "height": int, "batch_size": int}, ("LATENT",)),
    "EmptySD3LatentImage": ({"width": int, "height": int, "batch_size": int}, ("LATENT",)),
    "KSamplerSelect": ({"sampler_name": str}, ("SAMPLER",)),
    "ManualSigmas": ({"sigmas": str}, ("SIGMAS",)),
    "SamplerCustom": (
        {
            "model": "MODEL",
            "add_noise": bool,
            "noise_seed": int,
            "cfg": float,
            "positive": "CONDITIONING",
            "negative": "CONDITIONING",
            "sampler": "SAMPLER",
            "sigmas": "SIGMAS",
            "latent_image": "LATENT",
        },
        ("LATENT", "LATENT"),
    ),
    "VAEDecode": ({"samples": "LATENT", "vae": "VAE"}, ("IMAGE",)),
    "SaveImage": ({"images": "IMAGE", "filename_prefix": str}, ()),
}


def pair(tiny, name, student=None, steps=4):
    base, other = tiny.build(name, 0), tiny.build(name, 1)
    encoders = {n: p for n, p in base.components.items() if "encoder" in n or n == "vae"}
    other.register_modules(**{n: p for n, p in encoders.items() if p is not None})
    if student is not None:
        other.scheduler = student.from_config(other.scheduler.config)
    return base, other


def check_documented(graph):
    """Every node known, every input there and of its type, every link to an output of that type."""
    assert json.loads(json.dumps(graph)) == graph
    for node in graph.values():
        inputs, _ = NODES[node["class_type"]]
        assert set(node["inputs"]) == set(inputs)
        for name, value in node["inputs"].items():
            expected = inputs[name]
            if isinstance(expected, str):
                number, output = value
                assert NODES[graph[number]["class_type"]][1][output] == expected
            else:
                assert type(value) is expected


def sigmas_of(graph, node):
    return [float(x) for x in re.findall(r"[-+]?(?:\d*\.*\d+)", graph[node][  # as it reads them
        "inputs"]["sigmas"])]  # fmt: skip


class Executor:
    """Runs a workflow's samplers as k-diffusion's euler does, with the pipelines' own networks."""

    def __init__(self, graph, networks, cond, timesteps, flow=False):
        self.graph, self.networks, self.cond = graph, networks, cond
        self.timesteps, self.flow = timesteps, flow

    def latents(self, noise):
        x = None
        for node in self.graph.values():
            if node["class_type"] != "SamplerCustom":
                continue
            given = node["inputs"]
            sigmas = sigmas_of(self.graph, given["sigmas"][0])
            assert self.graph[given["sampler"][0]]["inputs"]["sampler_name"] == "euler"
            assert given["add_noise"] == (x is None)
            if x is None:
                scale = 1.0 if self.flow else (1 + sigmas[0] ** 2) ** 0.5
                x = noise * scale
            model = self.graph[given["model"][0]]["class_type"]
            for sigma, below in zip(sigmas, sigmas[1:], strict=False):
                x0 = self.denoised(self.networks[model], x, sigma)
                x = x + (x - x0) / sigma * (below - sigma)
        return x

    def denoised(self, network, x, sigma):
        t = torch.tensor([self.timesteps(sigma)])
        given = x if self.flow else x / (1 + sigma**2) ** 0.5
        out = network(given, timestep=t, **self.cond).sample
        return x - sigma * out


@pytest.mark.slow
@torch.no_grad()
def test_the_samplers_make_the_hybrids_latents(tiny):
    base, student = pair(tiny, "sd", diffusers.DDIMScheduler)
    hybrid = xhat.hybrid(base, student, base_steps=1, student_num_inference_steps=4)
    graph = hybrid.scheduler.plan.to_comfyui(hybrid, PROMPT, files=FILES)
    check_documented(graph)
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = hybrid(PROMPT, latents=noise, output_type="latent", height=16, width=16).images
    cond = base.encode_prompt(PROMPT, "cpu", 1, False)[0]
    alpha_bar = base.scheduler.alphas_cumprod.double().numpy()
    log_sigma = np.log(((1 - alpha_bar) / alpha_bar) ** 0.5)
    executor = Executor(
        graph,
        {"CheckpointLoaderSimple": base.unet, "UNETLoader": student.unet},
        {"encoder_hidden_states": cond},
        lambda sigma: float(np.interp(np.log(sigma), log_sigma, np.arange(len(log_sigma)))),
    )
    torch.testing.assert_close(executor.latents(noise), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_every_kind_of_file_and_step(tiny):
    base, student = pair(tiny, "sdxl", diffusers.LCMScheduler)
    plan = Plan(
        [
            Segment("base", 0, 2, 8, 3.0),
            Segment("base", 2, 4, 8, 1.0, noise="fresh"),
            Segment("student", 2, 4, 4),
        ]
    )
    hybrid = xhat.hybrid(base, student, plan=plan)
    for student_file, loader in (
        ("lora:l.safetensors", "LoraLoaderModelOnly"),
        (ComfyFile("u.safetensors", "unet"), "UNETLoader"),
        ("c.safetensors", "CheckpointLoaderSimple"),
    ):
        graph = plan.to_comfyui(
            hybrid, PROMPT, files={"base": "b.safetensors", "student": student_file}, seed=5
        )
        check_documented(graph)
        nodes = list(graph.values())
        assert loader in [node["class_type"] for node in nodes]
        made = [n["inputs"] for n in nodes if n["class_type"] == "SamplerCustom"]
        assert [given["cfg"] for given in made] == [3.0, 1.0, 1.0]
        assert [given["noise_seed"] for given in made] == [5, 6, 7]
        names = [graph[given["sampler"][0]]["inputs"]["sampler_name"] for given in made]
        assert names == ["euler", "lcm", "lcm"]
        levels = [sigmas_of(graph, given["sigmas"][0]) for given in made]
        assert [len(part) for part in levels] == [3, 3, 3]
        assert levels[0][-1] == levels[1][0]
        assert levels[1][-1] == levels[2][0]
        assert levels[2][-1] == 0
        tree = xhat.trace(
            hybrid, PROMPT, seeds=[0], progress=False, output_type="latent", height=16, width=16
        )
        every = [sigma for part in levels for sigma in part[:-1]]
        np.testing.assert_allclose(every, tree["sigma"].values, rtol=1e-6)


@pytest.mark.slow
def test_flows_are_counted_from_one(tiny):
    base, student = pair(tiny, "sd3")
    hybrid = xhat.hybrid(base, student, base_steps=1, student_num_inference_steps=4)
    graph = hybrid.scheduler.plan.to_comfyui(hybrid, PROMPT, files=FILES)
    check_documented(graph)
    first = next(number for number, n in graph.items() if n["class_type"] == "ManualSigmas")
    assert sigmas_of(graph, first)[0] == pytest.approx(1, abs=1e-6)
    assert "EmptySD3LatentImage" in [node["class_type"] for node in graph.values()]


@pytest.mark.slow
def test_what_a_workflow_cannot_do_is_refused(tiny):
    base, student = pair(tiny, "sd", diffusers.LCMScheduler)
    hybrid = xhat.hybrid(base, student, base_steps=1, student_num_inference_steps=4)
    plan = hybrid.scheduler.plan
    with pytest.raises(ValueError, match="no file for student"):
        plan.to_comfyui(hybrid, PROMPT, files={"base": "b.safetensors"})
    with pytest.raises(ValueError, match="files name teacher"):
        plan.to_comfyui(hybrid, PROMPT, files=FILES | {"teacher": "x"})
    with pytest.raises(ValueError, match="is a checkpoint"):
        plan.to_comfyui(hybrid, PROMPT, files=FILES | {"base": "lora:x"})
    with pytest.raises(ValueError, match="of a hybrid"):
        plan.to_comfyui(base, PROMPT, files=FILES)
    noisy = rival("embedding-noise", base, student)
    with pytest.raises(ValueError, match="a workflow has no rivals"):
        noisy.scheduler.plan.to_comfyui(noisy, PROMPT, files=FILES)
    base.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(base.scheduler.config)
    hybrid = xhat.hybrid(
        base, student, plan=Plan([Segment("base", 0, 2, 4), Segment("student", 2, 4, 4)])
    )
    with pytest.raises(ValueError, match="no sampler that makes the very steps of DPMSolver"):
        hybrid.scheduler.plan.to_comfyui(hybrid, PROMPT, files=FILES)
    pixart = pair(tiny, "pixart")
    hybrid = xhat.hybrid(*pixart, base_steps=1, student_num_inference_steps=4)
    with pytest.raises(ValueError, match="to_script"):
        hybrid.scheduler.plan.to_comfyui(hybrid, PROMPT, files=FILES)
