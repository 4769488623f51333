"""Arms: the same noise in each, kept on disk under keys that go stale, measured as single functions
measure.
"""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
import xarray as xr

import xhat
from xhat.analysis.measures.by_seed import vendi_q2_by_seed
from xhat.analysis.measures.diversity import similarities, vendi
from xhat.analysis.sampling import arms as arms_module
from xhat.analysis.sampling import final_latents as finals
from xhat.analysis.sampling.arms import Arm, against, cost, measure_arms, paired_values, summarised
from xhat.analysis.sampling.cache import RemadeWarning
from xhat.analysis.sampling.final_latents import sample_arms, to_sample
from xhat.analysis.sampling.noise_ledger import BITS, SCALE, check_paired, noise_ledger
from xhat.probes.features import feature_space
from xhat.samplers.plans.build import skip_plan, whole, with_noise
from xhat.samplers.plans.plan import Plan, Segment

PROMPTS, SEEDS = ["a red planet", "the quiet face"], [3, 1, 2]
DIMS = ("prompt", "seed", "channel", "y", "x")


def arms_of(pair):
    plans = {
        "skip": skip_plan(pair.student),
        "own": with_noise(whole("student", pair.student), "own"),
    }
    made = {
        name: Arm(xhat.hybrid(pair.base, pair.student, plan=plan)) for name, plan in plans.items()
    }
    hybrid = Arm(xhat.hybrid(pair.base, pair.student, base_evaluations=1))
    return {
        "student": Arm(pair.student),
        "base": Arm(pair.base, {"num_inference_steps": 3}),
        "hybrid": hybrid,
        **made,
    }


@pytest.fixture(scope="module")
def run(small_pair, tmp_path_factory):
    cache, arms = tmp_path_factory.mktemp("cache"), arms_of(small_pair)
    return (
        arms,
        cache,
        measure_arms(
            arms, PROMPTS, SEEDS, space=feature_space("latent"), cache=cache, keep_x0=["base"]
        ),
    )


@pytest.fixture(scope="module")
def samples(run):
    arms, cache, _ = run
    return sample_arms(arms, PROMPTS, SEEDS, cache=cache, keep_x0=["base"])


@pytest.mark.slow
def test_every_arm_starts_from_the_seeds_own_noise_to_the_bit(run, samples):
    drawn = torch.stack(
        [torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in SEEDS]
    ).numpy()
    for name, arm in samples.items():
        assert arm["x_T"].dims == DIMS
        for prompt in range(2):
            np.testing.assert_array_equal(arm["x_T"].values[prompt], drawn, err_msg=name)
    assert check_paired(samples) == run[2].attrs["x_T"] == BITS
    assert set(run[2]["x_T"].values) == {BITS}


@pytest.mark.slow
def test_samples_are_those_of_the_pipelines_own_call(run, samples):
    generators = [torch.Generator().manual_seed(s) for s in SEEDS]
    call = {
        "num_images_per_prompt": 3,
        "generator": generators,
        "output_type": "latent",
        "guidance_scale": 1.0,
    }
    own = run[0]["student"].pipe(PROMPTS[1], num_inference_steps=4, **call).images
    np.testing.assert_array_equal(samples["student"]["final"].values[1], own.numpy())
    assert samples["base"]["pred_x0"].sizes["step"] == 3
    assert "pred_x0" not in samples["student"]


@pytest.mark.slow
def test_the_ledger_tells_each_draw_and_who_made_the_step(samples):
    """The hybrid's base step draws nothing: the student's second step then adds the noise that its
    first would have.
    """
    ledger = noise_ledger(samples)
    lines = {name: ledger.isel(line=ledger["arm_of"].values == name) for name in samples}
    assert {name: part["draw"].values.tolist() for name, part in lines.items()} == {
        "student": [1, 2, 3, 0],
        "base": [0, 0, 0],
        "hybrid": [0, 1, 2, 0],
        "skip": [1, 2, 0],
        "own": [0, 0, 0, 0],
    }
    assert lines["hybrid"]["model"].values.tolist() == ["base", "student", "student", "student"]
    assert lines["skip"]["timestep"].values.tolist() == [749, 499, 249]


