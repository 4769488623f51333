"""Every layout in which checkpoints are published is loaded from a file of just that layout, and
draws the same bits.

The models are small and random. What is loaded onto a base must sample as the student that was
saved."""

from __future__ import annotations

import json
import os
import pickle

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

import xhat
from xhat.hooks.points.names import denoiser_of
from xhat.hooks.sharing import sharing
from xhat.zoo.load.checkpoints import load_checkpoint
from xhat.zoo.load.files import check_whole, kind_of
from xhat.zoo.pairs import load_model, load_pair

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = ["sd", "sdxl", "sd3", "pixart"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def pairs(tiny):
    """name → (base, student) with the same prompt encoders and VAE, as distillation leaves them."""

    def pair(name):
        base, student = tiny.build(name, 0), tiny.build(name, 1)
        shared = {k: v for k, v in base.components.items() if k not in ("unet", "transformer")}
        student.register_modules(**shared)
        return base, student

    return {name: pair(name) for name in NAMES}


def latents(tiny, name, pipe, **call):
    call = {"num_inference_steps": 2, "guidance_scale": 1.0} | tiny.call_arguments(name) | call
    return pipe(
        "a red planet", generator=torch.Generator().manual_seed(0), output_type="latent", **call
    ).images


def state_of(pipe):
    return {k: v.contiguous() for k, v in denoiser_of(pipe).state_dict().items()}


def same(tiny, name, one, other, **call):
    return torch.equal(latents(tiny, name, one, **call), latents(tiny, name, other, **call))


def alike(tiny, name, one, other, **call):
    """Weights that diffusers maps from a file can lie at odd addresses, where sums round
    otherwise.
    """
    torch.testing.assert_close(
        latents(tiny, name, one, **call), latents(tiny, name, other, **call), rtol=1e-4, atol=1e-4
    )


# Layouts


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("name", NAMES)
def test_bare_weights(tiny, pairs, tmp_path, name, suffix):
    base, student = pairs[name]
    before, file = latents(tiny, name, base), tmp_path / f"weights.{suffix}"
    save_file(state_of(student), file) if suffix == "safetensors" else torch.save(
        state_of(student), file
    )
    loaded = load_checkpoint(file, base, kind="weights")
    assert type(loaded) is type(base)
    assert same(tiny, name, loaded, student)
    assert torch.equal(latents(tiny, name, base), before)
    assert not same(tiny, name, loaded, base)


def test_half_precision_weights_take_the_precision_of_the_base(tiny, pairs, tmp_path):
    base, student = pairs["sdxl"]
    halves = {k: v.half() for k, v in state_of(student).items()}
    torch.save({"state_dict": halves}, tmp_path / "unet_fp16.ckpt")
    loaded = load_checkpoint(tmp_path / "unet_fp16.ckpt", base)
    assert all(torch.equal(p, halves[n].float()) for n, p in loaded.unet.named_parameters())


@pytest.mark.parametrize("name", NAMES)
def test_a_pipelines_folder(tiny, pairs, tmp_path, name):
    student = pairs[name][1]
    student.save_pretrained(tmp_path)
    alike(tiny, name, load_checkpoint(tmp_path, pairs[name][0]), student)


@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_a_models_folder(tiny, pairs, tmp_path, name):
    base, student = pairs[name]
    denoiser_of(student).save_pretrained(tmp_path)
    alike(tiny, name, load_checkpoint(tmp_path, base, kind="denoiser"), student)


@pytest.mark.parametrize("layout", ["weights", "denoiser"])
def test_a_network_that_takes_its_guidance(tiny, pairs, tmp_path, layout):
    """The UNet of a latent consistency model has an input that its base has not."""
    base, student = pairs["sd"][0], tiny.sd(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        unet = diffusers.UNet2DConditionModel.from_config(
            {**base.unet.config, "time_cond_proj_dim": 8}
        ).eval()
    student.register_modules(unet=unet, text_encoder=base.text_encoder, vae=base.vae)
    if layout == "denoiser":
        unet.save_pretrained(tmp_path)
    else:
        save_file(unet.state_dict(), tmp_path / "lcm.safetensors")
    loaded = load_checkpoint(
        tmp_path if layout == "denoiser" else tmp_path / "lcm.safetensors", base
    )
    alike(tiny, "sd", loaded, student, guidance_scale=4.0)
    assert not torch.allclose(
        latents(tiny, "sd", loaded, guidance_scale=2.0), latents(tiny, "sd", loaded)
    )


RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}


def original_layout(unet):
    """A UNet's weights under the names of the CompVis code
    (ldm/modules/diffusionmodules/openaimodel.py).
    """
    places, layers = dict(ENDS), unet.config.layers_per_block
    number = 1
    for i, block in enumerate(unet.down_blocks):
        for j in range(layers):
            places[f"down_blocks.{i}.resnets.{j}"] = f"input_blocks.{number}.0"
            places[f"down_blocks.{i}.attentions.{j}"] = f"input_blocks.{number}.1"
            number += 1
        if block.downsamplers:
            places[f"down_blocks.{i}.downsamplers.0.conv"] = f"input_blocks.{number}.0.op"
            number += 1
    places |= {
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    number = 0
    for i, block in enumerate(unet.up_blocks):
        attends = hasattr(block, "attentions")
        for j in range(layers + 1):
            places[f"up_blocks.{i}.resnets.{j}"] = f"output_blocks.{number}.0"
            places[f"up_blocks.{i}.attentions.{j}"] = f"output_blocks.{number}.1"
            number += 1
        if block.upsamplers:
            places[f"up_blocks.{i}.upsamplers.0.conv"] = (
                f"output_blocks.{number - 1}.{1 + attends}.conv"
            )
    found = {}
    for name, value in unet.state_dict().items():
        prefix = max((p for p in places if name.startswith(p + ".")), key=len)
        rest = name[len(prefix) + 1 :]
        if ".resnets." in name:
            part, _, end = rest.partition(".")
            rest = f"{RESNET[part]}.{end}"
        found[f"model.diffusion_model.{places[prefix]}.{rest}"] = value.contiguous()
    return found


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_one_file_with_the_whole_model(tiny, pairs, tmp_path, name):
    base, student = pairs[name]
    other = {
        "first_stage_model.decoder.conv_in.weight": torch.zeros(1),
        "model_ema.decay": torch.zeros(1),
    }
    save_file(original_layout(student.unet) | other, tmp_path / "model.safetensors")
    assert same(
        tiny, name, load_checkpoint(tmp_path / "model.safetensors", base, kind="file"), student
    )


def lora_of(network, seed=3):
    """Random factors of rank 2 for every projection of attention: diffusers' name → tensor."""
    generator, found = torch.Generator().manual_seed(seed), {}
    for name, module in network.named_modules():
        if name.endswith(("to_q", "to_v")):
            out, into = module.weight.shape
            found[f"{name}.lora_A.weight"] = torch.randn(2, into, generator=generator)
            found[f"{name}.lora_B.weight"] = torch.randn(out, 2, generator=generator) / 4
    return found


def merged(tiny, name, base, factors, scale=1.0):
    """The base with W + s·B·A in the place of W, made by hand."""
    pipe = tiny.build(name, 0)
    state = {k: v.clone() for k, v in state_of(base).items()}
    for key, down in factors.items():
        if ".lora_A." in key:
            layer = key.removesuffix(".lora_A.weight")
            state[f"{layer}.weight"] += scale * factors[f"{layer}.lora_B.weight"] @ down
    denoiser_of(pipe).load_state_dict(state)
    return pipe


def write_lora(layout, slot, factors, folder):
    if layout == "kohya":  # webui's names, with α = rank
        from diffusers.utils import convert_state_dict_to_kohya

        state = convert_state_dict_to_kohya({f"{slot}.{k}": v for k, v in factors.items()})
        state = {k.replace(f"lora_{slot}_", "lora_unet_"): v for k, v in state.items()}
        save_file({k: v.contiguous() for k, v in state.items()}, folder / "lora.safetensors")
        return folder / "lora.safetensors"
    state = {f"{slot}.{k}": v for k, v in factors.items()}
    save_file(state, folder / "pytorch_lora_weights.safetensors")
    return folder if layout == "folder" else folder / "pytorch_lora_weights.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout"),
    [("sdxl", "peft"), ("sdxl", "folder"), ("sdxl", "kohya"), ("sd", "kohya"), ("sd3", "peft")],
)
def test_a_lora(tiny, pairs, tmp_path, name, layout):
    base = pairs[name][0]
    slot = "transformer" if name == "sd3" else "unet"
    factors = lora_of(denoiser_of(base))
    before = latents(tiny, name, base)
    path = write_lora(layout, slot, factors, tmp_path)
    for scale in (1.0, 0.5):
        loaded = load_checkpoint(path, base, kind="lora", lora_scale=scale)
        expected = latents(tiny, name, merged(tiny, name, base, factors, scale))
        torch.testing.assert_close(latents(tiny, name, loaded), expected, rtol=1e-3, atol=1e-3)
    assert torch.equal(latents(tiny, name, base), before)
    assert not torch.allclose(before, expected, atol=0.01)


