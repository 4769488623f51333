"""Four verdicts: each where it belongs, at its error rate, and in a sentence."""

from __future__ import annotations

import numpy as np
import pytest

from xhat.analysis.crossed import components
from xhat.analysis.verdicts import Size, detectable_effect, margin_of, needed_size, verdict


def layout(rng, effect, prompts=8, seeds=12, spread=0.3):
    shape = (prompts, 1), (1, seeds), (prompts, seeds)
    return effect + sum(spread * rng.normal(size=s) for s in shape)


@pytest.mark.parametrize(
    ("effect", "margin", "kind"),
    [
        (2, None, "yes"),
        (2, 0.5, "yes"),
        (-2, 0.5, "opposite"),
        (0, 2, "equivalent"),
        (0, 0.1, "undecided"),
        (0, None, "undecided"),
    ],
)
def test_each_kind_where_it_belongs(effect, margin, kind):
    values = layout(np.random.default_rng(5), 0)
    found = verdict(values - values.mean() + effect, margin)
    assert found.kind == kind
    assert (found.needed is None) == (kind != "undecided" or margin is None)


@pytest.mark.slow
def test_errors_are_as_rare_as_is_said():
    """No effect: yes or opposite in about 5 %. An effect of the margin: as rarely equivalent."""
    rng = np.random.default_rng(6)
    none = [verdict(layout(rng, 0), 0.5).kind for _ in range(400)]
    at = [verdict(layout(rng, 0.5), 0.5).kind for _ in range(400)]
    assert np.mean([k in ("yes", "opposite") for k in none]) <= 0.08
    assert np.mean([k == "equivalent" for k in at]) <= 0.075
    assert none.count("equivalent") > 100


def test_a_significant_difference_within_the_margin_says_both():
    found = verdict(layout(np.random.default_rng(7), 0.5, spread=0.01), 2)
    assert found.kind == "yes"
    assert found.within_margin
    text = found.sentence("a", "b", "Vendi")
    assert "more than b" in text
    assert "less than the margin of 2" in text


@pytest.mark.slow
def test_what_is_said_to_be_seen_is_seen():
    """At the size that is needed, the effect is told from zero in 80 % of runs."""
    rng = np.random.default_rng(8)
    pilot = components(layout(rng, 0, 40, 40))
    size = needed_size(pilot, 0.4)
    hits = [verdict(layout(rng, 0.4, size.prompts, size.seeds)).kind == "yes" for _ in range(300)]
    assert 0.72 <= np.mean(hits) <= 0.93
    assert detectable_effect(pilot, size) <= 0.4
    assert needed_size(pilot, 1e-6) is None
    assert (
        needed_size(pilot, 0.2).prompts * needed_size(pilot, 0.2).seeds > size.prompts * size.seeds
    )


def test_the_margin_is_a_quarter_of_a_lead_that_is_there():
    rng = np.random.default_rng(9)
    lead = layout(rng, 2, spread=0.1)
    assert margin_of(lead) == pytest.approx(abs(lead.mean()) / 4)
    assert margin_of(-lead) == margin_of(lead)
    assert margin_of(lead - lead.mean()) is None


def test_sentences_say_what_was_shown_and_never_nan():
    rng = np.random.default_rng(10)
    undecided = verdict(layout(rng, 0.05), 0.2)
    text = undecided.sentence("the hybrid", "the student", "Vendi")
    assert "not told apart" in text
    assert "8 prompts × 12 seeds" in text
    assert "margin of 0.2" in text
    lone = verdict(np.array([[0.1, 0.2, 0.3]]))
    for found in (undecided, lone, verdict(layout(rng, 0), 5), verdict(layout(rng, -3))):
        assert "nan" not in found.sentence("a", "b", "m")
    assert lone.size == Size(1, 3)
    assert "no interval" in lone.sentence("a", "b", "m")


def test_differences_by_prompt_alone_are_students():
    found = verdict([1.0, 1.1, 0.9, 1.2, 1.0])
    assert found.kind == "yes"
    assert found.size == Size(5, 1)


def test_under_five_prompts_nothing_is_found_and_no_interval_is_given():
    values = layout(np.random.default_rng(11), 3, prompts=5, spread=0.05)
    five, four = (verdict(v, 0.2) for v in (values, values[:4]))
    assert (five.kind, four.kind) == ("yes", "undecided")
    text = four.sentence("a", "b", "Vendi", " %")
    assert "4 prompts × 12 seeds decide nothing: measure 5 prompts or more" in text
    assert "[" not in text + five.beside(four, "Another judge")
    assert margin_of(values) == pytest.approx(values.mean() / 4)
    assert margin_of(values[:4]) is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: verdict(np.eye(3), 0),
        lambda: verdict(np.ones((2, 2, 2))),
        lambda: verdict([1.0, np.nan]),
    ],
)
def test_refusals(call):
    with pytest.raises(ValueError):
        call()
