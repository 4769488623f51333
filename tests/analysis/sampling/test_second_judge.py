"""A second judge beside the first: the same pictures, other weights, and sentences that say whether
it agrees.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xhat
from xhat.analysis.experiments.arm_table import arm_table, contrast_sentence
from xhat.analysis.sampling.arms import measure_finals
from xhat.analysis.sampling.second_judge import second_readings
from xhat.analysis.traces.diversity import final_diversity
from xhat.probes.features import JudgeSpace, LatentSpace, feature_space
from xhat.zoo.family.judge import load_judge

PROMPTS = ["a planet", "a red critter"]


@pytest.fixture(scope="module")
def base():
    return xhat.load_pair("demo").base


@pytest.fixture(scope="module")
def final(base):
    """What noise decodes to: judges differ much on it."""
    rng = np.random.default_rng(0)
    dims = ("prompt", "seed", "channel", "y", "x")
    values = rng.normal(size=(2, 5, base.vae.config.latent_channels, 16, 16)).astype(np.float32)
    return xr.DataArray(values, {"prompt": PROMPTS, "seed": np.arange(5)}, dims)


def test_the_second_judge_reads_as_it_does_alone(base, final):
    space = JudgeSpace(base.vae)
    found = second_readings(final, space)
    alone = JudgeSpace(base.vae, load_judge("judge-2"))
    options = {"features": alone.features, "labels": alone.labels, "fidelity": alone.fidelity}
    expected = final_diversity({"final": final}, **options)
    for name in ("vendi_q2", "attribute_entropy", "fidelity"):
        np.testing.assert_array_equal(found[f"{name}_second_judge"], expected[name])
        by_seed = found[f"{name}_second_judge_by_seed"]
        np.testing.assert_array_equal(by_seed, expected[f"{name}_by_seed"])
    first, second = (s.labels(final.values[0], PROMPTS[0]) for s in (space, alone))
    differ = np.mean([first[n][0] != second[n][0] for n in first])
    assert float(found["judges_disagree"][0]) == pytest.approx(differ)
    assert 0 < differ < 1
    assert 0 < float(found["entropy_bound"][0]) <= 1


def test_other_spaces_have_no_second_judge(base, final):
    assert not second_readings(final, LatentSpace()).data_vars
    other = feature_space("judge:judge-2", base)
    assert other.judge is load_judge("judge-2")
    assert not second_readings(final, other).data_vars
    with pytest.raises(ValueError, match="no judge is named 'judge-3'"):
        feature_space("judge:judge-3", base)


def test_tables_and_sentences_say_what_the_second_judge_says(base, final):
    other = final.copy(data=final.values[:, ::-1] * 0.5)
    measured = measure_finals({"student": final, "hybrid": other}, JudgeSpace(base.vae))
    sentence = contrast_sentence(measured, "hybrid", "student", "vendi_q2", {})
    assert "A second judge" in sentence
    table = arm_table(measured, {"student": "student", "hybrid": "hybrid"})
    assert not any("second judge" in column.title for column in table.columns)
    assert any("Two judges differ in at most" in note for note in table.notes)
