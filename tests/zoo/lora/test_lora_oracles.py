"""LoRA files do here what they do in PEFT and in diffusers: the same file, the same pictures."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn

from xhat.zoo.lora.blocks import diffusers_name
from xhat.zoo.lora.files import read_lora
from xhat.zoo.lora.fitting import fit_factors
from xhat.zoo.lora.loading import load_slider, remove, scales_of, set_scales

RANK = 3


def picture(pipe):
    generator = torch.Generator().manual_seed(0)
    size = {"height": 16, "width": 16, "output_type": "np"}
    call = {"num_inference_steps": 2, "guidance_scale": 3.0, **size}
    return pipe("a red planet", generator=generator, **call).images


def same(ours, theirs, plain):
    """Equal up to rounding, of a change that is seen."""
    effect = np.abs(theirs - plain).max()
    assert effect > 1e-3
    assert np.abs(ours - theirs).max() < 1e-3 * effect


PEFT = {
    "alpha": {"lora_alpha": 16},
    "alpha_pattern": {"alpha_pattern": {"attn1.to_q": 32, r"up_blocks\..*to_q": 1}},
    "rank_pattern": {"rank_pattern": {"attn2.to_q": 2}, "lora_alpha": 6},
    "rslora": {"use_rslora": True, "lora_alpha": 8, "rank_pattern": {"attn1.to_q": 5}},
    "all": {
        "use_rslora": True,
        "lora_alpha": 5,
        "alpha_pattern": {"mid_block.*": 9},
        "rank_pattern": {"conv1": 2},
        "target_modules": ["to_q", "to_out.0", "conv1"],
    },
}


@pytest.mark.parametrize("settings", PEFT.values(), ids=PEFT)
@pytest.mark.parametrize("way", ["folder", "adapter_model.safetensors"])
def test_what_peft_saved(tiny, tmp_path, settings, way):
    teacher, pipe = tiny.sd(0), tiny.sd(0)
    plain = picture(pipe)
    torch.manual_seed(1)
    config = {"r": 4, "target_modules": ["to_q"], "init_lora_weights": False} | settings
    adapted = get_peft_model(teacher.unet, LoraConfig(**config))
    adapted.save_pretrained(tmp_path)
    load_slider(pipe, tmp_path if way == "folder" else tmp_path / way, "s", scale=1.0)
    teacher.register_modules(unet=adapted.base_model.model)
    same(picture(pipe), picture(teacher), plain)


def test_scales_of_a_lora_that_diffusers_loaded(tiny, tmp_path):
    """alpha/√r is one, as alpha/r is: what set_adapters says is what is read."""
    teacher, pipe = tiny.sd(0), tiny.sd(0)
    config = LoraConfig(r=4, lora_alpha=8, use_rslora=True, target_modules=["to_q"])
    teacher.unet.add_adapter(config)
    state = get_peft_model_state_dict(teacher.unet)
    teacher.save_lora_weights(
        tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata=config.to_dict()
    )
    pipe.load_lora_weights(tmp_path, adapter_name="theirs")
    assert scales_of(pipe) == {"theirs": pytest.approx(1.0)}
    pipe.set_adapters("theirs", 0.5)
    assert scales_of(pipe) == {"theirs": pytest.approx(0.5)}
    set_scales(pipe, {"theirs": 0.25})
    assert {m.scaling["theirs"] for m in pipe.unet.modules() if hasattr(m, "scaling")} == {1.0}


def factors(name, layer, generator, strength=0.3):
    """Kohya's keys of one layer, its alpha unlike its rank."""
    weight = layer.weight
    tail = (1, 1) if weight.ndim == 4 else ()
    return {
        f"{name}.lora_down.weight": torch.randn(RANK, *weight.shape[1:], generator=generator),
        f"{name}.lora_up.weight": strength
        * torch.randn(len(weight), RANK, *tail, generator=generator),
        f"{name}.alpha": torch.tensor(2.0),
    }


def kohya(modules, prefix, pick):
    generator = torch.Generator().manual_seed(3)
    tensors = {}
    for name, layer in modules:
        if isinstance(layer, nn.Linear | nn.Conv2d) and pick(name):
            tensors |= factors(prefix + name.replace(".", "_"), layer, generator)
    return tensors


def encoder_keys(encoder, prefix, ends=("fc1", "fc2")):
    """As Kohya's scripts name CLIP's layers, with or without transformers' ``text_model``."""
    modules = [(n.removeprefix("text_model."), m) for n, m in encoder.named_modules()]
    return kohya(modules, f"{prefix}_text_model_", lambda n: n.endswith(ends))


