"""The swap matrix and its controls: every set of steps, nothing replaced is the student, sentences
follow intervals.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr

import xhat
from xhat.analysis.experiments.swaps import (
    KINDS,
    control_table,
    measure_swaps,
    swap_arms,
    swap_matrix,
    swap_plans,
    swap_sets,
)
from xhat.analysis.experiments.swaps_text import (
    CONTRASTS,
    DECIDING,
    contrasts,
    statement,
    table_text,
)
from xhat.analysis.sampling import arms as arms_module
from xhat.analysis.sampling.final_latents import Arm, sample_arms
from xhat.analysis.sampling.noise_ledger import BITS, check_paired
from xhat.probes.features import feature_space

PROMPTS, SEEDS = ["a red planet", "the quiet face"], [0, 1, 2]


@pytest.mark.parametrize("steps", [2, 3, 4, 6])
def test_the_sets_are_those_asked_for_from_both_sides(steps):
    sets, every = swap_sets(steps), set(range(steps))
    for k in range(steps + 1):
        assert tuple(range(k)) in sets
        assert tuple(range(k, steps)) in sets
    assert all((i,) in sets for i in every)
    assert {frozenset(every - set(s)) for s in sets} == {
        frozenset(s) for s in sets
    }  # the base's run, from its side
    assert sets[(0,)] == "leading"
    assert sets[(steps - 1,)] == "trailing"


@pytest.mark.slow
def test_patterns_say_what_the_plans_do(small_pair):
    for pattern, plan in swap_plans(small_pair.base, small_pair.student, guided_scale=2.5).items():
        made = [("b", "s")[model == "student"] for model in plan.segment_of_step]
        assert "".join(made) == pattern.lower().replace("f", "b")
        assert plan.evaluations == 4 + pattern.count("B")
        noises = {s.noise for s in plan.segments if s.model == "base"}
        assert noises <= ({"fresh"} if "f" in pattern else {None})


@pytest.fixture(scope="module")
def sampled(small_pair):
    chosen = {
        n: p
        for n, p in swap_plans(small_pair.base, small_pair.student, guided_scale=2.5).items()
        if "B" not in n
    }
    arms = {
        n: Arm(xhat.hybrid(small_pair.base, small_pair.student, plan=plan))
        for n, plan in chosen.items()
    }
    few = {"num_inference_steps": 4, "guidance_scale": 1.0}
    arms |= {"student": Arm(small_pair.student), "base": Arm(small_pair.base, few)}
    return sample_arms(arms, PROMPTS, SEEDS)


@pytest.mark.slow
def test_replacing_nothing_is_the_student_and_everything_the_base_to_the_bit(sampled):
    np.testing.assert_array_equal(sampled["ssss"]["final"], sampled["student"]["final"])
    np.testing.assert_array_equal(sampled["bbbb"]["final"], sampled["base"]["final"])


def test_every_arm_starts_from_the_same_noise_and_ends_elsewhere(sampled):
    assert check_paired(sampled) == BITS
    finals = {n: arm["final"].values for n, arm in sampled.items() if n not in ("student", "base")}
    names = list(finals)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not np.array_equal(finals[a], finals[b]), (a, b)


def test_with_fresh_noise_each_step_adds_the_noise_that_the_students_would(sampled):
    for pattern in ("fsss", "ffss", "ssff", "ffff"):
        np.testing.assert_array_equal(
            sampled[pattern]["drawn"], sampled["student"]["drawn"], err_msg=pattern
        )
    assert not np.array_equal(
        sampled["bsss"]["drawn"], sampled["student"]["drawn"]
    )  # its step draws none


@pytest.mark.slow
def test_swapping_a_model_for_itself_changes_nothing(small_pair):
    plans = swap_plans(small_pair.student, small_pair.student, guided_scale=2.5)
    alike = {n: p for n, p in plans.items() if not set(n) & set("Bf")}
    found = sample_arms(
        {
            n: Arm(xhat.hybrid(small_pair.student, small_pair.student, plan=p))
            for n, p in alike.items()
        },
        PROMPTS,
        [7],
    )
    for name, arm in found.items():
        np.testing.assert_array_equal(arm["final"], found["ssss"]["final"], err_msg=name)


def test_every_control_is_there_and_each_plan_is_run_once(small_pair):
    arms, of_pattern, of_control = swap_arms(small_pair.base, small_pair.student)
    assert {name for members in KINDS.values() for name, _ in members} <= set(of_control)
    assert {f"strength_{s:g}" for s in (0, 0.25, 0.5, 0.75, 1, 1.25)} <= set(of_control)
    assert of_pattern["ssss"] == of_control["strength_1"] == "student"
    assert of_pattern["bsss"] == "hybrid"
    assert of_pattern["bbbb"] == "base_few"
    assert of_pattern["fsss"] == "fresh"
    assert of_pattern["Bsss"] == "hybrid_guided"
    plans = [arm.pipe.scheduler.plan for name, arm in arms.items() if name != "base"]
    assert len(plans) == len(set(plans))
    assert set(of_pattern.values()) | set(of_control.values()) == set(arms)
    asked = {arm for c in CONTRASTS for arm in (c.more, c.less)} | {
        arm for pair in DECIDING.values() for arm in pair
    }
    assert asked <= set(arms)


def test_the_base_is_guided_as_it_is_by_default(small_pair):
    arms, of_pattern, _ = swap_arms(small_pair.base, small_pair.student)
    assert arms[of_pattern["BBBB"]].pipe.scheduler.plan.segments[0].guidance_scale == 3.0


def test_between_weights_of_two_shapes_there_is_no_dial(own_pair, tiny):
    import diffusers

    config = {**own_pair.student.unet.config, "layers_per_block": 2}
    own_pair.student.register_modules(
        unet=diffusers.UNet2DConditionModel.from_config(config).eval()
    )
    arms, _, of_control = swap_arms(own_pair.base, own_pair.student)
    assert "hybrid" in arms
    assert not [n for n in of_control if n in ("strength_0.5", "strength_1.25")]


@pytest.fixture(scope="module")
def command(short_pair, tmp_path_factory):
    """`xhat swaps` on a pair of two steps, its pictures compared by their latents, and timed by a
    clock that stands.
    """
    from xhat.cli import main

    out = tmp_path_factory.mktemp("swaps")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("xhat.zoo.pairs.load_pair", lambda name: short_pair)
        patched.setattr(
            "xhat.probes.features.feature_space", lambda name, pipe: feature_space("latent")
        )
        patched.setattr(arms_module, "cost", lambda pipe, prompt, batch_size, **call: (4.0, 0.5))
        assert main(["swaps", "--prompts", *PROMPTS, "--seeds", "0:2", "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_the_command_leaves_tables_data_and_figures(command):
    results = json.loads((command / "results.json").read_text())
    assert results["prompts"] == PROMPTS
    assert results["settings"]["x_T"] == BITS
    assert results["student"] == "dmd"
    swaps = results["swaps"]
    assert swaps["arm"] == ["ss", "bs", "fs", "Bs", "sb", "sf", "bb", "ff", "BB"]
    assert len(swaps["vendi_q2_low"]) == 9
    assert len(results["statement"]) == 3
    assert results["statement"] == [s for s in results["statement"] if "Vendi" in s]
    assert {"contrasts", "controls", "pairing", "ledger"} <= set(results)
    assert {p.name for p in (command / "data").iterdir()} == {
        "swap_matrix.nc",
        "controls.nc",
        "sensitivity.nc",
    }
    assert {p.suffix for p in (command / "figures").iterdir()} == {".pdf", ".png"}


def test_one_seed_has_no_diversity(small_pair):
    with pytest.raises(ValueError, match="across seeds"):
        measure_swaps(
            small_pair.base, small_pair.student, PROMPTS, [3], space=feature_space("latent")
        )


def measured(**means):
    """Arms at the given diversity on six prompts, all with the same spread over prompts and a
    little of their own.
    """
    names = [
        "student",
        "base",
        "base_few",
        "hybrid",
        "skip",
        "sbbb",
        "student_own",
        "student_shared",
        "student_guided",
    ]
    names += ["fresh", "fresh_zero", "fresh_mean", "fresh_shuffle", "hybrid_guided"]
    rng = np.random.default_rng(0)
    values = rng.normal(size=6) + 0.01 * rng.normal(size=(len(names), 6))
    values += np.array([means.get(name, 3.0) for name in names])[:, None]
    attrs = {"n_seeds": 4}
    return xr.Dataset(
        {"vendi_q2": (("arm", "prompt"), values)}, {"arm": names, "prompt": list("abcdef")}, attrs
    )


def test_the_statement_says_what_the_intervals_say():
    gap, first, which = statement(
        measured(base=4, hybrid=3.8, fresh=3.8, skip=3.5, student_own=2.9)
    )
    assert "the student loses -0.99" in gap
    assert "the hybrid loses -0.19" in gap
    assert "the student gains +0.799" in first
    assert first.endswith("so the first step decides.")
    assert "Shown to raise diversity: the base's x̂₀, the skipped step (largest first)" in which
    assert "the base's step gives more than leaving the step out" in which


def test_the_statement_can_fall_the_other_way():
    _, first, which = statement(measured(hybrid=3.5, sbbb=4, skip=3.5, student_own=3.2))
    assert "it is not shown that the first step decides" in first
    assert "Shown to raise diversity: the skipped step, the noise" in which
    assert "not shown to give more than leaving the step out" in which


def test_where_nothing_helps_it_says_so():
    _, first, which = statement(measured(hybrid=2.5, skip=2.8, fresh=2.9, student_own=2.9))
    assert "the student loses -0.50" in first
    assert "it is not shown that" in first
    assert which.endswith("None is shown to raise diversity.")


def test_contrasts_are_differences_of_their_arms():
    found = contrasts(measured(hybrid=3.5, skip=3.1))
    line = found.isel(contrast=0)
    assert line["cause"].item() == "effect"
    assert float(line["vendi_q2_mean"]) == pytest.approx(0.5, abs=0.02)
    assert found.sizes["contrast"] == len(CONTRASTS)


def test_tables_are_read_from_the_arms_they_name():
    data = measured(hybrid=4.0)
    data = data.assign({n: ("arm", np.arange(14.0)) for n in ("evaluations", "seconds")}).assign(
        rms=data["vendi_q2"]
    )
    matrix = swap_matrix(data, {"ssss": "student", "bsss": "hybrid", "bbbb": "base_few"})
    assert matrix["kind"].values.tolist() == ["none", "leading", "all"]
    assert float(matrix.sel(arm="bsss")["vendi_q2_less_student_mean"]) == pytest.approx(1, abs=0.02)
    assert float(matrix.sel(arm="ssss")["vendi_q2_less_student_high"]) == 0  # of an arm with itself
    table = control_table(data, {"student": "student", "hybrid": "hybrid", "strength_0.5": "skip"})
    assert table["label"].values.tolist() == [
        "the student",
        "first step the base's",
        "strength 0.5",
    ]
    assert table["evaluations"].values.tolist() == [0, 3, 4]
    text = table_text(table)
    assert "strength 0.5" in text
    assert "6 prompts × 4 seeds" in text
    assert len(text.splitlines()) == 5


def test_prompts_are_a_number_of_the_known_or_themselves():
    from xhat.commands.parse import prompts

    known = ("a", "b", "c")
    assert prompts(["2"], known) == ["a", "b"]
    assert prompts(["a planet", "7"], known) == [
        "a planet",
        "7",
    ]
    with pytest.raises(ValueError, match="from 1 to 3"):
        prompts(["4"], known)
