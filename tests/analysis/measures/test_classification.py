"""A classifier of samples on real pictures: it knows what the samples show, and no more."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from xhat.analysis.measures.classification import classification_accuracy


def world(n, seed=0, modes=range(3), shift=0.0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(list(modes), n)
    centres = np.random.default_rng(99).normal(size=(3, 8)) * 3
    return centres[labels] + rng.normal(size=(n, 8)) + shift, labels


def test_good_samples_teach_as_much_as_real_ones():
    found = classification_accuracy(*world(150), *world(150, 1))
    middle, low, high = found["accuracy"].values
    assert middle > 0.95
    assert abs(float(found["gap"].sel(bound="estimate"))) < 0.03
    assert low - 1e-9 <= middle <= high + 1e-9
    assert found["accuracy"].attrs["unit"] == "picture"
    assert found.attrs["missing"] == ""


def test_a_mode_that_samples_lack_is_not_known():
    found = classification_accuracy(*world(150, modes=(0, 1)), *world(150, 1))
    assert float(found["of_class"].sel({"class": 2})) == 0
    assert found.attrs["missing"] == "2"
    assert float(found["gap"].sel(bound="low")) > 0.2


def test_samples_that_are_not_what_their_prompts_say_teach_it_wrong():
    x, y = world(150)
    found = classification_accuracy(x, (y + 1) % 3, *world(150, 1))
    assert float(found["accuracy"].sel(bound="estimate")) < 0.05
    assert float(found["gap"].sel(bound="low")) > 0.9


def test_any_classifier_and_its_mistakes():
    nearest = KNeighborsClassifier(1)
    x, y = world(60)
    told = classification_accuracy(x, y, x, y, classifier=nearest)["accuracy"]
    assert float(told.sel(bound="estimate")) == 1
    with pytest.raises(ValueError, match="all of class"):
        classification_accuracy(x, y * 0, x, y)
    with pytest.raises(ValueError, match="not one space"):
        classification_accuracy(x[:, :4], y, x, y)
    with pytest.raises(ValueError, match="NaN"):
        classification_accuracy(x * np.nan, y, x, y)