def twice(pipe, other, path):
    """A file loaded here and by diffusers: pictures of both, and the plain one."""
    plain = picture(pipe)
    load_slider(pipe, path, "s", scale=1.0)
    other.load_lora_weights(path, adapter_name="s")
    return picture(pipe), picture(other), plain


def test_kohya_of_sd_with_its_text_encoder(tiny, tmp_path):
    pipe, other = tiny.sd(0), tiny.sd(0)
    path = tmp_path / "kohya.safetensors"
    unet = kohya(pipe.unet.named_modules(), "lora_unet_", lambda n: n.endswith(("to_k", "proj_in")))
    text = encoder_keys(pipe.text_encoder, "lora_te")
    save_file(unet | text, path)
    ours, theirs, plain = twice(pipe, other, path)
    same(ours, theirs, plain)
    load_slider(without := tiny.sd(0), save(tmp_path / "unet", unet), "s", scale=1.0)
    assert not np.allclose(picture(without), ours, atol=1e-4)  # the text encoder has a part in it
    remove(pipe, "s")
    assert np.array_equal(picture(pipe), plain)


@pytest.mark.parametrize("names", ["kohya", "diffusers", "diffusers' first"])
def test_attention_of_a_text_encoder(tiny, tmp_path, names):
    """W + B·A·alpha/r, set by hand: diffusers 0.42 leaves these out beside transformers 5."""
    pipe, other = tiny.sd(0), tiny.sd(0)
    plain = picture(pipe)
    unet = kohya(pipe.unet.named_modules(), "lora_unet_", lambda n: n.endswith("attn2.to_k"))
    text = encoder_keys(pipe.text_encoder, "lora_te", ("q_proj", "out_proj"))
    for key, up in unet.items() | text.items():
        if key.endswith("lora_up.weight"):
            stem = key.removesuffix(".lora_up.weight")
            down = (unet | text)[f"{stem}.lora_down.weight"]
            flat = re.sub("^lora_unet_|^lora_te_text_model_", "", stem)
            network = other.unet if key in unet else other.text_encoder
            layers = {n.replace(".", "_"): m for n, m in network.named_modules()}
            layers[flat].weight.data += 2 / RANK * up @ down
    load_slider(pipe, save(tmp_path / "x", unet | renamed(text, names)), "s", scale=1.0)
    same(picture(pipe), picture(other), plain)


def renamed(text, names):
    """Kohya's keys of a text encoder, as diffusers has them: without alpha, which is put into B."""
    if names == "kohya":
        return text
    ways = {"down": "lora_A", "up": "lora_B"}
    found = {}
    for key, value in text.items():
        match = re.match(r"lora_te_text_model_encoder_layers_(\d)_self_attn_(\w+)\.lora_(\w+)", key)
        if match is None:
            continue
        number, layer, way = match.groups()
        stem = f"text_encoder.text_model.encoder.layers.{number}.self_attn"
        value = value * 2 / RANK if way == "up" else value
        if names == "diffusers":
            found[f"{stem}.{layer}.{ways[way]}.weight"] = value
        else:
            first = {"q_proj": "to_q", "out_proj": "to_out"}[layer]
            found[f"{stem}.{first}_lora.{way}.weight"] = value
    return found