@pytest.mark.slow
def test_measures_are_those_of_the_samples(run, samples):
    _, _, measured = run
    features = feature_space("latent").features(samples["hybrid"]["final"].values[0])
    found = measured.sel(arm="hybrid", prompt=PROMPTS[0])
    assert float(found["vendi_q2_plugin"]) == pytest.approx(vendi(features, q=2))
    by_seed = vendi_q2_by_seed(similarities(features))
    np.testing.assert_allclose(found["vendi_q2_by_seed"], by_seed)
    assert float(found["vendi_q2"]) == pytest.approx(by_seed.mean())
    assert measured["evaluations"].values.tolist() == [4, 6, 4, 3, 4]
    assert (measured["seconds"] > 0).all()
    assert measured.attrs["n_seeds"] == 3
    assert measured.attrs["space"] == feature_space("latent").attrs["space"]
    assert "attribute_entropy" not in measured
    assert "fidelity" not in measured


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on(run, tmp_path, monkeypatch):
    arms = {name: run[0][name] for name in ("student", "hybrid")}
    sampled, real = [], finals.trace

    def stop_at_the_third(pipe, prompts, **call):
        if len(sampled) == 2:
            raise KeyboardInterrupt
        sampled.append(prompts)
        return real(pipe, prompts[:1], **call) if len(prompts) > 1 else real(pipe, prompts, **call)

    monkeypatch.setattr(finals, "PATIENCE", 0.0)  # a prompt at a time
    monkeypatch.setattr(finals, "trace", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        sample_arms(arms, PROMPTS, SEEDS, cache=tmp_path)
    assert to_sample(arms, PROMPTS, SEEDS, tmp_path, 24) == {"student": 0, "hybrid": 6}
    monkeypatch.setattr(finals, "trace", real)
    again = sample_arms(arms, PROMPTS, SEEDS, cache=tmp_path)
    monkeypatch.setattr(finals, "trace", None)  # everything is there: nothing is sampled
    for name, arm in sample_arms(arms, PROMPTS, SEEDS, cache=tmp_path).items():
        xr.testing.assert_identical(arm, again[name])
    fresh_start = run[1]
    np.testing.assert_array_equal(
        again["hybrid"]["final"],
        sample_arms(run[0], PROMPTS, SEEDS, cache=fresh_start)["hybrid"]["final"],
    )


@pytest.mark.slow
def test_timings_are_kept_with_the_samples(run, monkeypatch):
    arms, cache, measured = run
    monkeypatch.setattr(arms_module, "cost", None)
    again = measure_arms(
        arms, PROMPTS, SEEDS, space=feature_space("latent"), cache=cache, keep_x0=["base"]
    )
    xr.testing.assert_identical(again, measured)


@pytest.mark.slow
def test_damaged_samples_are_sampled_again(run, samples, tmp_path):
    arms = {"own": run[0]["own"]}
    sample_arms(arms, PROMPTS, SEEDS, cache=tmp_path)
    path = sorted((tmp_path / "own").glob("samples-*.nc"))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.warns(RemadeWarning, match=path.name):
        again = sample_arms(arms, PROMPTS, SEEDS, cache=tmp_path)["own"]
    np.testing.assert_array_equal(again["final"], samples["own"]["final"])


@pytest.mark.slow
def test_without_a_cache_the_samples_are_the_same(run, samples):
    found = sample_arms({"own": run[0]["own"]}, PROMPTS, SEEDS)["own"]
    np.testing.assert_array_equal(found["final"], samples["own"]["final"])


@pytest.mark.slow
def test_stale_samples_are_not_read(own_pair, tmp_path):
    def left(seeds=SEEDS, prompts=PROMPTS, batch_size=24, call=None):
        hybrid = Arm(xhat.hybrid(own_pair.base, own_pair.student), call or {})
        return to_sample({"a": hybrid}, prompts, seeds, tmp_path, batch_size)["a"]

    sample_arms(
        {"a": Arm(xhat.hybrid(own_pair.base, own_pair.student))}, PROMPTS, SEEDS, cache=tmp_path
    )
    assert left() == 0
    assert left(prompts=[*PROMPTS, "a loud robot"]) == 3  # a new prompt alone
    assert left(seeds=[1, 2, 3]) == 6
    assert left(batch_size=2) == 6
    assert left(call={"eta": 0.5}) == 6
    with torch.no_grad():
        own_pair.student.unet.conv_out.bias[0] += 1e-3
    assert left() == 6
    with torch.no_grad():
        own_pair.student.unet.conv_out.bias[0] -= 1e-3
    own_pair.student.scheduler = diffusers.LCMScheduler.from_config(
        own_pair.student.scheduler.config, clip_sample=True
    )
    assert left() == 6


@pytest.mark.slow
def test_arms_of_other_noise_are_refused(run, samples):
    arms, _, _ = run
    other = sample_arms({"other": arms["student"]}, PROMPTS, [4, 5, 6])["other"]
    with pytest.raises(
        ValueError, match="'other' does not start from the noise that 'student' starts from"
    ):
        check_paired({"student": samples["student"], "other": other})


@pytest.mark.slow
def test_noise_is_compared_across_spaces(small_pair, samples):
    """Euler keeps x_T at its own σ: the same noise, at another size."""
    euler = diffusers.EulerDiscreteScheduler.from_config(small_pair.base.scheduler.config)
    parts = {**small_pair.base.components, "scheduler": euler}
    pipe = diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)
    found = sample_arms({"euler": Arm(pipe, {"num_inference_steps": 2})}, PROMPTS, SEEDS)
    assert check_paired({"student": samples["student"], **found}) == SCALE


