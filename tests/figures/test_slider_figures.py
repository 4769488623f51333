"""Figures of controls: what is drawn is what the data hold."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.experiments.paper import CITATION, published_retention
from xhat.analysis.intervals import bounded
from xhat.figures import alignment_map, dose_response, energy
from xhat.figures import retention as retention_figure
from xhat.figures.kit.data import load_data, save_data
from xhat.figures.kit.style import colour, save

CONTROLS, MODELS, SIGMA = ["square", "big", "square@dmd"], ["base", "dmd", "lcm"], [14.6, 1.6]
DESCRIBED = {
    "control": CONTROLS,
    "what": ("control", CONTROLS),
    "trained_on": ("control", ["base", "base", "dmd"]),
}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def interval(dims, mean, half=0.1):
    return bounded(mean, mean - half, mean + half, dims=dims, level=0.95, method="by hand")


@pytest.fixture
def doses(rng):
    dims, scales = ("control", "model", "scale"), [-1.0, 0.0, 1.0, 2.0]
    mean = rng.uniform(0.5, 1, (3, 3, 1)) * np.array(scales)
    mean[2, 2] = np.nan  # not tried
    worn = np.zeros(mean.shape)
    worn[0, 1, 3] = 1
    found = {"effect": interval(dims, mean), "saturated": (dims, worn)}
    return xr.Dataset(found, coords=DESCRIBED | {"model": MODELS, "scale": scales})


@pytest.fixture
def retained(rng):
    dims = ("control", "model")
    mean = np.array([[0.9, 0.5], [np.nan, 5.0], [0.2, np.nan]])
    published = published_retention()
    found = {
        "retention": interval(dims, mean),
        "published": ("published_student", list(published.values())),
    }
    found["published_each"] = (
        ("published_control", "published_student"),
        rng.uniform(0.7, 1.6, (9, 4)),
    )
    coords = DESCRIBED | {"model": MODELS[1:], "published_student": list(published)}
    return xr.Dataset(found, coords=coords, attrs={"source": CITATION})


@pytest.fixture
def aligned(rng):
    points = ["down.0.res.0", "mid.res.1", "x0"]
    dims = ("model", "control", "point", "step")
    cosine = np.full((2, 3, 3, 2), 0.5)
    cosine[:, :, 0] = np.nan  # not reached
    cosine[0, :2, 2, 1] = 0.95
    found = {
        "cosine": interval(dims, cosine, 0.05),
        "other": (dims, 0.1 * cosine),
        "random": (dims, -0.1 * cosine),
    }
    same = np.full((2, 3, 2), 0.8)
    found["same_random"] = interval(dims[:1] + dims[2:], same, 0.05)
    found["sigma"] = (("model", "step"), [SIGMA, SIGMA])
    return xr.Dataset(found, coords=DESCRIBED | {"model": MODELS[1:], "point": points})


@pytest.fixture
def used(rng):
    dims, shape = ("model", "control", "point", "step"), (2, 3, 2, 2)
    found = {"sigma": (("model", "step"), [SIGMA, SIGMA])}
    for name in ("base", "student", "random", "absolute"):
        found[name] = interval(dims, rng.uniform(0.2, 0.8, shape))
    return xr.Dataset(found, coords=DESCRIBED | {"model": MODELS[1:], "point": ["mid.res.1", "x0"]})


def test_dose_response_draws_a_panel_a_control_and_a_curve_a_model(doses):
    figure = dose_response.draw(doses)
    shown = [a for a in figure.axes if a.axison]
    assert [a.get_title().split(" ")[0] for a in shown] == CONTROLS
    curves = {line.get_color(): line for line in shown[0].lines if len(line.get_xdata()) == 4}
    assert set(curves) == {colour(m) for m in MODELS}
    np.testing.assert_array_equal(
        curves[colour("dmd")].get_ydata(),
        doses["effect"].sel(bound="estimate").sel(control="square", model="dmd"),
    )
    assert len(shown[2].collections) == 2  # a band a model that was tried
    crosses = [
        line for line in shown[0].lines if line.get_marker() == "x" and len(line.get_xdata())
    ]
    assert [line.get_xdata().tolist() for line in crosses] == [[2.0]]


def test_retention_stands_beside_the_published_one(retained):
    figure = retention_figure.draw(retained)
    ours, paper = figure.axes
    assert [t.get_text() for t in ours.get_yticklabels()] == CONTROLS
    dmd = next(line for line in ours.lines if line.get_label() == "DMD")
    np.testing.assert_allclose(
        dmd.get_xdata(), [0.9, 0.2]
    )  # no mark where there is no effect to retain
    lcm = next(line for line in ours.lines if line.get_label() == "LCM")
    np.testing.assert_allclose(
        lcm.get_xdata(), [0.5, retention_figure.LIMIT[1]]
    )  # beyond the axis: at its edge
    assert [t.get_text() for t in paper.get_yticklabels()] == ["DMD2", "LCM", "Turbo", "Lightning"]
    bars = np.concatenate([c.get_segments() for c in paper.collections])[:, 0, 0]
    np.testing.assert_allclose(sorted(bars), sorted(published_retention().values()))


def test_the_map_has_a_row_a_student_and_marks_what_is_above_its_null(aligned):
    figure = alignment_map.draw(aligned)
    heat = figure.axes[0].collections[0].get_array()
    assert len(figure.axes) == 3  # a map a student and the bar: the nulls are the same all over
    expected = np.degrees(
        np.arccos([0.5, (0.95 + 0.95) / 2])
    )  # of the base's controls, the student's own left out
    np.testing.assert_allclose(heat[2], expected)
    assert np.ma.getmaskarray(heat)[0].all() or np.isnan(np.asarray(heat)[0]).all()
    assert "unlike pairs: 90° throughout" in figure.get_suptitle()
    dots = [line.get_xydata().tolist() for line in figure.axes[0].lines]
    assert dots == [[[1.5, 2.5]]]


def test_many_students_stand_side_by_side(aligned):
    more = xr.concat(
        [aligned, aligned.assign_coords(model=["turbo", "em"])], "model", data_vars="all"
    )
    figure = alignment_map.draw(more)
    assert [a.get_title() for a in figure.axes[:4]] == [
        "base and DMD",
        "base and LCM",
        "base and Turbo",
        "base and EM",
    ]


def test_energy_draws_every_control_of_the_base_and_falls_with_the_noise(used):
    figure = energy.draw(used)
    top, bottom = figure.axes[0], figure.axes[2]
    assert top.xaxis_inverted()
    assert bottom.get_yscale() == "log"
    assert len(bottom.containers) == 2
    mean = bottom.lines[-1].get_ydata()
    two = used["absolute"].isel(model=0, control=[0, 1], point=1, bound=0).values
    np.testing.assert_allclose(mean, np.sqrt(two[0] * two[1]))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retained", "aligned"])
def test_figures_are_drawn_from_their_files_to_the_same_bytes(name, request, tmp_path):
    module = {"retained": retention_figure, "aligned": alignment_map}[name]
    save_data(request.getfixturevalue(name), tmp_path, name)
    pdfs = [
        save(module.draw(load_data(name, tmp_path)), tmp_path / f"{i}")[0].read_bytes()
        for i in range(2)
    ]
    assert pdfs[0] == pdfs[1]
