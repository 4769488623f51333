"""Captions state scenes, and can be read back."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xhat.zoo.family.attributes import (
    ATTRIBUTES,
    KINDS,
    OPEN_PROMPTS,
    Scene,
    caption,
    parse_prompt,
    sample_caption,
    sample_scene,
    vocabulary,
)


@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.data())
def test_parse_inverts_caption(kind, seed, data):
    scene = sample_scene(kind, random.Random(seed))
    stated = set(data.draw(st.lists(st.sampled_from(sorted(scene.values)), unique=True)))
    read = parse_prompt(caption(scene, stated))
    assert read is not None
    assert read.kind == kind
    assert read.values == {name: scene.values[name] for name in stated}


@given(st.sampled_from(KINDS), st.integers(0, 10**6))
def test_captions_stay_in_the_vocabulary(kind, seed):
    rng = random.Random(seed)
    assert set(sample_caption(sample_scene(kind, rng), rng).split()) <= set(vocabulary())


def test_full_captions_of_two_scenes_differ():
    rng = random.Random(0)
    scenes = {
        tuple(s.values.items()): caption(s)
        for s in (sample_scene("critter", rng) for _ in range(300))
    }
    assert len(set(scenes.values())) == len(scenes)


def test_open_prompts_leave_something_open():
    assert len(OPEN_PROMPTS) == len(set(OPEN_PROMPTS)) == 40
    for prompt in OPEN_PROMPTS:
        scene = parse_prompt(prompt)
        assert scene is not None
        assert len(scene.values) < len(ATTRIBUTES[scene.kind])


def test_bad_scenes_are_refused():
    with pytest.raises(ValueError, match="unknown kind 'cat'"):
        Scene("cat")
    with pytest.raises(ValueError, match="has no attribute 'ring'"):
        Scene("critter", {"ring": "a"})
    with pytest.raises(ValueError, match="one of red, orange"):
        Scene("critter", {"colour": "pink"})
    assert parse_prompt("a photo of a cat") is None
    assert parse_prompt("a planet planet") is None


def test_open_prompts_are_balanced():
    """Any first 4·n of them hold every kind n times; every attribute is stated by at least one."""
    scenes = [scene for prompt in OPEN_PROMPTS if (scene := parse_prompt(prompt))]
    assert [scene.kind for scene in scenes] == list(KINDS) * 10
    stated = {(scene.kind, name) for scene in scenes for name in scene.values}
    assert stated == {(kind, name) for kind in KINDS for name in ATTRIBUTES[kind]}
