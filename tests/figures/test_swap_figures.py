"""Figures of `xhat swaps`: what is drawn is what the data says."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from xhat.analysis.experiments.swaps import control_table, swap_matrix
from xhat.analysis.intervals import bounded
from xhat.analysis.measures.registry import MEASURES
from xhat.analysis.sampling.swap_arms import KINDS, swap_sets
from xhat.analysis.traces.curves import join_curves
from xhat.figures import controls, sensitivity
from xhat.figures import swap_matrix as matrix
from xhat.figures.kit.style import colour


@pytest.fixture(scope="module")
def measured():
    """Measures of as many arms as there are patterns and controls, on five prompts."""
    steps = [tuple("b" if i in chosen else "s" for i in range(4)) for chosen in swap_sets(4)]
    patterns = ["".join(p) for p in steps] + ["fsss", "Bsss", "BBBB"]
    names = [name for members in KINDS.values() for name, _ in members] + ["strength_0.5"]
    rng = np.random.default_rng(0)
    arms = list(dict.fromkeys([*names, *patterns]))
    unscored = [name for name, measure in MEASURES.items() if measure.needs != "scores"]
    found = {m: (("arm", "prompt"), rng.normal(3, 1, size=(len(arms), 5))) for m in unscored}
    found |= {m: ("arm", np.ones(len(arms))) for m in ("evaluations", "seconds")}
    return (
        xr.Dataset(found, {"arm": arms, "prompt": list("abcde")}, {"n_seeds": 4, "student": "lcm"}),
        patterns,
        names,
    )


@pytest.mark.slow
def test_a_square_is_the_colour_of_who_makes_the_step(measured):
    data, patterns, _ = measured
    table = swap_matrix(data, {p: p for p in patterns})
    cells, *panels = matrix.draw(table).axes
    squares = [p for p in cells.patches if isinstance(p, Rectangle)]
    letters = [t.get_text() for t in cells.texts if len(t.get_text()) == 1]
    assert len(squares) == len(letters) == 4 * len(patterns)
    of_letter = {
        "s": colour("lcm"),
        "b": colour("base"),
        "f": colour("base_few"),
        "g": matrix.GUIDED,
    }
    for square, letter in zip(squares, letters, strict=True):
        assert to_hex(square.get_facecolor()).lower() == of_letter[letter].lower()
    assert letters.count("g") == 5
    assert letters.count("f") == 1
    assert len(panels) == 3


def rows_of(axis):
    """Points (x, y) of a forest, downward, and the ends of their bars."""
    dots = [line.get_xydata() for line in axis.lines if line.get_marker() == "o"]
    spans = [line.get_xydata() for line in axis.lines if line.get_marker() == "None"]
    bars = {xy[0, 1]: xy[:, 0] for xy in spans if xy[0, 1] == xy[1, 1] and np.isfinite(xy).all()}
    points = np.concatenate([xy[np.isfinite(xy).all(1)] for xy in dots])
    points = points[np.argsort(points[:, 1])]
    return points, [bars[y] for _, y in points]


@pytest.mark.slow
def test_rows_of_all_panels_are_of_one_arm(measured):
    """The point in a row is the mean of the arm whose squares stand beside it; the bar is its
    interval.
    """
    data, patterns, _ = measured
    table = swap_matrix(data, {p: p for p in patterns})
    cells, vendi, *_ = matrix.draw(table).axes
    at = {}
    for text in cells.texts:
        if len(text.get_text()) == 1:
            at.setdefault(round(text.get_position()[1], 3), []).append(
                text.get_text().replace("g", "B")
            )
    points, bars = rows_of(vendi)
    assert len(points) == len(patterns)
    for (x, y), bar in zip(points, bars, strict=True):
        row = table.sel(arm="".join(at[round(float(y), 3)]))
        assert x == pytest.approx(float(row["vendi_q2_less_student"].sel(bound="estimate")))
        assert bar.tolist() == pytest.approx(
            row["vendi_q2_less_student"].sel(bound=["low", "high"]).values.tolist()
        )


@pytest.mark.slow
def test_controls_are_drawn_as_differences_from_the_student(measured):
    data, _, names = measured
    table = control_table(data, {n: n for n in names})
    figure = controls.draw(table)
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert "the student" not in labels
    assert {
        "first step skipped",
        "strength 0.5",
        "base, its own steps",
    } <= set(labels)
    points, _ = rows_of(figure.axes[0])
    for text, (x, _) in zip(labels, points, strict=True):
        row = table.sel(arm=table["arm"][table["label"] == text].item())
        assert x == pytest.approx(float(row["vendi_q2_less_student"].sel(bound="estimate")))
    assert any(list(line.get_xdata()) == [0, 0] for line in figure.axes[0].lines)


def test_sensitivity_shows_curves_chance_and_pairs():
    def interval(values, dims):
        return bounded(values, values, values, level=0.95, method="x", dims=dims)

    def curve(*values):
        parts = {f"{n}_mean": interval(np.array(values), "step") for n in ("identified", "gain")}
        return xr.Dataset(parts, {"sigma": ("step", np.array([10.0, 1.0]))}, {"chance": 0.25})

    data = join_curves({"base": curve(0.3, 1.0), "student": curve(0.9, 1.0)})
    data = data.merge(
        xr.Dataset(
            {"paired_rank_mean": interval(np.array([0.1, 0.4]), "arm")},
            {"arm": ["student", "hybrid"]},
        )
    )
    seen, moved, paired = sensitivity.draw(data).axes
    assert [line.get_label() for line in seen.lines[:2]] == ["base", "student"]
    assert len(moved.lines) == 2
    np.testing.assert_allclose(seen.lines[1].get_ydata(), [0.9, 1.0])
    assert list(seen.lines[2].get_ydata()) == [0.25, 0.25]
    assert seen.xaxis_inverted()
    np.testing.assert_allclose(rows_of(paired)[0][:, 0], [0.1, 0.4])
    assert [t.get_text() for t in paired.get_yticklabels()] == ["student", "hybrid"]


def test_the_three_are_among_the_figures_that_are_redrawn():
    from xhat.figures.kit.registry import figures

    titles = {entry.name: entry.caption for entry in figures()}
    assert {"swap_matrix", "controls", "sensitivity"} <= set(titles)
    assert all("interval" in titles[name] for name in ("swap_matrix", "controls", "sensitivity"))
