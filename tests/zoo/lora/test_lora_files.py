"""LoRA files: the same weights under any keys draw the same; what does not fit is told, and changes
nothing.
"""

import os
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from xhat.zoo.lora.files import read_lora
from xhat.zoo.lora.fitting import family, fit_factors
from xhat.zoo.lora.injection import sliders_in
from xhat.zoo.lora.loading import load_slider, remove, scales_of, sliding
from xhat.zoo.lora.slider import save_lora

RANK = 4


@pytest.fixture(scope="module")
def pipe(tiny):
    return tiny.sd(0)


@pytest.fixture(scope="module")
def state(pipe):
    """A LoRA on attention and on convolutions, under diffusers' keys, its weights those of half
    precision.
    """
    generator, found = torch.Generator().manual_seed(5), {}
    for name, layer in pipe.unet.named_modules():
        if name.endswith(("to_q", "to_out.0", "conv1")):
            shape = tuple(layer.weight.shape)
            tail = (1, 1) if len(shape) == 4 else ()
            found[f"unet.{name}.lora_A.weight"] = torch.randn(
                RANK, *shape[1:], generator=generator
            ).half()
            found[f"unet.{name}.lora_B.weight"] = (
                0.2 * torch.randn(shape[0], RANK, *tail, generator=generator).half()
            )
    return {key: value.half().float() for key, value in found.items()}


def picture(pipe):
    generator = torch.Generator().manual_seed(0)
    call = {
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "height": 16,
        "width": 16,
        "output_type": "np",
    }
    return pipe("a planet", generator=generator, **call).images


def drawn(pipe, path, scale=1.0):
    name = load_slider(pipe, path, "under_test")
    with sliding(pipe, {name: scale}):
        image = picture(pipe)
    remove(pipe, name)
    return image


def kohya(state, alpha, prefix="lora_unet_"):
    """The same weights as Kohya's scripts and the published sliders keep them: B·A·alpha/rank."""
    found = {}
    for key, value in state.items():
        layer, _, half = key.removeprefix("unet.").partition(".lora_")
        stem = prefix + layer.replace(".", "_")
        if half.startswith("A"):
            found |= {
                f"{stem}.lora_down.weight": value,
                f"{stem}.alpha": torch.tensor(float(alpha)),
            }
        else:
            found[f"{stem}.lora_up.weight"] = value * RANK / alpha
    return found


def old_diffusers(state):
    """diffusers' first format, for attention alone."""
    found = {}
    for key, value in state.items():
        layer, _, half = key.removeprefix("unet.").partition(".lora_")
        if ".attn" in layer:
            place, _, projection = layer.removesuffix(".0").rpartition(".")
            way = "down" if half.startswith("A") else "up"
            found[f"{place}.processor.{projection}_lora.{way}.weight"] = value
    return found


@pytest.mark.slow
def test_every_format_draws_the_same(pipe, state, tmp_path):
    ours = save_lora(tmp_path / "ours.safetensors", state, {"steps": 3})
    expected = drawn(pipe, ours)
    assert not np.array_equal(expected, picture(pipe))
    files = {"kohya": kohya(state, 4), "kohya_alpha": kohya(state, 1)}
    files |= {
        "peft": {key.replace("unet.", "base_model.model."): value for key, value in state.items()}
    }
    for name, tensors in files.items():
        save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / f"{name}.safetensors")
        assert np.array_equal(drawn(pipe, tmp_path / f"{name}.safetensors"), expected), name
    torch.save(kohya(state, 2), tmp_path / "published.pt")
    assert np.array_equal(drawn(pipe, tmp_path / "published.pt"), expected)
    assert np.array_equal(drawn(pipe, tmp_path / "published.pt", -1), drawn(pipe, ours, -1))


