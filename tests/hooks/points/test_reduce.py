"""Reductions are checked by identities between different ways to the same numbers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xhat.hooks.points import reductions as reduce
from xhat.hooks.points.reductions import Reduction, full, gram, mean, parse_reduction, pool, project


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mean_is_pool_of_one():
    x = maps(3, 5, 8, 8)
    torch.testing.assert_close(mean()(x), pool(1)(x).flatten(1))
    tokens = x.flatten(2).transpose(1, 2)
    torch.testing.assert_close(mean()(tokens), mean()(x))


def test_pool_of_a_map_and_of_its_tokens_are_the_same_numbers():
    x = maps(2, 3, 8, 8)
    as_tokens = pool(4)(x.flatten(2).transpose(1, 2))
    torch.testing.assert_close(as_tokens.transpose(1, 2).unflatten(2, (4, 4)), pool(4)(x))


def test_tokens_of_no_square_are_pooled_in_a_row():
    assert pool(4)(maps(2, 10, 3)).shape == (2, 4, 3)


def test_pool_of_the_full_size_changes_nothing():
    x = maps(2, 3, 4, 4)
    torch.testing.assert_close(pool(4)(x), full()(x))


def test_projection_is_linear_and_the_same_every_time():
    x, y = maps(2, 3, 8, 8), maps(2, 3, 8, 8, seed=1)
    p = project(32, seed=3)
    torch.testing.assert_close(p(x + 2 * y), p(x) + 2 * p(y), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(p(x), project(32, seed=3)(x))
    assert not torch.allclose(p(x), project(32, seed=4)(x))


def test_projection_keeps_inner_products_on_average():
    """E⟨Sx, Sy⟩ = ⟨x, y⟩, with a standard deviation of about ‖x‖‖y‖/√dim for one seed."""
    x, y = maps(1, 600), maps(1, 600, seed=1) + maps(1, 600)
    exact = float((x * y).sum())
    found = torch.tensor([float((project(64, s)(x) * project(64, s)(y)).sum()) for s in range(300)])
    scale = float(x.norm() * y.norm()) / 64**0.5
    assert abs(float(found.mean()) - exact) < 4 * scale / 300**0.5
    assert 0.5 * scale < float(found.std()) < 2 * scale


def test_projection_onto_more_than_there_is_loses_nothing():
    x = maps(4, 10)
    torch.testing.assert_close(project(16)(x).norm(dim=1), x.norm(dim=1))


def test_projection_of_half_precision_is_summed_in_single():
    x = torch.full((1, 4096), 30.0, dtype=torch.float16)
    assert project(2)(x).dtype == torch.float32
    assert project(2)(x).isfinite().all()


@pytest.mark.parametrize("reduction", [mean(), pool(2), project(8), full()])
@pytest.mark.parametrize("shape", [(2, 6), (2, 16, 6), (2, 6, 4, 4), (2, 6, 3, 4, 4)])
def test_dims_name_every_dimension_kept(reduction, shape):
    assert len(reduction.dims(len(shape))) == reduction(maps(*shape)).ndim - 1


def test_gram_keeps_all_of_what_it_is_given():
    x = maps(2, 3, 4, 4)
    torch.testing.assert_close(gram()(x), x.flatten(1))
    torch.testing.assert_close(gram("mean")(x), mean()(x))


def test_dtype_is_applied_last():
    assert mean(dtype="float16")(maps(1, 2, 4, 4)).dtype == torch.float16
    assert full(dtype=torch.float64).dtype == "float64"


reductions = st.one_of(
    st.just(mean()),
    st.just(full(dtype="float16")),
    st.builds(pool, st.integers(1, 64)),
    st.builds(project, st.integers(1, 4096), st.integers(0, 9)),
)


@given(st.one_of(reductions, reductions.map(gram)))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(reduction):
    assert parse_reduction(str(reduction)) == reduction


@pytest.mark.slow
@given(st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_other_text_is_a_clear_error(text):
    try:
        assert isinstance(parse_reduction(text), Reduction)
    except ValueError as error:
        assert "reduction" in str(error) or "expected" in str(error)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "median",
        "mean(4)",
        "pool",
        "pool(0)",
        "pool('a')",
        "project(1.5)",
        "gram(gram)",
        "x.y()",
        "full(dtype=int8)",
    ],
)
def test_bad_reductions_are_refused(text):
    with pytest.raises(ValueError, match="expected|give it"):
        parse_reduction(text)


def test_a_scalar_activation_is_refused():
    with pytest.raises(ValueError, match="expected 2 to 5 dimensions"):
        mean()(torch.zeros(3))


def test_the_sketch_is_shared_between_calls():
    reduce._sketch.cache_clear()
    project(8)(maps(1, 100)), project(8)(maps(3, 100))
    assert reduce._sketch.cache_info().misses == 1


@pytest.mark.slow
def test_a_rehearsal_leaves_nothing_behind_in_what_a_projection_keeps(tiny, tmp_path):
    """The signs and places of a projection are made once and kept: never those of a run without
    data.
    """
    call = {"num_inference_steps": 1, "guidance_scale": 1.0, **tiny.call_arguments("sd")}
    from xhat.hooks.trace import trace

    tree = trace(
        tiny.sd(), "a", seeds=[0], hooks={"h": "project(5, seed=11)"}, store=tmp_path / "s", **call
    )
    assert torch.isfinite(torch.from_numpy(tree["activations/h/value"].values)).all()
