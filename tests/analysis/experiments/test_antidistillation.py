"""Antidistillation: the direction is the formula's, the budget is kept, the study is saved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from xhat.analysis.experiments.antidistillation import (
    AntidistillationStudy,
    measure_antidistillation,
    sentences,
)
from xhat.analysis.result import Result
from xhat.samplers.antidistillation import Antidistillation
from xhat.zoo.family.imitation import degraded, imitate, imitation_loss
from xhat.zoo.family.teacher import load_teacher


def run_of(good, worse):
    models = SimpleNamespace(x0_of=lambda name, *_: {"proxy": good, "degraded": worse}[name])
    return SimpleNamespace(models=models, entry=SimpleNamespace(level=SimpleNamespace(sigma=1.0)))


def test_x0_is_moved_towards_the_degraded_proxy_by_the_budget():
    x0, good, worse = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    moved = Antidistillation(0.1).estimate(run_of(good, worse), x0, x0) - x0
    for i in range(2):
        cosine = torch.cosine_similarity(moved[i].flatten(), (worse - good)[i].flatten(), dim=0)
        assert float(cosine) == pytest.approx(1, abs=1e-5)
        assert float(moved[i].norm() / x0[i].norm()) == pytest.approx(0.1, abs=1e-5)
    back = Antidistillation(-0.1).estimate(run_of(good, worse), x0, x0) - x0
    torch.testing.assert_close(back, -moved)
    assert Antidistillation(0.0).estimate(run_of(good, worse), x0, x0) is x0
    same = Antidistillation(0.1).estimate(run_of(good, good), x0, x0)
    torch.testing.assert_close(same, x0)
    with pytest.raises(ValueError, match="finite"):
        Antidistillation(float("nan"))


@pytest.mark.slow
def test_the_degraded_proxy_explains_samples_worse_and_training_explains_them_better():
    teacher, draw = load_teacher(), torch.Generator().manual_seed(0)
    x0 = torch.randn(8, 4, 16, 16, generator=draw)
    cond = teacher.condition(["a planet"] * 8)
    worse, better = degraded(teacher, x0, cond, 1e-3), imitate(teacher, x0, cond, 4)

    def loss(unet):
        with torch.no_grad():
            noises = torch.Generator().manual_seed(1)
            return float(imitation_loss(teacher, unet, x0, cond, noises))

    assert loss(better) < loss(teacher.unet) < loss(worse)


@pytest.mark.slow
def test_a_study_is_measured_and_goes_on(tmp_path):
    config = AntidistillationStudy(captions=3, seeds=2, steps=1, students=2, held_out=5)
    result = measure_antidistillation(config, cache=tmp_path)
    data = result.data["antidistillation"]
    assert data["arm"].values.tolist() == ["plain", "antidistilled", "reversed"]
    assert dict(data["student"].sizes) == {"arm": 3, "held_out": 5, "run": 2}
    assert dict(data["sample"].sizes) == {"arm": 3, "caption": 3, "seed": 2}
    assert float(data["moved"][0]) == 0
    assert (data["moved"][1:] > 0.02).all()
    assert len(result.sentences) == 4
    better = data.assign(student=data["student"] * 0 + data["moved"] * 2)
    assert "has more than" in sentences(better)[0]
    again = measure_antidistillation(config, cache=tmp_path)
    assert again.identical(result)
    assert Result.load(result.save(tmp_path / "out")).identical(result)
    with pytest.raises(ValueError, match="shares between 0 and 1"):
        AntidistillationStudy(weight=1.5)
