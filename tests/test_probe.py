"""``xhat probe``, end to end and small: pairs of the family and of random weights, in the layouts
they come in.
"""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import EulerDiscreteScheduler, LCMScheduler
from safetensors.torch import save_file

import xhat
from xhat.analysis.experiments.probe import probe, probe_arms, read_points, space_of, unscored
from xhat.analysis.experiments.probe_verdict import recommended
from xhat.analysis.measures.lora_factors import tensors_of
from xhat.analysis.sampling import budget as budgets
from xhat.analysis.sampling.budget import duration, fit_budget
from xhat.analysis.sampling.pairing import compare_models, divisible
from xhat.analysis.sampling.probe_sliders import slider_transfer
from xhat.analysis.sampling.structure import (
    denoising_gain,
    has_learned,
    neighbour_correlation,
    structure,
)
from xhat.cli import main
from xhat.hooks.factors import Factors
from xhat.zoo.lora.slider import save_lora

ROOM = {"disk": 1000, "memory": 1000, "weights": 0}


def run(*argv, out, seeds="0:4", budget="1h"):
    return main(["probe", *map(str, argv), "--seeds", seeds, "--budget", budget, "--out", str(out)])


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("a planet\n\na critter\na planet\n")
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The embedded student's UNet as one bare file."""
    path = tmp_path_factory.mktemp("bare") / "unet.safetensors"
    save_file(
        {k: v.contiguous() for k, v in xhat.load_pair("demo").student.unet.state_dict().items()},
        path,
    )
    return path


@pytest.fixture(scope="module")
def probed(bare, prompts, tmp_path_factory):
    out = tmp_path_factory.mktemp("probe")
    argv = (bare, "--base", "demo/base", "--prompts-file", prompts, "--base-steps", 8)
    assert run(*argv, out=out) == 0
    return out, argv


@pytest.mark.slow
def test_a_bare_unet_with_its_base(probed):
    out, _ = probed
    results = json.loads((out / "results.json").read_text())
    assert results["verdict"]["show"]
    assert results["run"]["prompts"] == ["a planet", "a critter"]
    assert set(results["measured"]["arm"]) == {
        "student",
        "base",
        "hybrid",
        "base_few",
        "later",
        "hybrid_one",
        "skip",
    }
    html = (out / "report.html").read_text()
    assert results["verdict"]["headline"].split(":")[0] in html
    assert "http://" not in html
    assert "does not say how it is to be run" in html
    assert "of the checkpoint&#39;s 4 are in the base" in html
    assert {p.stem for p in (out / "data").iterdir()} == {
        "samples",
        "filmstrip",
        "wall",
        "diversity",
        "commitment",
        "measured",
    }
    for name, found in results["structure"].items():
        assert found["gain_mean"][0] > 0.2, name


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(probed, capsys):
    out, argv = probed
    before = {p: p.stat().st_mtime_ns for p in (out / "cache").rglob("*.nc")}
    assert before
    (out / "report.html").unlink()
    assert run(*argv, out=out) == 0
    assert (out / "report.html").exists()
    assert before == {p: p.stat().st_mtime_ns for p in (out / "cache").rglob("*.nc")}
    assert run(*argv, out=out, seeds="0:3") == 2
    assert "give another --out" in capsys.readouterr().err


@pytest.mark.slow
def test_one_model_alone_says_what_cannot_be_said(prompts, tmp_path, capsys):
    assert run("demo/dmd", "--prompts-file", prompts, out=tmp_path) == 0
    said = capsys.readouterr().out
    assert "cannot be told without the model it was distilled from" in said
    assert json.loads((tmp_path / "results.json").read_text())["verdict"]["plan"] is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sdxl", "sd3"])
