"""What is hardly meant is drawn, and said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import xhat
from xhat.hooks.doubts import unknown_words


@pytest.mark.slow
def test_an_empty_prompt_and_unknown_words_are_named():
    pipe = xhat.load_pair("demo").student
    assert unknown_words(pipe.tokenizer, ["a red planet", "a zebra near a zebra"]) == [
        "zebra",
        "near",
    ]
    call = {"seeds": [0], "progress": False, "output_type": "latent"}
    with pytest.warns(UserWarning, match="the tokenizer does not know: zebra, near"):
        xhat.trace(pipe, "a zebra near a planet", **call)
    with pytest.warns(UserWarning, match="an empty prompt"):
        xhat.trace(pipe, ["a planet", " "], **call)
    with pytest.warns(UserWarning, match="leads away from the prompt"):
        xhat.trace(pipe, "a planet", guidance_scale=-1.0, **call)


def test_a_tokenizer_whose_unknown_token_ends_the_text_knows_every_word():
    clip = SimpleNamespace(unk_token_id=2, eos_token_id=2, pad_token_id=2)
    assert unknown_words(clip, ["zebra"]) == []
    assert unknown_words(None, ["zebra"]) == []
