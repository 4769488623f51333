"""LoRA files that cannot be applied whole are refused by name; damaged ones in one line; and no
scale is taken where it has no effect.
"""

from __future__ import annotations

import json
import random

import pytest
import torch
from peft import LoHaConfig, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from xhat.zoo.load.files import metadata, read_tensors
from xhat.zoo.lora.files import read_lora
from xhat.zoo.lora.loading import UnusableLora, load_slider, remove, scales_of, set_scales, sliding
from xhat.zoo.lora.shipped import find_slider, notes

LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_q"


@pytest.fixture(scope="module")
def pipe(tiny):
    return tiny.sd(0)


def lora(pipe, value=0.5):
    """A LoRA of one layer, in Kohya's keys."""
    weight = pipe.unet.get_submodule(
        "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
    ).weight
    return {
        f"{LAYER}.lora_down.weight": torch.full((2, weight.shape[1]), value),
        f"{LAYER}.lora_up.weight": torch.full((weight.shape[0], 2), value),
        f"{LAYER}.alpha": torch.tensor(2.0),
    }


def refused(pipe, path, says):
    """The file is refused in one line, and the pipeline is as it was."""
    modules = [name for name, _ in pipe.unet.named_modules()]
    with pytest.raises(ValueError, match=says) as raised:
        load_slider(pipe, path, scale=1.0)
    assert "\n" not in str(raised.value)
    assert [name for name, _ in pipe.unet.named_modules()] == modules


UNREAD = {
    "diff": "lora_unet_conv_in.diff",
    "diff_b": "lora_unet_conv_in.diff_b",
    "norm": "lora_unet_mid_block_attentions_0_norm.w_norm",
    "norm_bias": "lora_unet_mid_block_attentions_0_norm.b_norm",
    "bias": "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.lora_B.bias",
    "peft_bias": "base_model.model.conv_in.bias",
    "whole_layer": "base_model.model.conv_out.weight",
    "token": "emb_params",
    "text_diff": "lora_te_text_model_encoder_layers_0_mlp_fc1.diff_b",
    "text_bundle": "text_encoder.text_model.embeddings.token_embedding.weight",
}


@pytest.mark.parametrize("key", UNREAD.values(), ids=UNREAD)
def test_keys_that_are_not_read_are_named(pipe, tmp_path, key):
    path = tmp_path / "x.safetensors"
    save_file(lora(pipe) | {key: torch.ones(8)}, path)
    refused(pipe, path, f"1 of its 4 keys .*'{key}'")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("dora_scale", "DoRA"),
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("oft_blocks", "OFT"),
        ("lora_mid.weight", "Tucker"),
    ],
)
def test_other_kinds_are_named(pipe, tmp_path, key, kind):
    path = tmp_path / "x.safetensors"
    save_file(lora(pipe) | {f"{LAYER}.{key}": torch.ones(8)}, path)
    refused(pipe, path, f"{kind}.*is|is .*{kind}")


MADE = {
    "dora": ({"use_dora": True}, "DoRA"),
    "bias": ({"lora_bias": True}, r"lora_B\.bias"),
    "all_bias": ({"bias": "all"}, r"\d+ of its \d+ keys are no factors.*bias"),
    "lora_only": ({"bias": "lora_only"}, r"keys are no factors.*bias"),
    "whole": ({"modules_to_save": ["conv_in"]}, "keys are no factors.*conv_in"),
    "pissa": ({"init_lora_weights": "pissa"}, "pissa.*changes the base's weights"),
    "olora": ({"init_lora_weights": "olora"}, "olora.*changes the base's weights"),
}


@pytest.mark.parametrize(("settings", "says"), MADE.values(), ids=MADE)
def test_what_peft_makes_and_is_no_plain_lora(pipe, tiny, tmp_path, settings, says):
    config = {"r": 2, "target_modules": ["attn2.to_out.0"]} | settings
    get_peft_model(tiny.sd(0).unet, LoraConfig(**config)).save_pretrained(tmp_path)
    refused(pipe, tmp_path, says)


def test_another_adapter_of_peft(pipe, tiny, tmp_path):
    config = LoHaConfig(r=2, target_modules=["to_q"])
    get_peft_model(tiny.sd(0).unet, config).save_pretrained(tmp_path)
    refused(pipe, tmp_path, "LoHa")


SETTINGS = {
    "list": ("[]", "expected names and values, got list"),
    "cut": ('{"lora_alpha": ', "no JSON"),
    "nested": ("[" * 100_000, "no JSON"),
    "none": ("{}", "lora_alpha.*got None"),
    "text": ('{"lora_alpha": "much"}', "lora_alpha.*got 'much'"),
    "huge": ('{"lora_alpha": 1' + "0" * 400 + "}", "lora_alpha.*got 1000"),
    "nan": ('{"lora_alpha": NaN}', "not finite"),
    "pattern": ('{"lora_alpha": 4, "alpha_pattern": [1]}', r"alpha_pattern, got .*\[1\]"),
    "expression": ('{"lora_alpha": 4, "alpha_pattern": {"(": 1}}', "alpha_pattern"),
    "kind": ('{"lora_alpha": 4, "peft_type": ["LORA"]}', "is \\['LORA'\\]"),
    "later": ('{"lora_alpha": 4, "use_qalora": true}', "made with use_qalora"),
}


