"""A lineage: each stage is told from the one before it, and few steps from distillation."""

from __future__ import annotations

import numpy as np
import pytest

import xhat
from xhat.analysis.experiments.lineage import Lineage, lineage_of, measure_lineage, stages
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import paired_values
from xhat.cli import main
from xhat.figures.kit.registry import draw
from xhat.probes.features import feature_space

PROMPTS = [f"a {colour} planet" for colour in ("red", "blue", "green", "pink", "grey")]


@pytest.fixture(scope="module")
def models(tiny):
    found = {name: tiny.sd(seed=i) for i, name in enumerate(("old", "tuned", "fast"))}
    for name, (steps, guidance) in {"old": (6, 3.0), "tuned": (6, 3.0), "fast": (2, 1.0)}.items():
        xhat.set_defaults(found[name], num_inference_steps=steps, guidance_scale=guidance)
    for name in ("tuned", "fast"):
        found[name].register_modules(text_encoder=found["old"].text_encoder, vae=found["old"].vae)
    return found


def test_few_steps_stand_between_a_model_and_its_distillation(models):
    found = stages(lineage_of(models))
    told = {name: (stage.after, stage.new) for name, stage in found.items()}
    assert told == {
        "base, unguided": (None, ""),
        "base": ("base, unguided", "guidance"),
        "tuned": ("base", "training"),
        "tuned at 2 steps, unguided": ("tuned", "few steps"),
        "fast": ("tuned at 2 steps, unguided", "distillation"),
    }
    with pytest.raises(ValueError, match="two or more models, got 1"):
        lineage_of({"old": models["old"]})


@pytest.mark.slow
def test_every_stage_less_the_one_before_it(models, tmp_path):
    space = feature_space("latent", models["old"])
    config = Lineage(
        pair=lineage_of(models), prompts=PROMPTS, seeds=range(4), space=space, batch_size=4
    )
    result = measure_lineage(config, cache=tmp_path / "cache")
    data, measured = result.data["lineage"], result.data["measured"]
    change = data["vendi_q2_change"].sel(bound="estimate")
    assert np.isnan(change.sel(stage="base, unguided"))
    for name in data["stage"].values[1:]:
        after = str(data["after"].sel(stage=name).values)
        expected = paired_values(measured, name, after, "vendi_q2").mean()
        assert float(change.sel(stage=name)) == pytest.approx(expected, abs=1e-9)
    assert data["evaluations"].values.tolist() == [6, 12, 12, 2, 2]
    assert [line.partition(":")[0] for line in result.sentences[:5]] == [
        "all in all",
        "guidance",
        "training",
        "few steps",
        "distillation",
    ]
    assert Result.load(result.save(tmp_path / "out")).identical(result)
    figure = draw("lineage", data)
    assert len(figure.axes[0].get_yticklabels()) == 4
    assert "less the student" not in result.table.to_text()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["a", "b", "--base", "c"], "--base with several checkpoints"),
        (["a", "a"], "different checkpoints"),
    ],
)
def test_mistakes(argv, says, tmp_path, capsys):
    assert main(["probe", *argv, "--out", str(tmp_path / "out")]) == 2
    assert says in capsys.readouterr().err