def test_the_first_format_of_diffusers(pipe, state, tmp_path):
    attention = {key: value for key, value in state.items() if ".attn" in key}
    save_file(old_diffusers(state), tmp_path / "old.safetensors")
    new = save_lora(tmp_path / "new.safetensors", attention, {})
    assert np.array_equal(drawn(pipe, tmp_path / "old.safetensors"), drawn(pipe, new))


def test_diffusers_reads_ours_and_we_read_its_own(pipe, tiny, state, tmp_path):
    ours = save_lora(tmp_path / "ours.safetensors", state, {"objective": "test", "steps": 3})
    expected = drawn(pipe, ours)
    other = tiny.sd(0)
    other.load_lora_weights(ours)
    assert np.array_equal(picture(other), expected)
    layers = {key.removeprefix("unet."): value for key, value in state.items()}
    notes = {"r": RANK, "lora_alpha": 8, "target_modules": ["to_q"]}
    other.save_lora_weights(
        tmp_path / "theirs", unet_lora_layers=layers, unet_lora_adapter_metadata=notes
    )
    theirs = tmp_path / "theirs" / "pytorch_lora_weights.safetensors"
    assert np.array_equal(drawn(pipe, theirs), drawn(pipe, ours, 2.0))


def test_names(pipe, state, tmp_path):
    path = save_lora(tmp_path / "smile-v2.1.safetensors", state, {})
    assert load_slider(pipe, path, scale=1.0) == "smile_v2_1"
    assert load_slider(pipe, path) == "smile_v2_1"  # the same again: kept, at the scale asked for
    assert scales_of(pipe) == {"smile_v2_1": 0.0}
    other = save_lora(tmp_path / "other.safetensors", {k: -v for k, v in state.items()}, {})
    with pytest.raises(ValueError, match="another LoRA is loaded as 'smile_v2_1'"):
        load_slider(pipe, other, "smile_v2_1")
    for name in ("training", "a.b", ""):
        with pytest.raises(ValueError, match=f"'{name}' cannot name a LoRA"):
            load_slider(pipe, path, name)
    with pytest.raises(ValueError, match="scale of 'x' is a finite number, got nan"):
        load_slider(pipe, path, "x", scale=float("nan"))
    remove(pipe, "smile_v2_1")


class Code:
    def __reduce__(self):
        return (os.system, ("touch /tmp/this_must_not_be_run",))


