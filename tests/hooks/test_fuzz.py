"""Names, reductions, prompts and stores, whatever is in them: they work, or are refused by a
ValueError.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import xhat
from xhat.hooks.points.reductions import NAMES, Reduction, parse_reduction
from xhat.hooks.points.select import select
from xhat.hooks.store.store import open_trace

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:__array", "ignore:This process.*is multi-threaded", "ignore:.*not finished"
    ),
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning"),
]
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SLOW = settings(FEW, max_examples=4)
words = st.sampled_from(
    ["up", "down", "mid", "res", "attn", "h", "0", "1", "*", "**", "?", "[", "]", "[a-", "@", "."]
)
names = st.one_of(
    st.text(max_size=12),
    st.lists(words, max_size=6).map("".join),
    st.lists(words, max_size=5).map(".".join),
)
arguments = st.sampled_from(
    [
        "",
        "()",
        "(4)",
        "(-1)",
        "(0)",
        "(1.5)",
        "(mean)",
        "(8, seed=1)",
        "(8, 3, dtype=float16)",
        "(dtype=bool)",
        "(gram)",
        "(*x)",
        "(__import__('os'))",
        "(",
        "(4)(4)",
    ]
)
reductions = st.one_of(
    st.text(max_size=12), st.builds(str.__add__, st.sampled_from(NAMES), arguments)
)


@pytest.fixture(scope="module")
def pipe(tiny):
    return tiny.sd()


@pytest.mark.slow
@FEW
@given(names, reductions)
@example("up.*[", "mean")
@example("h@probs", "full")
@example("**@delta", "project(4)")
def test_names_choose_points_or_are_refused(pipe, name, reduction):
    try:
        chosen = select(pipe.unet, {name: reduction})
    except ValueError as error:
        assert str(error)
        return
    assert chosen
    assert all(s.point.path in dict(pipe.unet.named_modules()) for s in chosen)


@FEW
@given(reductions)
def test_reductions_read_back_as_they_are_written(text):
    try:
        found = parse_reduction(text)
    except ValueError as error:
        assert str(error)
        return
    assert isinstance(found, Reduction)
    assert parse_reduction(str(found)) == found


# a prompt may be any text that can be encoded at all: no lone surrogates, no NUL at its end
prompts = st.text(st.characters(exclude_categories=["Cs"]), min_size=0, max_size=20).filter(
    lambda text: not text.endswith("\0")
)


@pytest.mark.slow
@SLOW
@given(st.lists(prompts, min_size=6, max_size=6, unique=True))
@example(["<script>alert(1)</script>", "", " ", "../../etc", "a\x00b", "🪐\u202e\n"])
def test_any_prompts_come_back_from_a_store(pipe, tmp_path, texts):
    path = tmp_path / "a.zarr"
    shutil.rmtree(path, ignore_errors=True)
    call = {
        "seeds": [0],
        "batch_size": 6,
        "num_inference_steps": 1,
        "progress": False,
        "output_type": "latent",
    }
    found = xhat.trace(pipe, texts, store=path, **call)
    assert found["prompt"].values.tolist() == texts
    chosen = found.sel(prompt=texts[0])["pred_x0"].values
    assert np.isfinite(chosen).all()
    assert "<script>" not in found._repr_html_()
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.fixture(scope="module")
def store(pipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz") / "a.zarr"
    hooks = {"h": "mean", "in": "gram"}
    found = xhat.trace(
        pipe,
        ["a", "b"],
        seeds=[0, 1],
        hooks=hooks,
        store=path,
        num_inference_steps=1,
        progress=False,
    )
    return path, found.load()


@pytest.mark.slow
@settings(FEW, max_examples=25)
@given(st.data())
def test_a_damaged_store_is_refused_or_reads_as_it_was_made(store, tmp_path, data):
    path, whole = store
    broken = tmp_path / "b.zarr"
    shutil.rmtree(broken, ignore_errors=True)
    shutil.copytree(path, broken)
    files = sorted(p.relative_to(path) for p in path.rglob("*") if p.is_file())
    victim = broken / data.draw(st.sampled_from(files))
    content = bytearray(victim.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    match data.draw(st.sampled_from(["cut", "flip", "gone", "empty"])):
        case "cut":
            content = content[:at]
        case "flip":
            content[at] ^= data.draw(st.integers(1, 255))
        case "empty":
            content = bytearray()
        case "gone":
            content = None
    victim.unlink() if content is None else victim.write_bytes(content)
    try:
        found = open_trace(broken)
    except (ValueError, OSError) as error:
        assert str(error)
        return
    try:
        found = found.load()
    except (
        ValueError,
        OSError,
        RuntimeError,
    ) as error:  # the codec's own, of a chunk that is read late
        assert str(error)
        return
    assert isinstance(found, xr.DataTree)
    assert found.to_dataset() is not None
    assert set(found["activations"].children) <= set(whole["activations"].children)
