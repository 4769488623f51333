"""A cached measurement is the one that was made under the same key, or it is made again."""

import numpy as np
import pytest
import xarray as xr

from xhat.analysis.sampling.cache import Cache, RemadeWarning

KEY = {"weights": "abc", "seeds": [0, 1]}


def measured(value=1.0):
    return xr.Dataset({"v": ("x", [value, 2.0]), "name": ("x", ["a", "b"])}, attrs={"list": [1]})


@pytest.fixture(params=["folder", "memory"])
def cache(request, tmp_path):
    return Cache(tmp_path if request.param == "folder" else None)


def test_what_was_made_is_read_and_not_made_again(cache):
    assert not cache.holds("arm/samples", KEY)
    made = cache.get("arm/samples", KEY, measured)
    assert cache.holds("arm/samples", KEY)
    assert cache.get("arm/samples", KEY, pytest.fail).identical(made)


def test_another_key_is_another_measurement(cache):
    cache.get("m", KEY, measured)
    other = cache.get("m", KEY | {"seeds": [0, 2]}, lambda: measured(5.0))
    assert float(other["v"][0]) == 5
    assert float(cache.get("m", KEY, pytest.fail)["v"][0]) == 1


def test_names_may_hold_what_globs_read_otherwise(cache):
    cache.get("own [a]*", KEY, measured)
    assert cache.holds("own [a]*", KEY)
    assert not cache.holds("own a", KEY)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_damage_is_seen_named_and_made_again(tmp_path, seed):
    rng = np.random.default_rng(seed)
    cache = Cache(tmp_path)
    cache.get("m", KEY, measured)
    (path,) = tmp_path.glob("*.nc")
    content = bytearray(path.read_bytes())
    if seed == 0:
        content = bytearray()
    elif seed == 1:
        content = content[: len(content) // 2]
    else:
        content[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)
    with pytest.warns(RemadeWarning, match=path.name):
        again = cache.get("m", KEY, lambda: measured(7.0))
    assert float(again["v"][0]) == 7
    assert float(cache.get("m", KEY, pytest.fail)["v"][0]) == 7


def test_a_measurement_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Cache(tmp_path).get("m", KEY, lambda: 1 / 0)
    assert not list(tmp_path.rglob("*"))
