"""What an experiment is asked is checked before anything is loaded."""

import numpy as np
import pytest

from xhat.analysis.experiments.setting import Setting


def test_lists_become_plain_tuples():
    setting = Setting(prompts=["a"], seeds=np.arange(3))
    assert (setting.prompts, setting.seeds) == (("a",), (0, 1, 2))
    assert setting == Setting(prompts=("a",), seeds=range(3))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prompts": "a planet"}, "prompts must be a list"),
        ({"prompts": []}, "1 or more prompts"),
        ({"prompts": ["a", "b", "a"]}, "'a' more than once"),
        ({"seeds": [1]}, "2 or more seeds"),
        ({"seeds": [0, 1.5]}, "of type int, got 1.5"),
        ({"seeds": "12"}, "seeds must be a list"),
        ({"seeds": [False, True]}, "of type int, got False"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_what_makes_no_sense_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        Setting(**asked)


def test_settings_name_the_models():
    assert Setting(pair="demo/turbo").settings()["student"] == "turbo"
