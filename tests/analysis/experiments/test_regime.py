"""Where a student commits: the crossing of two curves, identities of a student without noise, the
figure, and a run.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.experiments.regime import Regime, crossing_of, measure_regime
from xhat.analysis.measures.handover_snr import PUBLISHED_GRIDS
from xhat.analysis.result import Result
from xhat.figures.regime import draw

PROMPTS = ["a red planet", "the quiet face"]


def curves(x_t, later, handover):
    def bounds(values):
        values = np.array(values)
        return (("bound", "grid"), np.stack([values, values - 0.1, values + 0.1]))

    return xr.Dataset(
        {"left_x_T": bounds(x_t), "left_later": bounds(later)},
        {"bound": ["estimate", "low", "high"], "handover": ("grid", list(handover))},
    )


def test_the_crossing_lies_on_straight_lines_between_grids_in_any_order():
    data = curves([0.2, 0.4, 0.8], [0.8, 0.6, 0.4], [-3.0, -1.0, 1.0])
    # the gap goes from −0.2 at −1 to +0.4 at +1: it is zero a third of the way
    assert crossing_of(data) == pytest.approx(-1 + 2 / 3)
    assert crossing_of(data.isel(grid=[2, 0, 1])) == pytest.approx(-1 + 2 / 3)


def test_no_crossing_where_one_source_weighs_more_throughout():
    assert crossing_of(curves([0.1, 0.2], [0.8, 0.9], [-3, 1])) is None
    assert crossing_of(curves([0.8, 0.9], [0.1, 0.2], [-3, 1])) is None


def test_sides_are_two_or_more():
    with pytest.raises(ValueError, match=r"two or more sizes of latents.*\(16,\)"):
        Regime(sides=[16])


def test_sides_whose_steps_coincide_are_refused_before_anything_is_sampled(small_pair):
    with pytest.raises(ValueError, match="side 1 of sides: .* two of which are one"):
        measure_regime(Regime(pair=small_pair, prompts=PROMPTS, seeds=range(2), sides=(1, 64)))


@pytest.fixture(scope="module")
def result(small_pair, tmp_path_factory):
    config = Regime(
        pair=small_pair,
        prompts=PROMPTS,
        seeds=range(4),
        sides=(8, 64),
        space="latent",
        batch_size=8,
    )
    cache = tmp_path_factory.mktemp("regime")
    first = measure_regime(config, cache=cache)
    again = measure_regime(config, cache=cache)
    assert again.identical(first)  # from the cache
    return first


@pytest.mark.slow
def test_a_later_hand_over_for_larger_latents(result):
    data = result.data["regime"].sortby("side")
    assert np.all(np.diff(data["handover"].values) > 0)
    for name in ("left_x_T", "left_later"):
        share = data[name].sel(bound="estimate")
        assert bool(((share > 0) | share.isnull()).all())


@pytest.mark.slow
def test_intervals_are_within_kinds_of_prompts_as_those_of_arms_are(small_pair):
    prompts = ["a red planet", "a planet", "a critter", "a blue critter"]
    options = {"prompts": prompts, "seeds": range(4), "batch_size": 16}
    config = Regime(pair=small_pair, sides=(8, 64), space="latent", **options)
    lost = measure_regime(config).data["regime"]["lost"]
    assert lost.attrs["strata"] == 2


@pytest.mark.slow
def test_every_published_student_is_marked_where_arithmetic_puts_it(result):
    data = result.data["regime"]
    side = data.attrs["latent_side"]
    for grid in PUBLISHED_GRIDS:
        marked = float(data["published_handover"].sel(published=grid.name))
        assert marked == pytest.approx(grid.handover(side))


@pytest.mark.slow
def test_the_sentences_give_verdicts_at_both_ends(result):
    assert sum("log-SNR" in sentence for sentence in result.sentences) >= 4


@pytest.mark.slow
def test_saved_and_loaded_it_is_the_same_and_is_drawn(result, tmp_path):
    loaded = Result.load(result.save(tmp_path / "out"))
    assert loaded.identical(result)
    figure = draw(loaded.data["regime"])
    published, shares, changes = figure.axes
    named = [text.get_text() for text in published.get_yticklabels()]
    assert sorted(named) == sorted(grid.name for grid in PUBLISHED_GRIDS)
    assert named[-1] == "FLUX.1 schnell"  # the latest hand-over is at the top
    defined = int(loaded.data["regime"]["left_x_T"].sel(bound="estimate").notnull().sum())
    assert [len(axis.lines[0].get_xdata()) for axis in (shares, changes)] == [defined, 2]
