"""The figures noted along training are the measures of the tables."""

import numpy as np
import pytest

from xhat.analysis.measures.diversity import attribute_entropy, vendi
from xhat.zoo.family.distil import TIMESTEPS, Distillation, evaluate
from xhat.zoo.family.progress import entropy, vendi_q2


def test_the_same_measures_as_in_the_tables():
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(16, 5)), rng.integers(0, 3, 16)
    assert vendi_q2(features) == pytest.approx(vendi(features, q=2))
    assert entropy(labels, 4) == pytest.approx(attribute_entropy(labels, 4))


@pytest.mark.slow
def test_a_student_without_diversity_is_seen(shipped_teacher, monkeypatch):
    monkeypatch.setattr("xhat.zoo.family.progress.SEEDS", 4)
    monkeypatch.setattr("xhat.zoo.family.progress.CAPTIONS", 8)
    run = Distillation("turbo", None, 1, timesteps=TIMESTEPS[:1])
    plain = evaluate(run, shipped_teacher, shipped_teacher.unet)
    same = evaluate(run, shipped_teacher, lambda x, *a, **k: shipped_teacher.unet(0 * x, *a, **k))
    assert set(plain) == {"obedience", "confidence", "entropy", "vendi_q2"}
    assert plain["vendi_q2"] > same["vendi_q2"]
