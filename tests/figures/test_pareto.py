"""The front's figure: a marker, a number and a line of the key for every method, none lost, none
cut off.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.intervals import bounded
from xhat.figures.kit.style import colour
from xhat.figures.pareto import draw


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


def numbers(axis):
    return [text.get_text() for text in axis.texts if text.get_text().isdigit()]


@pytest.mark.parametrize("fidelity", [True, False])
def test_every_method_is_numbered_in_every_panel_and_named_once(fidelity):
    found = data(fidelity=fidelity)
    figure = draw(found)
    *panels, key = figure.axes
    assert len(panels) == 2 + fidelity
    for axis in panels:
        assert sorted(numbers(axis), key=int) == [str(i) for i in range(1, 15)]
    texts = [text.get_text() for text in key.texts]
    assert {t for t in texts if t.startswith("method")} == set(found["label"].values)
    assert panels[0].get_ylabel() == "Vendi (q = 2)"


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


@pytest.mark.slow
def test_numbers_keep_clear_of_each_other():
    """Thirty methods, and no two numbers of a panel overlap."""
    figure = draw(data(30))
    figure.draw_without_rendering()
    for axis in figure.axes[:-1]:
        boxes = [t.get_window_extent() for t in axis.texts]
        crossing = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
        shared = sum(
            max(0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0, min(a.y1, b.y1) - max(a.y0, b.y0))
            for a, b in crossing
        )
        assert shared < 0.1 * sum(box.width * box.height for box in boxes)


def test_equal_points_and_missing_bounds_are_drawn():
    found = data()
    found["vendi_q2"][:] = [1.5, np.nan, np.nan]
    assert len(numbers(draw(found).axes[0])) == 14
