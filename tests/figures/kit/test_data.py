import numpy as np
import pytest
import xarray as xr

from xhat.figures.kit.data import load_data, save_data


def test_figure_data_comes_back_as_it_was(tmp_path):
    pictures = np.arange(246, 256, dtype="uint8").reshape(2, 5)
    data = xr.Dataset(
        {"pictures": (("prompt", "x"), pictures), "mean": ("prompt", [0.25, np.nan])},
        coords={"prompt": ["a plänet", "b"]},
        attrs={"interval": "95 % bootstrap over prompts", "seeds": 3},
    )
    save_data(data, tmp_path, "grid")
    back = load_data("grid", tmp_path)
    assert back["pictures"].dtype == "uint8"
    xr.testing.assert_identical(back.assign_coords(prompt=back["prompt"].astype(str)), data)


def test_missing_figure_data_names_the_nearest(tmp_path):
    save_data(xr.Dataset({"a": ("x", [1.0])}), tmp_path, "pareto")
    with pytest.raises(ValueError, match="did you mean 'pareto'"):
        load_data("paretto", tmp_path)
