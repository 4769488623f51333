"""Attention from the picture to the tokens of the prompt."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xhat
from xhat.analysis.traces.token_maps import heat, token_maps
from xhat.hooks.points.text_tokens import token_names

pytestmark = pytest.mark.filterwarnings("ignore")
PROMPTS = ["a red planet", "the quiet face of a robot"]
JOINED = ["sd3", "flux", "aura", "qwen"]


def traced(tiny, pipe, name, hooks, prompts=PROMPTS, **call):
    arguments = tiny.call_arguments(name) if name in tiny.NAMES else {}
    call = {"num_inference_steps": 2, "output_type": "latent", **arguments, **call}
    return xhat.trace(pipe, prompts, seeds=[0], hooks=hooks, progress=False, **call)


def test_the_maps_are_daams_formula(tiny):
    """Probabilities spelled out by diffusers' own method, averaged over heads, layers and steps."""
    pipe, call = tiny.sd(), {"guidance_scale": 3.0}
    trace = traced(tiny, pipe, "sd", {"**.cross@tokens": "full"}, **call)
    maps = token_maps(trace, pipe)
    heads = {}
    for path, module in pipe.unet.named_modules():
        if path.endswith("attn2"):
            module.set_processor(Spelled(heads.setdefault(path, [])))
    traced(tiny, pipe, "sd", {}, **call)
    side, expected = maps.sizes["y"], []
    for steps in heads.values():
        for probabilities in steps:  # (rows, heads, query, key), both branches, one prompt a row
            cond = probabilities.chunk(2)[1].mean(1)
            grid = int(cond.shape[1] ** 0.5)
            layer = cond.transpose(1, 2).unflatten(2, (grid, grid))
            layer = torch.nn.functional.interpolate(layer, size=(side, side), mode="bicubic")
            expected.append(layer.clamp(min=0))
    whole = torch.stack(expected).mean(0)
    ours = maps["attention"].mean(("layer", "step")).values[:, 0]
    np.testing.assert_allclose(ours, whole.numpy(), rtol=1e-3, atol=1e-5)
    planet = heat(maps, "planet")
    place = token_names(pipe, PROMPTS[0], 16).index("planet")
    np.testing.assert_allclose(planet.values[0, 0], whole[0, place].numpy(), rtol=1e-3, atol=1e-5)
    assert np.isnan(planet.values[1]).all()


class Spelled:
    """Attention with its probabilities written out."""

    def __init__(self, seen):
        self.seen = seen

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        value = attn.head_to_batch_dim(attn.to_v(encoder_hidden_states))
        probabilities = attn.get_attention_scores(query, key, attention_mask)
        self.seen.append(probabilities.unflatten(0, (-1, attn.heads)))
        return attn.to_out[0](attn.batch_to_head_dim(probabilities @ value))


@pytest.mark.slow
@pytest.mark.parametrize("name", JOINED)
def test_where_prompt_and_picture_attend_together(tiny, loops, name):
    """With keys of the prompt alike, each place looks at all its tokens equally, and not so at the
    picture's; with queries of the picture 0, it looks at all tokens of both equally.
    """
    if name == "qwen":
        pipe, call = loops.qwen(tiny, 0)
        pipe.set_progress_bar_config(disable=True)
    else:
        pipe, call = tiny.build(name), {"prompt": PROMPTS, **tiny.call_arguments(name)}
    module = pipe.transformer.transformer_blocks if name != "aura" else None
    module = (module or pipe.transformer.joint_transformer_blocks)[0].attn
    call |= {"output_type": "latent", "num_inference_steps": 1}
    call |= {"true_cfg_scale": 1.0} if name == "qwen" else {"guidance_scale": 1.0}

    def probabilities(reading):
        with xhat.Tracer(pipe, hooks={f"block.0.attn@{reading}": "full"}) as tracer:
            pipe(generator=torch.Generator().manual_seed(0), **call)
        return tracer.trace[f"activations/block.0.attn@{reading}/value"].values[:, 0]

    whole = probabilities("probs")
    tokens = probabilities("tokens")
    text = tokens.shape[-1]
    assert tokens.shape[-2] + text == whole.shape[-1]
    assert np.ptp(tokens, axis=-1).max() > 1e-4
    with torch.no_grad():
        for parameter in module.add_k_proj.parameters():
            parameter.zero_()
    alike = probabilities("tokens")
    np.testing.assert_allclose(alike, alike[..., :1].repeat(text, -1), rtol=1e-4)
    assert np.ptp(alike[..., 0], axis=-1).max() > 1e-6
    with torch.no_grad():
        for parameter in module.to_q.parameters():
            parameter.zero_()
    np.testing.assert_allclose(probabilities("tokens"), 1 / whole.shape[-1], rtol=1e-4)


def test_tokens_have_the_names_of_the_tokenizers(tiny):
    names = token_names(tiny.sd(), "a red planet", 16)
    assert names == ["<s>", "a", "red", "planet", "</s>", *["<pad>"] * 11]
    twice = token_names(tiny.sd3(), "a red planet", 32)
    assert twice == names * 2


def test_a_base_and_its_student_have_maps_side_by_side(tiny):
    base, student = tiny.sd(0), tiny.sd(1)
    hooks = {"**.cross@tokens": "full"}
    maps = [
        token_maps(traced(tiny, p, "sd", hooks, guidance_scale=1.0), p, size=8)
        for p in (base, student)
    ]
    both = xr.concat([heat(m, "planet") for m in maps], "model")
    assert both.dims == ("model", "prompt", "seed", "y", "x")
    assert both.sizes["y"] == both.sizes["x"] == 8
    assert maps[0]["attention"].dims == ("prompt", "seed", "layer", "step", "token", "y", "x")
    np.testing.assert_allclose(maps[0]["attention"].sum("token").mean(), 1, rtol=0.05)


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"mid.attn.0.self@tokens": "full"}, "names no module that attends to the prompt"),
        ({"h@tokens": "full"}, "names no module that attends to the prompt"),
    ],
)
def test_what_reads_no_prompt_is_refused(tiny, hooks, message):
    with pytest.raises(ValueError, match=message):
        traced(tiny, tiny.sd(), "sd", hooks)


def test_traces_without_whole_maps_are_refused(tiny):
    pipe = tiny.sd()
    with pytest.raises(ValueError, match="the trace has no attention to tokens"):
        token_maps(traced(tiny, pipe, "sd", {"h": "mean"}), pipe)
    with pytest.raises(ValueError, match="trace it with 'full'"):
        token_maps(traced(tiny, pipe, "sd", {"mid.attn.0.cross@tokens": "mean"}), pipe)
    maps = token_maps(traced(tiny, pipe, "sd", {"mid.attn.0.cross@tokens": "full"}), pipe)
    with pytest.raises(ValueError, match="no token is 'horse'; there are"):
        heat(maps, "horse")