def test_a_lora_shares_the_weights_of_its_base_and_is_switched(tiny, pairs, tmp_path):
    base = pairs["sdxl"][0]
    loaded = load_checkpoint(write_lora("peft", "unet", lora_of(base.unet), tmp_path), base)
    ours = {p.data_ptr() for p in base.unet.parameters()}
    extra = [n for n, p in loaded.unet.named_parameters() if p.data_ptr() not in ours]
    assert extra
    assert all(".student." in n for n in extra)
    loaded.disable_lora()
    assert same(tiny, "sdxl", loaded, base)
    loaded.enable_lora()
    assert not same(tiny, "sdxl", loaded, base)


@pytest.mark.slow
def test_a_hybrid_with_a_lora(tiny, pairs, tmp_path):
    """One copy of the weights, with the adapter on for the student's steps alone; its strength is
    the adapter's.
    """
    from xhat.samplers.plans.plan import Plan, Segment

    base = pairs["sdxl"][0]
    path = write_lora("peft", "unet", lora_of(base.unet), tmp_path)
    student = load_checkpoint(path, base)
    for strength in (1.0, 0.5, 0.0):
        plan = Plan([Segment("student", 0, 2, 2, strength=strength)])
        hybrid = xhat.hybrid(base, student, plan=plan)
        alone = load_checkpoint(path, base, lora_scale=strength)
        assert same(tiny, "sdxl", hybrid, alone if strength else base)
    mixed = xhat.hybrid(
        base, student, plan=Plan([Segment("base", 0, 1, 2), Segment("student", 1, 2, 2)])
    )
    out = latents(tiny, "sdxl", mixed)
    assert not torch.equal(out, latents(tiny, "sdxl", base))
    assert not torch.equal(out, latents(tiny, "sdxl", student))
    assert same(tiny, "sdxl", load_checkpoint(path, base), student)


