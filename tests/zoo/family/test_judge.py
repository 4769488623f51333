"""The judge reads real pictures right, and its card says how often."""

import json

import numpy as np
import pytest

from xhat.zoo.family.attributes import ATTRIBUTES, KINDS
from xhat.zoo.family.judge import EMBEDDING, WEIGHTS, load_judge

CARD = json.loads((WEIGHTS / "judge" / "accuracy.json").read_text())


def test_the_card_reaches_the_mark():
    assert CARD["kind"] >= 0.95
    assert CARD["attributes_mean"] >= 0.90


@pytest.mark.slow
def test_real_pictures_are_read_as_the_card_says():
    pytest.importorskip("dicebear")
    from xhat.zoo.family.data import pictures

    real = pictures(40, seed=77)
    judge, right = load_judge(), []
    for kind in KINDS:
        index = [i for i, s in enumerate(real.scenes) if s.kind == kind]
        reading = judge.read(real.images[index], kind)
        assert (reading.kind == KINDS.index(kind)).mean() >= 0.95
        right += [
            (reading.labels[name] == [real.scenes[i].labels[name] for i in index]).mean()
            for name in ATTRIBUTES[kind]
        ]
    assert np.mean(right) == pytest.approx(CARD["attributes_mean"], abs=0.05)


def test_uint8_and_float_pictures_embed_alike():
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    judge = load_judge()
    floats = (images.transpose(0, 3, 1, 2) / 255).astype(np.float32)
    assert judge.embed(images).shape == (3, EMBEDDING)
    np.testing.assert_allclose(judge.embed(images), judge.embed(floats), atol=1e-5)


def test_bad_pictures_and_prompts_are_refused():
    judge = load_judge()
    with pytest.raises(ValueError, match="got \\(2, 3, 32, 32\\)"):
        judge.embed(np.zeros((2, 3, 32, 32), dtype=np.float32))
    with pytest.raises(ValueError, match="a photo of a cat"):
        judge.obedience(np.zeros((2, 3, 64, 64), dtype=np.float32), "a photo of a cat")
