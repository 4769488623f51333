"""The front, how far from it a method is, the sentences that follow, and all methods measured on a
small pair.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from diffusers import LCMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st

import xhat
from xhat.analysis.experiments.pareto import Pareto, contenders, measure_pareto, memory, predicted
from xhat.analysis.experiments.pareto_text import best_arm, sentences
from xhat.analysis.measures.pareto_front import distance, front_share, on_front
from xhat.analysis.result import Result
from xhat.analysis.sampling.arms import against
from xhat.analysis.traces.policy_traces import trace_alone
from xhat.analysis.verdicts import FEWEST_PROMPTS
from xhat.cli import main
from xhat.figures.kit.registry import redraw
from xhat.probes.features import feature_space
from xhat.samplers.composite.lowrank import extract_lora
from xhat.samplers.plans.build import whole
from xhat.samplers.plans.policy import Option, Policy
from xhat.samplers.plans.recipe import hybrid_plan
from xhat.samplers.rivals.registry import rival

PROMPTS = ["a red planet", "the quiet face"]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8
    )
)
def test_the_front_is_what_nothing_dominates(rows):
    """Against the definition, written out."""
    expected = [
        not any(
            all(b >= a for a, b in zip(row, other, strict=True)) and other != row for other in rows
        )
        for row in rows
    ]
    assert on_front(rows).tolist() == expected


def test_rounding_pushes_nobody_off_the_front():
    rows = np.array([[2.0, 1.0, -4.0], [2.0 + 1e-7, 1.0, -4.0], [1.9, 1.0, -4.0]])
    assert on_front(rows).tolist() == [True, True, False]


def test_a_front_needs_numbers():
    with pytest.raises(ValueError, match="without NaN"):
        on_front([[np.nan, 1.0]])


def made(**arms):
    """Measured arms: name → (diversity of each prompt, fidelity, evaluations)."""
    names = list(arms)
    diversity = np.array([arms[n][0] for n in names], dtype=float)
    if diversity.shape[1] < FEWEST_PROMPTS:
        diversity = np.tile(diversity, 2)
    prompts = diversity.shape[1]
    fidelity = np.repeat([[arms[n][1]] for n in names], prompts, axis=1)
    cost = [float(arms[n][2]) for n in names]
    found = xr.Dataset(
        {
            "vendi_q2": (("arm", "prompt"), diversity),
            "fidelity": (("arm", "prompt"), fidelity),
            "evaluations": ("arm", cost),
            "seconds": ("arm", [c / 100 for c in cost]),
            "label": ("arm", [f"the {n}" for n in names]),
            "megabytes": ("arm", cost),
            "plan": ("arm", [""] * len(names)),
        },
        coords={"arm": names, "prompt": [f"p{i}" for i in range(prompts)]},
        attrs={
            "measure": "vendi_q2",
            "front_of": "vendi_q2, fidelity, evaluations",
            "n_seeds": 4,
            "seeds": [0, 1],
        },
    )
    means = np.stack(
        [found["vendi_q2"].mean("prompt"), found["fidelity"].mean("prompt"), -found["evaluations"]],
        -1,
    )
    found["front"] = ("arm", on_front(means))
    found["front_share"] = ("arm", front_share(found, ("vendi_q2", "fidelity")))
    return found


ARMS = {
    "base": ([2.0, 2.2, 2.1], 0.9, 40),
    "student": ([1.4, 1.6, 1.5], 0.8, 4),
    "policy": ([1.7, 1.9, 1.8], 0.8, 4),
    "rival": ([1.8, 2.0, 1.88], 0.8, 4),
    "broken": ([2.3, 2.5, 2.4], 0.3, 4),
}


@pytest.fixture(scope="module")
def small(tiny):
    """A base and a student of four steps with all but the denoiser in common."""
    base, student = tiny.sd(0), tiny.sd(1)
    settings = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = LCMScheduler(**settings, original_inference_steps=4)
    shared = {n: part for n, part in base.components.items() if n not in ("unet", "scheduler")}
    student.register_modules(**shared, scheduler=scheduler)
    for pipe, steps, guidance in ((base, 6, 3.0), (student, 4, 1.0)):
        xhat.set_defaults(pipe, num_inference_steps=steps, guidance_scale=guidance)
    return SimpleNamespace(
        base=base, student=student, students={"one": student}, chosen="one", name="small"
    )


@pytest.fixture
def policy(small):
    pair = small
    own = Option(
        "student", whole("student", pair.student), 4, 1.5, 1.4, 1.6, 0.8, True, "as traced"
    )
    early = Option(
        "early", hybrid_plan(pair.base, pair.student), 4, 1.75, 1.7, 1.8, 0.8, False, "so"
    )
    return Policy("early", 1.2, "vendi_q2", 2.1, 0.75, "these", (own, early))


def test_distance_is_to_the_best_that_is_as_good_otherwise():
    measured = made(**ARMS)
    off = distance(measured, "policy", "vendi_q2")
    assert (off.other, off.rivals) == ("rival", 2)
    gap = off.verdict.interval
    assert float(gap.estimate) == pytest.approx(np.mean([0.1, 0.1, 0.08]))
    assert gap.low <= gap.estimate <= gap.high
    assert gap.attrs["family"] == 2  # the nearest was picked among two
    assert distance(measured, "rival", "vendi_q2").verdict.kind == "opposite"
    assert distance(measured, "base", "vendi_q2") is None


def test_shares_of_the_front_are_certain_where_prompts_agree():
    measured = made(**ARMS)
    share = dict(zip(measured["arm"].values, measured["front_share"].values, strict=True))
    assert share["policy"] == 0
    assert share["rival"] == share["broken"] == 1


@pytest.mark.slow
def test_the_sentences_say_who_wins(policy):
    measured = made(**ARMS)
    lines = sentences(measured, policy, predicted(policy, measured))
    assert "the policy's plan has more than the student (+0.30" in lines[0]
    assert "“the policy” is off the front" in lines[1]
    assert "the rival, the most diverse of 2 as cheap and as faithful, has more than" in lines[1]
    assert "(+0.093" in lines[1]
    assert "the broken, the most diverse of 3, has more than the student (+0.9" in lines[2]
    assert "the rival, the most diverse of 2 that are shown to keep fidelity to 0.05" in lines[2]
    assert "has more than the student (+0.393" in lines[2].partition("fidelity")[2]
    assert lines[-4].endswith(
        "by the means: within 1 × the student's evaluations the rival, the broken; within 1.2 × "
        "the student's evaluations nothing more; within 2 × the student's evaluations nothing more."
    )
    more = "the base (+0.60), the policy (+0.30), the rival (+0.39), the broken (+0.90)"
    assert lines[-3].endswith(f"all held together: 4 have more than the student: {more}.")
    assert "picked among 2 plans" in lines[-2]
    assert "None of the plans" in lines[-1]
    better = made(**{**ARMS, "policy": ([1.9, 2.1, 2.0], 0.8, 4)})
    line = sentences(better, policy, predicted(policy, better))[1]
    assert "“the policy” is on the front" in line
    assert "rival, the most diverse of 2 as cheap and as faithful, has less than the policy" in line


@pytest.mark.slow
def test_whoever_is_picked_among_many_is_tested_for_having_been_picked(policy):
    """Of 18 methods of no effect the best one alone would be called better too often."""
    rng = np.random.default_rng(11)
    lucky = {"alone": 0, "picked": 0}
    for _ in range(60):
        arms = {f"rival{i}": (rng.normal(2, 0.3, 6), 0.8, 4) for i in range(18)}
        measured = made(student=(rng.normal(2, 0.3, 6), 0.8, 4), **arms)
        gains = against(measured, "student")["vendi_q2"].values
        lucky["alone"] += bool(gains[gains[:, 0].argmax(), 1] > 0)
        _, sentence = best_arm(measured, list(arms), "")
        lucky["picked"] += "has more than" in sentence
    assert lucky["alone"] >= 6  # twice what a nominal 5 % allows
    assert lucky["picked"] <= 3


@pytest.mark.slow
def test_predictions_meet_what_was_measured(policy):
    measured = made(**{**ARMS, "hybrid_1": ([1.6, 1.8, 1.7], 0.8, 4)})
    plans = np.array(
        ["" if a != "hybrid_1" else policy.plan.to_json() for a in measured["arm"].values],
        dtype=object,
    )
    expected = predicted(policy, measured.assign(plan=("arm", plans)))
    assert expected["plan"].values.tolist() == ["hybrid_1"]
    assert float(expected["expected"][0]) == pytest.approx(0.25)
    assert float(expected["measured"].sel(bound="estimate")[0]) == pytest.approx(0.2)
    assert "mean error of 0.05," in sentences(measured, policy, expected)[-1]


@pytest.mark.slow
def test_memory_counts_each_weight_once(small):
    pair = small
    base, student = (
        sum(p.nbytes for p in pipe.unet.parameters()) for pipe in (pair.base, pair.student)
    )
    assert memory(pair.student) == student == memory(rival("skip", pair))
    assert (
        memory(xhat.hybrid(pair.base, pair.student))
        == base + student
        == memory(rival("teacher", pair))
    )
    low = extract_lora(pair.base, pair.student, 1)
    one = memory(xhat.hybrid(pair.base, low.student(pair.base, pair.student)))
    assert one == base + 4 * low.size


@pytest.fixture(scope="module")
def run(small, tmp_path_factory):
    """The small pair: the policy's traces, and every method."""
    out, space = tmp_path_factory.mktemp("pareto"), feature_space("latent")
    traces = trace_alone(small, ["a robot", "a landscape"], range(3), out / "traces", batch_size=6)
    fitted = json.loads(Policy.fit(traces, 1.3, space=space).to_json())
    # whatever the weights say, a plan that an arm runs too
    chosen = "base_few 1 of 4, then student from step 1"
    look = {"threshold": 0.0, "prompts": ["a"], "spreads": [0.5], "gains": [0.1], "worth": 0.05}
    policy = Policy.from_json(json.dumps({**fitted, "chosen": chosen, "look": look}))
    config = Pareto(
        pair=small,
        policy=policy,
        prompts=PROMPTS,
        seeds=range(3),
        space="latent",
        rank=2,
        batch_size=6,
    )
    return small, policy, out, measure_pareto(config, cache=out / "cache")


