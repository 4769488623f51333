"""What changes the pictures changes the identity of a run; what does not, does not."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from PIL import Image

import xhat
from xhat.hooks.describe import describe
from xhat.hooks.identity import Unidentified, identity
from xhat.hooks.state import weights_of


def halved(factor):
    return lambda pipe, step, t, kwargs: {**kwargs, "latents": kwargs["latents"] * factor}


class Callback:
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, pipe, step, t, kwargs):
        return kwargs


class Slotted:
    __slots__ = ("factor",)

    def __init__(self, factor):
        self.factor = factor


def scaled(x, factor=2):
    return x * factor


def picture(value):
    return Image.fromarray(np.full((4, 4, 3), value, np.uint8))


FACTOR = 2


def of_a_global():
    return lambda x: x * FACTOR


@pytest.mark.parametrize(
    ("make", "one", "other"),
    [
        (halved, 0.5, 0.25),
        (functools.partial(functools.partial, scaled), 2, 3),
        (lambda n: functools.partial(scaled, factor=n), 2, 3),
        (Callback, 1, 2),
        (lambda n: Callback(Callback(n)), 1, 2),
        (lambda n: Callback(n).__call__, 1, 2),
        (lambda n: Callback([np.arange(3), {"a": torch.full((2,), n)}]), 1, 2),
        (Slotted, 1, 2),
        (picture, 1, 2),
        (lambda n: [picture(0), picture(n)], 1, 2),
        (lambda n: torch.full((2000,), n), 1, 2),
        (lambda n: np.full((2000,), n), 1, 2),
        (lambda n: {"a": {n}}, 1, 2),
        (lambda n: eval(f"lambda x: x + {n}"), 1, 2),
        (lambda n: eval(f"lambda x, y={n}: x"), 1, 2),
    ],
)
def test_content_tells_values_apart(make, one, other):
    assert identity(make(one)) == identity(make(one))
    assert identity(make(one)) != identity(make(other))


def test_a_global_that_a_callback_reads_is_part_of_it(monkeypatch):
    before = identity(of_a_global())
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert identity(of_a_global()) != before


def test_whole_numbers_are_what_they_are_in_any_type():
    assert identity(1) == identity(1.0)
    assert identity({"a": [2.0]}) == identity({"a": [2]})


def test_what_has_no_content_is_not_guessed_at(tmp_path):
    (tmp_path / "a").write_text("a")
    with (tmp_path / "a").open() as file:
        for value in (file, iter([1]), (x for x in [1]), object()):
            with pytest.raises(Unidentified, match="cannot be told from another"):
                identity(Callback(value))


def test_a_cycle_ends():
    one = Callback(1)
    one.factor = one
    assert identity(one) == identity(one)


# The pipeline


def free_u(pipe):
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)


def free_u_again(pipe):
    pipe.enable_freeu(s1=0.8, s2=0.2, b1=1.2, b2=1.4)


class Processor:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, attn, hidden_states, *args, **kwargs):
        return hidden_states


def processor(scale):
    return lambda pipe: pipe.unet.set_attn_processor(Processor(scale))


def hook(scale):
    def registered(pipe):
        pipe.unet.mid_block.register_forward_hook(lambda m, a, out: out * scale)

    return registered


def forward(pipe):
    original = pipe.unet.mid_block.forward
    pipe.unet.mid_block.forward = lambda *a, **k: original(*a, **k) * 0.5


def one_weight(name, index):
    def changed(pipe):
        parameter = dict(pipe.unet.named_parameters())[name]
        parameter.data.reshape(-1)[index] += 1e-3

    return changed


def tables(pipe):
    pipe.scheduler.alphas_cumprod = pipe.scheduler.alphas_cumprod * 0.99


def tokens(pipe):
    pipe.tokenizer.add_tokens(["<new>"])


CHANGES = {
    "FreeU": free_u,
    "FreeU's scales": free_u_again,
    "a processor": processor(1.0),
    "a processor's state": processor(2.0),
    "a hook": hook(1.0),
    "what a hook closes over": hook(2.0),
    "a forward": forward,
    "the first weight": one_weight("conv_in.weight", 0),
    "a weight in the middle": one_weight("conv_in.weight", 77),
    "a bias": one_weight("conv_out.bias", 1),
    "the scheduler's tables": tables,
    "the tokenizer": tokens,
    "an attention's scale": lambda pipe: setattr(
        pipe.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1, "scale", 0.1
    ),
    "dropout": lambda pipe: pipe.unet.train(),
}


@pytest.mark.slow
def test_every_change_of_a_pipeline_is_another_identity(tiny):
    described = {"nothing": describe(tiny.sd()), "nothing again": describe(tiny.sd())}
    assert described.pop("nothing again") == described["nothing"]
    for name, change in CHANGES.items():
        pipe = tiny.sd()
        change(pipe)
        assert "unidentified" not in (described.setdefault(name, describe(pipe)))
    names = list(described)
    for i, one in enumerate(names):
        for other in names[:i]:
            assert described[one] != described[other], f"{one} is not told from {other}"


def test_a_call_changes_nothing_of_the_identity(tiny):
    pipe = tiny.sd()
    before = describe(pipe)
    pipe("a face", num_inference_steps=2, output_type="latent", height=32, width=32)
    assert describe(pipe) == before


def test_offloaded_weights_are_read_where_they_are(tiny):
    from accelerate import cpu_offload

    pipe = tiny.sd()
    whole = weights_of(pipe)
    cpu_offload(pipe.unet, execution_device=torch.device("cpu"))
    assert next(pipe.unet.parameters()).device.type == "meta"
    assert weights_of(pipe) == whole
    pipe.unet.conv_in._hf_hook.weights_map.dataset["conv_in.weight"].reshape(-1)[3] += 1
    assert weights_of(pipe) != whole


# Stores

CALL = {"seeds": [0], "num_inference_steps": 1, "progress": False, "height": 32, "width": 32}


@pytest.mark.slow
def test_a_store_is_not_another_calls(tiny, tmp_path):
    pipe, store = tiny.sd(), tmp_path / "a.zarr"
    arguments = CALL | {"store": store, "guidance_scale": 2}
    xhat.trace(pipe, "a face", callback_on_step_end=halved(0.5), **arguments)
    xhat.trace(pipe, "a face", callback_on_step_end=halved(0.5), **arguments)
    xhat.trace(
        pipe, "a face", callback_on_step_end=halved(0.5), **(arguments | {"guidance_scale": 2.0})
    )
    with pytest.raises(ValueError, match=r"belongs to another run \(call.callback_on_step_end"):
        xhat.trace(pipe, "a face", callback_on_step_end=halved(0.25), **arguments)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    with pytest.raises(ValueError, match=r"belongs to another run \(state.unet"):
        xhat.trace(pipe, "a face", callback_on_step_end=halved(0.5), **arguments)


def test_other_versions_are_another_run(tiny, tmp_path, monkeypatch):
    from xhat.hooks import run as run_module

    pipe, store = tiny.sd(), tmp_path / "a.zarr"
    xhat.trace(pipe, "a face", store=store, **CALL)
    for library in ("torch", "diffusers", "transformers", "xhat"):
        other = run_module.versions() | {library: "0"}
        with monkeypatch.context() as patch:
            patch.setattr(run_module, "versions", lambda other=other: other)
            with pytest.raises(ValueError, match=r"belongs to another run \(libraries\."):
                xhat.trace(pipe, "a face", store=store, **CALL)


def test_what_cannot_be_told_is_traced_and_not_resumed(tiny, tmp_path):
    pipe, numbers = tiny.sd(), iter(range(100))

    def callback(pipe, step, t, kwargs):
        next(numbers)
        return kwargs

    arguments = CALL | {"store": tmp_path / "a.zarr", "callback_on_step_end": callback}
    xhat.trace(pipe, "a face", **arguments)
    with pytest.raises(ValueError, match="cannot be told: callback_on_step_end .*range_iterator"):
        xhat.trace(pipe, "a face", **arguments)


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_a_call_leaves_the_identity_as_it_was(name, tiny):
    """Text encoders get hooks of transformers' own in their first call."""
    pipe = tiny.build(name)
    before = describe(pipe)
    pipe("a cat", num_inference_steps=2, output_type="latent", **tiny.call_arguments(name))
    assert describe(pipe) == before
