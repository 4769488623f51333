"""The front's figure: a marker for every method, none lost, and names for those that matter."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.intervals import bounded
from xhat.figures.kit.style import colour
from xhat.figures.pareto import draw, named


def data(count=14, fidelity=True, seed=0):
    rng = np.random.default_rng(seed)
    arms = [
        "base",
        "student",
        "hybrid_1",
        "skip",
        "policy",
        "policy_adaptive",
        *(f"rival_{i}" for i in range(count - 6)),
    ]
    found = {
        "label": ("arm", [f"method {name}" for name in arms]),
        "front": ("arm", (np.arange(count) % 3 == 0).astype("int8")),
    }
    for name in ("vendi_q2", *(["fidelity"] if fidelity else [])):
        mean = 1 + rng.random(count)
        found[name] = bounded(mean, mean - 0.1, mean + 0.2, level=0.95, method="x", dims="arm")
    found |= {
        "evaluations": ("arm", rng.integers(3, 41, count)),
        "seconds": ("arm", rng.random(count) / 10 + 0.01),
    }
    return xr.Dataset(found, coords={"arm": arms}, attrs={"measure": "vendi_q2"})


@pytest.mark.slow
@pytest.mark.parametrize("fidelity", [True, False])
def test_at_most_six_are_named_and_the_rest_are_counted(fidelity):
    found = data(fidelity=fidelity)
    figure = draw(found)
    assert len(figure.axes) == 2 + fidelity
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:4] == [f"method {name}" for name in ("base", "student", "hybrid_1", "policy")]
    assert texts[-1] == "8 other methods"
    assert len(texts) == 7
    assert figure.axes[0].get_ylabel() == "Vendi (q = 2)"


def test_the_others_that_are_named_are_the_most_diverse_of_the_front():
    found = data()
    places = named(found, "vendi_q2")[4:]
    vendi = found["vendi_q2"].sel(bound="estimate").values
    front = [i for i in range(14) if i % 3 == 0 and found["arm"].values[i] != "base"]
    assert places == sorted(front, key=lambda i: -vendi[i])[:2]


def test_markers_are_where_the_means_are():
    found = data()
    axis = draw(found).axes[1]
    drawn = {
        (float(x), float(y)) for line in axis.lines for x, y in zip(*line.get_data(), strict=True)
    }
    assert drawn >= set(
        zip(
            found["evaluations"].values.astype(float),
            found["vendi_q2"].sel(bound="estimate").values,
            strict=True,
        )
    )
    own = [line for line in axis.lines if line.get_marker() == "s"]
    assert own
    assert own[0].get_color() == colour("student")


def test_the_front_line_never_falls_with_cost():
    axis = draw(data()).axes[1]
    line = next(line for line in axis.lines if line.get_drawstyle() == "steps-post")
    x, y = line.get_data()
    assert (np.diff(x) >= 0).all()
    assert (np.diff(y) > 0).all()


def test_equal_points_and_missing_bounds_are_drawn():
    found = data()
    found["vendi_q2"][:] = [1.5, np.nan, np.nan]
    axis = draw(found).axes[0]
    assert sum(len(line.get_xdata()) for line in axis.lines if line.get_ls() == "None") == 14