def test_shared_weights_are_one(pairs):
    network = pairs["sd"][0].unet
    twin = sharing(network)
    assert twin is not network
    assert all(a is b for a, b in zip(twin.parameters(), network.parameters(), strict=True))


# Names


def into_cache(cache, repo, *, pipe=None, file=None, state=None, variant=None):
    """The folder of the hub's cache that a download leaves."""
    snapshot = cache / f"models--{repo.replace('/', '--')}" / "snapshots" / "0"
    (snapshot.parents[1] / "refs").mkdir(parents=True, exist_ok=True)
    (snapshot.parents[1] / "refs" / "main").write_text("0")
    if pipe is not None:
        pipe.save_pretrained(snapshot, variant=variant)
    else:
        (snapshot / file).parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, snapshot / file) if file.endswith(".bin") else save_file(
            state, snapshot / file
        )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


SDXL_BASE = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.mark.slow
def test_a_published_pair_from_the_cache(tiny, pairs, cache, capsys):
    base, student = pairs["sdxl"]
    into_cache(cache, SDXL_BASE, pipe=base)
    into_cache(
        cache, "tianweiy/DMD2", file="dmd2_sdxl_4step_unet_fp16.bin", state=state_of(student)
    )
    pair = load_pair("sdxl/dmd2")
    assert xhat.defaults(pair.base) == {"num_inference_steps": 50, "guidance_scale": 5.0}
    assert type(pair.student.scheduler) is diffusers.LCMScheduler
    assert pair.chosen == "dmd2"
    assert all(
        torch.equal(a, b)
        for a, b in zip(pair.student.unet.parameters(), student.unet.parameters(), strict=True)
    )
    pair.student(
        "a face",
        **tiny.call_arguments("sdxl") | xhat.defaults(pair.student) | {"output_type": "latent"},
    )
    assert pair.student.scheduler.timesteps.tolist() == [999, 749, 499, 249]
    from xhat import zoo

    zoo.list()
    assert (
        "sdxl/dmd2               4 steps  guidance 0    * tianweiy/DMD2" in capsys.readouterr().out
    )


