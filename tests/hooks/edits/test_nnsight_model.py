"""What nnsight saves under this project's names is what a trace reads, at the same step and σ."""

import numpy as np
import pytest
import torch

import xhat

PROMPTS, SEEDS = ["a red planet", "the face"], [0, 1]


def saved_by_nnsight(pipe, model, names, steps, **call):
    generators = [torch.Generator().manual_seed(s) for _ in PROMPTS for s in SEEDS]
    prompts = [p for p in PROMPTS for _ in SEEDS]
    points = [model.point(name) for name in names]
    call = {"num_inference_steps": steps, "output_type": "latent"} | call
    saved = {name: [] for name in names}
    with model.generate(prompts, generator=generators, **call) as tracer:
        for _ in tracer.iter[0:steps]:
            for name, point in zip(names, points, strict=True):
                saved[name].append(point.output.clone())
    return saved


@pytest.mark.slow
@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_saved_values_are_the_traces_readings(tiny, guidance_scale):
    pipe, names, steps = tiny.sd(), ["down.0.res.0", "h"], 3
    call = tiny.call_arguments("sd") | {"guidance_scale": guidance_scale}
    hooks = dict.fromkeys(names, "full")
    tree = xhat.trace(
        pipe, PROMPTS, seeds=SEEDS, hooks=hooks, progress=False, num_inference_steps=steps, **call
    )
    model = xhat.nnsight_model(pipe)
    joined = model.join(tree, saved_by_nnsight(pipe, model, names, steps, **call))
    for name in names:
        native, theirs = joined[f"activations/{name}"]["value"], joined[f"nnsight/{name}"]["value"]
        assert theirs.dims[:3] == ("prompt", "seed", "step")
        assert np.array_equal(native.values.astype("f4").reshape(theirs.shape), theirs.values)
        assert np.array_equal(theirs["sigma"], tree["sigma"])
        assert theirs["prompt"].values.tolist() == PROMPTS


def test_what_is_not_of_the_trace_is_refused(tiny):
    pipe = tiny.sd()
    call = tiny.call_arguments("sd") | {"guidance_scale": 1.0, "num_inference_steps": 2}
    tree = xhat.trace(pipe, PROMPTS, seeds=SEEDS, progress=False, **call)
    model = xhat.nnsight_model(pipe)
    with pytest.raises(ValueError, match="1 tensors of 4 rows"):
        model.join(tree, {"h": [torch.zeros(4, 2)]})
    with pytest.raises(ValueError, match="matches .* points"):
        model.point("down.*")
    pipe.scheduler.set_timesteps(3)
    with pytest.raises(ValueError, match="of the same schedule"):
        model.join(tree, {"h": [torch.zeros(4, 2)] * 2})