def save(path, tensors):
    save_file(tensors, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def original_names(unet):
    """diffusers' name of a module → its name in the original code, by walking both in order."""
    names = {}
    number = 1
    for b, block in enumerate(unet.down_blocks):
        for n in range(len(block.resnets)):
            names[f"down_blocks.{b}.resnets.{n}"] = f"input_blocks.{number}.0"
            names[f"down_blocks.{b}.attentions.{n}"] = f"input_blocks.{number}.1"
            number += 1
        if block.downsamplers:
            names[f"down_blocks.{b}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    for n, place in enumerate(("resnets.0", "attentions.0", "resnets.1")):
        names[f"mid_block.{place}"] = f"middle_block.{n}"
    number = 0
    for b, block in enumerate(unet.up_blocks):
        attends = hasattr(block, "attentions")
        for n in range(len(block.resnets)):
            names[f"up_blocks.{b}.resnets.{n}"] = f"output_blocks.{number}.0"
            names[f"up_blocks.{b}.attentions.{n}"] = f"output_blocks.{number}.1"
            number += 1
        if block.upsamplers:
            last = f"output_blocks.{number - 1}.{2 if attends else 1}.conv"
            names[f"up_blocks.{b}.upsamplers.0.conv"] = last
    return names


INSIDE = {
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
OUTSIDE = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def original(name, places):
    for place in sorted(places, key=len, reverse=True):
        if name == place:
            return places[place]
        if name.startswith(f"{place}."):
            rest = name.removeprefix(f"{place}.")
            return f"{places[place]}.{INSIDE.get(rest, rest)}"
    return OUTSIDE[name]


@pytest.fixture(scope="module")
def wide_sdxl(tiny):
    """SDXL with two resnets a block, as the published one has, so that its numbers are theirs."""

    def make():
        pipe = tiny.sdxl(0)
        torch.manual_seed(0)
        unet = UNet2DConditionModel.from_config({**pipe.unet.config, "layers_per_block": 2})
        pipe.register_modules(unet=unet.eval())
        return pipe

    return make


def adaptable(unet):
    return {n: m for n, m in unet.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}


@pytest.mark.parametrize("family", ["sd", "sdxl", "wide_sdxl"])
def test_every_layer_by_the_numbers_of_the_original_code(tiny, wide_sdxl, family):
    unet = (wide_sdxl() if family == "wide_sdxl" else getattr(tiny, family)(0)).unet
    places, layers = original_names(unet), unet.config.layers_per_block
    for name in adaptable(unet):
        numbered = original(name, places).replace(".", "_")
        assert diffusers_name(numbered, layers) == name.replace(".", "_")


@pytest.mark.parametrize(
    "ends", [("to_q", "ff.net.2", "proj_in"), ("conv1", "conv2", "emb_proj", "sampl.0.conv")]
)
def test_kohya_of_sdxl_by_the_numbers_of_the_original_code(wide_sdxl, tmp_path, ends):
    pipe, other = wide_sdxl(), wide_sdxl()
    places = original_names(pipe.unet)
    modules = [
        (original(n, places), m) for n, m in adaptable(pipe.unet).items() if n.endswith(ends)
    ]
    tensors = kohya(modules, "lora_unet_", lambda name: True)
    tensors |= encoder_keys(pipe.text_encoder, "lora_te1")
    tensors |= encoder_keys(pipe.text_encoder_2, "lora_te2")
    same(*twice(pipe, other, save(tmp_path / "kohya", tensors)))


def test_comfy_names_are_the_same_layers(wide_sdxl, tmp_path):
    """``diffusion_model.input_blocks.4.1.…`` and ``lora_unet_input_blocks_4_1_…``."""
    unet = wide_sdxl().unet
    places, generator = original_names(unet), torch.Generator().manual_seed(3)
    dotted = {}
    for name, layer in adaptable(unet).items():
        if name.endswith("to_v"):
            dotted |= factors(f"diffusion_model.{original(name, places)}", layer, generator)
    flat = {}
    for key, value in dotted.items():
        stem, dot, end = key.partition(".lora_" if ".lora_" in key else ".alpha")
        stem = stem.removeprefix("diffusion_model.").replace(".", "_")
        flat[f"lora_unet_{stem}{dot}{end}"] = value
    a, b = (
        fit_factors(read_lora(save(tmp_path / name, tensors)), unet)
        for name, tensors in (("dotted", dotted), ("flat", flat))
    )
    assert len(a) == len([n for n in adaptable(unet) if n.endswith("to_v")])
    assert a.keys() == b.keys()
    assert all(torch.equal(a[n].up, b[n].up) and torch.equal(a[n].down, b[n].down) for n in a)


def test_what_diffusers_saved_of_unet_and_text_encoder(tiny, tmp_path):
    """Each part has its own alpha in the metadata."""
    teacher, pipe, other = tiny.sd(0), tiny.sd(0), tiny.sd(0)
    torch.manual_seed(2)
    unet = LoraConfig(r=4, lora_alpha=8, target_modules=["to_q"], init_lora_weights=False)
    text = LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"], init_lora_weights=False)
    teacher.unet.add_adapter(unet)
    teacher.text_encoder.add_adapter(text)
    teacher.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(teacher.unet),
        text_encoder_lora_layers=get_peft_model_state_dict(teacher.text_encoder),
        unet_lora_adapter_metadata=unet.to_dict(),
        text_encoder_lora_adapter_metadata=text.to_dict(),
    )
    path = tmp_path / "pytorch_lora_weights.safetensors"
    assert any(key.startswith("text_encoder.") for key in load_file(path))
    same(*twice(pipe, other, path))


def test_a_text_encoder_that_is_not_there(tiny, tmp_path):
    pipe, sdxl = tiny.sd(0), tiny.sdxl(0)
    tensors = kohya(pipe.unet.named_modules(), "lora_unet_", lambda n: n.endswith("to_k"))
    tensors |= encoder_keys(sdxl.text_encoder_2, "lora_te2")
    modules = [name for name, _ in pipe.unet.named_modules()]
    with pytest.raises(ValueError, match=r"adapts text_encoder_2, which this StableDiff.*'text_mo"):
        load_slider(pipe, save(tmp_path / "x", tensors))
    assert [name for name, _ in pipe.unet.named_modules()] == modules
    assert json.dumps(scales_of(pipe)) == "{}"
