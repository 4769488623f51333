"""Latents that are kept survive damage to their files: it is seen, named, and made again."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.sampling.cache import RemadeWarning
from xhat.analysis.sampling.final_latents import Arm, sample_arms

CALL = {"num_inference_steps": 1, "guidance_scale": 1.0, "height": 32, "width": 32}


def flipped(data):
    middle = len(data) - 40
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flipped, lambda data: data[:-7], lambda data: b""])
def test_a_damaged_file_is_made_again(tiny, tmp_path, damage):
    arms = {"base": Arm(tiny.sd(), CALL)}
    want = sample_arms(arms, ["a face"], [0], cache=tmp_path)["base"]
    (file,) = tmp_path.rglob("*.nc")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.warns(RemadeWarning, match=f"{file} is damaged"):
        got = sample_arms(arms, ["a face"], [0], cache=tmp_path)["base"]
    xr.testing.assert_identical(got, want)
    assert file.read_bytes() == whole
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [file]


@pytest.mark.slow
def test_one_file_a_key_and_one_more_with_every_x0_where_asked_for(tiny, tmp_path):
    arms = {"base": Arm(tiny.sd(), CALL)}
    sample_arms(arms, ["a face"], [0], cache=tmp_path)
    got = sample_arms(arms, ["a face"], [0], cache=tmp_path, keep_x0=["base"])["base"]
    names = sorted(p.name.partition("-")[0] for p in tmp_path.rglob("*.nc"))
    assert names == ["samples", "x0"]  # x̂₀ of every step stands beside, for those who ask
    assert np.isfinite(got["pred_x0"].values).all()


def test_what_cannot_be_told_is_not_kept(tiny, tmp_path):
    numbers = iter(range(9))

    def callback(pipe, step, t, kwargs):
        next(numbers)
        return kwargs

    arms = {"base": Arm(tiny.sd(), CALL | {"callback_on_step_end": callback})}
    sample_arms(arms, ["a face"], [0])
    with pytest.raises(ValueError, match="'base' cannot be kept.* callback_on_step_end"):
        sample_arms(arms, ["a face"], [0], cache=tmp_path)
