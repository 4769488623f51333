"""Patching the base's first step into the student: identities at the ends, arms that differ in one
layer alone.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import xhat
from xhat.analysis.experiments.patch import Patching, measure_patching, over_seeds, units
from xhat.analysis.sampling.final_latents import Arm, sample_arms
from xhat.figures.patching import draw
from xhat.hooks.edits.edit import from_trace, replace

PROMPTS = ["a red planet", "the quiet face"]


LAYERS = ["down.0.res.0", "h", "out"]  # in the order of the network, however they are asked for


@pytest.fixture(scope="module")
def pair(tiny):
    """A base and a student that differ in the weights of the middle block alone."""
    base, student = tiny.sd(), tiny.sd()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in student.unet.mid_block.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    for pipe in (base, student):
        xhat.set_defaults(pipe, num_inference_steps=3, guidance_scale=1.0)
    return base, student


def asked(pair, **options):
    base, student = pair
    models = SimpleNamespace(
        name="small", base=base, student=student, students={"one": student}, chosen="one"
    )
    return Patching(pair=models, prompts=PROMPTS, space="latent", **options)


@pytest.fixture(scope="module")
def result(pair):
    layers = ["h", "down.0.res.0", "out"]
    return measure_patching(asked(pair, seeds=range(4), layers=layers, batch_size=8))


@pytest.fixture(scope="module")
def found(result):
    return result.data["patching"]


@pytest.mark.slow
def test_layers_are_in_the_order_of_the_way_through(pair, tiny):
    assert units(pair[0].unet) == [
        "in",
        "down.0.res.0",
        "down.1.res.0",
        "down.1.attn.0",
        "h",
        "up.0.res.0",
        "up.0.attn.0",
        "up.0.res.1",
        "up.0.attn.1",
        "up.1.res.0",
        "up.1.res.1",
        "out",
    ]
    assert units(tiny.sd3().transformer) == ["in", "block.0", "block.1", "out"]


@pytest.mark.slow
def test_before_the_weights_differ_a_patch_changes_nothing(found):
    """Up to the middle block both networks are one: the base's activation there is the student's
    own.
    """
    cell = found.sel(layer="down.0.res.0", variant="own")
    for measure in ("vendi_q2", "mean_pairwise_distance", "rms"):
        assert float(cell[f"{measure}_gain"].sel(bound="estimate")) == pytest.approx(0, abs=1e-9)
    assert (
        abs(
            float(
                found["mean_pairwise_distance_gain"].sel(
                    layer="down.0.res.0", variant="mean", bound="estimate"
                )
            )
        )
        > 1e-9
    )


@pytest.mark.slow
def test_where_all_difference_is_the_whole_is_carried(found):
    """Behind the middle block both are one again: it, or the output, makes the student's first step
    the base's.
    """
    estimates = found.sel(bound="estimate")
    own = estimates.sel(variant="own")
    assert float(own["rms"].sel(layer="h")) == pytest.approx(
        float(own["rms"].sel(layer="out")), rel=1e-5
    )
    hybrid = float(estimates["rms_ref"].sel(reference="hybrid"))
    assert float(own["rms"].sel(layer="h")) == pytest.approx(hybrid, rel=1e-5)
    student = estimates["rms_ref_gain"].sel(reference="student")
    assert np.isnan(student)
    assert hybrid != pytest.approx(float(estimates["rms_ref"].sel(reference="student")), rel=1e-4)


@pytest.mark.slow
def test_the_mean_is_the_same_for_every_seed(pair):
    base, _ = pair
    tree = xhat.trace(base, PROMPTS, seeds=range(3), hooks={"h": "full"}, progress=False)
    source = from_trace(tree, "h")
    mean = over_seeds(source)
    assert mean.value.dims == source.value.dims
    assert mean.checksum != source.checksum
    np.testing.assert_allclose(mean.value.values[:, 0], source.value.values.mean(1), rtol=1e-5)
    np.testing.assert_array_equal(mean.value.values[:, 0], mean.value.values[:, 2])


@pytest.mark.slow
def test_arms_of_other_edits_are_other_files(pair, tmp_path):
    _, student = pair
    arms = {"a": Arm(student, edits=(replace("h", 1.0, steps=0),)), "b": Arm(student)}
    both = sample_arms(arms, PROMPTS, range(2), cache=tmp_path)
    other = {"a": Arm(student, edits=(replace("h", 2.0, steps=0),))}
    changed = sample_arms(other, PROMPTS, range(2), cache=tmp_path)
    assert not np.allclose(both["a"]["final"], changed["a"]["final"])
    again = sample_arms({"a": arms["a"]}, PROMPTS, range(2), cache=tmp_path)
    np.testing.assert_array_equal(again["a"]["final"], both["a"]["final"])
    assert len(list((tmp_path / "a").iterdir())) == 4


@pytest.mark.slow
def test_the_primary_contrast_comes_first_and_the_table_has_every_layer(result):
    assert "the hybrid of one evaluation" in result.sentences[0]
    assert [row[0] for row in result.table.rows] == [*LAYERS, "all: the hybrid"]
    assert result.settings["layers"] == LAYERS


@pytest.mark.slow
def test_the_figure_has_a_panel_a_measure_and_every_layer(found):
    figure = draw(found)
    assert [a.get_ylabel() for a in figure.axes] == ["Vendi (q = 2),\nless the student's"]
    ticks = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert ticks == found["layer"].values.tolist()


@pytest.mark.slow
def test_layers_that_are_not_there_are_named(pair):
    with pytest.raises(ValueError, match="no hook point is named 'mid'"):
        measure_patching(asked(pair, seeds=range(2), layers=["mid"]))
