"""Hook points: names, patterns, shapes, and a rehearsal that leaves no trace of itself."""

from __future__ import annotations

import copy

import pytest
import torch

from xhat.hooks.points.names import Point, alias_of, denoiser_of, find_points, named_points
from xhat.hooks.points.readings import pick_output
from xhat.hooks.points.reductions import full, mean, project
from xhat.hooks.points.rehearsal import rehearse
from xhat.hooks.points.select import select, split_reading
from xhat.hooks.points.table import PointTable, points


@pytest.mark.parametrize(
    ("path", "alias"),
    [
        ("mid_block", "h"),
        ("mid_block.attentions.0", "mid.attn.0"),
        ("down_blocks.0.resnets.1", "down.0.res.1"),
        ("down_blocks.0.downsamplers.0", "down.0.down.0"),
        ("up_blocks.2.attentions.0.transformer_blocks.3.attn2", "up.2.attn.0.block.3.cross"),
        ("transformer_blocks.7.attn", "block.7.attn"),
        ("single_transformer_blocks.2", "single.2"),
        ("conv_in", "in"),
        ("proj_out", "out"),
        ("down_blocks.0.resnets.1.conv1", None),
        ("down_blocks.1.attentions.0.proj_out", None),
    ],
)
def test_aliases(path, alias):
    assert alias_of(path) == alias


def test_a_list_of_one_block_needs_no_number(tiny):
    aliases = {p.alias for p in named_points(tiny.sd().unet)}
    assert {"h", "up.0.attn.0.cross", "down.1.attn.0.self", "up.0.up.0", "in", "out"} <= aliases
    assert "up.0.attn.0.block.0.cross" in {
        p.alias for p in named_points(tiny.sdxl().unet)
    }  # SDXL has two there


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "pixart", "flux", "aura"])
def test_aliases_are_unique_and_lead_back_to_their_module(tiny, name):
    denoiser = denoiser_of(tiny.build(name))
    found = named_points(denoiser)
    assert len({p.alias for p in found}) == len({p.path for p in found}) == len(found) >= 8
    assert all(type(denoiser.get_submodule(p.path)).__name__ == p.kind for p in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "pixart", "flux", "aura"])
def test_shapes_are_those_of_a_real_call(tiny, name):
    pipe = tiny.build(name)
    table = points(pipe, num_inference_steps=2, **tiny.call_arguments(name))
    denoiser, real = denoiser_of(pipe), {}
    for point in table:
        denoiser.get_submodule(point.path).register_forward_hook(
            lambda module, args, out, path=point.path: real.setdefault(path, out)
        )
    pipe("a", num_inference_steps=2, output_type="latent", **tiny.call_arguments(name))
    for point in table:
        out = real[point.path]
        out = pick_output(denoiser.get_submodule(point.path), (), {}, out)
        assert point.shape == tuple(out.shape[1:])
        assert point.bytes == out[0].numel() * 4


@pytest.mark.slow
def test_the_table_prints_and_is_indexed_by_alias(tiny):
    table = points(tiny.sd(), height=16, width=16)
    assert table["h"].path == "mid_block"
    lines = repr(table).splitlines()
    assert len(lines) == len(table) + 2
    assert "16 × 4 × 4" in next(x for x in lines if x.startswith("h "))
    assert "1 KiB" in repr(table)


def test_html_escapes_what_it_shows():
    table = PointTable([Point("<script>", "a&b", "M")], title="<b>")
    page = table._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "a&amp;b" in page
    assert "&lt;b&gt;" in page


@pytest.mark.slow
def test_rehearsal_leaves_nothing_behind(tiny):
    pipe = tiny.sd()
    pipe.scheduler.set_timesteps(7)
    state, before = (
        torch.get_rng_state(),
        {k: copy.deepcopy(v) for k, v in vars(pipe.scheduler).items()},
    )
    seen = rehearse(pipe, named_points(pipe.unet), num_inference_steps=3)
    assert seen.steps == 3
    assert torch.equal(state, torch.get_rng_state())
    assert vars(pipe.scheduler).keys() == before.keys()
    assert len(pipe.scheduler.timesteps) == 7
    assert "forward" not in vars(pipe.unet)
    assert not any(m._forward_hooks for m in pipe.unet.modules())


