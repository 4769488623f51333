"""A result comes back from its folder exactly, or the damage is named."""

import json
import math
import os

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xhat.analysis.files import DamagedFile, ForeignFolder
from xhat.analysis.result import Result, claim
from xhat.analysis.table import Table

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=6)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
attributes = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), values, max_size=4)
DTYPES = ("f4", "f8", "i8", "u1", "?", "U")


@st.composite
def datasets(draw):
    size = draw(st.integers(1, 3))
    arrays = {}
    for i, kind in enumerate(draw(st.lists(st.sampled_from(DTYPES), max_size=3))):
        array = np.arange(size) % 2 + 0.25 if kind[0] == "f" else np.arange(size) % 2
        array = array.astype(kind)
        if kind[0] == "f" and draw(st.booleans()):
            array[0] = np.nan
        arrays[f"v{i}"] = ("x", array, draw(attributes))
    return xr.Dataset(arrays, {"x": [f"seed {i}" for i in range(size)]}, draw(attributes))


@pytest.mark.slow
@given(
    data=st.dictionaries(st.sampled_from(["measured", "curves"]), datasets(), max_size=2),
    sentences=st.lists(st.text(st.characters(codec="utf-8"), max_size=20), max_size=3),
    asked=attributes,
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_result_comes_back_exactly(tmp_path_factory, data, sentences, asked):
    table = Table(["", "v"], [("a", (1.0, 0.5, 1.5)), ("b", None)], "caption", ["note"])
    result = Result("swaps", data, table, tuple(sentences), asked)
    again = Result.load(result.save(tmp_path_factory.mktemp("run")))
    assert again.identical(result)
    assert result.identical(again)


@pytest.fixture
def result():
    data = xr.Dataset({"v": ("x", [1.0, 2.0], {"flags": [True]})}, attrs={"empty": [], "no": None})
    table = Table(["", "v"], [("a <b>", (1.0, 0.5, 1.5))])
    return Result("swaps", {"measured": data}, table, ("It holds.",), {"seeds": range(3)})


def test_settings_are_in_types_of_json(result):
    assert result.settings == {"seeds": [0, 1, 2]}
    odd = Result("swaps", {}, result.table, (), {"bound": math.inf})
    assert odd.settings == {"bound": "inf"}


@pytest.mark.parametrize("kind", ["flip", "truncate", "empty", "delete"])
def test_damaged_data_is_named(result, tmp_path, kind):
    result.save(tmp_path)
    path = tmp_path / "data" / "measured.nc"
    content = bytearray(path.read_bytes())
    if kind == "flip":
        content[len(content) // 2] ^= 1
    if kind == "delete":
        path.unlink()
    else:
        path.write_bytes({"truncate": content[:-1], "empty": b""}.get(kind, content))
    with pytest.raises(DamagedFile, match=r"measured\.nc"):
        Result.load(tmp_path)


def test_damaged_results_are_named_and_written_anew(result, tmp_path):
    result.save(tmp_path)
    (tmp_path / "results.json").write_text('{"xhat_result": 1, ')
    with pytest.raises(DamagedFile, match=r"results\.json"):
        Result.load(tmp_path)
    assert Result.load(result.save(tmp_path)).identical(result)


def test_a_folder_of_another_experiment_is_refused(result, tmp_path):
    result.save(tmp_path)
    with pytest.raises(ForeignFolder, match=r"xhat swaps.*not of `xhat patch`.*--out"):
        claim(tmp_path, "patch")
    (tmp_path / "results.json").write_text(json.dumps({"rows": []}))
    for ask in (lambda: claim(tmp_path, "swaps"), lambda: Result.load(tmp_path)):
        with pytest.raises(ForeignFolder, match="this version"):
            ask()
    (tmp_path / "file").write_text("")
    with pytest.raises(ForeignFolder, match="is a file"):
        claim(tmp_path / "file", "swaps")


def test_a_save_that_fails_leaves_the_old_result(result, tmp_path, monkeypatch):
    result.save(tmp_path)

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space"):
        Result("swaps", {}, result.table, ("Other.",), {}).save(tmp_path)
    monkeypatch.undo()
    assert Result.load(tmp_path).identical(result)
    assert not list(tmp_path.rglob("*.partial"))


def test_reprs_show_the_table_and_the_sentences(result):
    assert "1.0 [0.5, 1.5]" in repr(result)
    assert "It holds." in repr(result)
    assert "a &lt;b&gt;" in result._repr_html_()
