"""The wall's data: pictures where they belong, diversity as elsewhere, a size that fits."""

import io

import numpy as np
import pytest
from PIL import Image

import xhat
from xhat.analysis.traces import wall
from xhat.analysis.traces.diversity import diversity_by_noise
from xhat.analysis.traces.frames import frames_of


@pytest.fixture(scope="module")
def traced(tiny):
    pipe = tiny.sd()
    call = {"num_inference_steps": 3, "height": 16, "width": 16, "progress": False}
    long = xhat.trace(pipe, ["a face", "a cat"], seeds=[3, 5, 7, 9], **call)
    short = xhat.trace(
        pipe, ["a face", "a cat"], seeds=[3, 5, 7, 9], **{**call, "num_inference_steps": 2}
    )
    return pipe, {"long": long, "short": short}


def test_a_sheet_has_a_row_a_step_and_a_column_a_seed(traced):
    pipe, traces = traced
    made = wall.wall_of(traces, pipe.vae)
    frames = frames_of(traces, pipe.vae, prompts=2, seeds=4)
    for name, steps in (("long", 3), ("short", 2)):
        mine = frames["frames"].values[frames["model"].values == name]
        for p, prompt in enumerate(made["prompt"].values):
            data = wall.sheet_bytes(made["sheet"].sel(model=name, prompt=prompt))
            sheet = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)
            y, x = mine.shape[-3:-1]
            assert sheet.shape == (steps * y, 4 * x, 3)
            cells = sheet.reshape(steps, y, 4, x, 3).swapaxes(1, 2)
            assert np.abs(cells.mean((2, 3)) - mine[:, p].mean((2, 3))).max() < 8  # lossy
    assert np.isnan(made["sigma"].sel(model="short")[2:]).all()
    assert np.isnan(made["place"].sel(model="short")[:, 2:]).all()


def test_the_diversity_is_that_of_the_curves(traced):
    pipe, traces = traced
    made = wall.wall_of(traces, pipe.vae)
    for name, tree in traces.items():
        curve = diversity_by_noise(tree)["vendi_q2"].transpose("prompt", "step")
        there = made["vendi_q2"].sel(model=name).values[:, : curve.sizes["step"]]
        np.testing.assert_allclose(there, curve, rtol=1e-4)


def test_places_are_in_two_components_about_the_centre_of_all(traced):
    pipe, traces = traced
    place = wall.wall_of(traces, pipe.vae)["place"].values
    np.testing.assert_allclose(np.nanmean(place, (0, 2, 3)), 0, atol=1e-6)
    cross = np.nansum(place[..., 0] * place[..., 1], (0, 2, 3))
    np.testing.assert_allclose(cross, 0, atol=1e-5)


def test_sheets_that_are_too_large_are_made_coarser(traced, monkeypatch):
    pipe, traces = traced
    fine = wall.wall_of(traces, pipe.vae).sizes["byte"]
    monkeypatch.setattr(wall, "BYTES", fine)  # for four sheets
    assert wall.wall_of(traces, pipe.vae).sizes["byte"] < fine


def test_large_pictures_are_made_smaller(monkeypatch):
    monkeypatch.setattr(wall, "PIXELS", 4)
    assert wall._small(np.ones((2, 3, 8, 16), "float32")).shape == (2, 2, 4, 3)
