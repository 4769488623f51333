import numpy as np
import pytest
import xarray as xr

from xhat.analysis.experiments.readout import Readout, measure_readout, sentences
from xhat.analysis.intervals import bounded


def decided(task, control, untrained):
    values = {"task": task, "control": control, "untrained": untrained}
    dims = ("model", "attribute", "step")
    data = {name: (dims, np.full((1, 1, 2), value)) for name, value in values.items()}
    for name in ("task", "control"):
        bounds = [data[name][1]] * 3
        data[name] = bounded(*bounds, dims=dims, level=0.95, method="by hand")
    data["chance"] = (("model", "attribute"), [[0.25]])
    data["decided_sigma"] = (("model", "attribute"), [[4.0]])
    return xr.Dataset(
        data, coords={"model": ["base"], "attribute": ["colour"]}, attrs={"layer": "h"}
    )


def test_a_level_is_said_with_what_stands_beside_it():
    first, beside = sentences(decided(0.9, 0.3, 0.4))
    assert first == "colour: half decided in base at σ = 4."
    assert "0.90 beside an untrained network's 0.40 and chance 0.25; control task 0.30." in beside


@pytest.mark.slow
def test_a_layer_that_is_not_there_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(ValueError, match="unknown layer 'nosuch'"):
        measure_readout(Readout(layer="nosuch"), cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_never_decided_is_said_with_its_best():
    found = decided(0.5, 0.3, 0.4)
    found["x0"] = found["task"].sel(bound="estimate", drop=True) * [0.5, 1.0]
    line = sentences(found.assign(decided_sigma=found["decided_sigma"] * np.nan))[0]
    assert line == "colour: no x̂₀ gives away half of it; accuracy at best base 0.50, chance 0.25."


def of_many(gain):
    """Readings of eight attributes, each better than an untrained network's by its ``gain``."""
    each = [
        decided(0.6 + more, 0.3, 0.6).assign_coords(attribute=[f"a{i}"])
        for i, more in enumerate(gain)
    ]
    return xr.concat(each, "attribute", combine_attrs="override")


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (np.linspace(0.1, 0.2, 8), "it has more than the untrained network"),
        (-np.linspace(0.1, 0.2, 8), "it has less than the untrained network"),
        (np.linspace(-0.2, 0.2, 8), "it and the untrained network are not told apart"),
    ],
)
def test_a_layer_is_judged_beside_an_untrained_network_over_attributes(gain, said):
    assert f"Accuracy over attributes: {said}" in sentences(of_many(gain))[-1]


def test_one_attribute_gives_no_verdict_on_a_layer():
    assert "measure 5 attributes or more" in sentences(decided(0.9, 0.3, 0.95))[-1]
