"""Dose and response, retention in closed form, and a whole study on small pipelines."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr

import xhat
from xhat.analysis.experiments.transfer import Transfer, measure_transfer, twin_data
from xhat.analysis.experiments.transfer_text import _transfer
from xhat.analysis.intervals import BOUNDS, bounded
from xhat.analysis.measures.lora_factors import tensors_of
from xhat.analysis.result import Result
from xhat.analysis.sampling.control import Control
from xhat.analysis.sampling.control_bench import Bench
from xhat.analysis.sampling.control_jobs import Extent
from xhat.analysis.sampling.dose_response import dose_response, doses, retention, travel
from xhat.analysis.sampling.scores import attribute_score, axis_score, text_score
from xhat.analysis.sampling.shipped_controls import control_of, family_controls, open_prompts
from xhat.hooks.factors import Factors
from xhat.probes.features import LatentSpace
from xhat.zoo.lora.slider import save_lora

PROMPTS = ("a red face", "a blue planet")


def readings(
    gain: float, *, noise: float = 0.0, seed: int = 0, scales=(-1.0, 0.0, 1.0)
) -> xr.Dataset:
    """Scores that rise by ``gain`` (times a sample's own factor) for every unit of scale."""
    rng = np.random.default_rng(5)
    factor, start = rng.uniform(0.5, 1.5, (6, 8)), rng.normal(size=(6, 8))
    extra = noise * np.random.default_rng(seed).normal(size=(len(scales), 6, 8))
    score = start + gain * np.array(scales)[:, None, None] * factor + extra
    clipped = np.abs(np.array(scales))[:, None, None] * np.full((1, 6, 8), 0.2)
    dims = ("scale", "prompt", "seed")
    coords = {"scale": list(scales), "prompt": list("abcdef"), "seed": np.arange(8)}
    return xr.Dataset({"score": (dims, score), "clipped": (dims, clipped)}, coords=coords)


def test_effect_is_the_paired_change_from_scale_zero():
    found = dose_response(readings(0.2, scales=(-1.0, 0.0, 0.5, 1.0)))
    mean = 0.2 * np.random.default_rng(5).uniform(0.5, 1.5, (6, 8)).mean()
    estimate, low, high = (found["effect"].sel(bound=b) for b in BOUNDS)
    np.testing.assert_allclose(estimate, mean * np.array([-1, 0, 0.5, 1]))
    assert float(low.sel(scale=1)) > 0
    assert float(high.sel(scale=0)) == 0
    assert (found["effect"].attrs["prompts"], found["effect"].attrs["seeds"]) == (6, 8)
    assert found["saturated"].values.tolist() == [True, False, False, True]


def test_pictures_that_the_judge_is_unsure_of_saturate():
    kept = readings(0.1).drop_vars("clipped").assign(confidence=readings(0.1)["score"] * 0 + 0.9)
    assert not dose_response(kept)["saturated"].any()
    kept["confidence"].loc[{"scale": 1.0, "seed": [0, 1]}] = 0.1  # a quarter of the pictures
    assert dose_response(kept)["saturated"].values.tolist() == [False, False, True]


@pytest.mark.parametrize("share", [0.5, 1.0, -0.25])
def test_retention_is_the_share_of_the_effect(share):
    found = retention(readings(0.4), readings(0.4 * share))
    np.testing.assert_allclose(found["retention"], share)
    home, away = (found[n].sel(bound="estimate") for n in ("home", "away"))
    np.testing.assert_allclose(away, share * home)


def test_nothing_is_retained_of_nothing():
    both_ways = readings(0.4) * np.where(np.arange(8) % 2, 1, -1)[None, None]
    found = retention(both_ways, readings(0.4))
    assert np.isnan(found["retention"]).all()
    assert np.isfinite(found["away"]).all()


def test_a_noisy_retention_has_an_interval_around_it():
    found = retention(readings(0.4, noise=0.2, seed=1), readings(0.3, noise=0.2, seed=2))
    _, low, high = found["retention"].values
    assert 0.3 < low < 0.75 < high
    assert "Fieller" in found["retention"].attrs["method"]


@pytest.mark.parametrize(("share", "kind"), [(0.6, "yes"), (-0.6, "opposite"), (0.0, "equivalent")])
def test_the_effect_away_has_one_of_four_verdicts(share, kind):
    home, away = readings(0.4, noise=0.02, seed=1), readings(0.4 * share, noise=0.02, seed=2)
    assert retention(home, away)["verdict"] == kind
    lost = retention(home, readings(0.03, noise=0.8, seed=2))
    assert lost["verdict"] == "undecided"
    assert float(lost["detectable"]) > 0.2
    turned = retention(readings(-0.4, noise=0.02, seed=1), away)
    assert turned["verdict"] == {"yes": "opposite", "opposite": "yes"}.get(kind, kind)


def test_of_one_prompt_intervals_are_for_that_prompt():
    one = readings(0.4, noise=0.1, seed=1).isel(prompt=[0])
    found = retention(one, one)
    assert (found["home"].attrs["prompts"], found["home"].attrs["seeds"]) == (8, 1)
    np.testing.assert_allclose(found["retention"], 1)


def test_travel_goes_from_end_to_end_or_from_zero():
    both = readings(0.4)
    np.testing.assert_allclose(travel(both), 2 * travel(both.sel(scale=[0.0, 1.0])))
    with pytest.raises(ValueError, match="scale 2 was not measured"):
        travel(both.sel(scale=[0.0, 1.0]), 2.0)
    with pytest.raises(ValueError, match="other seeds"):
        retention(both, both.assign_coords(seed=np.arange(8) + 1))


def test_the_judge_reads_an_attribute_as_a_difference_of_probabilities():
    class Space:
        class judge:
            @staticmethod
            def probabilities(images, kind):
                return {"size": np.array([[0.2, 0.8], [1.0, 0.0]])}

        @staticmethod
        def images(latents):
            return latents

    score = attribute_score(Space(), "planet", "size", "big", "small")
    np.testing.assert_allclose(score(np.zeros((2, 1)), "a planet"), [0.6, -1.0])
    with pytest.raises(ValueError, match="reads no 'huge' in the size of a planet"):
        attribute_score(Space(), "planet", "size", "huge", "small")


def test_an_axis_is_read_from_its_start_to_its_end():
    class Space:
        @staticmethod
        def features(latents):
            return latents

    score = axis_score(Space(), np.array([1.0, 1.0]), np.array([3.0, 1.0]))
    np.testing.assert_allclose(score(np.array([[1.0, 5], [3, 1], [2, 0]]), ""), [0, 1, 0.5])
    with pytest.raises(ValueError, match="one point"):
        axis_score(Space(), np.ones(2), np.ones(2))


def test_a_discovered_direction_is_read_in_standard_deviations_along_its_axis(tmp_path):
    """The latents are the features: a picture two deviations along the axis has the score 2,
    whatever is beside.
    """

    class Space:
        def features(self, latents):
            return latents.reshape(len(latents), -1)

    axis, mean = np.array([0.6, 0.8, 0.0, 0.0]), np.array([1.0, 2.0, 3.0, 4.0])
    notes = {
        "model": "demo/base",
        "target": "a critter",
        "axis": axis.tolist(),
        "mean": mean.tolist(),
        "spread": 0.5,
        "share": 0.3,
    }
    file = save_lora(
        tmp_path / "critter-1.safetensors", {"unet.a.lora_A.weight": torch.ones(1, 1)}, notes
    )
    control = control_of(file, Space())
    beside = np.array([0.8, -0.6, 7.0, 0.0])
    latents = np.stack([mean, mean + 2 * 0.5 * axis, mean - 0.5 * axis + beside]).astype(np.float32)
    np.testing.assert_allclose(control.score(latents, "a critter"), [0, 2, -1], atol=1e-6)
    assert control.trained_on == "base"
    assert control.signed
    assert "30%" in control.what
    assert "a critter" in control.prompts
    assert all("critter" in prompt for prompt in control.prompts)


@pytest.mark.slow
def test_clip_scores_are_cosines_of_pictures_and_texts(tiny, tmp_path):
    from transformers import CLIPConfig, CLIPModel

    from xhat.probes.encoders import load_encoder
    from xhat.probes.features import EncoderSpace

    torch.manual_seed(0)
    small = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    small |= {"projection_dim": 8}  # each tower has its own
    text = small | {
        "vocab_size": 64,
        "max_position_embeddings": 16,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = small | {"image_size": 32, "patch_size": 16}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
    model.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)

    class Space(EncoderSpace):
        def images(self, latents):
            return latents

    space = Space(None, load_encoder("clip", str(tmp_path)))
    images = np.random.default_rng(0).uniform(size=(3, 3, 32, 32)).astype(np.float32)
    score = text_score(space, "a red face")(images, "")
    ids = tiny.tokenizer()(["a red face"], return_tensors="pt")
    with torch.no_grad():
        pooled = model.text_model(**ids).pooler_output
        wanted = model.text_projection(pooled)[0].double().numpy()
    x = space.features(images).astype(np.float64)
    np.testing.assert_allclose(
        score, 100 * x @ wanted / np.linalg.norm(x, axis=1) / np.linalg.norm(wanted), rtol=1e-4
    )
    both = text_score(space, "a red face", less="a blue planet")(images, "")
    np.testing.assert_allclose(
        both, score - text_score(space, "a blue planet")(images, ""), rtol=1e-6
    )
    with pytest.raises(ValueError, match="neither a folder nor in the cache"):
        text_score(space, "a red face", source=str(tmp_path / "nothing"))


def test_the_command_names_what_is_wrong(capsys, tmp_path):
    from xhat.cli import main

    assert main(["transfer", "--scales", "0", "2", "--out", str(tmp_path)]) == 2
    assert "-1 and 1 must be among them" in capsys.readouterr().err
    assert main(["transfer", "--pair", "demo/dmb", "--out", str(tmp_path)]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_prompts_of_a_slider_leave_its_attribute_open():
    assert open_prompts("critter", "mood") == (
        "a critter",
        "a green critter",
        "a critter with horns",
        "a square critter on blue",
        "a critter with three eyes",
        "a round critter",
        "a critter on red",
        "a purple critter with ears",
    )
    assert len(open_prompts("landscape", "terrain")) == 7


def test_files_without_notes_and_unknown_names_are_refused(tmp_path):
    save_lora(
        tmp_path / "mute.safetensors", tensors_of({"conv_out": factors(0)}), {"model": "demo/base"}
    )
    with pytest.raises(ValueError, match="says nothing of what it turns"):
        control_of(tmp_path / "mute.safetensors", None)
    with pytest.raises(ValueError, match="did you mean 'mute'"):
        family_controls(None, ["mut"], tmp_path)
    with pytest.raises(ValueError, match="no sliders in"):
        family_controls(None, folder=tmp_path / "nothing")


# ---- a whole study, on small pipelines
# ------------------------------------------------------------------------------


def factors(seed: int, size: float = 0.3) -> Factors:
    g = torch.Generator().manual_seed(seed)
    return Factors(
        size * torch.randn(4, 1, generator=g), size * torch.randn(1, 8 * 9, generator=g), (8, 3, 3)
    )


@pytest.fixture(scope="module")
def models(tiny):
    call = {"num_inference_steps": 2, "guidance_scale": 1.0, "height": 16, "width": 16}
    pipes = {"base": tiny.sd(seed=0), "dmd": tiny.sd(seed=1)}
    for pipe in pipes.values():
        xhat.set_defaults(pipe, **call)
    return pipes


@pytest.fixture(scope="module")
def controls(tmp_path_factory):
    """LoRAs on the last layer, read along a random axis of the latents; one of them is the
    student's.
    """
    folder = tmp_path_factory.mktemp("controls")
    made = []
    for i, (name, home) in enumerate((("one", "base"), ("two", "base"), ("one@dmd", "dmd"))):
        path = folder / f"{name}.safetensors"
        save_lora(path, tensors_of({"conv_out": factors(i % 2)}), {})
        axis = np.random.default_rng(i % 2).normal(size=256)

        def score(latents, prompt, axis=axis):
            return latents.reshape(len(latents), -1) @ axis / 16

        made.append(
            Control(name, path, home, PROMPTS, score, signed=name != "two", what=name.split("@")[0])
        )
    return made


EXTENT = Extent(
    seeds=4,
    scales=(-1.0, 0.0, 1.0),
    free=4,
    states=2,
    randoms=2,
    points=("**.res.*",),
    batch_size=8,
)


def asked(models, controls, extent=EXTENT):
    return Transfer(models=models, controls=controls, space=LatentSpace(), extent=extent)


@pytest.fixture(scope="module")
def run(models, controls, tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return out, measure_transfer(asked(models, controls), cache=out)


@pytest.fixture(scope="module")
def measured(run, models, controls):
    return Bench(models, controls, LatentSpace(), run[0], EXTENT).run()


@pytest.mark.slow
def test_scale_zero_is_the_picture_without_the_control(models, controls):
    from xhat.hooks.trace import trace

    kept = {}

    def score(latents, prompt):
        kept.setdefault(prompt, []).append(latents.copy())
        return latents.mean((1, 2, 3))

    one = Control("one", controls[0].file, "base", PROMPTS, score)
    read = doses(models["base"], one, range(3), LatentSpace(), scales=[1.0])
    plain = trace(
        models["base"], list(PROMPTS), seeds=range(3), progress=False, output_type="latent"
    )["final"].values
    for p, prompt in enumerate(PROMPTS):
        np.testing.assert_array_equal(kept[prompt][0], plain[p])  # not a bit is changed at 0
        assert not np.allclose(kept[prompt][1], plain[p])
    assert read["scale"].values.tolist() == [0.0, 1.0]
    np.testing.assert_allclose(read["distance"].sel(scale=0), 0, atol=1e-6)
    with pytest.raises(ValueError, match="it has not both"):
        doses(models["base"], Control("x", one.file), range(2), LatentSpace())


@pytest.mark.slow
def test_every_control_goes_there_and_back(run, measured):
    _, result = run
    away = result.data["retention"]["away"].sel(bound="estimate")
    there = {
        (str(c), str(m))
        for c in away["control"].values
        for m in away["model"].values
        if np.isfinite(away.sel(control=c, model=m))
    }
    assert there == {("one", "dmd"), ("two", "dmd"), ("one@dmd", "base")}
    assert measured.doses["two", "dmd"]["scale"].values.tolist() == [0.0, 1.0]
    one, back = (measured.doses[k]["score"] for k in (("one", "dmd"), ("one@dmd", "dmd")))
    np.testing.assert_array_equal(one, back)  # the same weights


@pytest.mark.slow
def test_alignment_and_energy_know_their_closed_form(measured):
    """A LoRA on the last layer reads what comes before it: x̂₀ moves within the LoRA's one output
    channel mix.
    """
    aligned = measured.alignment["dmd"]
    sizes = {"control": 3, "point": len(aligned["point"]), "step": 2, "bound": 3}
    assert aligned["cosine"].sizes == sizes
    assert np.isnan(aligned["cosine"].sel(point="mid.res.0")).all()
    np.testing.assert_allclose(
        aligned["within"].sel(control="one", control_b="one@dmd"), 1, atol=1e-3
    )
    same = aligned["cosine"].sel(point="x0")
    np.testing.assert_allclose(same.sel(control="one"), same.sel(control="one@dmd"), atol=1e-3)
    energy = measured.energy["dmd"].sel(point="x0")
    absolute = energy["absolute"]
    assert (absolute.sel(bound="low") <= absolute.sel(bound="estimate")).all()
    assert (energy["base"].sel(bound="estimate") > 0).all()


@pytest.mark.slow
def test_a_finished_study_is_read_and_not_made(run, models, controls, monkeypatch):
    out, result = run

    def forbidden(*args, **kwargs):
        raise AssertionError("a model was called")

    for pipe in models.values():
        monkeypatch.setattr(type(pipe), "__call__", forbidden)
    again = measure_transfer(asked(models, controls), cache=out)
    assert again.identical(result)
    other = asked(models, controls, dataclasses.replace(EXTENT, seeds=3))
    with pytest.raises(AssertionError, match="was called"):
        measure_transfer(other, cache=out)


@pytest.mark.slow
def test_table_and_sentences_say_what_was_measured_and_are_saved(run, tmp_path):
    _, result = run
    text = result.table.to_text()
    assert "The paper, on SDXL" in text
    assert "DMD2 0.90" in text
    assert "2503.10637" in text
    kept = result.data["retention"]
    for row in result.table.rows[:-1]:
        for model, cell in zip(kept["model"].values, row[3:], strict=True):
            expected = kept["retention"].sel(control=row[0], model=model).values
            np.testing.assert_allclose(np.nan if cell is None else cell, expected)
    assert any(line.startswith("base → dmd: ") for line in result.sentences)
    assert any(line.startswith("dmd → base: ") for line in result.sentences)
    assert Result.load(result.save(tmp_path)).identical(result)


@pytest.mark.slow
def test_the_figures_of_a_study_are_drawn_from_its_saved_data(run, tmp_path):
    from xhat.figures.kit.registry import redraw

    _, result = run
    result.save(tmp_path)
    names = ["retention", "dose_response", "alignment_map", "energy"]
    assert list(redraw(names, run=tmp_path, out=tmp_path / "figures")) == names


def test_an_opposite_effect_is_named_as_such():
    values = np.array([[[0.9, 0.7, 1.1], [-0.5, -0.7, -0.3], [0.1, -0.2, 0.3]]])
    retained = bounded(
        *np.moveaxis(values, -1, 0), level=0.95, method="by hand", dims=("model", "control")
    )
    coords = {"control": ["a", "b", "c"], "model": ["dmd"], "trained_on": ("control", ["base"] * 3)}
    data = xr.Dataset({"retention": retained, "away": retained}, coords)
    data["verdict"] = (("model", "control"), [["yes", "opposite", "undecided"]])
    data["detectable"] = (("model", "control"), [[0.1, 0.1, 0.42]])
    (line,) = _transfer(data)
    assert line.startswith("base → dmd: 1 of 3 controls work, with a median retention of 0.90")
    assert "with the opposite effect: b; undecided" in line
    assert "(least effect that would be seen): c (0.42)" in line
    gone = data.assign(verdict=(("model", "control"), [["yes", "opposite", "equivalent"]]))
    assert "shown to keep less than a quarter of it: c" in _transfer(gone)[0]
    few = data.assign(detectable=(("model", "control"), [[0.1, 0.1, np.nan]]))
    assert _transfer(few)[0].endswith("; on fewer than 5 prompts, without a verdict: c.")


@pytest.mark.slow
def test_twins_are_compared_by_their_weights(measured):
    pairs = twin_data(measured)
    assert pairs["pair"].values.tolist() == ["one / one@dmd"]
    assert pairs["weights"].item() == pytest.approx(1)  # the very same weights
    assert pairs["left"].item() == pytest.approx(1)
    assert pairs["left_random"].item() == pytest.approx(1 / 4)


@pytest.mark.slow
def test_a_study_needs_a_base_a_student_and_controls(models, controls, tmp_path):
    with pytest.raises(ValueError, match="expected a model named 'base'"):
        measure_transfer(asked({"base": models["base"]}, controls), cache=tmp_path)
    two = {"base": models["base"], "lcm": models["dmd"]}
    with pytest.raises(ValueError, match="no control was trained on"):
        measure_transfer(asked(two, controls[2:]), cache=tmp_path)
    with pytest.raises(ValueError, match="as many of these at least"):
        Extent(seeds=8, free=4)
