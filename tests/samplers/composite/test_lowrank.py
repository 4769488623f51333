"""One copy of the weights: at full rank the difference is the student, and the base is left as it
was.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import xhat
from xhat.samplers.composite.lowrank import (
    LowRank,
    LowRankStudent,
    extract_lora,
    factorable,
    truncated,
)
from xhat.samplers.plans.plan import Plan, Segment

FULL = 10_000


class Toy(nn.Module):
    """One layer of every kind that is treated in its own way."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.linear = nn.Linear(6, 8)
            self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)
            self.grouped = nn.Conv2d(4, 4, 3, padding=1, groups=2)
            self.round = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
            self.norm = nn.GroupNorm(2, 4)
            self.scale = nn.Parameter(torch.randn(4, 1, 1))
            nn.init.normal_(self.norm.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.linear(x).reshape(len(x), 2, 6, 8)
        return self.scale * self.norm(self.round(self.grouped(self.conv(h))))


X = torch.randn(3, 12, 6, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_at_full_rank_the_difference_is_the_student():
    base, student = Toy(0), Toy(1)
    low = extract_lora(base, student, FULL)
    assert set(low.factors) == {"linear", "conv"}
    assert low.error < 1e-6
    torch.testing.assert_close(LowRankStudent(base, low)(X), student(X), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_base_is_left_as_it_was_even_by_an_error():
    base, student = Toy(0), Toy(1)
    switched = LowRankStudent(base, extract_lora(base, student, 2))
    before, values = base(X), [p.clone() for p in base.parameters()]
    switched(X)
    with pytest.raises(RuntimeError):
        switched(X[:, :5])
    assert torch.equal(base(X), before)
    assert all(torch.equal(p, v) for p, v in zip(base.parameters(), values, strict=True))
    assert not any(m._forward_hooks for m in base.modules())


@torch.no_grad()
def test_who_listens_to_the_base_hears_the_student():
    """Hooks placed before the switch come after it: they hear the layer with its difference."""
    base, student = Toy(0), Toy(1)
    heard = []
    handle = base.linear.register_forward_hook(lambda module, args, output: heard.append(output))
    LowRankStudent(base, extract_lora(base, student, FULL))(X)
    handle.remove()
    torch.testing.assert_close(heard[0], student.linear(X), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("strength", [0.0, 0.3, 1.25])
def test_strength_dials_all_of_the_difference(strength):
    base, student, between = Toy(0), Toy(1), Toy(2)
    for p, a, b in zip(between.parameters(), base.parameters(), student.parameters(), strict=True):
        p.copy_(a + strength * (b - a))
    dialled = LowRankStudent(base, extract_lora(base, student, FULL)).at_strength(strength)
    torch.testing.assert_close(dialled(X), between(X), rtol=1e-4, atol=1e-4)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_truncation_is_the_best_of_its_rank(rows, columns, rank, seed):
    """The error is what the dropped singular values say (Eckart & Young)."""
    matrix = torch.randn(
        rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    up, down = truncated(matrix, rank)
    assert up.shape[1] == down.shape[0] <= min(rank, rows, columns)
    dropped = torch.linalg.svdvals(matrix)[rank:].norm()
    torch.testing.assert_close((matrix - up @ down).norm(), dropped, atol=1e-9, rtol=1e-9)


def test_errors_fall_with_the_rank_and_vanish_for_a_difference_of_that_rank():
    base, student = Toy(0), Toy(1)
    errors = [extract_lora(base, student, rank).error for rank in (1, 2, 4)]
    assert errors[0] > errors[1] > errors[2] > 0.01
    with torch.no_grad():
        for name in ("linear", "conv"):
            weight, own = getattr(student, name).weight, getattr(base, name).weight
            outer = torch.outer(torch.randn(len(weight)), torch.randn(weight[0].numel()))
            weight.copy_(own + outer.reshape(weight.shape))
    low = extract_lora(base, student, 1)
    assert max(low.errors.values()) < 1e-5
    assert "relative error 0.0000" in str(low)


def test_what_does_not_differ_is_not_kept():
    low = extract_lora(Toy(0), Toy(0), 4)
    assert not low.factors
    assert not low.exact
    assert low.error == 0
    assert low.size == 0


def test_a_file_gives_back_the_difference(tmp_path):
    low = extract_lora(Toy(0), Toy(1), 2)
    low.save(tmp_path / "low.safetensors")
    read = LowRank.load(tmp_path / "low.safetensors")
    assert (read.rank, read.error, read.errors) == (low.rank, low.error, low.errors)
    for name, factors in low.factors.items():
        assert torch.equal(factors.up, read.factors[name].up)
        assert torch.equal(factors.down, read.factors[name].down)
        assert factors.kernel == read.factors[name].kernel
    assert all(torch.equal(low.exact[n], read.exact[n]) for n in low.exact)


def test_a_file_of_another_kind_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no low-rank difference"):
        LowRank.load(tmp_path / "other.safetensors")


@pytest.mark.parametrize("rank", [0, -1, 1.5, True])
def test_a_rank_is_a_whole_number(rank):
    with pytest.raises(ValueError, match="rank"):
        extract_lora(Toy(0), Toy(1), rank)


def test_other_architectures_are_refused():
    other = Toy(1)
    other.linear = nn.Linear(6, 9)
    with pytest.raises(ValueError, match="not one architecture.*linear"):
        extract_lora(Toy(0), other, 2)


def test_only_plain_layers_are_factored():
    toy = Toy(0)
    assert factorable(toy.linear)
    assert factorable(toy.conv)
    assert not factorable(toy.grouped)
    assert not factorable(toy.round)
    assert not factorable(toy.norm)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "pixart"])
def test_the_hybrid_of_one_copy_is_the_hybrid_of_two(pairs, sample, name):
    pair = pairs(name)
    low = extract_lora(pair.base, pair.student, FULL)
    single = xhat.hybrid(pair.base, low.student(pair.base, pair.student))
    two = sample(xhat.hybrid(pair.base, pair.student), name)
    torch.testing.assert_close(
        sample(single, name), two, rtol=1e-4, atol=1e-4 * float(two.abs().max())
    )
    networks = getattr(single, pair.slot)
    weights = {p.data_ptr() for p in networks.parameters()}
    assert weights == {p.data_ptr() for p in getattr(pair.base, pair.slot).parameters()}
    assert networks.xhat_parts == (getattr(pair.base, pair.slot),)


def test_the_base_of_a_hybrid_of_one_copy_is_the_base(pairs, sample):
    pair = pairs("sd")
    alone = sample(pair.base, "sd", num_inference_steps=3, guidance_scale=2.0)
    single = extract_lora(pair.base, pair.student, 2).student(pair.base, pair.student)
    plan = Plan([Segment("student", 0, 4, 4)])
    sample(xhat.hybrid(pair.base, single, plan=plan), "sd")
    assert torch.equal(sample(pair.base, "sd", num_inference_steps=3, guidance_scale=2.0), alone)


def test_the_low_rank_student_alone_is_a_pipeline(pairs, sample):
    pair = pairs("sdxl")
    single = extract_lora(pair.base, pair.student, FULL).student(pair.base, pair.student)
    assert type(single) is type(pair.base)
    call = {"num_inference_steps": 4, "guidance_scale": 1.0}
    expected = sample(pair.student, "sdxl", **call)
    torch.testing.assert_close(sample(single, "sdxl", **call), expected, rtol=1e-3, atol=1e-3)
