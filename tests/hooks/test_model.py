"""What belongs to a checkpoint stays with its pipeline: copied, saved, loaded by diffusers
alone."""

import copy
import json

import pytest
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, LCMScheduler

import xhat
from xhat.hooks.model import model_of, note, with_defaults

CALL = {"num_inference_steps": 3, "guidance_scale": 2.0}


def few_steps(pipe):
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config, original_inference_steps=3)
    return pipe


def test_a_plain_pipeline_has_the_defaults_of_its_class(tiny):
    pipe = tiny.sd()
    assert model_of(pipe).origin == "pipeline"
    assert xhat.defaults(pipe) == {"num_inference_steps": 50, "guidance_scale": 7.5}
    assert with_defaults(pipe, {}) == {}


def test_a_few_step_scheduler_decides_where_nothing_is_stated(tiny):
    pipe = few_steps(tiny.sd())
    assert model_of(pipe).origin == "scheduler"
    assert xhat.defaults(pipe) == {"num_inference_steps": 3, "guidance_scale": 1.0}


def test_what_is_stated_holds_for_copies_and_not_for_the_original(tiny):
    pipe = tiny.sd()
    other = copy.copy(pipe)
    xhat.set_defaults(other, **CALL)
    assert xhat.defaults(copy.copy(other)) == CALL
    assert xhat.defaults(pipe)["num_inference_steps"] == 50


@pytest.mark.slow
def test_saved_and_loaded_by_diffusers_alone(tiny, tmp_path):
    pipe = xhat.set_defaults(few_steps(tiny.sd()), **CALL)
    pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    assert xhat.defaults(loaded) == CALL
    assert {p.alias for p in xhat.points(loaded)} == {p.alias for p in xhat.points(pipe)}
    loaded.scheduler = DDIMScheduler.from_config(loaded.scheduler.config)
    assert xhat.defaults(loaded)["num_inference_steps"] == 50  # no longer run as it was saved


@pytest.mark.slow
def test_an_embedded_checkpoint_loaded_by_diffusers_alone(tmp_path):
    from xhat.zoo.pairs import embedded

    for folder in embedded().values():
        loaded = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        assert xhat.defaults(loaded) == json.loads((folder / "xhat.json").read_text())
    loaded.save_pretrained(tmp_path)
    assert len(xhat.points(DiffusionPipeline.from_pretrained(tmp_path, dtype=torch.float32)))


def test_a_schedule_is_given_as_a_whole(tiny):
    pipe = xhat.set_defaults(tiny.sd(), timesteps=[999, 499], guidance_scale=1.0)
    assert with_defaults(pipe, {"num_inference_steps": 4}) == {
        "num_inference_steps": 4,
        "guidance_scale": 1.0,
    }


@pytest.mark.slow
def test_notes_are_added_and_leave_the_defaults(tiny):
    pipe = note(note(xhat.set_defaults(tiny.sd(), **CALL), plan="a"), taps=["b"])
    assert model_of(pipe).description == {"plan": "a", "taps": ["b"]}
    assert xhat.defaults(pipe) == CALL
    assert model_of(note(tiny.sd(), plan="a")).origin == "pipeline"


def test_keywords_that_the_call_does_not_take_are_refused(tiny):
    with pytest.raises(ValueError, match="takes no 'steps' in its call"):
        xhat.set_defaults(tiny.sd(), steps=3)


def test_the_attribute_of_former_versions_is_refused_and_not_passed_over(tiny):
    pipe = tiny.sd()
    pipe.xhat_defaults = CALL
    with pytest.raises(ValueError, match=r"use xhat\.set_defaults"):
        xhat.defaults(pipe)
