"""The swap matrix and its controls: every set of steps, nothing replaced is the student, sentences
follow intervals.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import xhat
from xhat.analysis.experiments.swaps import Swaps, control_table, measure_swaps, swap_matrix
from xhat.analysis.experiments.swaps_text import CONTRASTS, contrasts, sentences
from xhat.analysis.result import Result
from xhat.analysis.sampling import arms as arms_module
from xhat.analysis.sampling.final_latents import Arm, sample_arms
from xhat.analysis.sampling.noise_ledger import BITS, check_paired
from xhat.analysis.sampling.swap_arms import KINDS, swap_arms, swap_plans, swap_sets

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


@pytest.mark.slow
def test_every_arm_starts_from_the_same_noise_and_ends_elsewhere(sampled):
    assert check_paired(sampled) == BITS
    finals = {n: arm["final"].values for n, arm in sampled.items() if n not in ("student", "base")}
    names = list(finals)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert not np.array_equal(finals[a], finals[b]), (a, b)


@pytest.mark.slow
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


@pytest.mark.slow
def test_every_control_is_there_and_each_plan_is_run_once(small_pair):
    made = swap_arms(small_pair.base, small_pair.student)
    arms, of_pattern, of_control = made.arms, made.of_pattern, made.of_control
    assert {name for members in KINDS.values() for name, _ in members} <= set(of_control)
    assert {f"strength_{s:g}" for s in (0, 0.25, 0.5, 0.75, 1, 1.25)} <= set(of_control)
    assert of_pattern["ssss"] == of_control["strength_1"] == "student"
    assert of_pattern["bbbb"] == "base_few"
    plans = [arm.pipe.scheduler.plan for name, arm in arms.items() if name != "base"]
    assert len(plans) == len(set(plans))
    assert set(of_pattern.values()) | set(of_control.values()) == set(arms)
    assert {arm for c in CONTRASTS for arm in (c.more, c.less)} <= set(arms)


@pytest.mark.slow
def test_the_base_is_guided_as_it_is_by_default(small_pair):
    made = swap_arms(small_pair.base, small_pair.student)
    assert made.arms[made.of_pattern["BBBB"]].pipe.scheduler.plan.segments[0].guidance_scale == 3.0


@pytest.mark.slow
def test_between_weights_of_two_shapes_there_is_no_dial(own_pair, tiny):
    import diffusers

    config = {**own_pair.student.unet.config, "layers_per_block": 2}
    own_pair.student.register_modules(
        unet=diffusers.UNet2DConditionModel.from_config(config).eval()
    )
    made = swap_arms(own_pair.base, own_pair.student)
    assert "hybrid" in made.arms
    assert not [n for n in made.of_control if n in ("strength_0.5", "strength_1.25")]


@pytest.fixture(scope="module")
def command(short_pair, tmp_path_factory):
    """`xhat swaps` on a pair of two steps, its pictures compared by their latents, and timed by a
    clock that stands.
    """
    from xhat.cli import main

    out = tmp_path_factory.mktemp("swaps")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("xhat.analysis.experiments.setting.load_pair", lambda name: short_pair)
        patched.setattr(arms_module, "cost", lambda pipe, prompt, batch_size, **call: (4.0, 0.5))
        argv = ["swaps", "--prompts", *PROMPTS, "--seeds", "0:3", "--space", "latent"]
        assert main([*argv, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_the_command_leaves_a_result_and_figures(command):
    result = Result.load(command)
    assert result.settings["prompts"] == PROMPTS
    assert result.settings["student"] == "dmd"
    assert result.data["measured"].attrs["x_T"] == BITS
    matrix = result.data["swap_matrix"]
    assert matrix["arm"].values.tolist() == ["ss", "bs", "fs", "Bs", "sb", "sf", "bb", "ff", "BB"]
    assert matrix["vendi_q2"].dims == ("arm", "bound")
    assert set(result.data) == {"swap_matrix", "controls", "sensitivity", "contrasts", "measured"}
    assert result.sentences[0].startswith("Vendi (q = 2): the hybrid")
    rows = [row[0] for row in result.table.rows]
    assert rows[0] == "ss  none"
    assert "guidance: student's first step guided" in rows
    assert {p.suffix for p in (command / "figures").iterdir()} == {".pdf", ".png"}


@pytest.mark.slow
def test_the_folder_of_another_command_is_refused_before_anything_is_sampled(command, capsys):
    from xhat.cli import main

    assert main(["patch", "--out", str(command)]) == 2
    assert "holds results of `xhat swaps`" in capsys.readouterr().err


def test_one_seed_has_no_diversity(small_pair):
    with pytest.raises(ValueError, match="2 or more seeds"):
        measure_swaps(Swaps(pair=small_pair, prompts=PROMPTS, seeds=[3]))


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


def test_the_sentences_say_what_the_intervals_say():
    lines = sentences(measured(base=4, hybrid=3.8, fresh=3.8, skip=3.5, student_own=2.9))
    assert lines[0].startswith("Vendi (q = 2): the hybrid has more than the student (+0.79")
    assert lines[1].startswith("Vendi (q = 2): the student has less than the base")
    assert any("without its first step has more than the student" in line for line in lines)


def test_the_sentences_can_fall_the_other_way():
    lines = sentences(measured(hybrid=2.5, sbbb=4, skip=3.5))
    assert lines[0].startswith("Vendi (q = 2): the hybrid has less than the student (-0.50")
    assert any("all steps but the first has more than the student" in line for line in lines)


def test_contrasts_are_differences_of_their_arms():
    found = contrasts(measured(hybrid=3.5, skip=3.1))
    line = found.isel(contrast=0)
    assert line["cause"].item() == "effect"
    assert float(line["vendi_q2"].sel(bound="estimate")) == pytest.approx(0.5, abs=0.02)
    assert found.sizes["contrast"] == len(CONTRASTS)


def test_tables_are_read_from_the_arms_they_name():
    data = measured(hybrid=4.0)
    data = data.assign({n: ("arm", np.arange(14.0)) for n in ("evaluations", "seconds")}).assign(
        rms=data["vendi_q2"]
    )
    matrix = swap_matrix(data, {"ssss": "student", "bsss": "hybrid", "bbbb": "base_few"})
    assert matrix["kind"].values.tolist() == ["none", "leading", "all"]
    assert float(
        matrix["vendi_q2_less_student"].sel(arm="bsss", bound="estimate")
    ) == pytest.approx(1, abs=0.02)
    itself = matrix["vendi_q2_less_student"].sel(arm="ssss", bound="high")
    assert float(itself) == 0
    table = control_table(data, {"student": "student", "hybrid": "hybrid", "strength_0.5": "skip"})
    assert table["label"].values.tolist() == [
        "the student",
        "the hybrid: several evaluations of the base",
        "strength 0.5",
    ]
    assert table["evaluations"].values.tolist() == [0, 3, 4]


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