def test_a_base_in_half_precision_from_the_files_that_are(tiny, pairs, cache):
    base = pairs["sdxl"][0]
    into_cache(cache, SDXL_BASE, pipe=base, variant="fp16")
    loaded = load_model("sdxl", dtype=torch.float16)
    assert loaded.unet.dtype == torch.float16
    assert all(
        torch.equal(a, b.half())
        for a, b in zip(loaded.unet.parameters(), base.unet.parameters(), strict=True)
    )


@pytest.mark.slow
def test_a_single_step_at_its_timestep(tiny, pairs, cache):
    base, student = pairs["sdxl"]
    into_cache(cache, SDXL_BASE, pipe=base)
    into_cache(
        cache,
        "ByteDance/Hyper-SD",
        file="Hyper-SDXL-1step-Unet.safetensors",
        state=state_of(student),
    )
    pipe = load_model("sdxl/hyper-1")
    pipe("a face", output_type="latent", **tiny.call_arguments("sdxl") | xhat.defaults(pipe))
    assert pipe.scheduler.timesteps.tolist() == [800]


@pytest.mark.slow
def test_a_published_lora_and_a_published_folder(tiny, pairs, cache):
    base, student = pairs["sdxl"]
    into_cache(cache, SDXL_BASE, pipe=base)
    factors = {f"unet.{k}": v for k, v in lora_of(base.unet).items()}
    into_cache(cache, "h1t/TCD-SDXL-LoRA", file="pytorch_lora_weights.safetensors", state=factors)
    into_cache(cache, "stabilityai/sdxl-turbo", pipe=student)
    tcd, turbo = load_pair("sdxl/tcd"), load_pair("sdxl/turbo")
    assert type(tcd.student.scheduler) is diffusers.TCDScheduler
    assert xhat.defaults(tcd.student)["eta"] == 0.3
    alike(tiny, "sdxl", turbo.student, student)
    assert xhat.defaults(turbo.student)["num_inference_steps"] == 4


@pytest.mark.parametrize("name", ["sdxl/lcm", "latent-consistency/lcm-sdxl"])
def test_a_published_model_without_a_pipeline(tiny, pairs, cache, name):
    base, student = pairs["sdxl"]
    into_cache(cache, SDXL_BASE, pipe=base)
    into_cache(cache, "latent-consistency/lcm-sdxl", pipe=student.unet)
    alike(
        tiny,
        "sdxl",
        load_model(name, base, scheduler=None) if "lcm-" in name else graft_alone(name, base),
        student,
    )


