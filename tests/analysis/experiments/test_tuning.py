"""Settings are as many for every method, and are picked by one rule."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from diffusers import LCMScheduler

import xhat
from xhat.analysis.experiments.tuning import (
    Tuning,
    measure_tuning,
    options_of,
    picked,
    sentence,
    setting_arms,
    tuning_table,
)
from xhat.analysis.result import Result
from xhat.samplers.rivals.grids import GRIDS, SETTINGS


@pytest.fixture(scope="module")
def small(tiny):
    base, student = tiny.sd(0), tiny.sd(1)
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = LCMScheduler(**schedule, original_inference_steps=4)
    shared = {n: part for n, part in base.components.items() if n not in ("unet", "scheduler")}
    student.register_modules(**shared, scheduler=scheduler)
    for pipe, steps, guidance in ((base, 6, 3.0), (student, 4, 1.0)):
        xhat.set_defaults(pipe, num_inference_steps=steps, guidance_scale=guidance)
    return SimpleNamespace(
        base=base, student=student, students={"one": student}, chosen="one", name="small"
    )


def test_every_method_has_as_many_settings_all_different():
    for name, grid in GRIDS.items():
        assert len(grid) == SETTINGS, name
        assert len({json.dumps(options, sort_keys=True) for options in grid}) == SETTINGS, name


def test_every_setting_makes_a_pipeline(small):
    """But the guidance interval's, whose limits no step of a base of six lies between."""
    with pytest.warns(UserWarning, match="guidance_interval .* is left out"):
        of_arm, arms = setting_arms(small, list(GRIDS))
    assert set(of_arm) | {"student"} == set(arms)
    assert {method for method, _ in of_arm.values()} == set(GRIDS) - {"guidance_interval"}


def measured(**arms):
    """name → (diversity, fidelity, evaluations)."""
    columns = np.array(list(arms.values()), dtype=float).T
    diversity, fidelity = (np.repeat(c[:, None], 3, axis=1) for c in columns[:2])
    return xr.Dataset(
        {
            "vendi_q2": (("arm", "prompt"), diversity),
            "fidelity": (("arm", "prompt"), fidelity),
            "evaluations": ("arm", columns[2]),
            "seconds": ("arm", columns[2]),
        },
        coords={"arm": list(arms), "prompt": ["a", "b", "c"]},
        attrs={"n_seeds": 4},
    )


ARMS = {
    "student": (1.5, 0.8, 4),
    "x 1": (1.6, 0.8, 4),
    "x 2": (1.8, 0.76, 8),  # the most diverse that keeps the rule
    "x 3": (2.5, 0.5, 4),  # loses its fidelity
    "x 4": (2.6, 0.8, 12),  # too dear
    "y 1": (1.9, 0.6, 4),
    "y 2": (1.7, 0.7, 4),  # none keeps the rule: the most faithful
    "z 1": (1.9, 0.8, 20),
    "z 2": (1.8, 0.8, 10),  # none within the budget: the cheapest
}


def test_the_rule_is_the_same_for_all():
    methods = {name: (name[0], {"w": int(name[-1])}) for name in ARMS if name != "student"}
    tuning = picked(measured(**ARMS), methods, 2.0, "vendi_q2")
    assert options_of(tuning) == {"x": {"w": 2}, "y": {"w": 2}, "z": {"w": 2}}
    assert tuning["keeps"].values.tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert sentence(tuning).endswith("No setting keeps the rule: y, z.")
    assert [row[-1] for row in tuning_table(tuning).rows] == ["", *["none keeps the rule"] * 2]


def test_a_method_without_settings_is_refused():
    with pytest.raises(ValueError, match="no settings are declared for 'skip'"):
        Tuning(methods=["skip"])


@pytest.mark.slow
def test_methods_are_tuned_end_to_end(small, tmp_path):
    config = Tuning(
        pair=small,
        methods=["group_inference", "embedding_noise"],
        prompts=["a red planet", "the quiet face"],
        seeds=range(3),
        space="latent",
    )
    result = measure_tuning(config)
    assert set(options_of(result.data["tuning"])) == {"group_inference", "embedding_noise"}
    assert result.data["tuning"].sizes["arm"] == 2 * SETTINGS
    assert len(result.table.rows) == 2
    assert Result.load(result.save(tmp_path)).identical(result)
