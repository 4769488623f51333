"""Pictures show what their scenes say, and are the same for the same seed."""

import random

import numpy as np
import pytest

from xhat.zoo.family.attributes import HELD_OUT, KINDS, Scene, sample_scene
from xhat.zoo.family.data import pictures

render = pytest.importorskip("xhat.zoo.family.render").render
pytest.importorskip("dicebear")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, *HELD_OUT])
def test_a_seed_is_a_picture(kind):
    scene = sample_scene(kind, random.Random(0)) if kind in KINDS else Scene(kind)
    one, again, other = render(scene, 1), render(scene, 1), render(scene, 2)
    assert one.shape == (64, 64, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.slow
def test_backgrounds_have_their_colour():
    values = {"colour": "white", "size": "small", "surface": "plain", "ring": "no", "moons": "no"}
    corners = {
        c: render(Scene("planet", {**values, "background": c}), 0)[0, 0]
        for c in ("red", "green", "blue")
    }
    for i, colour in enumerate(("red", "green", "blue")):
        assert corners[colour].argmax() == i


@pytest.mark.slow
def test_pictures_come_back_from_the_cache(tmp_path):
    first = pictures(2, seed=5, cache=tmp_path / "p.npz")
    again = pictures(2, seed=5, cache=tmp_path / "p.npz")
    assert np.array_equal(first.images, again.images)
    assert first.scenes == again.scenes
