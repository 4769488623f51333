"""The shipped base as a teacher, and a handful of latents in place of the training set."""

import copy
import random

import pytest
import torch

from xhat.zoo.family.attributes import KINDS, sample_scene
from xhat.zoo.family.base import Latents
from xhat.zoo.family.teacher import SHAPE, load_teacher


@pytest.fixture(scope="session")
def shipped_teacher():
    return load_teacher()


@pytest.fixture
def teacher(shipped_teacher):
    """A copy, since trainers hang hooks on it."""
    return copy.deepcopy(shipped_teacher)


@pytest.fixture(scope="session")
def data():
    rng = random.Random(0)
    scenes = [sample_scene(KINDS[i % 4], rng) for i in range(8)]
    return Latents(torch.randn(8, *SHAPE, generator=torch.Generator().manual_seed(0)), scenes)


@pytest.fixture
def normal():
    """normal(n): latents drawn from a seeded generator."""
    generator = torch.Generator().manual_seed(1)
    return lambda *shape: torch.randn(*shape, *SHAPE, generator=generator)