@pytest.mark.slow
def test_every_method_is_measured(run):
    pair, policy, _, result = run
    measured = result.data["measured"]
    arms = measured["arm"].values.tolist()
    assert set(contenders(pair, policy, 2)) | {"policy_adaptive"} == set(arms)
    assert {"base", "student", "hybrid_3_guided", "cads", "low_rank", "hybrid_low_rank"} <= set(
        arms
    )
    cost = dict(zip(arms, measured["evaluations"].values.tolist(), strict=True))
    assert (
        cost["base"],
        cost["student"],
        cost["hybrid_1"],
        cost["hybrid_2_guided"],
        cost["skip"],
    ) == (12, 4, 4, 6, 3)
    assert len(set(measured["label"].values.tolist())) == len(arms)


@pytest.mark.slow
def test_the_policy_is_the_arm_that_runs_its_plan(run):
    measured = run[-1].data["measured"]
    same = measured.sel(arm="policy")
    np.testing.assert_array_equal(same["vendi_q2"], measured["vendi_q2"].sel(arm="hybrid_1"))


@pytest.mark.slow
def test_the_adaptive_policy_is_the_student_where_no_prompt_needs_more(run):
    measured = run[-1].data["measured"]
    own, adaptive = (measured.sel(arm=name) for name in ("student", "policy_adaptive"))
    np.testing.assert_array_equal(adaptive["vendi_q2"], own["vendi_q2"])
    assert float(adaptive["evaluations"]) == 4


