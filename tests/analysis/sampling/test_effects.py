"""What controls do to a network, in closed form where a LoRA sits on the last layer; alignment
against its nulls.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import xhat
from xhat.analysis.intervals import BOUNDS
from xhat.analysis.measures.lora_factors import lora_of, tensors_of
from xhat.analysis.sampling.control import Control, random_controls
from xhat.analysis.sampling.effects import effect, free_runs, responses
from xhat.analysis.traces.effect_alignment import alignment_map
from xhat.analysis.traces.readings import points_of
from xhat.hooks.factors import Factors
from xhat.zoo.lora.slider import save_lora

PROMPTS = ["a red face", "a blue planet", "the green robot"]
STEPS = 2
POINTS = ("**.res.*", "h")


def defaults(pipe, guidance=1.0):
    xhat.set_defaults(pipe, num_inference_steps=STEPS, guidance_scale=guidance, height=16, width=16)
    return pipe


@pytest.fixture(scope="module")
def base(tiny):
    return defaults(tiny.sd(seed=0))


@pytest.fixture(scope="module")
def student(tiny):
    return defaults(tiny.sd(seed=1))


@pytest.fixture(scope="module")
def states(base):
    return free_runs(base, PROMPTS, range(2), points=POINTS)


@pytest.fixture(scope="module")
def last(base, tmp_path_factory):
    """A control on the last layer alone: what it does to the output is linear in its scale."""
    g = torch.Generator().manual_seed(0)
    up, down = torch.randn(4, 2, generator=g), torch.randn(2, 8 * 9, generator=g)
    path = tmp_path_factory.mktemp("lora") / "last.safetensors"
    save_lora(path, tensors_of({"conv_out": Factors(up, down, (8, 3, 3))}), {})
    return Control("last", path)


@pytest.mark.slow
def test_a_network_given_its_own_states_reads_what_it_read(base, states):
    again = responses(base, states, points=POINTS)
    for point in points_of(states):
        if point != "x0":
            np.testing.assert_array_equal(again[point], states[point])


@pytest.mark.slow
def test_another_network_is_given_the_same_input(student, states):
    from xhat.hooks.points.names import denoiser_of

    seen = []
    handle = denoiser_of(student).conv_in.register_forward_pre_hook(
        lambda m, args: seen.append(args[0].clone())
    )
    responses(student, states, points=POINTS)
    handle.remove()
    given = states["input"].values.reshape(-1, STEPS, 4, 8, 8)
    assert len(seen) == STEPS
    own = free_runs(student, PROMPTS, range(2), points=POINTS)["input"].values.reshape(given.shape)
    assert not np.allclose(given[:, 1], own[:, 1])


@pytest.mark.slow
def test_effect_of_the_last_layer_is_known_in_closed_form(base, states, last):
    kept = {}
    handle = base.unet.conv_out.register_forward_pre_hook(
        lambda m, args: kept.setdefault(len(kept), args[0].clone())
    )
    rest = responses(base, states, points=POINTS)
    handle.remove()
    found = effect(base, last, states, points=POINTS, rest=rest)
    factors = lora_of(last.file)["conv_out"]
    kernel = (factors.up @ factors.down).reshape(4, 8, 3, 3)
    for step in range(STEPS):
        eps = torch.nn.functional.conv2d(kept[step].double(), kernel, padding=1)
        sigma = float(states["sigma"][step])
        expected = -sigma * eps  # x̂₀ = (x_t − b·ε̂)/a with b/a = σ
        got = found["x0"].isel(step=step).values.reshape(-1, 4 * 64)
        np.testing.assert_allclose(got, expected.flatten(1).numpy(), rtol=2e-3, atol=2e-3 * sigma)
    for point in points_of(found):
        if point != "x0":
            assert not found[point].values.any(), point


@pytest.mark.slow
def test_effect_is_linear_in_the_scale_of_the_last_layer_and_zero_at_zero(base, states, last):
    rest = responses(base, states, points=POINTS)
    one, two, none = (
        effect(base, last, states, points=POINTS, rest=rest, scale=s) for s in (1.0, -2.0, 0.0)
    )
    size = np.abs(one["x0"].values).max()
    np.testing.assert_allclose(two["x0"], -2 * one["x0"], atol=1e-4 * size)
    assert not none["x0"].values.any()


def test_a_control_leaves_nothing_behind(base, last):
    before = [name for name, _ in base.unet.named_modules()]
    with last.on(base) as set_scale:
        set_scale(0.5)
        assert [name for name, _ in base.unet.named_modules()] != before
    assert [name for name, _ in base.unet.named_modules()] == before


@pytest.mark.slow
def test_states_of_another_schedule_are_met_at_their_noise_levels(tiny, states):
    """The reading is the network's own output for these states at these timesteps."""
    other = defaults(tiny.sd(seed=1, scheduler=tiny.ddim(timestep_spacing="leading")))
    found = responses(other, states, points=("out",))
    np.testing.assert_allclose(found["sigma"], states["sigma"], rtol=1e-3)
    same = defaults(tiny.sd(seed=1))
    np.testing.assert_array_equal(found["out"], responses(same, states, points=("out",))["out"])


@pytest.mark.slow
def test_noise_levels_that_a_run_does_not_pass_are_refused(base):
    with pytest.raises(ValueError, match="no step at σ = 3"):
        free_runs(base, PROMPTS[:1], [0], [3.0], points=POINTS)


def test_random_controls_are_made_once_and_have_the_size_of_the_other(last, tmp_path):
    first = random_controls([last], 2, tmp_path)
    again = random_controls([last], 2, tmp_path)
    assert [c.identity() for c in first] == [c.identity() for c in again]
    assert first[0].identity() != first[1].identity()
    assert first[0].score is None
    norms = [lora_of(c.file)["conv_out"].norm() for c in (last, *first)]
    np.testing.assert_allclose(norms, norms[0], rtol=1e-2)


