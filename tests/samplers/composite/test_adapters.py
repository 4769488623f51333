"""A hybrid's adapters are set, switched and taken away by the pipeline's own calls, in all of its
networks.
"""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict

import xhat
from xhat.samplers.plans.plan import Plan


@pytest.fixture
def taught(fresh_pair, tiny, tmp_path):
    """A hybrid of its own, with an adapter of its UNets and of its text encoder loaded, and the
    pair.
    """
    pair, teacher = fresh_pair("sd"), tiny.sd(0)
    config = LoraConfig(r=2, target_modules=["to_q", "to_out.0"], init_lora_weights=False)
    words = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    teacher.unet.add_adapter(config)
    teacher.text_encoder.add_adapter(words)
    layers = {
        "unet_lora_layers": get_peft_model_state_dict(teacher.unet),
        "text_encoder_lora_layers": get_peft_model_state_dict(teacher.text_encoder),
    }
    teacher.save_lora_weights(tmp_path, **layers)
    hybrid = xhat.hybrid(pair.base, pair.student)
    hybrid.load_lora_weights(tmp_path, adapter_name="taught")
    return hybrid, pair


def scales(pipe):
    return {m.scaling["taught"] for m in pipe.unet.modules() if hasattr(m, "scaling")}


@pytest.mark.slow
def test_the_pipelines_weight_reaches_both_networks(taught, sample):
    hybrid, pair = taught
    full = sample(hybrid, "sd")
    hybrid.set_adapters("taught", 0.25)
    assert scales(pair.base) == scales(pair.student) != {1.0}
    assert not torch.allclose(sample(hybrid, "sd"), full, rtol=1e-3, atol=1e-3)
    hybrid.set_adapters(["taught"], [1.0])
    assert torch.equal(sample(hybrid, "sd"), full)


@pytest.mark.slow
def test_off_and_on_again(taught, sample, pairs):
    hybrid, _ = taught
    full = sample(hybrid, "sd")
    hybrid.disable_lora()
    fresh = pairs("sd")
    without = sample(xhat.hybrid(fresh.base, fresh.student), "sd")
    torch.testing.assert_close(sample(hybrid, "sd"), without, rtol=1e-4, atol=1e-4)
    hybrid.enable_lora()
    assert torch.equal(sample(hybrid, "sd"), full)


@pytest.mark.slow
def test_fused_and_taken_apart(taught, sample):
    hybrid, pair = taught
    full = sample(hybrid, "sd")
    hybrid.fuse_lora()
    assert hybrid.num_fused_loras == 1
    assert all(
        m.merged
        for pipe in (pair.base, pair.student)
        for m in pipe.unet.modules()
        if hasattr(m, "merged")
    )
    torch.testing.assert_close(sample(hybrid, "sd"), full, rtol=1e-3, atol=1e-3)
    hybrid.unfuse_lora()
    assert hybrid.num_fused_loras == 0
    torch.testing.assert_close(sample(hybrid, "sd"), full, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("way", ["unload_lora_weights", "delete_adapters"])
def test_taken_away(taught, way):
    hybrid, pair = taught
    assert hybrid.get_list_adapters() == {"unet": ["taught"], "text_encoder": ["taught"]}
    assert hybrid.get_active_adapters() == ["taught"]
    getattr(hybrid, way)(*(["taught"] if way == "delete_adapters" else []))
    for module in (pair.base.unet, pair.student.unet, pair.base.text_encoder):
        assert not any("taught" in name for name, _ in module.named_parameters())


@pytest.mark.slow
def test_a_pipeline_that_is_no_hybrid_keeps_its_own_calls(taught):
    _, pair = taught
    assert "set_adapters" not in pair.base.__dict__
    assert "save_pretrained" not in pair.base.__dict__


@pytest.mark.parametrize("way", ["save_pretrained", "push_to_hub"])
def test_saving_says_what_to_do(pairs, tmp_path, way):
    pair = pairs("sd")
    hybrid = xhat.hybrid(pair.base, pair.student)
    with pytest.raises(ValueError, match=r"plan as JSON.*puts them together again"):
        getattr(hybrid, way)(tmp_path / "hybrid")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_what_it_says_works(pairs, sample):
    pair = pairs("sd")
    hybrid = xhat.hybrid(pair.base, pair.student)
    again = xhat.hybrid(
        pair.base, pair.student, plan=Plan.from_json(hybrid.scheduler.plan.to_json())
    )
    assert torch.equal(sample(again, "sd"), sample(hybrid, "sd"))