@pytest.mark.slow
def test_result_table_and_figure(run):
    _, _, out, result = run
    plans = result.data["predicted"]["plan"].values.tolist()
    assert plans
    assert len(result.table.rows) == result.data["measured"].sizes["arm"]
    assert result.sentences[0].startswith("Vendi (q = 2): the policy's plan")
    assert len(result.sentences) == 13
    assert Result.load(result.save(out)).identical(result)
    assert len(redraw(["pareto"], run=out, out=out / "figures")["pareto"]) == 2


@pytest.mark.slow
def test_the_commands_from_traces_to_the_table(small, tmp_path, monkeypatch, capsys):
    """``xhat pareto``, then ``xhat policy show`` of what it fitted."""
    monkeypatch.setattr("xhat.analysis.experiments.setting.load_pair", lambda name: small)
    argv = [
        "pareto",
        "--quick",
        "--prompts",
        "a face",
        "a planet",
        "--space",
        "latent",
        "--rank",
        "2",
        "--budget",
        "1.3",
        "--out",
        str(tmp_path),
    ]
    assert main(argv) == 0
    said = capsys.readouterr().out
    result = Result.load(tmp_path)
    assert all(line in said for line in result.sentences)
    assert "4 prompts × 6 seeds" in result.settings["policy"]["setting"]
    assert result.settings["prompts"] == ["a face", "a planet"]
    assert {p.name for p in (tmp_path / "figures").iterdir()} == {"pareto.pdf", "pareto.png"}
    assert main(["policy", "show", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() in said
    monkeypatch.setattr("xhat.zoo.pairs.load_pair", lambda name: small)
    export = ["policy", "export", str(tmp_path), "--prompt", "a face", "--comfyui"]
    files = ["--files", "base=b.safetensors", "student=lora:s.safetensors"]
    assert main([*export, *files]) == 0
    nodes = json.loads((tmp_path / "plan.json").read_text()).values()
    assert {"b.safetensors", "s.safetensors"} <= {
        text for node in nodes for text in node["inputs"].values() if isinstance(text, str)
    }
    assert main(export) == 2
    assert "no file for base" in capsys.readouterr().err
