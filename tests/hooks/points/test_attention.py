"""Attention probabilities are the prompt's, whole, whatever the processor does beside."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, IPAdapterAttnProcessor
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor
from torch import nn

import xhat
from xhat.hooks.points.readings import attached
from xhat.hooks.points.reductions import full

POINT = "down.1.attn.0.cross@probs"
CALL = {"seeds": [0, 1], "num_inference_steps": 1, "progress": False, "height": 32, "width": 32}


def probs(pipe, point=POINT, reduction="full", **call):
    tree = xhat.trace(pipe, ["a red planet"], hooks={point: reduction}, **CALL | call)
    return tree[f"activations/{point}"]["value"]


def with_ip_adapter(pipe, tokens=4):
    """``pipe`` with an IP-Adapter of random weights, which reads ``tokens`` tokens of a picture."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    attending = [n for n in pipe.unet.attn_processors if n.endswith("attn2.processor")]
    for number, name in enumerate(attending):
        width = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
        for side in "kv":
            weights[f"{2 * number + 1}.to_{side}_ip.weight"] = torch.randn(
                width, 16, generator=generator
            )
    projection = {
        "proj.weight": torch.randn(tokens * 16, 32, generator=generator) / 10,
        "proj.bias": torch.zeros(tokens * 16),
        "norm.weight": torch.ones(16),
        "norm.bias": torch.zeros(16),
    }
    pipe.unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": weights}])
    pipe.set_ip_adapter_scale(0.7)
    return pipe


def embeds(guided):
    picture = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(1))
    return [torch.cat([torch.zeros_like(picture), picture]) if guided else picture]


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("spelled_out", [False, True])
def test_under_an_ip_adapter_they_are_of_the_prompt(tiny, guidance, spelled_out):
    """At the first attention of a step nothing of the picture came in yet: the prompt is looked at
    as without the adapter.
    """
    want = probs(tiny.sd(), guidance_scale=guidance)
    pipe = with_ip_adapter(tiny.sd())
    if spelled_out:
        plain = {}
        for name, fused in pipe.unet.attn_processors.items():
            plain[name] = AttnProcessor()
            if hasattr(fused, "to_k_ip"):
                plain[name] = IPAdapterAttnProcessor(
                    fused.hidden_size, fused.cross_attention_dim, (4,), fused.scale
                )
                plain[name].load_state_dict(fused.state_dict())
        pipe.unet.set_attn_processor(plain)
    picture = {"ip_adapter_image_embeds": embeds(guidance > 1)}
    first = "down.1.attn.0.cross@probs"
    got = probs(pipe, first, guidance_scale=guidance, **picture)
    assert got.sizes == want.sizes and got.sizes["key"] == 16
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("slice_size", [1, 2, 3, "max"])
@pytest.mark.parametrize("reduction", ["full", "mean", "pool(2)"])
def test_sliced_they_are_those_of_the_whole(tiny, slice_size, reduction):
    want = probs(tiny.sd(), reduction=reduction, guidance_scale=5.0)
    pipe = tiny.sd()
    if slice_size == 3:  # a slice that begins in one sample and ends in the next
        pipe.unet.set_attn_processor(diffusers.models.attention_processor.SlicedAttnProcessor(3))
    else:
        pipe.enable_attention_slicing(slice_size)
    got = probs(pipe, reduction=reduction, guidance_scale=5.0)
    assert got.dims == want.dims
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-6)


def test_of_perturbed_guidance_they_are_of_all_branches_or_refused(tiny):
    """Where the perturbed branch has no attention, what is left cannot be told from guidance."""
    pipe = diffusers.StableDiffusionPAGPipeline(
        **tiny.sd().components, requires_safety_checker=False, pag_applied_layers="mid"
    )
    pipe.set_progress_bar_config(disable=True)
    perturbed = {"guidance_scale": 5.0, "pag_scale": 3.0}
    with pytest.raises(ValueError, match="attention for 4 of the 6 rows"):
        probs(pipe, "mid.attn.0.self@probs", **perturbed)
    value = probs(pipe, "mid.attn.0.cross@probs", **perturbed)
    assert list(value.branch.values) == ["uncond", "cond", "perturbed"]


def read(module, *args, **kwargs):
    seen = []
    with attached(module, "probs", full(), seen.append), torch.no_grad():
        module(*args, **kwargs)
    return seen


def test_of_wan_with_a_picture_they_are_of_the_prompt():
    """Wan attends to the picture first, and to 512 tokens of the prompt after it."""
    cross = WanAttention(16, heads=2, dim_head=8, cross_attention_dim_head=8, added_kv_proj_dim=16)
    cross.set_processor(WanAttnProcessor())
    (seen,) = read(cross, torch.randn(3, 5, 16), torch.randn(3, 7 + 512, 16), None, None)
    assert seen.shape == (3, 2, 5, 512)


class Twice(nn.Module):
    """Attends to two things that nothing tells apart."""

    def forward(self, x):
        heads = x[:, None]
        attend = nn.functional.scaled_dot_product_attention
        return (attend(heads, heads, heads) + attend(heads, heads[:, :, :2], heads[:, :, :2]))[:, 0]


def test_two_attentions_that_cannot_be_told_apart_are_refused():
    with pytest.raises(ValueError, match="Twice with NoneType attends more than once in a call"):
        read(Twice(), torch.randn(2, 4, 8))