@pytest.mark.parametrize(("text", "says"), SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("place", ["beside", "inside"])
def test_settings_of_another_form(pipe, tmp_path, text, says, place):
    """In PEFT's file, and in the metadata that diffusers writes."""
    path = tmp_path / "adapter_model.safetensors"
    tensors = {key: value for key, value in lora(pipe).items() if not key.endswith("alpha")}
    if place == "beside":
        save_file(tensors, path)
        (tmp_path / "adapter_config.json").write_text(text)
    else:
        try:
            inside = json.dumps({f"unet.{k}": v for k, v in json.loads(text).items()})
        except (ValueError, AttributeError, RecursionError):
            inside = text
        if inside == "{}":
            pytest.skip("a file without settings is B·A as it is")
        save_file(tensors, path, {"lora_adapter_metadata": inside})
    refused(pipe, path, says)


@pytest.mark.parametrize("text", ['{"target": 3}', '{"target": {"a": 1}}', "3", "[[1]]", "{", ""])
def test_notes_of_another_form(pipe, tmp_path, text):
    """A prompt that is no text is refused, in any form of metadata."""
    path = tmp_path / "x.safetensors"
    try:
        values = json.loads(text)
    except ValueError:
        values = text
    target = values["target"] if isinstance(values, dict) else values
    save_file(lora(pipe), path, {"target": json.dumps(target), "steps": text})
    assert notes(path)["target"] == target
    if text == "{":
        assert find_slider(str(path)) == (path, "{")
        return
    with pytest.raises(ValueError, match="expected text; give one|does not say for which prompt"):
        find_slider(str(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("which", ["lora_down.weight", "lora_up.weight", "alpha"])
def test_numbers_that_are_not_finite(pipe, tmp_path, value, which):
    tensors = lora(pipe)
    tensors[f"{LAYER}.{which}"].view(-1)[0] = value
    save_file(tensors, tmp_path / "x.safetensors")
    refused(pipe, tmp_path / "x.safetensors", "numbers that are not finite.*attn2")


def test_factors_beyond_half_precision(tiny, tmp_path):
    half = tiny.sd(0)
    half.unet.half()
    save_file(lora(half, 1e6), tmp_path / "x.safetensors")
    refused(half, tmp_path / "x.safetensors", "too large for its precision, torch.float16")


def with_header(tensors, path, change):
    """A safetensors file whose header ``change`` has altered."""
    save_file(tensors, path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = change(json.loads(data[8 : 8 + length]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def altered(position, value):
    def change(header):
        names = [name for name in header if name != "__metadata__"]
        header[names[position]] |= value
        return header

    return change


HEADERS = {
    "huge": altered(-1, {"data_offsets": [0, 12 * 10**9]}),
    "beyond_64_bits": altered(-1, {"data_offsets": [0, 2**70]}),
    "overlapping": altered(1, {"data_offsets": [0, 4]}),
    "backwards": altered(1, {"data_offsets": [8, 4]}),
    "negative": altered(0, {"data_offsets": [-4, 4]}),
    "text": altered(0, {"data_offsets": ["0", "4"]}),
    "three": altered(0, {"data_offsets": [0, 4, 8]}),
    "shape": altered(0, {"shape": [2**40]}),
    "shape_of_text": altered(0, {"shape": ["x"]}),
    "no_shape": altered(0, {"shape": 3}),
    "dtype": altered(0, {"dtype": "F99"}),
    "no_dtype": altered(0, {"dtype": 32}),
    "no_places": lambda header: dict.fromkeys(header, 3),
    "list": lambda header: [header],
    "metadata": lambda header: {"__metadata__": {"a": 1}, **header},
    "metadata_list": lambda header: {"__metadata__": ["a"], **header},
    "nested": lambda header: b"[" * 50_000,
    "bytes": lambda header: b"\xff\xfe" * 20,
    "extra": lambda header: {
        **header,
        "more": {"dtype": "F32", "shape": [0], "data_offsets": [9, 9]},
    },
}


@pytest.mark.parametrize("change", HEADERS.values(), ids=HEADERS)
def test_headers_that_are_not_so(pipe, tmp_path, change):
    path = tmp_path / "x.safetensors"
    with_header(lora(pipe), path, change)
    refused(pipe, path, "x.safetensors")


def test_tensors_exchanged_in_the_header_have_other_shapes(pipe, tmp_path):
    def exchange(header):
        down, up = (f"{LAYER}.lora_{half}.weight" for half in ("down", "up"))
        header[down], header[up] = header[up], header[down]
        return header

    with_header(lora(pipe), tmp_path / "x.safetensors", exchange)
    refused(pipe, tmp_path / "x.safetensors", "ranks of layer.*differ|does not fit")


@pytest.mark.parametrize("length", [12 * 10**9, 2**63, 10**8 + 1, 0, 1])
def test_a_header_is_not_read_at_the_length_it_claims(tmp_path, length, monkeypatch):
    """The file is as large as it says, with a hole in it, and not a byte of the header is read."""
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(length.to_bytes(8, "little"))
        file.truncate(13 * 10**9)
    monkeypatch.setattr(json, "loads", lambda text: pytest.fail("the header was read"))
    with pytest.raises(ValueError, match="no safetensors file"):
        read_tensors(path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_bytes_changed_at_random(pipe, tmp_path, suffix):
    """Read, or refused in one line: nothing else is raised."""
    path, whole = tmp_path / f"x{suffix}", tmp_path / f"whole{suffix}"
    save_file(lora(pipe), whole) if suffix == ".safetensors" else torch.save(lora(pipe), whole)
    original, generator, refusals = whole.read_bytes(), random.Random(0), 0
    for trial in range(150):
        data = bytearray(original)
        for _ in range(generator.choice((1, 1, 4))):
            data[generator.randrange(len(data))] = generator.randrange(256)
        if trial % 5 == 0:
            data = data[: generator.randrange(len(data))]
        path.write_bytes(data)
        try:
            read_lora(path)
        except ValueError as error:
            refusals += 1
            assert str(path) in str(error)
            assert "\n" not in str(error)
    assert refusals > 20


def test_alpha_as_a_number_in_a_pickle_counts(pipe, tmp_path):
    """A .pt file may hold alpha as a float: it is not dropped."""
    tensors = lora(pipe)
    torch.save(tensors | {f"{LAYER}.alpha": 2.0}, tmp_path / "number.pt")
    torch.save(tensors | {f"{LAYER}.alpha": "2"}, tmp_path / "text.pt")
    (parts,) = read_lora(tmp_path / "number.pt").layers.values()
    assert parts["alpha"] == 2
    refused(pipe, tmp_path / "text.pt", "expected names and tensors, got str under")


def test_metadata_is_read_from_the_header(pipe, tmp_path):
    save_file(lora(pipe), tmp_path / "x.safetensors", {"a": "b"})
    assert metadata(tmp_path / "x.safetensors") == {"a": "b"}
    save_file(lora(pipe), tmp_path / "x.safetensors")
    assert metadata(tmp_path / "x.safetensors") == {}


@pytest.fixture
def loaded(tiny, tmp_path):
    """A pipeline with a LoRA at scale 1, and the file of another."""
    pipe, other = tiny.sd(0), tmp_path / "other.safetensors"
    save_file(lora(pipe), tmp_path / "s.safetensors")
    save_file(lora(pipe, 0.25), other)
    load_slider(pipe, tmp_path / "s.safetensors", "s", scale=1.0)
    return pipe, other


def slide(pipe):
    with sliding(pipe, {"s": -1.0}):
        pass


WITHOUT_EFFECT = {
    "sliding": lambda pipe, other: slide(pipe),
    "set_scales": lambda pipe, other: set_scales(pipe, {"s": 2.0}),
    "load_slider": lambda pipe, other: load_slider(pipe, other, "t"),
    "remove": lambda pipe, other: remove(pipe, "s"),
}


@pytest.mark.parametrize("call", WITHOUT_EFFECT.values(), ids=WITHOUT_EFFECT)
@pytest.mark.parametrize(
    ("off", "on", "says"),
    [
        ("fuse_lora", "unfuse_lora", r"'s' is fused.*unfuse_lora\(\) first"),
        ("disable_lora", "enable_lora", r"switched off.*enable_lora\(\) first"),
    ],
)
def test_no_scale_is_taken_without_effect(loaded, call, off, on, says):
    pipe, other = loaded
    getattr(pipe, off)()
    with pytest.raises(ValueError, match=says):
        call(pipe, other)
    getattr(pipe, on)()
    call(pipe, other)


def test_scales_that_are_no_numbers(loaded):
    pipe, _ = loaded
    for scale in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="scale of 's' is a finite number"):
            set_scales(pipe, {"s": scale})
    assert scales_of(pipe) == {"s": 1.0}
    pipe.disable_lora()
    assert scales_of(pipe) == {"s": 0.0}


def test_a_fused_lora_whose_layers_are_gone_is_the_models_own(loaded, tmp_path):
    """diffusers' recipe for speed, fuse and unload: a slider on top has its effect."""
    pipe, other = loaded
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    weight = dict(pipe.unet.named_parameters())
    key = next(
        name for name in weight if "mid_block" in name and name.endswith("attn2.to_q.weight")
    )
    fused = weight[key].clone()
    load_slider(pipe, other, "t", scale=1.0)
    layer = pipe.unet.get_submodule(key.removesuffix(".weight"))
    parts = load_file(other)
    change = parts[f"{LAYER}.lora_up.weight"] @ parts[f"{LAYER}.lora_down.weight"]
    x = torch.randn(1, fused.shape[1])
    torch.testing.assert_close(layer(x), x @ (fused + change).T)


def test_refusals_are_of_one_kind(pipe, tmp_path):
    save_file({"x": torch.ones(1)}, tmp_path / "x.safetensors")
    with pytest.raises(UnusableLora):
        load_slider(pipe, tmp_path / "x.safetensors")
