"""The composite answers for the networks behind it, moves with them, and asks each what the plan
says.
"""

from __future__ import annotations

import json

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

import xhat
from xhat.hooks.record.rows import joined, take
from xhat.samplers.composite.fit import check_fit
from xhat.samplers.composite.lowrank import extract_lora
from xhat.samplers.composite.pipeline import compose
from xhat.samplers.plans.plan import Plan, Segment


def counted(pipe, slot):
    """Rows that each model of a hybrid is given, by name, as it is called."""
    rows = {name: [] for name in getattr(pipe, slot).models}
    for name, model in getattr(pipe, slot).models.items():
        model.register_forward_hook(
            lambda m, args, kwargs, out, n=name: rows[n].append(len(out[0])), with_kwargs=True
        )
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "pixart"])
def test_only_guided_segments_are_evaluated_twice(fresh_pair, sample, name):
    pair = fresh_pair(name)
    hybrid = xhat.hybrid(pair.base, pair.student, base_guidance_scale=3.0, base_evaluations=1)
    rows = counted(hybrid, pair.slot)
    sample(hybrid, name)  # two prompts, one seed
    assert rows == {"base": [4], "student": [2, 2, 2]}
    assert hybrid.scheduler.run.evaluations == hybrid.scheduler.plan.evaluations == 5


@pytest.mark.slow
def test_without_guidance_no_negative_prompt_is_encoded(pairs, sample):
    pair = pairs("sd")
    encoded = []
    handle = pair.base.text_encoder.register_forward_hook(lambda m, a, out: encoded.append(1))
    sample(xhat.hybrid(pair.base, pair.student), "sd", guidance_scale=7.5)
    plain = len(encoded)
    sample(xhat.hybrid(pair.base, pair.student, base_guidance_scale=2.0), "sd", guidance_scale=1.0)
    handle.remove()
    assert (plain, len(encoded) - plain) == (1, 2)


@pytest.mark.slow
def test_the_negative_prompt_is_the_calls_own(pairs, sample):
    pair = pairs("sd")
    plan = Plan([Segment("base", 0, 3, 3, 4.0)])
    hybrid = xhat.hybrid(pair.base, pair.student, plan=plan)
    call = {"negative_prompt": ["a robot", "a plant"]}
    alone = sample(pair.base, "sd", num_inference_steps=3, guidance_scale=4.0, **call)
    assert torch.equal(sample(hybrid, "sd", **call), alone)
    assert not torch.equal(sample(hybrid, "sd"), alone)


def test_guidance_that_the_pipeline_cannot_give_is_refused(pairs, sample):
    """PixArt decides on guidance before it asks for the prompt: it has to be called with guidance
    itself.
    """
    pair = pairs("pixart")
    hybrid = xhat.hybrid(pair.base, pair.student, base_guidance_scale=3.0)
    with pytest.raises(ValueError, match="call it with guidance_scale above 1"):
        sample(hybrid, "pixart", guidance_scale=1.0)


@pytest.mark.slow
def test_rescaled_guidance_is_refused_where_there_is_guidance(pairs, sample):
    pair = pairs("sd")
    guided = xhat.hybrid(pair.base, pair.student, base_guidance_scale=3.0)
    with pytest.raises(ValueError, match="guidance_rescale"):
        sample(guided, "sd", guidance_rescale=0.5)
    plain = xhat.hybrid(pair.base, pair.student)
    assert torch.equal(sample(plain, "sd", guidance_rescale=0.5), sample(plain, "sd"))


@pytest.mark.slow
def test_everything_moves_together(fresh_pair, sample):
    pair = fresh_pair("sd")
    hybrid = xhat.hybrid(pair.base, pair.student).to(torch.float64)
    assert hybrid.unet.dtype == torch.float64
    assert {p.dtype for p in hybrid.unet.parameters()} == {torch.float64}
    assert sample(hybrid, "sd").dtype == torch.float64
    assert next(pair.student.unet.parameters()).dtype == torch.float64
    moved = hybrid.to("meta").unet
    assert {p.device.type for p in moved.parameters()} == {"meta"}
    assert moved.device.type == "meta"


@pytest.mark.slow
def test_the_composite_answers_for_the_model_of_the_step(pairs, sample):
    pair = pairs("sdxl")
    hybrid = xhat.hybrid(pair.base, pair.student, base_evaluations=1)
    unet = hybrid.unet
    assert unet.config.addition_time_embed_dim == pair.base.unet.config.addition_time_embed_dim
    hybrid.scheduler.set_timesteps()
    assert unet.add_embedding is pair.base.unet.add_embedding
    assert unet.attn_processors.keys() == pair.base.unet.attn_processors.keys()
    hybrid.scheduler.run.position = 2
    assert unet.add_embedding is pair.student.unet.add_embedding
    with pytest.raises(AttributeError):
        _ = unet.no_such_thing
    assert not hasattr(unet, "save_pretrained")