def bad_files(folder, state):
    """name → (path, what the message must say)."""
    layer = next(iter(state)).removesuffix(".lora_A.weight")
    wide = {
        f"{layer}.lora_A.weight": torch.zeros(RANK, 99),
        f"{layer}.lora_B.weight": torch.zeros(8, RANK),
    }
    sdxl = "lora_unet_input_blocks_7_1_transformer_blocks_9_attn2_to_k"
    flux = "transformer.single_transformer_blocks.0.attn.to_q"
    tensors = {
        "elsewhere": (
            {
                f"{sdxl}.lora_down.weight": torch.zeros(4, 2048),
                f"{sdxl}.lora_up.weight": torch.zeros(8, 4),
            },
            "fits no layer.*input_blocks_7_1.*looks made for SDXL",
        ),
        "flux": (
            {
                f"{flux}.lora_A.weight": torch.zeros(4, 64),
                f"{flux}.lora_B.weight": torch.zeros(64, 4),
            },
            "fits no layer.*looks made for FLUX",
        ),
        "partly": (
            state
            | {
                "unet.nowhere.lora_A.weight": torch.zeros(4, 8),
                "unet.nowhere.lora_B.weight": torch.zeros(8, 4),
            },
            "fits only .*there is no 'nowhere'",
        ),
        "shapes": (wide, "does not fit.*the factors are \\(4, 99\\)"),
        "ranks": (
            {
                f"{layer}.lora_A.weight": torch.zeros(3, 8),
                f"{layer}.lora_B.weight": torch.zeros(8, 4),
            },
            "ranks of layer.*differ: down \\(3, 8\\) has 3, up \\(8, 4\\) has 4",
        ),
        "half": ({f"{layer}.lora_A.weight": torch.zeros(4, 8)}, "has no up factor"),
        "checkpoint": (
            {"conv_in.weight": torch.zeros(8, 4, 3, 3), "conv_in.bias": torch.zeros(8)},
            "full checkpoint, not a LoRA: 2 tensors",
        ),
        "nothing": ({"steps": torch.zeros(1)}, "holds no LoRA weights"),
        "loha": ({"lora_unet_mid.hada_w1_a": torch.zeros(2, 2)}, "is LoHa, which is not supported"),
        "text": ({"lora_te_x.lora_down.weight": torch.zeros(2, 2)}, "a text encoder alone"),
    }
    for name, (content, says) in tensors.items():
        path = folder / f"{name}.safetensors"
        save_file({key: value.contiguous() for key, value in content.items()}, path)
        yield name, path, says
    (folder / "code.pt").write_bytes(pickle.dumps({"weight": Code()}))
    torch.save({"weight": Code()}, folder / "code2.pt")
    torch.save([1, 2], folder / "list.pt")
    (folder / "text.pt").write_text("hello")
    (folder / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    yield "code2", folder / "code2.pt", "is refused: it is a pickle that holds more than tensors"
    yield "list", folder / "list.pt", "holds no state dict.*got list"
    yield "text.pt", folder / "text.pt", "no torch file|could not be read"
    yield "code", folder / "code.pt", "refused|no torch file|could not be read"
    yield "cut", folder / "cut.safetensors", "is no safetensors file"
    yield "missing", folder / "missing.pt", "no LoRA file"


def test_bad_files_are_told_and_change_nothing(pipe, state, tmp_path):
    modules = [name for name, _ in pipe.unet.named_modules()]
    for name, path, says in bad_files(tmp_path, state):
        with pytest.raises(ValueError, match=f"(?s){says}") as raised:
            load_slider(pipe, path)
        assert "\n" not in str(raised.value), name
    assert not os.path.exists("/tmp/this_must_not_be_run")
    assert [name for name, _ in pipe.unet.named_modules()] == modules
    assert not sliders_in(pipe.unet)


@pytest.mark.parametrize(
    ("key", "width", "says"),
    [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_v", 768, "SD 1.x"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", 1024, "SD 2.x"),
        ("transformer.transformer_blocks.0.attn.add_k_proj", 1536, "SD 3"),
        ("lora_unet_double_blocks_0_img_attn_qkv", 3072, "FLUX"),
        ("lora_unet_mid_block_conv", 64, "not known"),
    ],
)
def test_families(tmp_path, key, width, says):
    save_file(
        {
            f"{key}.lora_down.weight": torch.zeros(4, width),
            f"{key}.lora_up.weight": torch.zeros(8, 4),
        },
        tmp_path / "x.safetensors",
    )
    assert says in family(read_lora(tmp_path / "x.safetensors"))


def test_factors_of_unequal_rank(pipe, state, tmp_path):
    """Each layer keeps its own rank, and scale 1 is W + B·A in every one of them."""
    from xhat.zoo.lora.injection import injected

    cut = dict(state)
    key = next(k for k in state if k.endswith("to_q.lora_A.weight"))
    cut[key], cut[key.replace("_A", "_B")] = state[key][:2], state[key.replace("_A", "_B")][:, :2]
    path = save_lora(tmp_path / "unequal.safetensors", cut, {})
    load_slider(pipe, path, "unequal", scale=1.0)
    expected, found = fit_factors(read_lora(path), pipe.unet), injected(pipe.unet, "unequal")
    assert scales_of(pipe) == {"unequal": 1.0}
    assert expected.keys() == found.keys()
    for layer, factors in expected.items():
        assert all(map(torch.equal, found[layer], factors.layers()))
        assert pipe.unet.get_submodule(layer).scaling["unequal"] == 1.0
    remove(pipe, "unequal")
