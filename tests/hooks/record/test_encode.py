"""Prompts are encoded once, to the same bits, and nothing of it is left on the pipeline."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import xhat
from xhat.hooks.record.encode import KEPT, encoded_once
from xhat.hooks.store.tiles import Tiling


def counted(encoder):
    calls = []
    encoder.register_forward_pre_hook(lambda *_: calls.append("asked"))
    first = next(m for m in encoder.modules() if isinstance(m, torch.nn.Linear))
    first.register_forward_pre_hook(lambda *_: calls.append("ran"))
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_prompt_is_encoded_once_for_all_its_seeds(tiny, name):
    pipe = tiny.build(name)
    arguments = {
        "seeds": range(6),
        "num_inference_steps": 1,
        "progress": False,
        **tiny.call_arguments(name),
    }
    calls = counted(pipe.text_encoder)
    found = xhat.trace(pipe, ["a face", "a plant"], batch_size=2, **arguments)
    texts = (
        2 if name == "sdxl" else 3
    )  # two prompts, and the negative one, which SDXL does not encode if empty
    assert calls.count("asked") >= 6
    assert calls.count("ran") == texts
    assert "forward" not in vars(pipe.text_encoder)
    plain = pipe(
        "a face",
        num_images_per_prompt=2,
        generator=[torch.Generator().manual_seed(s) for s in (4, 5)],
        num_inference_steps=1,
        output_type="latent",
        **tiny.call_arguments(name),
    )
    assert np.array_equal(found["final"].values[0, 4:], plain.images.numpy())


def test_what_is_changed_in_place_is_not_remembered(tiny):
    pipe = tiny.sd()
    ids = torch.tensor([[1, 5, 2]])
    with encoded_once(pipe):
        first = pipe.text_encoder(ids)
        whole = first.last_hidden_state.clone()
        first.last_hidden_state.zero_()
        again = pipe.text_encoder(ids)
        assert torch.equal(again.last_hidden_state, whole)
        assert type(again) is type(first)
        assert not torch.equal(
            pipe.text_encoder(torch.tensor([[1, 6, 2]])).last_hidden_state, whole
        )


def test_an_encoder_with_dropout_is_left_alone_and_memory_is_bounded(tiny):
    pipe = tiny.sd()
    pipe.text_encoder.train()
    with encoded_once(pipe):
        assert "forward" not in vars(pipe.text_encoder)
    pipe.text_encoder.eval()
    calls = counted(pipe.text_encoder)
    with encoded_once(pipe):
        for word in [*range(4, 6 + KEPT), 4]:
            pipe.text_encoder(torch.tensor([[1, word, 2]]))
    assert calls.count("ran") == KEPT + 3  # the first was forgotten


def test_an_encoder_is_restored_after_an_error(tiny):
    pipe = tiny.sd()
    pipe.text_encoder.forward = mine = pipe.text_encoder.forward
    with pytest.raises(KeyError), encoded_once(pipe):
        raise KeyError
    assert vars(pipe.text_encoder)["forward"] is mine


@pytest.mark.parametrize(
    ("prompts", "seeds", "batch", "calls"), [(100, 10, 16, 68), (24, 16, 24, 16), (1, 64, 8, 8)]
)
def test_batches_are_filled_across_prompts(prompts, seeds, batch, calls):
    tiling = Tiling.of(prompts, seeds, batch)
    assert len(list(tiling)) == calls
    assert tiling.height * tiling.width <= batch
