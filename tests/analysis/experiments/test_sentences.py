"""What experiments say, of data that is positive, negative, equal, wide or not there."""

import re

import numpy as np
import pytest

from xhat.analysis.experiments.transfer_text import _alignment, _energy, base_controls
from xhat.analysis.verdicts import verdict
from xhat.figures.kit.data import load_data

SPREAD = np.linspace(-0.02, 0.02, 5)


@pytest.fixture
def study():
    """The data of the shipped study of controls, of one student."""
    names = ("alignment_map", "energy")
    return {name: load_data(name).load().isel(model=0).copy(deep=True) for name in names}


def aligned(study, beyond):
    """The line on alignment where a control's cosine is ``beyond`` that of a random LoRA."""
    data = study["alignment_map"]
    data["same_random"][:] = 0.5
    for i, name in enumerate(base_controls(data)):
        data["cosine"].loc[{"control": name}] = 0.5 + beyond[i % len(beyond)]
    return _alignment(data, "turbo")


@pytest.mark.parametrize(
    ("beyond", "said"),
    [
        (0.2 + SPREAD, "a control has more than a random LoRA of equal norm"),
        (-0.2 + SPREAD, "a control has less than a random LoRA of equal norm"),
        (10 * SPREAD, "are not told apart"),
    ],
)
def test_alignment_beyond_shared_weights_is_a_verdict_over_controls(study, beyond, said):
    assert said in aligned(study, beyond)


def used(study, factors):
    """The first line on how far seeds vary along controls."""
    data = study["energy"]
    for i, name in enumerate(base_controls(data)):
        data["absolute"].loc[{"control": name}] = factors[i % len(factors)]
    return _energy(data, "turbo")[0]


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ((0.5, 0.55, 0.6), "vary less than the base's"),
        ((2.0, 2.2, 2.4), "vary more than the base's"),
        ((0.2, 1.0, 5.0), "are shown to vary neither more nor less than the base's"),
    ],
)
def test_variance_along_controls_is_a_verdict_over_controls(study, factors, said):
    assert said in used(study, factors)


def test_what_was_not_measured_is_not_printed_as_nan(study):
    for name in ("alignment_map", "energy"):
        for variable in study[name].data_vars:
            if study[name][variable].dtype.kind == "f":
                study[name][variable][:] = np.nan
    text = " ".join(
        [_alignment(study["alignment_map"], "turbo"), *_energy(study["energy"], "turbo")]
    )
    assert not re.search(r"\bnan\b|\binf\b", text)
    assert "is not measured" in text


def test_a_verdict_counts_what_its_rows_are():
    wide = verdict([-1.0, 1.0, -2.0, 2.0, 0.5, -0.4], unit="control")
    assert "At 6 controls" in wide.sentence("a", "b", "cosine")
    assert "prompt" not in wide.sentence("a", "b", "cosine")
    few = verdict([1.0, 2.0], unit="control")
    assert "measure 5 controls or more" in few.sentence("a", "b", "cosine")


def test_differences_of_rounding_are_said_to_be_that():
    said = verdict(1e-8 * (1 + np.arange(6.0))).sentence("a", "b", "Vendi")
    assert "no difference but rounding" in said
    assert "e-" not in said


def test_a_loss_is_excluded_only_by_an_interval_above_the_margin():
    small, wide = -0.01 + SPREAD, -0.01 + 20 * SPREAD
    assert verdict(small, 0.05).no_loss
    assert not verdict(wide, 0.05).no_loss
    assert not verdict(small - 0.1, 0.05).no_loss
    assert not verdict(small).no_loss  # nothing is excluded where no margin is named
    assert not verdict(small[:4], 0.05).no_loss  # too few prompts