def test_a_transformer_is_counted_too(tiny):
    pipe = tiny.build("sd3")
    call = {"num_inference_steps": 2, "guidance_scale": 2.0, **tiny.call_arguments("sd3")}
    assert cost(pipe, "a planet", 2, **call)[0] == 4


@pytest.fixture
def table():
    """Three arms on four prompts: b is a + (1, 2, 3, 4), c is a."""
    a = np.array([1.0, 5.0, 2.0, 8.0])
    values = np.stack([a, a + [1, 2, 3, 4], a])
    return xr.Dataset(
        {"vendi_q2": (("arm", "prompt"), values), "seconds": ("arm", [1.0, 2.0, 3.0])},
        coords={"arm": ["a", "b", "c"], "prompt": list("wxyz")},
    )


def test_differences_are_paired(table):
    found = against(table, "a")
    assert found["arm"].values.tolist() == ["b", "c"]
    assert found.attrs["reference"] == "a"
    assert found["vendi_q2"].sel(bound="estimate").values.tolist() == [2.5, 0]
    low, high = found["vendi_q2"].sel(bound=["low", "high"]).values[0]
    assert (
        0 < low < 2.5 < high < 4.6
    )  # pairing takes the prompts' own spread away, which is far wider
    assert found["vendi_q2"].values[1].tolist() == [0, 0, 0]
    np.testing.assert_allclose(
        against(table, "b")["vendi_q2"].sel(bound="estimate").values, [-2.5, -2.5]
    )


def test_means_are_those_over_prompts(table):
    found = summarised(table)
    assert found["vendi_q2"].sel(bound="estimate").values.tolist() == [4, 6.5, 4]
    assert found["seconds"].values.tolist() == [1, 2, 3]
    assert "prompt" not in found.dims


def test_a_reference_must_be_an_arm(table):
    with pytest.raises(ValueError, match="there are a, b, c"):
        against(table, "d")


def test_no_arms_is_an_error():
    with pytest.raises(ValueError, match="Arm"):
        measure_arms({}, PROMPTS, SEEDS, space=feature_space("latent"))


@pytest.mark.slow
def test_a_plan_of_one_model_is_that_model_to_the_bit(small_pair, samples):
    plan = Plan([Segment("student", 0, 4, 4)])
    found = sample_arms(
        {"a": Arm(xhat.hybrid(small_pair.base, small_pair.student, plan=plan))}, PROMPTS, SEEDS
    )["a"]
    np.testing.assert_array_equal(found["final"], samples["student"]["final"])


def test_intervals_are_for_new_seeds_too(table):
    """Two arms that differ by what seeds add alone: prompts would call the difference certain."""
    seeds = np.array([-1.0, 0.0, 4.0])
    flat = table["vendi_q2"].values[..., None] + np.zeros(3)
    flat[1] = flat[0] + seeds
    by_seed = {"vendi_q2_by_seed": (("arm", "prompt", "seed"), flat)}
    table = table.assign({"vendi_q2": (("arm", "prompt"), flat.mean(-1)), **by_seed})
    found = against(table, "a")["vendi_q2"].sel(arm="b")
    assert float(found.sel(bound="estimate")) == 1
    assert float(found.sel(bound="low")) < 0
    np.testing.assert_allclose(paired_values(table, "b", "a", "vendi_q2"), [seeds] * 4)
    assert against(table, "a")["vendi_q2"].attrs["seeds"] == 3
    assert "seed" not in summarised(table).dims
