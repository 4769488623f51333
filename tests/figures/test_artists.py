"""What each figure draws, by its artists: colours, panels, intervals, labels."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.colors import to_rgb

from xhat.figures.filmstrip import chosen_levels
from xhat.figures.kit import style
from xhat.figures.kit.data import load_data
from xhat.figures.kit.registry import draw


def colours(lines):
    return [to_rgb(line.get_color()) for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diversity", "commitment"])
def test_curves_have_an_interval_each_and_noise_falls(run, name):
    data = load_data(name, run)
    for axis in draw(name, data).axes:
        assert colours(axis.lines) == [
            to_rgb(style.COLOURS[m]) for m in ("base", "student", "hybrid")
        ]
        assert len(axis.collections) == 3
        assert axis.xaxis_inverted()
        assert axis.get_xscale() == "log"
        assert axis.get_ylabel()
        for line, model in zip(axis.lines, ("base", "student", "hybrid"), strict=True):
            levels = data["sigma"].values[data["model"].values == model]
            shown = levels if name == "diversity" else levels[:-1]  # the last is 1 by definition
            np.testing.assert_array_equal(line.get_xdata(), shown)


@pytest.mark.slow
def test_differences_stand_below_the_curves_and_leave_the_reference_out(run):
    data = load_data("diversity", run)
    less = data["vendi_q2_mean"] - 1
    data = data.assign(vendi_q2_less_mean=less, attribute_entropy_less_mean=less)
    axes = draw("diversity", data.assign_attrs(reference="base")).axes
    assert len(axes) == 4
    assert colours(axes[2].lines[1:]) == [to_rgb(style.COLOURS[m]) for m in ("student", "hybrid")]
    assert not axes[0].collections
    assert len(axes[2].collections) == 2


@pytest.mark.slow
def test_a_plain_map_of_similarity_is_drawn():
    cka = np.linspace(0.62, 0.98, 6).reshape(3, 2)
    data = xr.Dataset(
        {"cka": (("layer", "level"), cka)}, {"layer": ["in", "h", "out"], "level": [14.0, 1.0]}
    )
    figure = draw("similarity_map", data)
    image = figure.axes[0].collections[0]
    np.testing.assert_allclose(image.get_array(), cka)
    assert image.get_clim() == pytest.approx((0.6, 1))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("similarity_map", r"needs cka \(level, layer\); of these cka is not in the data"),
        ("pareto", r"have vendi \(arm\)"),
        ("dose_response", "of these effect, saturated"),
    ],
)
def test_data_that_lack_something_are_told_what(name, says):
    with pytest.raises(ValueError, match=says):
        draw(name, xr.Dataset({"vendi": ("arm", [1.0])}))


HOSTILE = r"$\frac{1$ & 5$ or 6$"


@pytest.mark.slow
def test_names_are_printed_letter_by_letter(run, similarity):
    data = similarity.assign_coords(layer=[HOSTILE, *similarity["layer"].values[1:]])
    figure = draw("similarity_map", data)
    assert figure.axes[0].get_yticklabels()[0].get_text() == HOSTILE
    samples = load_data("samples", run)
    draw("samples", samples.assign_coords(prompt=[HOSTILE, "a critter"]))
    diversity = load_data("diversity", run)
    named = np.where(diversity["model"].values == "base", HOSTILE, diversity["model"].values)
    figure = draw("diversity", diversity.assign_coords(model=("point", named)))
    assert figure.legends[0].get_texts()[0].get_text() == HOSTILE


def test_samples_have_a_row_a_model_in_each_block(run):
    figure = draw("samples", run=run)
    assert [axis.get_ylabel() for axis in figure.axes] == ["base", "student", "hybrid"] * 2
    assert all(axis.images[0].get_array().shape == (8, 4 * 8, 3) for axis in figure.axes)


@pytest.mark.slow
def test_filmstrip_puts_equal_noise_in_one_column(run):
    figure = draw("filmstrip", run=run)
    rows = np.array(figure.axes).reshape(3, -1)
    titles = [axis.get_title() for axis in rows[0]]
    shown = {title for title, axis in zip(titles, rows[1], strict=True) if axis.images}
    assert shown == {"σ = 14", "σ = 4", "σ = 1.6", "σ = 0.7"}
    assert all(axis.images for axis in rows[0])


def test_columns_keep_what_is_shared_and_no_more_than_asked():
    long, short = np.geomspace(14, 0.1, 30), np.geomspace(14, 0.1, 30)[[0, 10, 20]]
    chosen = chosen_levels([short, long], 8)
    assert len(chosen) == 8
    assert set(short) <= set(chosen)
    assert (np.diff(chosen) < 0).all()


def test_schematic_marks_the_handover(run):
    (axis,) = draw("schematic", run=run).axes
    (line,) = [artist for artist in axis.lines if artist.get_linestyle() == ":"]
    assert set(line.get_xdata()) == {4.0}
    assert [text.get_text() for text in axis.get_yticklabels()] == ["base", "student", "hybrid"]
    assert "σ = 4" in axis.texts[0].get_text()


@pytest.mark.slow
def test_similarity_map_has_a_map_a_student_and_baselines_beside_each_profile(run, similarity):
    figure = draw("similarity_map", run=run)
    maps = figure.axes[:2]
    assert [axis.get_title() for axis in maps] == ["DMD", "LCM"]
    for axis, student in zip(maps, ("dmd", "lcm"), strict=True):
        one = similarity.sel(network=student)
        np.testing.assert_allclose(
            axis.collections[0].get_array(),
            one["cka"].sel(bound="estimate").transpose("layer", "level"),
        )
        assert len(axis.lines[0].get_xdata()) == int((one["p_map"] > 0.05).sum())
    profiles = [axis for axis in figure.axes if axis.get_title().startswith("σ")]
    assert len(profiles) == 3
    assert all(len(axis.lines) == 5 and len(axis.collections) == 4 for axis in profiles)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["samples", "diversity", "filmstrip", "schematic", "similarity_map"]
)
@pytest.mark.parametrize("venue", ["icml", "neurips"])
def test_text_is_inside_the_figure_and_legible(run, name, venue):
    figure = draw(name, run=run, at=venue)
    figure.draw_without_rendering()
    assert figure.get_figwidth() in style.VENUES[venue].values()
    for axis in figure.axes:
        for text in [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label, *axis.texts]:
            box = text.get_window_extent()
            if text.get_text():
                assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1, (
                    text.get_text()
                )
                assert text.get_fontsize() >= 7


def test_colours_of_different_models_differ():
    chosen = {
        style.COLOURS[m]
        for m in ("base", "base_few", "dmd", "lcm", "turbo", "em", "hybrid", "real")
    }
    assert len(chosen) == 8