def graft_alone(name, base):
    """A published checkpoint, on its base's scheduler."""
    pipe = load_model(name, base)
    assert type(pipe.scheduler) is diffusers.LCMScheduler
    pipe.scheduler = base.scheduler
    return pipe


def test_a_file_of_the_hub_by_its_name(tiny, pairs, cache):
    base, student = pairs["sd"]
    into_cache(cache, "someone/fast-sd", file="weights/unet.safetensors", state=state_of(student))
    assert same(tiny, "sd", load_model("someone/fast-sd/weights/unet.safetensors", base), student)


def test_like_a_published_one(tiny, pairs, tmp_path):
    base, student = pairs["sdxl"]
    save_file(state_of(student), tmp_path / "mine.safetensors")
    pipe = load_checkpoint(tmp_path / "mine.safetensors", base, like="sdxl/lightning")
    assert xhat.defaults(pipe) == {"num_inference_steps": 4, "guidance_scale": 0.0}
    assert pipe.scheduler.config.timestep_spacing == "trailing"
    assert type(pipe.scheduler) is diffusers.EulerDiscreteScheduler
    assert type(base.scheduler) is not type(pipe.scheduler)


@pytest.mark.slow
def test_the_embedded_student_as_a_bare_file(tmp_path):
    student = load_model("demo/dmd")
    save_file(state_of(student), tmp_path / "dmd.safetensors")
    call = {"num_inference_steps": 4, "guidance_scale": 1.0}
    loaded = load_model(
        tmp_path / "dmd.safetensors",
        "demo/base",
        scheduler="LCMScheduler",
        scheduler_config={"original_inference_steps": 4},
        call=call,
    )
    draw = [
        p(
            "a planet", generator=torch.Generator().manual_seed(0), output_type="latent", **call
        ).images
        for p in (loaded, student)
    ]
    assert torch.equal(*draw)
    assert xhat.defaults(loaded) == call


# Bad input: one clear message each