def test_random_weights_have_nothing_to_show(name, tiny, tmp_path, capsys):
    """Small random pairs, saved as such models are published: a pipeline each, and for SDXL a
    student's bare UNet.
    """
    base, student = tiny.build(name, 0), tiny.build(name, 1)
    base.save_pretrained(tmp_path / "base")
    if name == "sdxl":
        checkpoint = tmp_path / "unet.safetensors"
        save_file({k: v.contiguous() for k, v in student.unet.state_dict().items()}, checkpoint)
    else:
        checkpoint = tmp_path / "student"
        student.save_pretrained(checkpoint)
    (tmp_path / "p.txt").write_text("a red planet\nthe quiet face\n")
    given = ("--steps", 3, "--guidance", 1, "--base-steps", 5, "--prompts-file", tmp_path / "p.txt")
    assert run(checkpoint, "--base", tmp_path / "base", *given, out=tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "there is nothing to show" in said
    assert "No plan is recommended" in said
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert not results["verdict"]["show"]
    assert results["measured"] is None
    assert all(found["gain_mean"][0] < 0.05 for found in results["structure"].values()), results[
        "structure"
    ]
    assert "nothing to show" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.slow
def test_families_that_do_not_fit_are_refused_in_one_line(tiny, tmp_path, capsys):
    tiny.sd().save_pretrained(tmp_path / "sd")
    capsys.readouterr()
    assert run("demo/dmd", "--base", tmp_path / "sd", out=tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "do not fit together" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_values_that_are_not_finite_are_named_by_step_and_point(tiny, tmp_path):
    pipe = tiny.sd()
    xhat.set_defaults(pipe, num_inference_steps=2, guidance_scale=1.0)

    whole = []

    def overflow(module, args, output):
        whole.append(len(output) == 8)  # the whole batch: neither the timing nor the estimate
        return output * torch.inf if sum(whole) == 2 else output

    pipe.unet.mid_block.register_forward_hook(overflow)
    with pytest.raises(ValueError, match=r"'h' is not finite at step 1 .*float32"):
        probe(pipe, out=tmp_path, prompts=["a red planet", "the face"], seeds=range(4), budget=3600)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "give a CHECKPOINT, or a --pair"),
        (["demo/dmd", "--base", "demo/base", "--pair", "demo"], "give one of them"),
        (["demo/dmd", "--prompts-file", "nowhere.txt"], "nowhere.txt is no file of prompts"),
        (["demo/dmd", "--prompts-file", "p.txt", "--suite", "paper"], "give one of them"),
        (["demo/dmd", "--suite", "partly"], "did you mean 'parti'"),
        (["demo/dmd", "--sliders", "nowhere.safetensors"], "no slider at nowhere"),
    ],
)
def test_mistakes_are_one_line(argv, says, tmp_path, capsys):
    assert run(*argv, out=tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_diversity_alone_says_what_is_missing_beside_it(tiny, monkeypatch):
    from xhat.probes import scores

    places = {name: (f"nobody/{name}", "MIT") for name in scores.SCORES}
    monkeypatch.setattr(scores, "_PLACES", places)
    pipe = tiny.sd()
    note = " ".join(unscored(space_of("pixel", pipe, None), None))
    assert "Quality and alignment were not measured" in note
    assert "`hf download nobody/pickscore`" in note
    assert unscored(space_of("judge", xhat.load_pair("demo").base, None), None) == []


def test_times_are_read_and_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("demo/dmd", out=tmp_path, budget="10 minutes")
    assert "expected 90s, 10m or 2h" in capsys.readouterr().err


# the parts


def test_work_is_cut_to_the_budget(tmp_path, monkeypatch):
    def shape(budget, each=1.0):
        found = fit_budget(
            ["p"] * 8,
            range(32),
            evaluations=1,
            each=each / budgets.MARGIN,
            budget=budget,
            room=ROOM,
            out=tmp_path,
            batch_size=8,
        )
        assert found.seconds <= budget + 1e-9
        return len(found.prompts), len(found.seeds)

    assert [shape(b) for b in (1000, 256, 128, 64, 32, 8)] == [
        (8, 32),
        (8, 32),
        (8, 16),
        (8, 8),
        (4, 8),
        (2, 4),
    ]
    with pytest.raises(ValueError, match="more than the budget of 7 s: give --budget"):
        shape(7)
    monkeypatch.setattr(budgets.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(ValueError, match="10 B are free"):
        shape(1000)
    assert [duration(s) for s in (59, 61, 3600)] == ["59 s", "1 min", "1 h"]


def test_the_gain_is_one_for_the_truth_and_not_above_zero_for_any_line():
    rng = np.random.default_rng(0)
    z, eps = rng.normal(size=(2, 6, 3, 5, 5))
    x_t = 0.7 * z + 0.7 * eps
    assert denoising_gain(z, x_t, z) == 1
    for line in (x_t, 0.5 * x_t, x_t / 0.7, 0 * x_t + z.mean(), 0.49 / 0.98 * x_t):
        assert denoising_gain(z, x_t, line) <= 1e-12
    smooth = np.cumsum(np.cumsum(rng.normal(size=(2, 1, 40, 40)), 2), 3)
    assert neighbour_correlation(smooth) > 0.8
    assert abs(neighbour_correlation(rng.normal(size=(8, 4, 32, 32)))) < 0.02
    assert neighbour_correlation(smooth + 100) == pytest.approx(neighbour_correlation(smooth))


@pytest.mark.slow
def test_a_trained_model_has_learned_and_a_random_one_has_not(tiny):
    base = xhat.load_pair("demo").base
    call = {"num_inference_steps": 4, "guidance_scale": 1.0}
    final = xhat.trace(base, ["a planet", "a critter"], seeds=range(3), progress=False, **call)[
        "final"
    ]
    found = structure(base, final)
    assert has_learned(found)
    assert float(found["neighbours_mean"].sel(bound="estimate")) > 0.3
    pipe = tiny.sd()
    xhat.set_defaults(pipe, num_inference_steps=4, guidance_scale=1.0)
    noise = xhat.trace(pipe, ["a planet", "a face"], seeds=range(3), progress=False)["final"]
    assert not has_learned(structure(pipe, noise))


def test_what_fits_is_said_line_by_line(tiny):
    base, student = tiny.sd(0), tiny.sd(1)
    student.scheduler = LCMScheduler.from_config(
        student.scheduler.config, original_inference_steps=4
    )
    xhat.set_defaults(student, num_inference_steps=4, guidance_scale=1.0)
    xhat.set_defaults(base, num_inference_steps=20, guidance_scale=3.0)
    lines = {line.what: line for line in compare_models(student, base)}
    assert lines["latents"].verdict == "the same"
    assert lines["schedule"].verdict == "each runs its own"
    assert (
        "text_encoder" in lines["prompt encoders' weights"].verdict
    )  # random ones: not the same weights
    assert lines["noise levels"].verdict == "4 of the checkpoint's 4 are in the base's schedule"
    assert all(line.base is None for line in compare_models(student))


def test_a_scheduler_that_cannot_be_entered_is_replaced_and_said(tiny):
    from diffusers import PNDMScheduler

    pipe = tiny.sd()
    assert divisible(pipe) is None
    pipe.scheduler = PNDMScheduler.from_config(pipe.scheduler.config)
    assert "DDIMScheduler stands in" in divisible(pipe)
    assert divisible(pipe) is None


@pytest.mark.slow
def test_space_and_points_are_chosen_for_the_model(tiny):
    pair = xhat.load_pair("demo")
    assert space_of(None, pair.base, None).name == "judge"
    assert space_of(None, pair.base, ["a photograph"]).name == "latent"
    assert space_of(None, tiny.sd(), None).name == "latent"
    assert space_of("pixel", tiny.sd(), None).name == "pixel"
    assert "h" in read_points(pair.base.unet)
    assert read_points(tiny.sd3().transformer) == [
        "block.0",
        "block.1",
    ]
    arms = {"hybrid", "hybrid_one", "base_few", "later", "skip"}
    assert set(probe_arms(pair.base, pair.student)) == arms


@pytest.mark.slow
def test_a_slider_does_the_same_to_the_same_network(tiny, tmp_path):
    """Where the two schedules share no level, the networks are met at the states' own."""
    generator = torch.Generator().manual_seed(0)
    up, down = torch.randn(4, 2, generator=generator), torch.randn(2, 8 * 9, generator=generator)
    path = save_lora(
        tmp_path / "s.safetensors", tensors_of({"conv_out": Factors(up, down, (8, 3, 3))}), {}
    )
    base, other = tiny.sd(), tiny.sd()
    for pipe in (base, other):
        xhat.set_defaults(pipe, num_inference_steps=2, guidance_scale=1.0)
    found = slider_transfer(path, base, other, ["a red planet", "the face"], range(2))
    assert found["cosine"][0] == pytest.approx(1, abs=1e-5)
    assert found["size"] == pytest.approx(1, abs=1e-5)
    assert "in the direction" in found["said"]
    other.scheduler = LCMScheduler.from_config(other.scheduler.config, original_inference_steps=3)
    xhat.set_defaults(other, num_inference_steps=3)
    base.scheduler = EulerDiscreteScheduler.from_config(
        base.scheduler.config, timestep_spacing="leading"
    )
    found = slider_transfer(path, base, other, ["a red planet", "the face"], range(2))
    assert found["cosine"][0] == pytest.approx(1, abs=1e-5)


def made(gain, fidelity, loss=2.0):
    """Arms on six prompts: the student ``loss`` below the base, the hybrid ``gain`` above the
    student.
    """
    prompt = np.linspace(8, 12, 6)
    levels = {
        "base": 0,
        "student": -loss,
        "hybrid": gain - loss,
        "hybrid_one": -loss,
        "later": -loss,
        "skip": -loss,
        "base_few": -loss,
    }
    wave = np.array([1.0, -1, 1, -1, 1, -1])
    noise = {arm: 0.05 * (i - 2) * wave for i, arm in enumerate(levels)}
    vendi = np.stack([prompt + level + noise[arm] for arm, level in levels.items()])
    faith = np.stack(
        [0.9 + (fidelity if arm == "hybrid" else 0) + 0.005 * noise[arm] for arm in levels]
    )
    names = {"vendi_q2": vendi, "fidelity": faith, "rms": np.ones_like(vendi)}
    coords = {"arm": list(levels), "prompt": [f"p{i}" for i in range(6)]}
    return xr.Dataset({k: (("arm", "prompt"), v) for k, v in names.items()}, coords, {"n_seeds": 8})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gain", "fidelity", "loss", "says"),
    [
        (1.5, 0.0, 2.0, "the base for the first step"),
        (0.0, 0.0, 2.0, "No plan that was tried"),
        (1.5, -0.2, 2.0, "No plan that was tried"),
        (0.0, 0.0, 0.0, "Sample it as it is"),
    ],
)
def test_recommendations_follow_the_numbers(gain, fidelity, loss, says):
    pair = xhat.load_pair("demo")
    plans = {
        name: arm.pipe.scheduler.plan for name, arm in probe_arms(pair.base, pair.student).items()
    }
    verdict = recommended(made(gain, fidelity, loss), plans, None, [], diversity={}, commitment={})
    assert says in verdict.recommendation
    assert verdict.headline.startswith("It collapses" if loss else "Not decided")
    assert (verdict.plan is not None) == (says == "the base for the first step")