# ---- alignment of effects
# -------------------------------------------------------------------------------------------


def effects(seed: int, names: list[str], d: int = 24, scale: float = 1.0) -> dict[str, xr.Dataset]:
    """Effects of the same direction at every input, with some noise that depends on the seed."""
    rng = np.random.default_rng(seed)
    found = {}
    for i, name in enumerate(names):
        main = np.random.default_rng(100 + i).normal(size=d)
        value = scale * (main + 0.3 * rng.normal(size=(len(PROMPTS), 2, STEPS, d)))
        dims = ("prompt", "seed", "step", "component")
        coords = {"prompt": PROMPTS, "seed": [0, 1], "sigma": ("step", [10.0, 1.0])}
        coords |= {"timestep": ("step", [999.0, 499.0]), "alpha_bar": ("step", [0.01, 0.5])}
        late = np.where(np.arange(STEPS)[:, None] > 0, value, 0)
        found[name] = xr.Dataset({"late": (dims, late), "x0": (dims, value)}, coords=coords)
    return found


NAMES = ["a", "b", "c", "d", "e", "random-0", "random-1"]
ASKED = dict.fromkeys(NAMES[:5], PROMPTS)


def test_a_control_is_aligned_with_itself():
    same = effects(0, NAMES)
    found = alignment_map(same, same, ASKED)
    at = found.sel(point="x0")
    for name in ("cosine", "overlap", "gain"):
        np.testing.assert_allclose(at[name], 1, atol=1e-6)
    np.testing.assert_allclose(at["same_random"], 1)
    assert np.isnan(
        found["cosine"].sel(point="late").isel(step=0)
    ).all()  # nothing is changed there
    np.testing.assert_allclose(found["cosine"].sel(point="late").isel(step=1), 1)


def test_alignment_is_found_among_its_nulls():
    found = alignment_map(effects(0, NAMES), effects(1, NAMES, scale=3.0), ASKED).sel(point="x0")
    expected = 1 / (1 + 0.3**2)  # independent noise in either network
    cosine, low, high = (found["cosine"].sel(bound=b) for b in BOUNDS)
    np.testing.assert_allclose(cosine, expected, atol=0.05)
    assert ((low <= cosine) & (cosine <= high)).all()
    np.testing.assert_allclose(found["gain"], 3, rtol=0.1)
    np.testing.assert_allclose(found["p"], 1 / 13)  # first among 2·6 unlike pairs
    np.testing.assert_allclose(
        found["p_map"], 1 / 120
    )  # and the exchange of five controls has 119 orders
    assert abs(float(found["other"].mean())) < 0.2
    assert abs(float(found["random"].mean())) < 0.2


def test_controls_that_turn_the_same_are_no_null_to_each_other():
    """b is a's twin: counted as a stranger, it would stand in a's null."""
    ours, theirs = effects(0, NAMES), effects(1, NAMES)
    ours["b"], theirs["b"] = effects(2, NAMES)["a"], effects(3, NAMES)["a"]
    strange = alignment_map(ours, theirs, ASKED).sel(point="x0")
    known = alignment_map(ours, theirs, ASKED, turns={"a": "size", "b": "size"}).sel(point="x0")
    assert (strange["other"].sel(control="a") > known["other"].sel(control="a") + 0.1).all()
    np.testing.assert_allclose(known["p"].sel(control="a"), 1 / 11)
    np.testing.assert_allclose(
        known["p_map"], 1 / 24
    )  # four kinds of controls have 23 other orders
    np.testing.assert_allclose(known["within"].sel(control="a", control_b="b"), 1 / 1.09, atol=0.05)


def test_unlike_controls_are_inside_the_null():
    """The second network's controls are others: the names say nothing."""
    there = effects(1, NAMES)
    renamed = dict(
        zip(
            NAMES,
            [there[n] for n in ("b", "c", "d", "e", "a", "random-1", "random-0")],
            strict=True,
        )
    )
    found = alignment_map(effects(0, NAMES), renamed, ASKED).sel(point="x0")
    assert float(found["p"].mean()) > 0.2
    assert float(found["p_map"].min()) > 0.05
    assert float(np.abs(found["cosine"]).max()) < 0.6


def test_overlap_of_random_effects_is_that_of_chance():
    def noise(seed):
        made = effects(0, NAMES)
        rng = np.random.default_rng(seed)
        noise_of = {
            n: {v: (e[v].dims, rng.normal(size=e[v].shape)) for v in e.data_vars}
            for n, e in made.items()
        }
        return {n: e.assign(noise_of[n]) for n, e in made.items()}

    found = alignment_map(noise(1), noise(2), ASKED)
    assert float(found["overlap"].sel(point="x0").mean()) == pytest.approx(3 / 24, rel=0.4)
    np.testing.assert_allclose(found["chance"], 3 / 24)


def test_effects_of_other_states_do_not_compare():
    ours, theirs = effects(0, NAMES), effects(0, NAMES)
    with pytest.raises(ValueError, match="only on the same states"):
        alignment_map(ours, {n: e.assign_coords(seed=[3, 4]) for n, e in theirs.items()}, ASKED)
    with pytest.raises(ValueError, match="need the same controls"):
        alignment_map(ours, {n: theirs[n] for n in NAMES[:3]}, ASKED)
    with pytest.raises(ValueError, match="no control to compare"):
        alignment_map(ours, theirs, {})
    with pytest.raises(ValueError, match="none of the prompts"):
        alignment_map(ours, theirs, {"a": ["a plant"]})