@pytest.mark.slow
def test_what_changes_a_network_changes_all(fresh_pair):
    pair = fresh_pair("sd")
    hybrid = xhat.hybrid(pair.base, pair.student)
    hybrid.unet.set_attn_processor(AttnProcessor())
    for pipe in (pair.base, pair.student):
        assert {type(p) for p in pipe.unet.attn_processors.values()} == {AttnProcessor}


def test_processors_are_set_by_name_in_all(fresh_pair):
    pair = fresh_pair("sd")
    unet = xhat.hybrid(pair.base, pair.student).unet
    unet.set_attn_processor({name: AttnProcessor() for name in unet.attn_processors})
    assert {type(p) for p in pair.student.unet.attn_processors.values()} == {AttnProcessor}


@pytest.mark.slow
def test_an_adapter_is_loaded_into_all_networks(fresh_pair, tiny, sample, tmp_path):
    pair = fresh_pair("sd")
    taught = tiny.sd(0)
    taught.unet.add_adapter(
        LoraConfig(r=2, target_modules=["to_q", "to_out.0"], init_lora_weights=False)
    )
    taught.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(taught.unet))
    low = extract_lora(pair.base, pair.student, 10_000).student(pair.base, pair.student)
    single, double = xhat.hybrid(pair.base, low), xhat.hybrid(pair.base, pair.student)
    before = sample(double, "sd")
    double.load_lora_weights(tmp_path, adapter_name="taught")
    for pipe in (pair.base, pair.student):
        assert any("lora_A.taught" in name for name, _ in pipe.unet.named_parameters())
    after = sample(double, "sd")
    assert not torch.allclose(after, before, rtol=1e-3, atol=1e-3)
    # of one copy too, whose layers the adapter has put into others since the difference was made
    torch.testing.assert_close(sample(single, "sd"), after, rtol=1e-3, atol=1e-3)
    double.unet.set_adapters(["taught"], [0.0])
    torch.testing.assert_close(sample(double, "sd"), before, rtol=1e-4, atol=1e-4)


def test_callbacks_and_images_work_as_always(pairs):
    pair = pairs("sd")
    hybrid = xhat.hybrid(pair.base, pair.student, base_evaluations=1)
    seen = []

    def callback(pipe, step, timestep, tensors):
        seen.append((step, int(timestep), tensors["latents"].shape))
        return tensors

    images = hybrid(
        "a red planet", callback_on_step_end=callback, output_type="np", height=16, width=16
    ).images
    assert images.shape == (1, 16, 16, 3)
    assert seen == [(i, t, (1, 4, 8, 8)) for i, t in enumerate([999, 749, 499, 249])]


def test_the_trace_knows_one_plan_from_another(pairs):
    pair = pairs("sd")
    told = [
        xhat.hybrid(pair.base, pair.student, base_steps=n).scheduler.plan.to_json() for n in (1, 2)
    ]
    assert told[0] != told[1]
    assert json.loads(told[0])["segments"][0]["model"] == "base"


def test_other_prompt_encoders_are_warned_of(tiny, pairs):
    pair = pairs("sd")
    stranger = tiny.sd(5)
    with pytest.warns(UserWarning, match="text_encoder of 'student' is not that of 'base'"):
        check_fit({"base": pair.base, "student": stranger})


def test_three_models_take_turns(pairs, sample):
    pair = pairs("sd")
    plan = Plan([Segment("base", 0, 1, 4), Segment("one", 1, 2, 4), Segment("two", 2, 4, 4)])
    mixed = compose({"base": pair.base, **pair.students}, plan)
    assert sample(mixed, "sd").isfinite().all()
    assert mixed.scheduler.segment_of_step == ["base", "one", "two", "two"]


def test_rows_are_picked_through_anything():
    value = {
        "a": torch.arange(4),
        "b": (torch.arange(4)[:, None], None),
        "c": torch.tensor(3),
        "d": "text",
    }
    halves = [take(value, 4, slice(2)), take(value, 4, slice(2, None))]
    both = joined(*halves)
    assert torch.equal(both["a"], value["a"])
    assert torch.equal(both["b"][0], value["b"][0])
    assert both["b"][1] is None
    assert both["c"] == 3
    assert both["d"] == "text"
