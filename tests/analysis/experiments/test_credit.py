"""Credit of the steps: exact over all patterns, with intervals, drawn in one figure."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import xhat
from xhat.analysis.experiments.credit import (
    Credit,
    credit,
    credit_table,
    measure_credit,
    pattern_arms,
    pattern_of,
    sentences,
)
from xhat.analysis.measures.shapley import subsets
from xhat.analysis.result import Result
from xhat.cli import main
from xhat.figures.kit.registry import draw


def made(of_step, prompts=8, seeds=6, noise=0.02):
    """Patterns whose Vendi score is 2 and ``of_step`` for each step that the base makes."""
    steps, rng = len(of_step), np.random.default_rng(0)
    patterns = [pattern_of(members, steps) for members in subsets(steps)]
    worth = np.array([2 + sum(of_step[i] for i in members) for members in subsets(steps)])
    values = worth[:, None, None] + noise * rng.normal(size=(len(patterns), prompts, seeds))
    return xr.Dataset(
        {
            "vendi_q2": (("arm", "prompt"), values.mean(-1)),
            "vendi_q2_by_seed": (("arm", "prompt", "seed"), values),
        },
        coords={"arm": patterns, "prompt": [f"p{i}" for i in range(prompts)]},
        attrs={"n_seeds": seeds},
    )


def test_each_step_gets_what_it_adds():
    of_step = [0.5, 0.2, 0.0, -0.1]
    credited = credit(made(of_step))
    estimate = credited["vendi_q2"].sel(bound="estimate")
    np.testing.assert_allclose(estimate, of_step, atol=0.01)
    assert float(credited["vendi_q2_total"].sel(bound="estimate")) == pytest.approx(
        float(estimate.sum())
    )
    low, high = (credited["vendi_q2"].sel(bound=part).values for part in ("low", "high"))
    assert low[0] > 0
    assert low[2] < 0 < high[2]
    assert high[3] < 0
    text = str(credit_table(credited))
    assert "step 4" in text
    assert "all steps" in text


def test_the_sentences_name_the_step():
    first, best = sentences(made([0.1, 0.6, 0.0]))
    assert "credit of the first step has less than that of the others on average" in first
    assert "the base at step 2, whose credit is the largest of 3, has more" in best


@pytest.mark.parametrize("student", ["turbo", None])
def test_the_figure_has_a_bar_a_step_and_the_sum(student):
    data = credit(made([0.5, 0.2, 0.0]))
    data = data.assign_attrs(student=student) if student else data
    axis = draw("credit", data).axes[0]
    heights = [bar.get_height() for bar in axis.patches]
    assert heights == pytest.approx([0.5, 0.2, 0.0, 0.7], abs=0.01)
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1", "2", "3", "sum"]


def test_the_figure_leaves_out_what_no_step_changes():
    measured = made([0.5, 0.2, 0.0])
    for name, level in (("fidelity", 1.0), ("attribute_entropy", None)):
        for part in (name, f"{name}_by_seed"):
            same = measured[part.replace(name, "vendi_q2")]
            measured[part] = same if level is None else xr.full_like(same, level)
    axes = draw("credit", credit(measured)).axes
    assert [axis.get_ylabel() for axis in axes] == ["Vendi (q = 2)", "attribute entropy"]


@pytest.mark.slow
def test_a_small_pair_end_to_end(tiny, tmp_path):
    base, student = tiny.sd(0), tiny.sd(1)
    student.register_modules(text_encoder=base.text_encoder, vae=base.vae)
    xhat.set_defaults(base, num_inference_steps=6, guidance_scale=3.0)
    xhat.set_defaults(student, num_inference_steps=2, guidance_scale=1.0)
    pair = SimpleNamespace(
        base=base, student=student, students={"one": student}, chosen="one", name="small"
    )
    assert list(pattern_arms(pair)) == ["ss", "bs", "sb", "bb"]
    prompts = ["a red planet", "the quiet face"]
    config = Credit(pair=pair, prompts=prompts, seeds=range(4), space="pixel")
    result = measure_credit(config)
    result.save(tmp_path / "credit")
    again = Result.load(tmp_path / "credit")
    measured, credited = again.data["measured"], again.data["credit"]
    whole = measured["vendi_q2"].sel(arm="bb") - measured["vendi_q2"].sel(arm="ss")
    total = credited["vendi_q2"].sel(bound="estimate").sum()
    assert float(total) == pytest.approx(float(whole.mean("prompt")), abs=1e-6)
    assert credited["sigma"].dims == ("step",)
    assert len(again.sentences) == 2


def test_a_student_of_too_many_steps_is_refused(tiny):
    pipe = tiny.sd(0)
    for steps in (1, 7):
        xhat.set_defaults(pipe, num_inference_steps=steps, guidance_scale=1.0)
        with pytest.raises(ValueError, match="patterns, for 2 to 6 steps"):
            pattern_arms(SimpleNamespace(base=pipe, student=pipe))


def test_the_command_is_there(capsys):
    with pytest.raises(SystemExit):
        main(["credit", "--help"])
    assert "Shapley" in capsys.readouterr().out
