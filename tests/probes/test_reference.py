"""Pictures held against a folder of reference pictures, on the embedded family."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import xhat
from xhat.analysis.experiments.arm_table import arm_table
from xhat.analysis.experiments.setting import Setting
from xhat.analysis.measures.reference import (
    frechet_distance,
    kernel_distance_by_sample,
    precision_by_sample,
    recall,
)
from xhat.analysis.sampling.arms import against, measure_finals
from xhat.probes.features import feature_space
from xhat.probes.reference import with_reference
from xhat.zoo.family.attributes import sample_scene
from xhat.zoo.family.render import render


@pytest.fixture(scope="module")
def pair():
    return xhat.load_pair("demo")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty planets, as the world draws them, in two folders."""
    out, rng = tmp_path_factory.mktemp("reference"), random.Random(0)
    (out / "more").mkdir()
    for i in range(40):
        picture = Image.fromarray(render(sample_scene("planet", rng), i))
        picture.save(out / ("more" if i % 2 else ".") / f"{i:02}.png")
    (out / "notes.txt").write_text("not a picture")
    return out


@pytest.fixture(scope="module")
def measured(pair, folder):
    """Planets, and noise in their place."""
    config = Setting(pair=pair, reference=folder, reference_space="judge")
    space = config.features(pair)
    planets = _planets(pair)
    noise = planets.copy(data=np.random.default_rng(0).normal(size=planets.shape))
    return space, planets, measure_finals({"student": planets, "noise": noise}, space)


def _planets(pair):
    prompts = ["a planet", "a blue planet"]
    return xhat.trace(pair.student, prompts, seeds=range(4)).to_dataset()["final"]


def test_numbers_are_those_of_all_pictures_of_an_arm(measured):
    space, planets, found = measured
    features = np.concatenate([space.within.features(latents) for latents in planets.values])
    one = found.sel(arm="student")
    expected = 1000 * kernel_distance_by_sample(features, space.reference)
    np.testing.assert_allclose(one["kid_by_seed"].values.ravel(), expected, rtol=1e-6)
    precise = precision_by_sample(features, space.reference).reshape(2, 4).mean(1)
    np.testing.assert_allclose(one["precision"], precise)
    assert float(one["fid"]) == pytest.approx(frechet_distance(features, space.reference))
    assert float(one["recall"]) == recall(features, space.reference)
    assert space.attrs["reference pictures"] == "40"


def test_noise_is_further_away_and_the_table_says_so(measured):
    found = measured[2]
    further = against(found, "student")["kid"].sel(arm="noise")
    assert float(further.sel(bound="estimate")) > 0
    by_seed = found["kid_by_seed"]
    assert by_seed.sel(arm="noise").min() > by_seed.sel(arm="student").max()
    assert float(found["fid"].sel(arm="noise")) > float(found["fid"].sel(arm="student"))
    text = arm_table(found, {"student": "student", "noise": "noise"}).to_text()
    for column in ("KID × 1000", "precision", "recall", "FID (too large at few pictures)"):
        assert column in text


def test_settings_name_the_folder(pair, folder):
    asked = Setting(pair=pair, reference=folder, reference_space="judge").settings()
    assert asked["reference"] == str(folder)
    assert asked["reference_space"] == "judge"


def test_pictures_of_other_sizes_are_taken(pair, tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        pixels = rng.integers(0, 256, (32 + 16 * (i % 2), 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")
    space = with_reference(feature_space("latent"), pair.base.vae, tmp_path, "pixel")
    assert space.reference.shape == (12, 3 * 32 * 32)


def test_what_is_no_reference_is_refused(pair, tmp_path):
    space, vae = feature_space("latent"), pair.base.vae
    assert with_reference(space, vae, None) is space
    with pytest.raises(ValueError, match="holds 0 pictures"):
        with_reference(space, vae, tmp_path, "pixel")
    with pytest.raises(ValueError, match="no features in the space 'latent'"):
        with_reference(space, vae, tmp_path, "latent")
    for i in range(10):
        Path(tmp_path / f"{i}.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"0\.png is no picture that can be read"):
        with_reference(space, vae, tmp_path, "pixel")