def refused(match, *args, **kwargs):
    with pytest.raises(ValueError, match=match) as caught:
        load_checkpoint(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_weights_of_another_family(pairs, tmp_path):
    save_file(state_of(pairs["sdxl"][1]), tmp_path / "sdxl.safetensors")
    save_file(state_of(pairs["sd3"][1]), tmp_path / "sd3.safetensors")
    looks = "looks like Stable Diffusion XL, the base like"
    refused(
        f"does not fit the base's UNet2DConditionModel: it {looks}",
        tmp_path / "sdxl.safetensors",
        pairs["sd"][0],
    )
    refused("it looks like Stable Diffusion 3", tmp_path / "sd3.safetensors", pairs["sdxl"][0])
    refused("it looks like Stable Diffusion XL", tmp_path / "sdxl.safetensors", pairs["sd3"][0])


def test_a_model_and_a_pipeline_of_another_family(pairs, tmp_path):
    pairs["pixart"][1].save_pretrained(tmp_path / "pipeline")
    refused(
        "another family.*PixArtTransformer2DModel.*UNet2DConditionModel",
        tmp_path / "pipeline",
        pairs["sd"][0],
    )
    refused(
        "is a PixArtTransformer2DModel, the base's",
        tmp_path / "pipeline" / "transformer",
        pairs["sd"][0],
    )
    pairs["sdxl"][1].save_pretrained(tmp_path / "sdxl")
    refused(
        "another family.*cross_attention_dim 32.*cross_attention_dim 16",
        tmp_path / "sdxl",
        pairs["sd"][0],
    )
    refused("looks like Stable Diffusion XL", tmp_path / "sdxl" / "unet", pairs["sd"][0])


def test_weights_that_lack_some(pairs, tmp_path):
    state = state_of(pairs["sd"][1])
    del state["conv_in.weight"], state["conv_out.bias"]
    save_file(state, tmp_path / "part.safetensors")
    refused(
        "2 of [0-9]+ parameters differ, 2 of them missing; for example conv_in.weight: None there",
        tmp_path / "part.safetensors",
        pairs["sd"][0],
    )


def test_a_lora_given_as_a_checkpoint_and_the_other_way_round(pairs, tmp_path):
    base, student = pairs["sdxl"]
    lora = write_lora("peft", "unet", lora_of(base.unet), tmp_path)
    save_file(state_of(student), tmp_path / "unet.safetensors")
    refused(
        "is a LoRA, not bare weights of a denoiser: load it with kind='lora'",
        lora,
        base,
        kind="weights",
    )
    refused(
        "is bare weights of a denoiser, not a LoRA",
        tmp_path / "unet.safetensors",
        base,
        kind="lora",
    )
    refused("is a LoRA: it needs the pipeline it belongs to", lora)
    refused("is bare weights of a denoiser: it needs the pipeline", tmp_path / "unet.safetensors")


def test_a_lora_of_another_family(pairs, tmp_path):
    lora = write_lora("peft", "unet", lora_of(pairs["sdxl"][0].unet), tmp_path)
    refused("is a LoRA that does not fit the base", lora, pairs["sd"][0])
    refused("is a LoRA that does not fit the base", lora, pairs["sd3"][0])
    refused("PixArtAlphaPipeline loads none", lora, pairs["pixart"][0])


def test_a_base_with_adapters(pairs, tmp_path):
    base = pairs["sd"][0]
    lora = write_lora("kohya", "unet", lora_of(base.unet), tmp_path)
    refused("adapters loaded already", lora, load_checkpoint(lora, base))


@pytest.mark.parametrize("keep", [0, 5, 4000, -1])
def test_a_file_that_is_cut_off(pairs, tmp_path, keep):
    file = tmp_path / "unet.safetensors"
    save_file(state_of(pairs["sd"][1]), file)
    check_whole(file)
    file.write_bytes(file.read_bytes()[:keep])
    refused("cut off|not whole", file, pairs["sd"][0])


def test_a_corrupt_header(pairs, tmp_path):
    file = tmp_path / "unet.safetensors"
    save_file(state_of(pairs["sd"][1]), file)
    content = bytearray(file.read_bytes())
    content[20:40] = b"\x00" * 20
    file.write_bytes(content)
    refused("header of .* is corrupt", file, pairs["sd"][0])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git-lfs"),
        (b"<html>404", "web page"),
    ],
)
def test_what_a_failed_download_leaves(pairs, tmp_path, content, says):
    (tmp_path / "unet.safetensors").write_bytes(content)
    refused(says, tmp_path / "unet.safetensors", pairs["sd"][0])


class Harmful:
    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_pickle_with_code_is_not_run(pairs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"conv_in.weight": Harmful()}, "new.bin")
    with open("old.bin", "wb") as file:
        pickle.dump({"conv_in.weight": Harmful()}, file)
    for name in ("new.bin", "old.bin"):
        refused("holds more than tensors|could not be read", name, pairs["sd"][0])
    refused(r"pickle that holds more than tensors \(posix.system\)", "new.bin", pairs["sd"][0])
    assert not os.path.exists("ran")