@pytest.mark.slow
def test_rehearsal_calls_no_callback(tiny):
    pipe, heard = tiny.sd(), []
    rehearse(pipe, [], num_inference_steps=2, callback_on_step_end=lambda *a: heard.append(a))
    assert not heard


@pytest.mark.slow
def test_rehearsal_runs_the_network_once_however_many_steps(tiny):
    pipe = tiny.sd()
    seen = rehearse(pipe, named_points(pipe.unet), num_inference_steps=40)
    assert seen.steps == 40
    assert seen.fired["mid_block"] == 40


@pytest.mark.slow
def test_rehearsal_counts_what_the_trace_will_hold(tiny):
    pipe = tiny.sd()
    chosen = select(pipe.unet, {"h": mean(), "in": full()})
    seen = rehearse(pipe, [s.point for s in chosen], num_inference_steps=2, guidance_scale=4.0)
    latents, h, first = 4 * 8 * 8, 16, 8 * 8 * 8
    assert seen.bytes_of(chosen) == 4 * (latents * (3 * 2 + 1) + 2 * 2 * (h + first))


def select_names(denoiser, hooks):
    return {s.name: s.reduction for s in select(denoiser, hooks)}


def test_selection_by_alias_glob_and_path(tiny):
    unet = tiny.sd().unet
    assert list(select_names(unet, ["h"])) == ["h"]
    assert set(select_names(unet, ["up.*.attn.*"])) == {
        "up.0.attn.0",
        "up.0.attn.1",
    }  # * stays within a word
    assert set(select_names(unet, ["up.0.attn.0.**"])) == {
        f"up.0.attn.0.{x}" for x in ("self", "cross", "ff")
    }
    assert list(select_names(unet, {"mid_block": full()})) == ["h"]
    assert list(select_names(unet, "mid_block.resnets.0.conv1")) == ["mid_block.resnets.0.conv1"]
    assert set(select_names(unet, ["mid_block.resnets.*.conv1"])) == {
        f"mid_block.resnets.{i}.conv1" for i in (0, 1)
    }
    assert set(select_names(unet, ["down.[01].res.?"])) == {"down.0.res.0", "down.1.res.0"}


def test_exact_names_decide_before_globs_and_text_is_parsed(tiny):
    unet = tiny.sd().unet
    found = select_names(unet, {"mid.**": "mean", "mid.res.0": "project(8)"})
    assert found["mid.res.0"] == project(8)
    assert found["mid.res.1"] == mean()


def test_readings_have_names_of_their_own(tiny):
    assert split_reading("h@delta") == ("h", "delta")
    found = select_names(tiny.sd().unet, ["h", "h@input", "mid.attn.0.self@probs"])
    assert set(found) == {"h", "h@input", "mid.attn.0.self@probs"}


def test_probs_of_a_glob_are_those_of_its_attention_modules(tiny):
    found = select_names(tiny.sd().unet, ["mid.attn.0.*@probs"])
    assert set(found) == {
        "mid.attn.0.self@probs",
        "mid.attn.0.cross@probs",
    }  # the feed-forward has none


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        (["mid.res"], r"no hook point is named 'mid.res'; nearest: mid\.res\.[01]"),
        (["up.*.nothing"], "no hook point is named 'up"),
        (["h@gradient"], "expected one of output, input, delta, probs"),
        (["h@probs"], "'h@probs' names no attention module"),
        ({"h": "median"}, "'median' is no reduction"),
        (["[z-a]"], "is no pattern"),
    ],
)
def test_bad_names_say_what_is_near(tiny, hooks, message):
    with pytest.raises(ValueError, match=message):
        select(tiny.sd().unet, hooks)


def test_find_on_nothing_at_all_names_the_first_points(tiny):
    with pytest.raises(ValueError, match="nearest: in, time"):
        find_points(named_points(tiny.sd().unet), "qqqqqqqq")


@pytest.mark.parametrize("thing", [object(), torch.nn.Linear(1, 1), None])
def test_what_is_no_pipeline_is_refused(thing):
    with pytest.raises(ValueError, match="neither a unet nor a transformer"):
        denoiser_of(thing)


def test_a_pipeline_without_a_scheduler_is_refused(tiny):
    pipe = tiny.sd()
    pipe.scheduler = None
    with pytest.raises(ValueError, match="no scheduler"):
        denoiser_of(pipe)