def test_a_truncated_pickle(pairs, tmp_path):
    torch.save(state_of(pairs["sd"][1]), tmp_path / "unet.bin")
    content = (tmp_path / "unet.bin").read_bytes()
    (tmp_path / "unet.bin").write_bytes(content[: len(content) // 2])
    refused("cut off or corrupt", tmp_path / "unet.bin", pairs["sd"][0])
    torch.save([1, 2], tmp_path / "list.bin")
    refused("holds no weights", tmp_path / "list.bin", pairs["sd"][0])


def test_a_checkpoint_that_overflows_in_half_precision(tiny, pairs, tmp_path):
    """The step and the first point that is not finite are named, and what to try."""
    base, student = tiny.sd(0).to(torch.float16), pairs["sd"][1]
    state = {
        k: v * 1e6 if k == "mid_block.resnets.0.conv2.weight" else v
        for k, v in state_of(student).items()
    }
    save_file(state, tmp_path / "hot.safetensors")
    pipe = load_checkpoint(tmp_path / "hot.safetensors", base)
    call = {
        "num_inference_steps": 2,
        "guidance_scale": 1.0,
        "progress": False,
        **tiny.call_arguments("sd"),
    }
    with pytest.raises(
        ValueError, match=r"'mid.res.0' is not finite at step 0 .*bfloat16 or float32"
    ) as named:
        xhat.trace(pipe, "a planet", seeds=[0], hooks=["**"], **call)
    assert "\n" not in str(named.value)
    with pytest.raises(ValueError, match=r"'model_output' is not finite at step 0 .*hooks"):
        xhat.trace(pipe, "a planet", seeds=[0], **call)


def test_missing_components(tiny, tmp_path):
    import shutil

    tiny.sd().save_pretrained(tmp_path)
    shutil.rmtree(tmp_path / "vae")
    refused("names vae, and there is no such folder", tmp_path)


def test_a_pipeline_with_a_broken_file(tiny, tmp_path):
    tiny.sd().save_pretrained(tmp_path)
    file = tmp_path / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    refused("unet/diffusion_pytorch_model.safetensors is not whole", tmp_path)


def test_a_hub_name_without_network(cache):
    refused(
        "someone/model is not in the local cache, and the hub cannot be reached.*hf download",
        "someone/model",
    )
    refused("hf download someone/model a/b.safetensors", "someone/model/a/b.safetensors")
    with pytest.raises(ValueError, match="stable-diffusion-xl-base-1.0 is not in the local cache"):
        _ = load_pair("sdxl/dmd2").base


def test_code_of_a_repository_is_not_run(tiny, tmp_path, monkeypatch):
    tiny.sd().save_pretrained(tmp_path / "pipe")
    index = json.loads((tmp_path / "pipe" / "model_index.json").read_text())
    index["_class_name"] = ["pipeline", "Mine"]
    (tmp_path / "pipe" / "model_index.json").write_text(json.dumps(index))
    code = (
        "from diffusers import StableDiffusionPipeline\nopen('ran', 'w')\nclass "
        "Mine(StableDiffusionPipeline): pass\n"
    )
    (tmp_path / "pipe" / "pipeline.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    refused("custom code .* Pass `remote_code=True`", tmp_path / "pipe")
    assert not os.path.exists("ran")
    pipe = load_checkpoint(tmp_path / "pipe", remote_code=True)
    assert type(pipe).__name__ == "Mine"
    assert os.path.exists("ran")


def test_what_is_nothing(tmp_path, pairs):
    refused("no file, no folder, and no hub name", "no such thing")
    (tmp_path / "notes.txt").write_text("hello")
    refused(
        "no file of weights: expected one that ends in .safetensors",
        tmp_path / "notes.txt",
        pairs["sd"][0],
    )
    refused("expected one of pipeline, denoiser", tmp_path, kind="checkpoint")


def test_kinds_by_names():
    assert kind_of(["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"]) == "lora"
    assert (
        kind_of(["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.x"]) == "file"
    )
    assert kind_of(["transformer_blocks.0.attn.to_q.weight"]) == "weights"


def test_files_that_are_read_are_whole(pairs, tmp_path):
    save_file(state_of(pairs["sd"][1]), tmp_path / "a.safetensors", metadata={"format": "pt"})
    check_whole(tmp_path / "a.safetensors")
    assert load_file(tmp_path / "a.safetensors").keys() == state_of(pairs["sd"][1]).keys()
